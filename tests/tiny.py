"""Makes tiny random BertLong models and batches, and has a dense implementation of BertLong's definition."""

import torch
import torch.nn.functional as F

from modeling_clir import BertLongConfig
from modeling_clir.attention_bertlong import BertLongSelfAttention


def tiny_config(**options) -> BertLongConfig:
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 24, "max_position_embeddings": 320, "attention_window": [4, 16]}
    sizes |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.4}
    return BertLongConfig(**(sizes | options))


def build(model_class, seed=0, **options):
    """Builds a model in float64, so that differences are not rounding, with biases, so that a missing bias shows."""
    torch.manual_seed(seed)
    implementation = options.pop("attn_implementation", "sdpa")
    model = use(model_class(tiny_config(**options)).double().eval(), implementation)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def use(model, implementation: str):
    """
    Sets the attention implementation: one of BertLong's, or `"gathered"`. `"gathered"` is sdpa as on a
    GPU, on gathered blocks and rows; on a CPU sdpa has functions of its own.
    """
    model.set_attn_implementation("sdpa" if implementation == "gathered" else implementation)
    for module in model.modules():
        if isinstance(module, BertLongSelfAttention):
            vars(module).pop("blocked_on_cpu", None)
            if implementation == "gathered":
                module.blocked_on_cpu = lambda x: False
    return model


def pair_batch(lengths=(40, 23, 9), query=6, width=None, vocab_size=50, seed=0) -> dict[str, torch.Tensor]:
    """Makes pairs as a tokenizer does: padding on the right, segment 0 for the query and the padding."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths) if width is None else width
    place = torch.arange(width)[None].expand(len(lengths), -1)
    mask = (place < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(1, vocab_size, mask.shape, generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": ((place >= query) & (mask == 1)).long()}


def random_batch(seed: int, longest: int = 300) -> dict[str, torch.Tensor]:
    """
    Draws rows of random length with padding anywhere. Global tokens are none, all, the first, a few or many. Every
    third batch of two or more rows has a row without tokens.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high + 1, (), generator=generator))

    rows, width = draw(1, 5), draw(1, longest)
    valid = torch.zeros(rows, width, dtype=torch.bool)
    is_global = torch.zeros_like(valid)
    for row in range(rows):
        length = 0 if row == 1 and seed % 3 == 0 else draw(1, width)
        start = draw(0, width - length)  # padding on both sides,
        place = torch.arange(start, start + length)
        if draw(0, 1):  # or between the tokens
            place = torch.randperm(width, generator=generator)[:length].sort().values
        valid[row, place] = True
        kind = draw(0, 4)
        share = torch.rand(length, generator=generator)
        chosen = [share < 0, share <= 1, torch.arange(length) < 1, share < 0.05, share < 0.5][kind]
        is_global[row, place] = chosen
    return {
        "input_ids": torch.randint(0, 50, valid.shape, generator=generator),
        "attention_mask": valid.long(),
        "token_type_ids": torch.randint(0, 2, valid.shape, generator=generator),
        "global_attention_mask": is_global.long(),
    }


def windows_of(seed: int) -> list[int]:
    return [[2, 64], [4, 16], [64, 2], [130, 6], [18, 260], [62, 66]][seed % 6]


def reference(model, inputs: dict[str, torch.Tensor], is_global: torch.Tensor | None = None):
    """
    Computes for each row, without padding, the hidden states of all layers, (layers + 1, tokens, D), and the attention
    weights, (layers, H, tokens, tokens). Uses only the weights of a `BertLongModel`.
    """
    weights = dict(model.named_parameters())
    heads = model.config.num_attention_heads
    is_global = inputs["global_attention_mask"] > 0 if is_global is None else is_global

    def linear(name, x):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name, x):
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12)

    found = []
    for row, mask in enumerate(inputs["attention_mask"]):
        real = mask > 0
        tokens = int(real.sum())
        glob = is_global[row][real]
        place = torch.arange(tokens)
        words = weights["embeddings.word_embeddings.weight"]
        embedded = F.embedding(inputs["input_ids"][row][real], words, padding_idx=model.config.pad_token_id)
        embedded = embedded + weights["embeddings.position_embeddings.weight"][:tokens]
        embedded = embedded + weights["embeddings.token_type_embeddings.weight"][inputs["token_type_ids"][row][real]]
        states, attentions = [norm("embeddings.LayerNorm", embedded)], []
        for index, window in enumerate(model.config.window_per_layer):
            layer, x = f"encoder.layer.{index}", states[-1]
            allowed = (place[:, None] - place[None, :]).abs() <= window / 2
            allowed = allowed | glob[:, None] | glob[None, :]

            def split(name, x=x, layer=layer):
                return linear(f"{layer}.attention.self.{name}", x).unflatten(1, (heads, -1))

            outputs = []
            for suffix in ("", "_global"):
                scores = torch.einsum("ihd,jhd->hij", split(f"query{suffix}"), split(f"key{suffix}"))
                scores = (scores / (x.shape[1] / heads) ** 0.5).masked_fill(~allowed, -torch.inf)
                share = scores.softmax(-1)
                outputs.append((torch.einsum("hij,jhd->ihd", share, split(f"value{suffix}")).flatten(1), share))
            attended = torch.where(glob[:, None], outputs[1][0], outputs[0][0])
            attentions.append(torch.where(glob[None, :, None], outputs[1][1], outputs[0][1]))
            x = norm(f"{layer}.attention.output.LayerNorm", linear(f"{layer}.attention.output.dense", attended) + x)
            inner = F.gelu(linear(f"{layer}.intermediate.dense", x))
            states.append(norm(f"{layer}.output.LayerNorm", linear(f"{layer}.output.dense", inner) + x))
        found.append((torch.stack(states), torch.stack(attentions)))
    return found
