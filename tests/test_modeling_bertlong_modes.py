"""BertLong trained, compiled, exported, in other precisions, resized, saved and loaded."""

import copy
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_clir import (
    BertLongForMaskedLM,
    BertLongForQuestionAnswering,
    BertLongForSequenceClassification,
    BertLongForXLRetrieval,
    BertLongModel,
)
from tests.tiny import build, pair_batch, random_batch, tiny_config, windows_of


CLASSES = [
    BertLongModel,
    BertLongForXLRetrieval,
    BertLongForMaskedLM,
    BertLongForSequenceClassification,
    BertLongForQuestionAnswering,
]
IMPLEMENTATIONS = ["eager", "gathered", "sdpa"]


def gradients(model, inputs, **options) -> dict[str, torch.Tensor]:
    model.zero_grad()
    output = model(**inputs, **options)
    (output.prediction_logits.sin().sum() + output.relevance_logits.sum()).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


# --- training


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_dropout_of_attention(implementation):
    options = {"attention_window": 8, "attn_implementation": implementation}
    model = build(BertLongModel, attention_probs_dropout_prob=0.4, **options)
    attention, attended = model.encoder.layer[0].attention.self, []
    attention.register_forward_hook(
        lambda module, arguments, output: attended.append(output[0].detach().view(-1, 30, 16))
    )
    row = pair_batch(lengths=(30,))
    inputs = {name: tensor.expand(600, -1) for name, tensor in row.items()}
    exact = build(BertLongModel, **options)(**row).last_hidden_state
    torch.testing.assert_close(model(**row).last_hidden_state, exact)
    expected = attended.pop()

    model.train()
    model(**inputs)
    spread = attended[0].std(0)
    assert spread.min() > 1e-3  # of local and of global tokens
    error = (attended[0].mean(0) - expected[0]).abs() / (spread / 600**0.5)
    assert error.max() < 5.5  # unbiased
    model.config.attention_probs_dropout_prob = 0.0
    torch.testing.assert_close(model(**row).last_hidden_state, exact)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_gradient_checkpointing(implementation, reentrant):
    options = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2, "attn_implementation": implementation}
    model, inputs = build(BertLongForXLRetrieval, **options).train(), pair_batch()
    torch.manual_seed(5)
    expected = gradients(model, inputs)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    runs = []
    handle = model.bert.encoder.layer[0].attention.register_forward_hook(lambda *arguments: runs.append(1))
    torch.manual_seed(5)
    found = gradients(model, inputs)
    handle.remove()
    assert len(runs) == 2  # once in forward, once in backward
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_the_embedding_of_padding_is_not_trained():
    model, inputs = build(BertLongForSequenceClassification), pair_batch()
    inputs["input_ids"][0, 3] = 0  # a [PAD] that the mask counts as a token
    model(**inputs).logits.sum().backward()
    gradient = model.bert.embeddings.word_embeddings.weight.grad
    assert gradient[0].abs().max() == 0 and gradient[1:].abs().max() > 0


# --- compiled and exported


@pytest.mark.parametrize(
    "implementation",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "sdpa")) for name in ("eager", "sdpa", "flex_attention")],
)
@pytest.mark.parametrize("model_class", [BertLongForXLRetrieval, BertLongModel])
def test_compiled_in_one_graph(model_class, implementation):
    torch.compiler.reset()
    model = build(model_class, attn_implementation=implementation)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)
    for seed in (0, 4):
        inputs = random_batch(seed, longest=90)
        for batch in (inputs, {name: inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids")}):
            with torch.no_grad():
                expected, found = model(**batch), compiled(**batch)
            assert found.keys() == expected.keys()
            for name in expected:
                torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("way", ["compiled", "exported", "called"])
def test_quadratic_cost_is_said(way, monkeypatch):
    said = []
    monkeypatch.setattr("modeling_clir.modeling_bertlong.logger.warning_once", said.append)
    torch.compiler.reset()
    model, inputs = build(BertLongModel), pair_batch()
    if way == "exported":
        torch.export.export(model, (), inputs)
    else:
        compiled = torch.compile(model, backend="eager", fullgraph=True) if way == "compiled" else model
        compiled(**inputs)
    assert len(said) == (way == "compiled") and all("grow with the square of the length" in text for text in said)


def test_compiled_gradients():
    torch.compiler.reset()
    model, inputs = build(BertLongForXLRetrieval, num_hidden_layers=1, attention_window=4), pair_batch()
    expected = gradients(model, inputs)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    model.zero_grad()
    output = compiled(**inputs)
    (output.prediction_logits.sin().sum() + output.relevance_logits.sum()).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-9, rtol=1e-6, msg=name)


@pytest.fixture(scope="module")
def exported_model():
    """A model and its `torch.export` with any number of rows and any length."""
    rows, length = torch.export.Dim("rows"), torch.export.Dim("length", max=320)
    model, inputs = build(BertLongModel, attention_window=[130, 6]), random_batch(8)
    return model, torch.export.export(model, (), inputs, dynamic_shapes={key: {0: rows, 1: length} for key in inputs})


def test_exported_with_any_shape(exported_model):
    """Rows without tokens, padding anywhere, and no, all, the first or many global tokens."""
    model, module = exported_model[0], exported_model[1].module()
    tried = [random_batch(seed) for seed in range(40)]
    tried = [inputs for inputs in tried if min(inputs["input_ids"].shape) > 1]  # torch.export takes 1 for constant
    assert len(tried) > 20
    for inputs in tried:
        expected, found = model(**inputs), module(**inputs)
        for name in ("last_hidden_state", "pooler_output"):
            torch.testing.assert_close(found[name], expected[name], atol=1e-9, rtol=0)


def test_cost_of_exported_is_linear(exported_model):
    """The tensors of a graph that runs on twice the length have twice the elements."""

    class Count(torch.fx.Interpreter):
        def run_node(self, node):
            result = super().run_node(node)
            self.elements += result.numel() if torch.is_tensor(result) else 0
            return result

    def elements(length):
        counter, inputs = Count(exported_model[1].module()), pair_batch((length, length))
        counter.elements = 0
        counter.run(*inputs.values(), (inputs["token_type_ids"] == 0).long())
        return counter.elements

    assert elements(320) < 2.1 * elements(160)


def test_exported():
    model = build(BertLongForXLRetrieval)
    names = ("input_ids", "attention_mask", "token_type_ids")
    exported = torch.export.export(model, (), {name: random_batch(4)[name] for name in names}).module()
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        inputs = {name: tensor.roll(17 * seed, 1) for name, tensor in random_batch(4).items() if name in names}
        inputs["input_ids"] = torch.randint(0, 50, inputs["input_ids"].shape, generator=generator)
        expected, found = model(**inputs), exported(**inputs)
        for name in ("prediction_logits", "relevance_logits"):
            torch.testing.assert_close(found[name], expected[name])


# --- precision


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(dtype, implementation):
    options = {"initializer_range": 0.1, "attn_implementation": implementation}
    model, inputs = build(BertLongForXLRetrieval, **options).float(), random_batch(0)  # a row has no token
    exact, expected = model(**inputs), gradients(model, inputs)
    half = copy.deepcopy(model).to(dtype)
    output, found = half(**inputs), gradients(half, inputs)
    with torch.autocast("cpu", dtype=dtype):
        mixed = model(**inputs)
    for name in ("prediction_logits", "relevance_logits"):
        for one in (output[name], mixed[name]):
            assert (one.float() - exact[name]).norm() < 0.03 * exact[name].norm(), name
    assert output.prediction_logits.dtype == dtype
    for name, gradient in found.items():
        assert gradient.isfinite().all(), name
        assert (gradient.float() - expected[name]).norm() < 0.15 * expected[name].norm() + 0.05, name


def test_half_precision_weights_on_disk(tmp_path):
    model, inputs = build(BertLongForXLRetrieval).float(), pair_batch()
    copy.deepcopy(model).half().save_pretrained(tmp_path)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    assert BertLongForXLRetrieval.from_pretrained(tmp_path).dtype == torch.float16
    loaded = BertLongForXLRetrieval.from_pretrained(tmp_path, dtype=torch.float32)
    expected = copy.deepcopy(model).half().float()(**inputs)
    torch.testing.assert_close(loaded(**inputs).prediction_logits, expected.prediction_logits)


# --- resized


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("size", [37, 50, 61])
def test_resized_vocabulary(size, tied, tmp_path):
    for model_class in CLASSES:
        model = build(model_class, tie_word_embeddings=tied).float()
        inputs = pair_batch(vocab_size=37)
        with torch.no_grad():
            expected = model(**inputs)
        model.resize_token_embeddings(size)
        assert model.config.vocab_size == size
        model.save_pretrained(tmp_path)
        for found_model in (model, model_class.from_pretrained(tmp_path)):
            found = found_model(**inputs)
            for name, tensor in expected.items():
                if name in ("prediction_logits", "logits") and model.get_output_embeddings() is not None:
                    assert found[name].shape[-1] == size
                    common = min(size, 50)
                    torch.testing.assert_close(found[name][..., :common], tensor[..., :common])
                else:
                    torch.testing.assert_close(found[name], tensor)
            if decoder := found_model.get_output_embeddings():
                assert (decoder.weight is found_model.get_input_embeddings().weight) == tied
                assert decoder.out_features == size
                labels = torch.full_like(inputs["input_ids"], size - 1)
                task = {"task": "qlm"} if model_class is BertLongForXLRetrieval else {}
                found_model(**inputs, **task, labels=labels).loss.backward()
                bias = found_model.cls.predictions.bias
                assert bias.shape == (size,) and bias.grad[-1] != 0


# --- saved and loaded


def test_every_class_opens_the_checkpoint_of_every_class(tmp_path):
    inputs = pair_batch()
    for source in CLASSES:
        saved = build(source, seed=1).float()
        saved.save_pretrained(tmp_path / source.__name__)
        state = {name.removeprefix("bert."): tensor for name, tensor in saved.state_dict().items()}
        for target in CLASSES:
            torch.manual_seed(2)
            model, report = target.from_pretrained(tmp_path / source.__name__, output_loading_info=True)
            own = {name.removeprefix("bert."): tensor for name, tensor in model.state_dict().items()}
            common = own.keys() & state.keys()
            assert len(common) >= 43
            for name in common:
                assert torch.equal(own[name], state[name]), (source, target, name)
            # The decoder is tied to the embeddings, so it is not missing.
            missing = {name.removeprefix("bert.") for name in report["missing_keys"]}
            assert missing == own.keys() - state.keys() - {"cls.predictions.decoder.weight"}
            assert not report["unexpected_keys"] and not report["mismatched_keys"]
            for name in missing:  # initialized, not uninitialized memory
                if name.endswith("bias"):
                    assert own[name].abs().max() == 0, name
                elif "LayerNorm" in name:
                    assert own[name].min() == own[name].max() == 1, name
                else:
                    assert 0.2 < own[name].std() < 0.8, name
            if target is source:
                torch.testing.assert_close(model(**inputs)[0], saved(**inputs)[0])
            assert not list(model.buffers())


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("transformers.modeling_utils.logger.warning", lambda *arguments: said.append(str(arguments)))
    build(BertLongForMaskedLM).save_pretrained(tmp_path)
    BertLongForMaskedLM.from_pretrained(tmp_path)
    assert not said
    BertLongModel.from_pretrained(tmp_path)
    assert len(said) == 1 and "pooler.dense.weight" in said[0] and "MISSING" in said[0]
    assert "UNEXPECTED" not in said[0]


@pytest.mark.parametrize("name", [
    "classifier.dense.weight", "cls.predictions.decoder.bias", "cls.seq_relationship.weight", "bert.pooler.weight",
    "bert.encoder.layer.0.attention.self.query_globl.weight", "mlm_cls.predictions.bias",
])  # fmt: skip
def test_a_tensor_of_no_class_is_said(name, tmp_path):
    build(BertLongForXLRetrieval).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors") | {name: torch.zeros(2)}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for model_class in CLASSES[1:]:
        _, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
        assert report["unexpected_keys"] == {name}


@pytest.mark.parametrize("tied", [True, False])
def test_tied_and_untied_decoders_on_disk(tied, tmp_path):
    model = build(BertLongForXLRetrieval, tie_word_embeddings=tied).float()
    model.save_pretrained(tmp_path)
    assert ("cls.predictions.decoder.weight" in load_file(tmp_path / "model.safetensors")) != tied
    loaded = BertLongForXLRetrieval.from_pretrained(tmp_path, device_map="cpu")
    weights = loaded.cls.predictions.decoder.weight, loaded.bert.embeddings.word_embeddings.weight
    assert (weights[0] is weights[1]) == tied == torch.equal(*weights)
    expected = model(**pair_batch()).prediction_logits
    torch.testing.assert_close(loaded(**pair_batch()).prediction_logits, expected)


def test_made_on_the_meta_device_and_loaded():
    model = build(BertLongForXLRetrieval)
    with torch.device("meta"):
        empty = BertLongForXLRetrieval(tiny_config())
    empty.load_state_dict(model.state_dict(), assign=True)
    assert torch.equal(empty.eval()(**pair_batch()).relevance_logits, model(**pair_batch()).relevance_logits)


def test_attention_implementations_that_do_not_exist():
    for name in ("flash_attention_2", "flash_attention_3"):
        with pytest.raises(ValueError, match="BertLongModel does not support"):
            build(BertLongModel, attn_implementation=name)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_warned_about(seed):
    model = build(BertLongForXLRetrieval, attention_window=windows_of(seed))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(**random_batch(seed)).relevance_logits.sum().backward()


@pytest.mark.parametrize("where", ["query", "document", "nowhere", "first token local"])
def test_last_layer_computes_what_is_read(where):
    """It computes global tokens only if nothing else is read. Numbers and gradients equal those of the full layer."""
    inputs = pair_batch()
    if where == "first token local":
        inputs["global_attention_mask"] = (torch.arange(40) == 3).long().expand(3, -1)
    query = inputs["token_type_ids"] == 0
    read = {"query": query, "document": ~query}.get(where, torch.zeros_like(query)) & inputs["attention_mask"].bool()
    labels = inputs["input_ids"].masked_fill(~read, -100)
    found = []
    for implementation in IMPLEMENTATIONS:  # eager attention computes all tokens
        model = build(BertLongForXLRetrieval, attn_implementation=implementation)
        rows = []
        model.bert.encoder.layer[-1].register_forward_hook(
            lambda module, arguments, output, rows=rows: rows.append(output[0])
        )
        qlm = model(**inputs, labels=labels, task="qlm", sparse_prediction=True)
        rr = model(**inputs, labels=torch.tensor([1.0, 0.0, 1.0]), task="rr")
        (qlm.loss + rr.loss).backward()
        found.append((qlm.prediction_logits, rr.relevance_logits, {n: p.grad for n, p in model.named_parameters()}))
    torch.testing.assert_close(found[0], found[1], rtol=2e-5, atol=2e-5)
    lengths = [len(states) for states in rows]
    number = inputs["attention_mask"].sum().item()
    queries = (query & inputs["attention_mask"].bool()).sum().item()
    assert IMPLEMENTATIONS[-1] == "sdpa" and lengths == {
        "query": [queries, queries],
        "document": [number, queries],
        "nowhere": [queries, queries],
    }.get(where, [number, number])
