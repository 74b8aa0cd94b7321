"""A query and a document as one input of the model."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, BatchEncoding, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging

from ..spans_bertlong import cut_end, max_positions


logger = logging.get_logger(__name__)


def load_tokenizer(source: str, tokenizer_class: type = AutoTokenizer) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or Hub name. Raises `ValueError` where it has none, or one that does not load."""
    advice = (
        "save the one that the model was trained with there first, for instance AutoTokenizer.from_pretrained("
        f"'google-bert/bert-base-multilingual-uncased').save_pretrained({source!r})"
    )
    try:
        tokenizer = tokenizer_class.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"the tokenizer of {source} does not load ({str(error).strip().splitlines()[0]}): {advice}"
        ) from None
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes up where there is none
        raise ValueError(f"{source} has no tokenizer: {advice}")
    return tokenizer


def drop_token_types(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig):
    """Makes a tokenizer, in place, give none to a model that has none, which is said in the log."""
    if getattr(config, "type_vocab_size", 0) < 2:
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
        logger.warning_once(f"a {config.model_type} has no token types: separators part the two texts")


@dataclass
class PairEncoder:
    """
    `[CLS] query [SEP] document [SEP]` for any fast tokenizer. A query is cut to `max_query_length` tokens, at the end
    of a word (one word that fills the query is cut inside); then the document is cut so that the pair has `max_length`
    tokens at most. Text is text: a literal "[SEP]" in it is no separator.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): a fast tokenizer.
        max_length (`int`): longest pair, in tokens, special tokens counted.
        max_query_length (`int`, defaults to 128): longest query, in tokens, special tokens not counted.

    Calling it with two lists of the same length gives an unpadded `BatchEncoding`, in which `query_cut` and
    `document_cut` tell of each pair whether something did not fit. Raises `ValueError` where `max_length` leaves no
    room for a document.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    max_query_length: int = 128

    def __post_init__(self):
        if not self.tokenizer.is_fast:
            raise ValueError(f"{type(self.tokenizer).__name__} is not a fast tokenizer, which is needed for offsets")
        special = self.tokenizer.num_special_tokens_to_add(pair=True)
        if self.max_length <= self.max_query_length + special:
            raise ValueError(
                f"max_length ({self.max_length}) leaves no room for a document after a query of max_query_length "
                f"({self.max_query_length}) and {special} special tokens"
            )

    def __call__(self, queries: list[str], documents: list[str]) -> BatchEncoding:
        queries, query_cut = self.cut(queries)
        batch = self.tokenizer(
            queries, documents, truncation="only_second", max_length=self.max_length, split_special_tokens=True
        )
        batch["query_cut"] = query_cut
        batch["document_cut"] = [bool(encoding.overflowing) for encoding in batch.encodings]
        return batch

    def cut(self, queries: list[str]) -> tuple[list[str], list[bool]]:
        """The queries, none longer than `max_query_length` tokens, and which of them were cut."""
        encoded = self.tokenizer(queries, add_special_tokens=False, split_special_tokens=True, verbose=False)
        limit, kept, cut = self.max_query_length, [], []
        for query, encoding in zip(queries, encoded.encodings, strict=True):
            cut.append(len(encoding.ids) > limit)
            if cut[-1]:
                query = query[: cut_end(encoding, limit)]
            kept.append(query)
        return kept, cut


def pad_rows(
    tokenizer: PreTrainedTokenizerBase, ids: list[np.ndarray], types: list[np.ndarray], padding_side: str | None = None
) -> dict[str, torch.Tensor]:
    """
    Rows of token ids and token types, each `(tokens,)`, padded as the tokenizer does, or on `padding_side`: the model's
    inputs, each of shape `(rows, longest row)`.
    """
    inputs = {
        "input_ids": (ids, tokenizer.pad_token_id),
        "token_type_ids": (types, tokenizer.pad_token_type_id),
        "attention_mask": ([np.ones_like(row) for row in ids], 0),
    }
    return {
        name: pad_sequence(
            [torch.from_numpy(row) for row in rows],
            batch_first=True,
            padding_value=padding,
            padding_side=padding_side or tokenizer.padding_side,
        ).long()
        for name, (rows, padding) in inputs.items()
        if name in tokenizer.model_input_names
    }


def split_passages(encoder: PairEncoder, documents: list[str]) -> dict[str, list[str]]:
    """
    The passages of each document, which fit beside the longest query; each has its second half in common with the
    next. A document that fits is one passage, as it is.
    """
    tokenizer = encoder.tokenizer
    room = encoder.max_length - encoder.max_query_length - tokenizer.num_special_tokens_to_add(pair=True)
    passages = {}
    for document in documents:
        encoding = tokenizer(document, add_special_tokens=False, split_special_tokens=True, verbose=False).encodings[0]
        number, step = len(encoding.ids), room - room // 2
        starts = range(0, max(1, number - room + step), step)
        cuts = [(encoding.offsets[i][0], encoding.offsets[min(i + room, number) - 1][1]) for i in starts if number]
        passages[document] = [document[a:b] for a, b in cuts] if len(cuts) > 1 else [document]
    return passages


__all__ = ["PairEncoder", "drop_token_types", "load_tokenizer", "max_positions", "pad_rows", "split_passages"]
