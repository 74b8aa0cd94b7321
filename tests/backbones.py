"""Makes tiny random encoders of the types that are pretrained natively, each with a tokenizer of its own kind."""

from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    BertTokenizerFast,
    CamembertConfig,
    GemmaTokenizerFast,
    ModernBertConfig,
    PreTrainedTokenizerBase,
    RobertaConfig,
    RobertaTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaTokenizerFast,
    XmodConfig,
)

from .conftest import REPOSITORY


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
SIZES |= {"initializer_range": 0.1}
ROBERTA = SIZES | {"max_position_embeddings": 130, "type_vocab_size": 1, "pad_token_id": 1}
ROBERTA |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
BERT = ROBERTA | {"max_position_embeddings": 128, "type_vocab_size": 2, "pad_token_id": 0}
MODERN = SIZES | {"max_position_embeddings": 128, "local_attention": 16, "global_attn_every_n_layers": 2}
CONFIGS = {
    "bert": (BertConfig, BERT),
    "xlm-roberta": (XLMRobertaConfig, ROBERTA),
    "roberta": (RobertaConfig, ROBERTA),
    "modernbert": (ModernBertConfig, MODERN),
    "camembert": (CamembertConfig, ROBERTA),
    "xmod": (XmodConfig, ROBERTA | {"languages": ["en_XX"], "default_language": "en_XX"}),
}
NATIVE = ("bert", "xlm-roberta", "roberta", "modernbert")


@cache
def words() -> tuple[str, ...]:
    paths = sorted((REPOSITORY / "sample/train").glob("*.jsonl"))
    return tuple(line for path in paths for line in path.read_text(encoding="utf-8").splitlines()[:30])


def trained(model, trainer, normalizer=None, pre_tokenizer=None) -> dict:
    """Trains a tokenizer on the sample. Returns the description of its model."""
    import json

    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(words(), trainer)
    return json.loads(tokenizer.to_str())["model"]


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerBase:
    """
    WordPiece for BERT, unigram with XLM-R's form of pairs, byte-level BPE with RoBERTa's, and BPE with byte fallback
    with the form that mmBERT gives to Gemma's tokenizer.
    """
    size = {"vocab_size": 500, "show_progress": False}
    if kind == "bert":
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        found = trained(
            models.WordPiece(unk_token="[UNK]"),
            trainers.WordPieceTrainer(special_tokens=special, **size),
            normalizers.BertNormalizer(),
            pre_tokenizers.BertPreTokenizer(),
        )
        return BertTokenizerFast(vocab=found["vocab"])
    if kind == "roberta":
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        trainer = trainers.BpeTrainer(
            special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **size
        )
        found = trained(models.BPE(), trainer, None, pre_tokenizers.ByteLevel(add_prefix_space=False))
        return RobertaTokenizerFast(vocab=found["vocab"], merges=[tuple(pair) for pair in found["merges"]])
    if kind == "modernbert":
        special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
        trainer = trainers.BpeTrainer(special_tokens=special, **(size | {"vocab_size": 800}))
        found = trained(
            models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True),
            trainer,
            normalizers.Replace(" ", "▁"),
            pre_tokenizers.Split(" ", "merged_with_previous"),
        )
        tokenizer = GemmaTokenizerFast(
            vocab=found["vocab"],
            merges=[tuple(pair) for pair in found["merges"]],
            cls_token="<bos>",
            sep_token="<eos>",
        )
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            "<bos> $A <eos>", "<bos> $A <eos> $B:1 <eos>:1", [("<bos>", 2), ("<eos>", 1)]
        )
        return tokenizer
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(special_tokens=special, unk_token="<unk>", **size)
    found = trained(models.Unigram(), trainer, normalizers.NFKC(), pre_tokenizers.Metaspace())
    return XLMRobertaTokenizerFast(vocab=[tuple(piece) for piece in found["vocab"]])


def save_backbone(kind: str, folder: Path, auto_class: type = AutoModelForMaskedLM, **options) -> Path:
    """Saves a random model of a type, by default with the head of a masked language model, and its tokenizer."""
    tokenizer = tokenizer_of(kind)
    config_class, sizes = CONFIGS[kind]
    torch.manual_seed(0)
    config = config_class(**(sizes | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id} | options))
    model = auto_class.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
