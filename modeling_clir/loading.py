"""Opens checkpoints (configuration, encoder with or without a new head, tokenizer) for every class and runner."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import cached_file, logging

from .both_heads import language_model_names, retrieval_class
from .configuration_bertlong import BertLongConfig
from .names import check_name
from .precision import scores_in_float32
from .quantization import quantize_int8
from .spans_bertlong import max_positions


logger = logging.get_logger(__name__)

# Options that say where the files are. Configuration, weights and tokenizer all get them.
HUB_OPTIONS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
    "trust_remote_code",
)
RENAMED_2021 = ("mlm_cls.predictions.", "seqcls_classifier.")  # the heads' names of 2021
# Types that predict the next token. XLNet does too, but in all orders: its tokens attend to both sides.
DECODERS = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys() - {"xlnet"}
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def read_config(source: str | Path, **options) -> dict:
    """
    Reads the config.json of a folder or Hub repository. `options` are `HUB_OPTIONS`. Raises `ValueError` if there is
    none.
    """
    if Path(source).is_dir():
        path = Path(source) / options.get("subfolder", "") / "config.json"
        if not path.is_file():
            inner = next(iter(sorted(path.parent.glob("0_*/config.json"))), None)  # of sentence-transformers
            hint = f"pass {inner.parent}, which holds the encoder" if inner else "give the folder of a checkpoint"
            raise ValueError(f"{path.parent} has no config.json: {hint}")
        try:
            with path.open(encoding="utf-8") as file:
                config = json.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
        if not isinstance(config, dict):
            raise ValueError(f"{path} is no configuration, but a {type(config).__name__}")
        return config
    try:
        check_name(source, "model")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(str(error)) from None
    try:
        return PreTrainedConfig.get_config_dict(str(source), **options)[0]
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{source} is neither a folder nor found on the Hub: {reason}") from None


def load_config(source: str | Path, **options) -> tuple[PreTrainedConfig, dict]:
    """
    Loads the configuration of an encoder. Returns it with the options that it does not use.

    Raises `ValueError` if there is none, if it is impossible, and for a decoder or encoder-decoder.
    """
    read_config(source, **{name: options[name] for name in HUB_OPTIONS if name in options})  # names a missing config
    try:
        config, unused = AutoConfig.from_pretrained(source, return_unused_kwargs=True, **options)
    except StrictDataclassError as error:
        raise ValueError(f"{source}: {' '.join(str(error).split())} in its config.json") from None
    if config.is_encoder_decoder:
        raise ValueError(f"{source} is an encoder-decoder ({config.model_type}): an encoder is needed")
    flags = [flag for flag in ("is_decoder", "add_cross_attention") if getattr(config, flag, False)]
    if config.model_type in DECODERS or flags:
        reason = f"{', '.join(flags)} in its config.json" if flags else config.model_type
        raise ValueError(
            f"{source} is a decoder ({reason}), whose tokens do not see the tokens after them: an encoder is needed"
        )
    return config, unused


def load_tokenizer(source: str | Path, tokenizer_class: type = AutoTokenizer, **options) -> PreTrainedTokenizerBase:
    """
    Loads the tokenizer of a folder or Hub repository. Clears the truncation and padding that its file may set, because
    this package cuts and pads texts itself. `options` are `HUB_OPTIONS`. Raises `ValueError` if there is no tokenizer
    or if it does not load.
    """
    advice = (
        "first save the tokenizer that the model was trained with there, for instance AutoTokenizer.from_pretrained("
        f"'google-bert/bert-base-multilingual-uncased').save_pretrained({str(source)!r})"
    )
    try:
        tokenizer = tokenizer_class.from_pretrained(source, **options)
    except Exception as error:  # the tokenizers library raises no narrower class
        reason = str(error).strip().splitlines()[0]
        if "did not match any variant" in reason:  # its message for a tokenizer.json of a later version
            reason = f"its tokenizer.json may be of a newer version: upgrade the package tokenizers; {reason}"
        if isinstance(error, ImportError):
            advice = "install the package that it needs"
        raise ValueError(f"the tokenizer of {source} does not load ({reason}): {advice}") from None
    check_vocabulary(tokenizer, source, advice)
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def check_checkpoint(
    source: str | Path, task: str = "", tokenizer: str | Path | None = None, **options
) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase, dict]:
    """
    Checks a checkpoint as far as it is possible without its weights. Returns the configuration, the tokenizer and the
    options that are left for the model, `HUB_OPTIONS` among them.

    Args:
        source (`str` or `Path`): folder or Hub repository.
        task (`str`, *optional*): what the model does with a pair of texts, such as `"rank"`; none for single texts.
        tokenizer (`str` or `Path`, *optional*): folder or Hub repository of the tokenizer, to which `revision` and
            `subfolder` do not apply; defaults to `source`.
        options: `HUB_OPTIONS` and options of the configuration.

    Raises `ValueError` in the cases of [`load_config`], [`load_tokenizer`] and [`check_tokens`], and for pairs without
    a separator.
    """
    hub = {name: options[name] for name in HUB_OPTIONS if name in options}
    config, unused = load_config(source, **options)
    if tokenizer is None:
        loaded = load_tokenizer(source, **hub)
    else:  # of another repository, with its own commits and folders
        loaded = load_tokenizer(tokenizer, **{k: v for k, v in hub.items() if k not in ("revision", "subfolder")})
    check_tokens(loaded, config.model_type, getattr(config, "vocab_size", None))
    if task:
        check_separator(loaded)
    return config, loaded, unused | hub


def check_pretraining(
    source: str | Path, tokenizer: str | Path | None, language_model: bool, **options
) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
    """
    Checks a configuration and a tokenizer for the pretraining, see [`check_checkpoint`]. Returns both.

    Raises `ValueError` for a model without a limit of positions, and with `language_model`, for QLM, for a tokenizer
    without mask token and a type without masked language model.
    """
    config, loaded, _ = check_checkpoint(source, "rank", tokenizer, **options)
    if (getattr(config, "max_position_embeddings", None) or 0) < 1:
        raise ValueError(
            f"{source}: a {config.model_type} has no limit of positions (max_position_embeddings), which pretraining "
            "needs: choose another encoder"
        )
    if language_model and loaded.mask_token_id is None:
        raise ValueError(
            f"the tokenizer of {tokenizer or source} has no mask token (mask_token), which QLM needs: leave out "
            "--qlm_pairs, or choose a model that was trained with masks"
        )
    retrieval_class(config, language_model)
    return config, loaded


def tensor_names(source: str | Path, **options) -> set[str]:
    """
    Returns the names of a checkpoint's tensors without reading the tensors. `options` are `HUB_OPTIONS`. Raises
    `ValueError` if it has none.
    """
    with reading_weights(source):
        for name in WEIGHTS:
            path = cached_file(str(source), name, _raise_exceptions_for_missing_entries=False, **options)
            if path is None:
                continue
            if name.endswith(".json"):
                return set(json.loads(Path(path).read_text(encoding="utf-8"))["weight_map"])
            if name.endswith(".bin"):
                return set(torch.load(path, map_location="meta", weights_only=True))
            with safe_open(path, framework="pt") as file:
                return set(file.keys())
    raise ValueError(f"{source} has no weights, that is none of {', '.join(WEIGHTS)}")


def has_language_model(source: str | Path, config: PreTrainedConfig, **options) -> bool:
    """
    Tells whether a checkpoint has the whole head of a masked language model, by the names of its tensors. `options`
    are `HUB_OPTIONS`. Raises `ValueError` for a checkpoint of 2021.
    """
    found = tensor_names(source, **options)
    check_2021(found, source)
    found = {name.replace(".gamma", ".weight").replace(".beta", ".bias") for name in found}  # names of 2018
    wanted = language_model_names(config)
    return bool(wanted) and all(names & found for names in wanted)


def check_2021(names: set[str], source: str | Path):
    if any(name.startswith(RENAMED_2021) for name in names):
        raise ValueError(f"{source} is a checkpoint of 2021: convert it with python -m modeling_clir.convert")


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, source: str | Path, advice: str = "save its own there"):
    """Raises `ValueError` for what transformers makes up if there is no tokenizer: special tokens alone."""
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError(f"{source} has no tokenizer: {advice}")


@contextmanager
def reading_weights(source: str | Path) -> Iterator[None]:
    """Turns what libraries raise for a damaged file of weights into a `ValueError` that names `source`."""
    try:
        yield
    except (EOFError, RuntimeError, SafetensorError, UnpicklingError) as error:
        if isinstance(error, RuntimeError) and "PytorchStreamReader" not in str(error):
            raise
        reason = str(error).partition(". ")[0] or "it is empty"
        raise ValueError(
            f"the weights of {source} cannot be read, a file may be cut or hold more than tensors: {reason}"
        ) from None


def check_shapes(found: dict[str, torch.Size], expected: dict[str, torch.Size], source: str):
    """Raises `ValueError` that names the first tensor whose shape is not the expected one."""
    for name, shape in expected.items():
        if name in found and tuple(found[name]) != tuple(shape):
            raise ValueError(
                f"{source} is a checkpoint of another size than its config.json: {name} has shape "
                f"{tuple(found[name])}, the configuration asks for {tuple(shape)}"
            )


def load_weights(
    model_class: type, source: str | Path, config: PreTrainedConfig, **options
) -> tuple[PreTrainedModel, list[str]]:
    """
    Loads a model. Returns it with the names of the tensors that its checkpoint lacks, all of the head or pooler. Those
    tensors are drawn with a fixed seed.

    Args:
        model_class (`type`): class of a model, or an Auto class.
        source (`str` or `Path`): folder or Hub repository.
        config (`PreTrainedConfig`): configuration of the model.
        options: options of the class's `from_pretrained`. `dtype` defaults to float32, or to the checkpoint's own type
            if `device_map` names a GPU: half precision on a CPU takes several times as long.

    Raises `ValueError` if a tensor of the encoder is missing, has another shape, or belongs to no layer.
    """
    on_gpu = torch.cuda.is_available() and str(options.get("device_map", "cpu")) != "cpu"
    options.setdefault("dtype", "auto" if on_gpu else torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # hides its table of missing tensors; the errors and warnings below name them
        try:
            with reading_weights(source):
                model, report = model_class.from_pretrained(
                    source, config=config, ignore_mismatched_sizes=True, output_loading_info=True, **options
                )
        except ValueError as error:
            if "Unrecognized configuration class" not in str(error):
                raise
            raise ValueError(
                f"{source}: transformers has no {model_class.__name__} for a {config.model_type}"
            ) from None
        finally:
            logging.set_verbosity(verbosity)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    check_shapes({name: found for name, found, _ in report["mismatched_keys"]}, shapes, str(source))
    check_2021(report["unexpected_keys"], source)
    encoder = {id(tensor) for tensor in model.base_model.parameters()}
    encoder = {name for name, tensor in model.named_parameters() if id(tensor) in encoder}
    prefixes = (f"{model.base_model_prefix}.", "bert.", "encoder.", "embeddings.")
    for what in ("missing", "unexpected"):
        of_encoder = [
            name
            for name in sorted(report[f"{what}_keys"])
            if (name in encoder or name.startswith(prefixes)) and "pooler." not in name
        ]
        if of_encoder:
            raise ValueError(
                f"{source} does not fit its config.json: {len(of_encoder)} tensors of {type(model).__name__} are "
                f"{what}, such as {of_encoder[0]}"
            )
    head = model.get_output_embeddings()
    if head and model.config.tie_word_embeddings and head.weight is not model.get_input_embeddings().weight:
        logger.warning(f"{source} says that its decoder is tied, but stores another decoder: it is kept, untied.")
        model.config.tie_word_embeddings = False
    return model, sorted(report["missing_keys"])


def load_pretrained(
    auto_class: type, source: str | Path, task: str = "", new_labels: int = 1, new_head: bool = False, **options
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """
    Loads any encoder of text with the head of an Auto class, and its tokenizer, fitted to the model.

    Args:
        auto_class (`type`): class to load; `AutoModel` for an encoder without a head.
        source (`str` or `Path`): folder or Hub repository.
        task (`str`, *optional*): task of the head, for messages, such as `"rank"`.
        new_labels (`int`, defaults to 1): outputs of a new head.
        new_head (`bool`, defaults to `False`): draw a head, with a fixed seed and a warning, if the checkpoint has
            none.
        options: `HUB_OPTIONS`, which configuration, weights and tokenizer all get, and other options of the model's
            `from_pretrained`. `dtype` is as for [`load_weights`], or `"int8"` for [`quantize_int8`].

    Raises `ValueError` in the cases of [`check_checkpoint`], [`load_weights`] and [`fit_tokenizer`]. Raises it too for
    a checkpoint without the head, and a model that needs more than token ids.
    """
    if (dtype := options.pop("torch_dtype", None)) is not None:  # the older name of dtype
        options.setdefault("dtype", dtype)
    of_model = {name: options.pop(name) for name in ("dtype", "quantization_config") if options.get(name) is not None}
    if int8 := of_model.get("dtype") in ("int8", torch.int8):
        of_model["dtype"] = torch.float32
    config, tokenizer, options = check_checkpoint(source, task, **options)
    model = load_head(auto_class, source, config, task, new_labels, new_head, **options, **of_model)
    fit_tokenizer(tokenizer, model)
    check_forward(model, tokenizer)
    if int8:
        quantize_int8(model)
    return model, tokenizer


def load_head(
    auto_class: type,
    source: str | Path,
    config: PreTrainedConfig,
    task: str,
    new_labels: int = 1,
    new_head: bool = False,
    **options,
) -> PreTrainedModel:
    """Loads a model, see [`load_pretrained`], whose checkpoint and configuration are checked already."""
    model, missing = load_weights(auto_class, source, config, **options)
    if task and missing:
        if not new_head:
            raise ValueError(f"{source} cannot {task}, it lacks {', '.join(missing)}: finetune it first")
        if config.num_labels != new_labels:
            config.num_labels = new_labels
            model, missing = load_weights(auto_class, source, config, **options)
        logger.warning_once(
            f"{source} has no head to {task}: a new one is random until it is trained (new: {', '.join(missing)})"
        )
    return model


def load_both_heads(source: str | Path, config: PreTrainedConfig, language_model: bool, **options) -> PreTrainedModel:
    """
    Loads any encoder with the heads of the pretraining, see [`retrieval_class`], in float32. A head to rank is drawn,
    with a fixed seed and a warning, if the checkpoint has none. A head of a masked language model is never drawn.

    Args:
        source (`str` or `Path`): folder or Hub repository.
        config (`PreTrainedConfig`): its configuration, of [`check_checkpoint`].
        language_model (`bool`): whether the checkpoint has the head of a masked language model.
        options: `HUB_OPTIONS`.
    """
    model_class = retrieval_class(config, language_model)
    return scores_in_float32(load_head(model_class, source, config, "rank", new_head=True, **options))


def fit_tokenizer(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel):
    """
    Fits a tokenizer to its model, in place: models without token types get none (logged). Warns of a BertLong whose
    tokenizer gives no token types, because BertLong finds the query by them.

    Raises `ValueError` for a tokenizer that is not the model's or has no padding token.
    """
    kind = model.config.model_type
    try:
        rows = model.get_input_embeddings().weight.shape[0]
    except (AttributeError, NotImplementedError):
        raise ValueError(f"a {kind} has no embeddings of a tokenizer's tokens: choose an encoder of text") from None
    check_tokens(tokenizer, kind, rows)
    if getattr(model.config, "type_vocab_size", 0) < 2:
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
        logger.warning_once(f"this {kind} has no token types: separators mark the two texts")
    if kind == BertLongConfig.model_type and not gives_token_types(tokenizer):
        logger.warning(
            f"{model.name_or_path}: the tokenizer gives no token types, by which a BertLong finds the query: only [CLS] "
            "is global. An older version converted this model; convert its source again with "
            "python -m modeling_clir.convert"
        )


def check_tokens(tokenizer: PreTrainedTokenizerBase, kind: str, rows: int | None):
    """
    Raises `ValueError` for a tokenizer without padding token, and for one with tokens beyond the `rows` embeddings of
    the model, which is of the type `kind`.
    """
    number = max([len(tokenizer), *(i + 1 for i in tokenizer.added_tokens_decoder)])
    if rows is not None and number > rows:
        beyond = [str(token) for i, token in sorted(tokenizer.added_tokens_decoder.items()) if i >= rows]
        raise ValueError(
            f"the tokenizer has {number} tokens, but the {kind} has embeddings for {rows}: it is not the model's own"
            f"{', or has added tokens such as ' + repr(beyond[0]) if beyond else ''}. Save the model's own tokenizer "
            "beside the model, or train the model with model.resize_token_embeddings(len(tokenizer))"
        )
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"the tokenizer of the {kind} has no padding token: name one of its tokens, as tokenizer.pad_token = "
            "tokenizer.eos_token, set model.config.pad_token_id to its id, and save both tokenizer and model"
        )


def check_separator(tokenizer: PreTrainedTokenizerBase):
    """Raises `ValueError` for a tokenizer that puts no token between the two texts of a pair."""
    words = tokenizer("a", add_special_tokens=False)["input_ids"]
    row = tokenizer("a", "a")["input_ids"]
    if words and any(row[i : i + 2 * len(words)] == words * 2 for i in range(len(row))):
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path} puts no separator token between the two texts of a pair: choose "
            "a model with a separator token (sep_token), or give its tokenizer a post-processor that puts one there"
        )


def gives_token_types(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tells whether a tokenizer marks the second text of a pair by token type 1."""
    return 1 in tokenizer("a b", "c d", padding=False, truncation=False).get("token_type_ids", [])


@torch.no_grad()
def check_forward(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **options):
    """
    Computes two short rows, with `options` of the model's `forward`, and the shorter one alone. If padding changes the
    result of the shorter one, the tokenizer pads on the other side from now on (logged). An XLNet needs the left, since
    it scores a text by its last column. The results are compared only in float32 on a CPU: elsewhere rounding depends
    on the batch too.

    Raises `ValueError` with the reason if the tokenizer's output is not enough, and if padding changes the result on
    either side.
    """
    kind, own = model.config.model_type, tokenizer.padding_side
    rows = tokenizer(["a", "a"], ["b", "b c d"], split_special_tokens=True)
    for side in (own, "left" if own == "right" else "right"):
        inputs = tokenizer.pad(rows, padding_side=side, return_tensors="pt").to(model.device)
        real = inputs["attention_mask"][0].bool()
        try:
            padded = model(**inputs, **options)[0][0]
            alone = model(**{name: part[:1, real] for name, part in inputs.items()}, **options)[0][0]
        except Exception as error:  # each model raises its own class
            raise ValueError(
                f"{model.name_or_path}: a {kind} does not compute from what its tokenizer gives, {', '.join(inputs)} "
                f"({type(error).__name__}: {error}). Choose an encoder of text, or set in its config.json what it "
                "asks for"
            ) from error
        padded = padded if padded.shape == alone.shape else padded[real]  # of the row, or of each of its tokens
        differs = (padded - alone).abs().max() > 1e-3 * alone.abs().max().clamp(min=0.1)  # NaN is said later
        if model.dtype != torch.float32 or model.device.type != "cpu" or not differs:
            break
    else:
        raise ValueError(
            f"{model.name_or_path}: what a {kind} computes for a text changes with the padding beside it, so its "
            "scores would depend on the batch: choose another encoder"
        )
    if side != own:
        tokenizer.padding_side = side
        logger.warning_once(f"this {kind} is padded on the {side}: on the {own} its scores would depend on the batch")


def check_labels(model: PreTrainedModel):
    """Raises `ValueError` for a model with more than two labels, because none of them is the relevance."""
    if model.config.num_labels > 2:
        raise ValueError(
            f"{model.name_or_path} classifies pairs into {model.config.num_labels} labels "
            f"({', '.join(model.config.id2label.values())}), and none of them is relevance: a reranker has 1 label, "
            "or 2 labels (the second is the score). To train a reranker, save only the encoder: "
            "AutoModel.from_pretrained(...).save_pretrained(...)"
        )


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None) -> int:
    """
    Returns `max_length`, or by default the most tokens (special tokens included) that both model and tokenizer take.
    Raises `ValueError` if `max_length` is more than the model's positions, and if nothing sets a limit.
    """
    limit = max_positions(model)
    if max_length is not None and max_length > limit:
        raise ValueError(f"max_length ({max_length}) is more than the model's {limit} positions")
    length = min(limit, tokenizer.model_max_length) if max_length is None else max_length
    if length >= sys.maxsize:
        raise ValueError(
            f"neither this {model.config.model_type} nor its tokenizer has a longest input: pass max_length"
        )
    return length


__all__ = [
    "HUB_OPTIONS",
    "check_checkpoint",
    "check_labels",
    "check_pretraining",
    "check_shapes",
    "check_vocabulary",
    "fit_tokenizer",
    "gives_token_types",
    "has_language_model",
    "load_both_heads",
    "load_pretrained",
    "load_tokenizer",
    "load_weights",
    "longest_input",
    "read_config",
    "reading_weights",
]
