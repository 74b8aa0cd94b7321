"""
Converts checkpoints: `python -m modeling_clir.convert SOURCE OUTPUT [--to {bertlong,bert,longformer,onnx}]`.

- A BERT, an XLM-R or a RoBERTa (Hub name or folder) becomes a BertLong, or with `--to bert` a plain BERT with both
  heads.
- A folder written by the code of 2021 becomes a BertLong if it is long, and a plain BERT if it is short. With
  `--to bertlong` a short one becomes a BertLong too.
- A BertLong becomes, with `--to longformer`, Hugging Face's own Longformer, which opens without this package.
- A reranker of any type becomes, with `--to onnx`, a graph that ONNX Runtime computes (`--int8`: smaller and less
  exact), and with `--openvino` one that OpenVINO computes too. This needs `pip install 'modeling-clir[export]'`.

Longformer does not find the query's tokens by itself: without a `global_attention_mask`,
`LongformerForSequenceClassification` makes only [CLS] global. For BertLong's scores pass
`global_attention_mask=((token_type_ids == 0) & (attention_mask == 1)).long()`. Pad on the right, because Longformer's
classification head reads the first column.
"""

import argparse
import os
import pickle
import shutil
from pathlib import Path

from .names import check_name
from .program import Parser, run_program, share_cores


def even_window(text: str) -> int:
    if not text.isdecimal() or int(text) < 2 or int(text) % 2:
        raise argparse.ArgumentTypeError(f"a window must be even and at least 2, got {text}")
    return int(text)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return int(text)


def check_options(arguments: argparse.Namespace, parser: Parser):
    """Raises `ValueError` for an option of another `--to`."""
    exports = ("int8", "openvino")
    others = ("max_position_embeddings", "attention_window", "num_labels", "head")
    for name in others if arguments.to == "onnx" else exports:
        if getattr(arguments, name) != parser.get_default(name):
            raise ValueError(f"--{name} is {'not ' if name in others else ''}for --to onnx: leave it out")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    description, _, details = __doc__.strip().partition("\n\n")
    parser = Parser(prog="python -m modeling_clir.convert", description=description, epilog=details)
    parser.add_argument("source", help="Hub name or folder")
    parser.add_argument("output", type=Path, help="folder to write; must not exist, or be empty")
    parser.add_argument(
        "--to",
        choices=["bertlong", "bert", "longformer", "onnx"],
        help="model to write (bertlong; bert for a short checkpoint of 2021)",
    )
    parser.add_argument(
        "--max_position_embeddings",
        type=positive,
        help="to bertlong: the new length (1024, or the source's length if that is more)",
    )
    parser.add_argument(
        "--attention_window",
        type=even_window,
        nargs="+",
        help="to bertlong: one even number, or one per layer (64)",
    )
    parser.add_argument("--num_labels", type=positive, help="labels of the classifier; 1 keeps the relevant one of 2")
    parser.add_argument(
        "--head",
        choices=["classification", "mlm"],
        default="classification",
        help="head of a longformer (classification)",
    )
    parser.add_argument("--int8", action="store_true", help="to onnx: linear layers and embeddings in int8")
    parser.add_argument("--openvino", action="store_true", help="to onnx: write a graph for OpenVINO too")
    arguments = parser.parse_args(argv)
    check_options(arguments, parser)
    check_name(arguments.source, "model")
    return arguments


if __name__ == "__main__":  # help and mistakes in the arguments are answered before torch is imported
    share_cores()
    run_program(parse_arguments)

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoTokenizer,
    BertConfig,
    BertTokenizerFast,
    LongformerConfig,
    LongformerForMaskedLM,
    LongformerForSequenceClassification,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    RobertaPreTrainedModel,
)
from transformers.models.roberta.modeling_roberta import RobertaClassificationHead, RobertaLMHead
from transformers.utils import logging

from .configuration_bertlong import BertLongConfig
from .data.pairs import PairTemplate, plain_backend
from .loading import (
    RENAMED_2021,
    check_shapes,
    fit_tokenizer,
    gives_token_types,
    load_tokenizer,
    load_weights,
    read_config,
)
from .model_card import write_conversion_card
from .modeling_bert import BertForXLRetrieval
from .modeling_bertlong import BertLongForXLRetrieval, ScoreLinear


logger = logging.get_logger(__name__)

# Names of 2021 -> BERT's own.
RENAMED = dict(zip(RENAMED_2021, ("cls.predictions.", "classifier.")))
# BERT's names -> RoBERTa's. Longformer has the same ones, except for the encoder's. The first prefix that fits counts.
ROBERTA_NAMES = {
    "cls.predictions.transform.LayerNorm.": "lm_head.layer_norm.",
    "cls.predictions.transform.dense.": "lm_head.dense.",
    "cls.predictions.": "lm_head.",
    "bert.pooler.dense.": "classifier.dense.",
    "classifier.": "classifier.out_proj.",
    "bert.": "roberta.",
}
ROBERTA_TYPES = {"roberta": "RoBERTa", "xlm-roberta": "XLM-R"}
# Options that pass from a configuration to one of another class, besides the options that both classes declare.
SHARED_OPTIONS = {"id2label", "label2id", "problem_type", "tie_word_embeddings"}
PROJECTIONS = ("query", "key", "value")
NO_MLM_HEAD = "{} has no masked language model head: its transform and bias are newly initialized."
NO_POOLER = "{} has no pooler: it is newly initialized."


def shared_options(config: PreTrainedConfig, target: type[PreTrainedConfig]) -> dict:
    """Returns the options of `config` that a configuration of class `target` has too."""
    names = (target.__annotations__.keys() & type(config).__annotations__.keys()) | SHARED_OPTIONS
    return {name: getattr(config, name) for name in sorted(names)}


def set_num_labels(model: BertForXLRetrieval | BertLongForXLRetrieval, num_labels: int | None):
    """
    Gives the classifier another number of labels, in place. 2 labels become 1 by keeping row 1, by which the
    checkpoints of 2021 rank. `None` and the present number change nothing. Raises `ValueError` for any other number.
    """
    present = model.classifier.out_features
    if num_labels in (None, present):
        return
    if (present, num_labels) != (2, 1):
        possible = "2 (as it is) or 1 (the relevant one)" if present == 2 else f"{present}"
        raise ValueError(
            f"the source's classifier has {present} labels: num_labels can be {possible}, got {num_labels}"
        )
    with torch.no_grad():
        model.classifier.weight = nn.Parameter(model.classifier.weight[1:].clone())
        model.classifier.bias = nn.Parameter(model.classifier.bias[1:].clone())
    model.classifier.out_features = 1
    model.config.num_labels = 1
    model.config.problem_type = None


def rename(state: dict[str, torch.Tensor], names: dict[str, str]) -> dict[str, torch.Tensor]:
    """Renames tensors by the first prefix of `names` that fits. Other names stay."""
    prefixes = {name: next((old for old in names if name.startswith(old)), "") for name in state}
    return {names.get(old, "") + name.removeprefix(old): state[name] for name, old in prefixes.items()}


def read_encoder_config(source: str, model_types: tuple[str, ...], kind: str, **hub_options) -> PreTrainedConfig:
    """
    Reads the configuration of an encoder. Raises `ValueError` for another model type, a decoder, and positions that
    are not absolute.
    """
    options = read_config(source, **hub_options)
    if options.get("model_type") not in model_types:
        raise ValueError(f"{source} is not a {kind}: its model_type is {options.get('model_type')!r}")
    config = CONFIG_MAPPING[options["model_type"]].from_dict(options)
    if config.is_decoder or config.add_cross_attention:
        raise ValueError(f"{source} is a {kind} decoder (is_decoder or add_cross_attention is set): choose an encoder")
    if options.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(
            f"{source} has {options['position_embedding_type']} position embeddings: choose a {kind} with absolute ones"
        )
    return config


def new_classifier(model: BertForXLRetrieval, num_labels: int | None):
    """Gives the model a newly initialized classifier of `num_labels` (by default 1), in place. The seed is fixed."""
    model.config.num_labels = 1 if num_labels is None else num_labels
    model.config.problem_type = None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model.classifier = ScoreLinear(model.config.hidden_size, model.config.num_labels)
        nn.init.normal_(model.classifier.weight, std=model.config.initializer_range)
        nn.init.zeros_(model.classifier.bias)


def load_bert(source: str | Path, num_labels: int | None = None, **options) -> BertForXLRetrieval:
    """
    Loads a BERT checkpoint with both heads, in float32. Logs which head or pooler is newly initialized.

    Args:
        source (`str` or `Path`): Hub name or folder of any checkpoint of model type "bert".
        num_labels (`int`, *optional*):
            Labels of the classifier. Defaults to the number of the source's classifier. If the source has no
            classifier, it defaults to 1, and the classifier is newly initialized with a fixed seed.
        options: `HUB_OPTIONS` of loading.py.

    Raises:
        `ValueError` for another model type, a decoder, tensors that do not fit the configuration, and a number of
        labels that the source's classifier cannot give.
    """
    source = str(source)
    config = read_encoder_config(source, ("bert",), "BERT", **options)
    model, missing = load_weights(BertForXLRetrieval, source, config, **options)
    if "cls.predictions.transform.dense.weight" in missing:
        logger.warning(NO_MLM_HEAD.format(source))
        if not model.config.tie_word_embeddings:
            config.tie_word_embeddings = True
            model, missing = load_weights(BertForXLRetrieval, source, config, **options)
    elif not model.config.tie_word_embeddings:  # the bias has two names, and a checkpoint may hold either
        head = model.cls.predictions
        kept = head.bias if "cls.predictions.decoder.bias" in missing else head.decoder.bias
        head.decoder.bias, head.bias = kept, nn.Parameter(kept.detach().clone())  # a shared bias would not be saved
    if "bert.pooler.dense.weight" in missing:
        logger.warning(NO_POOLER.format(source))
    if "classifier.weight" in missing:
        new_classifier(model, num_labels)
    else:
        set_num_labels(model, num_labels)
    return model


class RobertaForXLRetrieval(RobertaPreTrainedModel):  # trf-ignore: TRF057
    """All that a checkpoint of RoBERTa or XLM-R may hold, under its own names. It only holds the weights."""

    _tied_weights_keys = {
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }
    _keys_to_ignore_on_load_unexpected = [r"^qa_outputs\."]

    def __init__(self, config: RobertaConfig):
        super().__init__(config)
        self.roberta = RobertaModel(config)
        self.lm_head = RobertaLMHead(config)
        self.classifier = RobertaClassificationHead(config)
        self.post_init()

    def get_output_embeddings(self):
        return self.lm_head.decoder


def load_roberta(source: str | Path, num_labels: int | None = None) -> BertForXLRetrieval:
    """
    Loads a RoBERTa or XLM-R as the BERT that computes the same, with both heads, in float32. Logs which head or pooler
    is newly initialized.

    RoBERTa numbers its positions from `pad_token_id + 1`, so the position rows before that one are dropped. The two
    layers of its classification head become BERT's pooler and classifier. Without that head its own pooler is kept.

    Args:
        source (`str` or `Path`): Hub name or folder of any checkpoint of model type "roberta" or "xlm-roberta".
        num_labels (`int`, *optional*): see [`load_bert`].

    Raises:
        `ValueError` in the cases of [`load_bert`], without `pad_token_id`, and if the source has a masked language
        model head but another `hidden_act` than gelu, which the head has built in.
    """
    source = str(source)
    config = read_encoder_config(source, tuple(ROBERTA_TYPES), "RoBERTa")
    if config.pad_token_id is None:
        raise ValueError(f"{source} has no pad_token_id, after which its positions begin: set it in its config.json")
    found, missing = load_weights(RobertaForXLRetrieval, source, config)
    config, state = found.config, found.state_dict()
    has_classifier, has_head = "classifier.dense.weight" not in missing, "lm_head.dense.weight" not in missing
    if has_head and config.hidden_act != "gelu":
        raise ValueError(
            f"{source} has hidden_act {config.hidden_act!r}, but its masked language model head has gelu built in: a "
            "BERT has one for both"
        )
    if not has_head:
        logger.warning(NO_MLM_HEAD.format(source))
        state["lm_head.decoder.weight"] = state["roberta.embeddings.word_embeddings.weight"]
        config.tie_word_embeddings = True
    if not has_classifier and "roberta.pooler.dense.weight" in missing:
        logger.warning(NO_POOLER.format(source))
    bias = "lm_head.bias" if "lm_head.decoder.bias" in missing else "lm_head.decoder.bias"  # it has two names
    state["lm_head.bias"] = state["lm_head.decoder.bias"] = state[bias]
    offset, positions = config.pad_token_id + 1, "roberta.embeddings.position_embeddings.weight"
    state[positions] = state[positions][offset:]
    other_pooler = "roberta.pooler." if has_classifier else "classifier."
    state = {name: tensor for name, tensor in state.items() if not name.startswith(other_pooler)}

    options = shared_options(config, BertConfig)
    options.update(max_position_embeddings=config.max_position_embeddings - offset)
    with torch.random.fork_rng(devices=[]):
        model = BertForXLRetrieval(BertConfig(**options)).eval()
    model.load_state_dict(model.state_dict() | rename(state, {new: old for old, new in ROBERTA_NAMES.items()}))
    if has_classifier:
        set_num_labels(model, num_labels)
    else:
        new_classifier(model, num_labels)
    return model


def load_model(source: str | Path, **options) -> BertForXLRetrieval | BertLongForXLRetrieval:
    """
    Loads a BertLong or BERT checkpoint with both heads, in float32. Logs which head is newly initialized. `options`
    are `HUB_OPTIONS` of loading.py. Raises `ValueError` for another model type, and for tensors that do not fit the
    configuration.
    """
    if read_config(source, **options).get("model_type") != BertLongConfig.model_type:
        return load_bert(source, **options)
    config = BertLongConfig.from_pretrained(source, **options)
    model, missing = load_weights(BertLongForXLRetrieval, source, config, **options)
    if missing:
        logger.warning(f"{source} lacks {', '.join(missing)}: newly initialized.")
    return model


def bert_to_bertlong(
    model: BertForXLRetrieval, max_position_embeddings: int | None = None, attention_window: int | list[int] = 64
) -> BertLongForXLRetrieval:
    """
    Makes a BertLong with the weights of a BERT, as Longformer starts from RoBERTa (Beltagy et al. 2020, section 5).
    Position embeddings are repeated, and the last copy is cut. The global projections start as copies of the local
    ones. If the window covers the input and nothing is global, the outputs are the BERT's.

    Args:
        model (`BertForXLRetrieval`): see [`load_bert`]. It is not changed and shares no memory with the result.
        max_position_embeddings (`int`, *optional*): the new length, shorter or longer than BERT's. Defaults to 1024, or
            to BERT's length if that is more.
        attention_window (`int` or `list[int]`, *optional*, defaults to 64): one even number >= 2, or one per layer.

    Raises:
        `ValueError` for a length below 1 and for windows that [`BertLongConfig`] refuses.
    """
    if max_position_embeddings is None:
        max_position_embeddings = max(1024, model.config.max_position_embeddings)
    if max_position_embeddings < 1:
        raise ValueError(f"max_position_embeddings must be at least 1, got {max_position_embeddings}")
    options = shared_options(model.config, BertLongConfig)
    options.update(max_position_embeddings=max_position_embeddings, attention_window=attention_window)
    with torch.random.fork_rng(devices=[]):  # the drawn weights are overwritten: leave the caller's generator alone
        converted = BertLongForXLRetrieval(BertLongConfig(**options))
    state = model.state_dict()
    state["cls.predictions.bias"] = state.pop("cls.predictions.decoder.bias")
    positions = state["bert.embeddings.position_embeddings.weight"]  # (positions, hidden_size)
    copies = -(-max_position_embeddings // len(positions))
    state["bert.embeddings.position_embeddings.weight"] = positions.repeat(copies, 1)[:max_position_embeddings]
    for layer in range(model.config.num_hidden_layers):
        for projection in PROJECTIONS:
            prefix = f"bert.encoder.layer.{layer}.attention.self.{projection}"
            for part in ("weight", "bias"):
                state[f"{prefix}_global.{part}"] = state[f"{prefix}.{part}"]
    converted.to(device=model.device, dtype=model.dtype).load_state_dict(state)
    return converted.train(model.training)


def mark_queries(model: BertLongForXLRetrieval, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """
    Makes a source's tokenizer give token types, by which BertLong finds the query: 0 for `<s> query </s>`, 1 for the
    rest. XLM-R, and some BERTs such as multilingual-e5-small, were trained without token types.

    Args:
        model (`BertLongForXLRetrieval`): converted from the source. Both of its token types get, in place, the
            embedding that the source had for all tokens.
        tokenizer (`PreTrainedTokenizerBase`): the source's tokenizer.

    Returns:
        A new tokenizer. If the tokenizer gives token types already, the same tokenizer. Then the model changes only if
        it has one token type.

    Raises:
        `ValueError` for a tokenizer that gives no token types and is written in Python, because its pairs cannot be
        changed.
    """
    given, embeddings = gives_token_types(tokenizer), model.bert.embeddings.token_type_embeddings
    if not given or embeddings.num_embeddings < 2:
        embeddings.weight = nn.Parameter(embeddings.weight.detach()[:1].repeat(2, 1))
        embeddings.num_embeddings = model.config.type_vocab_size = 2
        logger.warning("the source was trained without token types: from now on 0 marks the query and 1 the document")
    if given:
        return tokenizer
    if not tokenizer.is_fast:
        raise ValueError(
            f"a {type(tokenizer).__name__} gives no token types, by which a BertLong finds the query, and is written in "
            "Python, so its pairs cannot be changed: choose a model with a fast tokenizer"
        )
    backend = plain_backend(tokenizer)
    before, between, behind = (ids for ids, *_ in PairTemplate(backend).special)
    row = backend.encode("a b")
    sides, tokens = row.sequence_ids, row.tokens
    first, last = sides.index(0), len(sides) - sides[::-1].index(0)

    def typed(ids, type_id: int) -> list[str]:
        return [f"{backend.id_to_token(int(i))}:{type_id}" for i in ids]

    names = {*tokens[:first], *tokens[last:], *(backend.id_to_token(int(i)) for i in (*before, *between, *behind))}
    backend.post_processor = TemplateProcessing(
        single=[*(f"{token}:0" for token in tokens[:first]), "$A:0", *(f"{token}:0" for token in tokens[last:])],
        pair=[*typed(before, 0), "$A:0", *typed(between[:1], 0), *typed(between[1:], 1), "$B:1", *typed(behind, 1)],
        special_tokens=[(token, backend.token_to_id(token)) for token in sorted(names)],
    )
    return PreTrainedTokenizerFast(  # the tokenizer's own class would restore its own form of pairs
        tokenizer_object=backend,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        model_max_length=tokenizer.model_max_length,
        **tokenizer.special_tokens_map,
    )


def read_tensors(folder: str | Path) -> dict[str, torch.Tensor]:
    """
    Reads the tensors of `model.safetensors` or `pytorch_model.bin`; empty if the folder has neither. Reads a pickle
    with `weights_only=True`. Raises `ValueError` if it holds more than tensors or is cut.
    """
    path = Path(folder) / "model.safetensors"
    try:
        if path.is_file():
            return load_file(path)
        path = path.with_name("pytorch_model.bin")
        if not path.is_file():
            return {}
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), "not a pickle of tensors")
        raise ValueError(
            f"{path} is refused, since it holds more than tensors and could run code when opened ({found}): if you "
            "trust it, save only its state dict"
        ) from None
    except (RuntimeError, EOFError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read, it may be cut: {str(error).partition(chr(10))[0]}") from None
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ValueError(f"{path} is not a state dict: save only model.state_dict()")
    return state


def load_2021(folder: str | Path, num_labels: int | None = None) -> BertForXLRetrieval | BertLongForXLRetrieval:
    """
    Loads a checkpoint of the code of Yu, Fei, Li (2021), whose heads are named `mlm_cls` and `seqcls_classifier`.
    Gives a `BertLongForXLRetrieval` if it has global projections, else a `BertForXLRetrieval`.

    Args:
        folder (`str` or `Path`): folder with config.json and `pytorch_model.bin` or `model.safetensors`.
        num_labels (`int`, *optional*): 1 drops the unused logit and keeps the ranking exactly.

    Raises:
        `ValueError` for tensors that are missing, unknown or of another size than config.json says, and for a pickle
        that holds more than tensors.
    """
    options = read_config(folder)
    state = {}
    for name, tensor in read_tensors(folder).items():
        for old, new in RENAMED.items():
            name = name.replace(old, new) if name.startswith(old) else name
        if not name.endswith("position_ids"):
            state[name] = tensor.float()
    is_long = any("query_global" in name for name in state)
    if is_long and not options.get("attention_window"):
        raise ValueError(f"{folder} has global projections, but its config.json has no attention_window: add it")
    model_class = BertLongForXLRetrieval if is_long else BertForXLRetrieval
    names = model_class.config_class.__annotations__.keys() - {"tie_word_embeddings"}
    config = model_class.config_class(
        **{name: options[name] for name in names if name in options},
        tie_word_embeddings=False,
        num_labels=len(state.get("classifier.bias", torch.zeros(2))),
    )
    with torch.random.fork_rng(devices=[]):
        model = model_class(config)
    if is_long:
        state.pop("cls.predictions.decoder.bias", None)
    elif "cls.predictions.bias" in state:
        state["cls.predictions.decoder.bias"] = state["cls.predictions.bias"]
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    check_shapes({name: tensor.shape for name, tensor in state.items()}, expected, str(folder))
    for what, names in (("missing", expected.keys() - state.keys()), ("unexpected", state.keys() - expected.keys())):
        if names:
            raise ValueError(f"{folder} does not fit its config.json: tensor {min(names)} is {what}")
    model.load_state_dict(state)
    set_num_labels(model, num_labels)
    return model.eval()


def bertlong_to_longformer(
    model: BertLongForXLRetrieval, head: str = "classification"
) -> LongformerForSequenceClassification | LongformerForMaskedLM:
    """
    Makes Hugging Face's Longformer with the weights of a BertLong. Given `global_attention_mask`, outputs are equal.

    Position row i becomes row i + pad_token_id + 1, from which Longformer reads it. Pooler and classifier become
    Longformer's classification head of two layers.

    Args:
        model (`BertLongForXLRetrieval`): source, which is not changed.
        head (`str`, *optional*, defaults to `"classification"`): head to keep, `"classification"` or `"mlm"`.

    Raises:
        `ValueError` for models that Longformer cannot hold: without `pad_token_id`, with windows that do not divide
        the widest one, and for `"mlm"` with another `hidden_act` than gelu.
    """
    config = model.config
    if config.pad_token_id is None:
        raise ValueError("Longformer needs a pad_token_id to number its positions: set it in the source's config.json")
    for window in config.window_per_layer:
        if max(config.window_per_layer) % window:
            raise ValueError(
                f"Longformer needs windows that divide the widest one, got {config.window_per_layer}: it cannot hold "
                "this model"
            )
    if head == "mlm" and config.hidden_act != "gelu":
        raise ValueError(f"Longformer's mlm head has gelu built in, this model has hidden_act {config.hidden_act!r}")
    offset = config.pad_token_id + 1
    options = shared_options(config, LongformerConfig)
    options.update(
        max_position_embeddings=config.max_position_embeddings + offset,
        attention_window=config.window_per_layer,
        sep_token_id=None,
    )
    state = model.state_dict()
    positions = "bert.embeddings.position_embeddings.weight"
    state[positions] = torch.cat([state[positions].new_zeros(offset, config.hidden_size), state[positions]])
    state["cls.predictions.decoder.bias"] = state["cls.predictions.bias"]
    model_class = LongformerForMaskedLM if head == "mlm" else LongformerForSequenceClassification
    with torch.random.fork_rng(devices=[]):
        converted = model_class(LongformerConfig(**options)).to(device=model.device, dtype=model.dtype)
    expected, mapped = converted.state_dict().keys(), rename(state, ROBERTA_NAMES | {"bert.": "longformer."})
    converted.load_state_dict({name: tensor for name, tensor in mapped.items() if name in expected})  # not other heads
    return converted.train(model.training)


def convert(arguments: argparse.Namespace) -> str:
    """Runs the command line and returns the summary. Raises `ValueError` before it writes anything."""
    source, output, target = arguments.source, arguments.output, arguments.to
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} exists and is not empty: choose another output folder, or remove it")
    if target == "onnx":
        from .export import export

        return export(source, output, arguments.int8, arguments.openvino)
    options = read_config(source)
    model_type = options.get("model_type")
    old_names = model_type in (None, "bert") and Path(source).is_dir()
    is_2021 = old_names and any(name.startswith(RENAMED_2021) for name in read_tensors(source))
    if not is_2021 and model_type not in ("bert", *ROBERTA_TYPES, BertLongConfig.model_type):
        raise ValueError(
            f"{source} is none of BERT, XLM-R, RoBERTa, BertLong and a checkpoint of 2021: its model_type is "
            f"{model_type!r}"
        )

    if is_2021:
        model = load_2021(source, arguments.num_labels)
    elif model_type == "bert":
        model = load_bert(source, arguments.num_labels)
    elif model_type in ROBERTA_TYPES:
        model = load_roberta(source, arguments.num_labels)
    else:
        model, missing = load_weights(BertLongForXLRetrieval, source, BertLongConfig.from_pretrained(source))
        needed = "cls.predictions.transform.dense.weight" if arguments.head == "mlm" else "classifier.weight"
        if lacking := set(missing) & {needed, "bert.pooler.dense.weight" if arguments.head != "mlm" else needed}:
            raise ValueError(
                f"{source} has no weights for the {arguments.head} head ({min(lacking)} is missing): see --head"
            )
        set_num_labels(model, arguments.num_labels)
    tokenizer = load_tokenizer(source, BertTokenizerFast if is_2021 else AutoTokenizer)
    is_long, before = isinstance(model, BertLongForXLRetrieval), model.config.max_position_embeddings
    kind = ("2021 " if is_2021 else "") + ("BertLong" if is_long else ROBERTA_TYPES.get(model_type, "BERT"))
    if target is None:
        target = "bert" if is_2021 and not is_long else "bertlong"
    if is_long and (target == "bert" or (target == "bertlong" and not is_2021)):
        raise ValueError(f"{source} is a {kind} already and cannot become a {target}: --to longformer is possible")
    if not is_long and target == "longformer":
        raise ValueError(f"{source} is a {kind}: convert it to bertlong first, and the result to longformer")
    if (is_long or target == "bert") and (arguments.max_position_embeddings or arguments.attention_window):
        raise ValueError(
            f"--max_position_embeddings and --attention_window are for what becomes a bertlong, not for {kind} to "
            f"{target}: leave them out"
        )
    if target == "bertlong" and not is_long:
        windows = arguments.attention_window or [64]
        model = bert_to_bertlong(
            model, arguments.max_position_embeddings, windows[0] if len(windows) == 1 else windows
        )
        tokenizer = mark_queries(model, tokenizer)
    fit_tokenizer(tokenizer, model)
    positions = tokenizer.model_max_length = model.config.max_position_embeddings
    if target == "longformer":
        model = bertlong_to_longformer(model, arguments.head)
        model.config.sep_token_id = tokenizer.sep_token_id

    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        write_conversion_card(partial, output.resolve().name, source, type(model).__name__)
        partial.replace(output)  # an empty folder is replaced too
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    window = getattr(model.config, "attention_window", None)
    return (
        f"{kind} -> {type(model).__name__}: positions {before} -> {positions}, window {window}, "
        f"labels {model.config.num_labels}, {model.num_parameters():,} parameters, saved in {output}"
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the command line. A conversion that is refused ends it with one line on stderr and exit code 2."""
    run_program(lambda: print(convert(parse_arguments(argv))))
    return 0


__all__ = [
    "bert_to_bertlong",
    "bertlong_to_longformer",
    "load_2021",
    "load_bert",
    "load_model",
    "load_roberta",
    "main",
    "mark_queries",
]


if __name__ == "__main__":
    main()
