"""Encodes a query and a document as one input of the model."""

import copy
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from accelerate import PartialState
from tokenizers import Encoding, Tokenizer
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..configuration_bertlong import BertLongConfig
from ..spans_bertlong import cut_end
from ..stopping import signals
from .files import check_text


# Larger batches are slower on a CPU: of 8192 tokens, 1.6 times for multilingual-e5-small (results/benchmarks.md).
CPU_TOKENS = 2048


class PairTemplate:
    """
    The form of a tokenizer's pairs: special tokens before, between and after two texts. It makes the tokenizer's rows
    from texts that were tokenized apart.

    Args:
        backend (`Tokenizer` or `PythonBackend`): see [`plain_backend`].

    Attributes:
        special (`list[tuple[np.ndarray, np.ndarray, np.ndarray]]`): ids, token types and sides (-1) of the tokens
            before, between and after the two texts, copied from one sample row.
        number_of_special (`int`): number of special tokens of a row.

    Raises `ValueError` if a row lacks a text or has special tokens inside one.
    """

    def __init__(self, backend: "Tokenizer | PythonBackend"):
        row = backend.encode("a b", "c d")
        ids, types, sides = np.array(row.ids), np.array(row.type_ids), np.array(row.sequence_ids)
        places = [np.flatnonzero(sides == side) for side in (0, 1)]
        if not all(map(len, places)):
            raise ValueError(f"the tokenizer turns a pair into {row.tokens}, without the query or the document")
        self.types = [types[at[0]] for at in places]
        self.query_first = places[0][0] < places[1][0]
        first, second = places if self.query_first else places[::-1]
        parts = slice(first[0]), slice(first[-1] + 1, second[0]), slice(second[-1] + 1, None)
        self.special = [(ids[part], types[part], np.full_like(types[part], -1)) for part in parts]
        self.number_of_special = sum(len(part) for part, *_ in self.special)
        if not np.array_equal(self(*(ids[at] for at in places))[:2], [ids, types]):
            raise ValueError(f"the tokenizer turns a pair into {row.tokens}, with special tokens inside a text")

    def __call__(self, query: np.ndarray, document: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Maps ids `(query tokens,)` and `(document tokens,)` to the row's ids, token types and sides, each `(tokens,)`.
        A side is 0 for the query, 1 for the document, -1 for special tokens.
        """
        texts = [
            (ids, np.full(len(ids), self.types[side]), np.full(len(ids), side))
            for side, ids in enumerate((query, document))
        ]
        first, second = texts if self.query_first else texts[::-1]
        before, between, behind = self.special
        ids, types, sides = (np.concatenate(parts) for parts in zip(before, first, between, second, behind))
        return ids, types, sides


@dataclass
class PairEncoder:
    """
    Makes rows `[CLS] query [SEP] document [SEP]` for any tokenizer. It cuts a query to `max_query_length` tokens, at
    the end of a word (inside, if one word fills the query). A tokenizer that is written in Python does not tell where
    its words end: with such a one a query may be cut inside a word. Then it cuts the document so that the pair has at
    most `max_length` tokens. A literal "[SEP]" in a text is text, not a separator; for a tokenizer written in Python
    see [`PythonBackend`].

    Threads may share an encoder: nothing changes the state of the tokenizer with which it tokenizes. That is its own
    copy of a fast tokenizer, and the same object if the tokenizer is written in Python.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): any tokenizer.
        max_length (`int`): longest pair, in tokens, special tokens counted.
        max_query_length (`int`, defaults to 128): longest query, in tokens, special tokens not counted.

    Call it with two lists of the same length. It gives the unpadded rows as lists: `input_ids`, `token_type_ids`,
    `attention_mask` and `sides` (0 for the query, 1 for the document, -1 for special tokens). `query_cut` and
    `document_cut` tell for each pair whether a text was cut.

    Raises `ValueError` for a tokenizer whose pairs are not two texts with special tokens around them, and if
    `max_length` leaves no room for a document.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    max_query_length: int = 128

    def __post_init__(self):
        self.backend = plain_backend(self.tokenizer)
        self.template = PairTemplate(self.backend)
        self.room = self.max_length - self.max_query_length - self.template.number_of_special
        if self.max_query_length < 1:
            raise ValueError(f"max_query_length must be at least 1, got {self.max_query_length}")
        if self.room < 1:
            raise ValueError(
                f"max_length ({self.max_length}) leaves no room for a document after a query of max_query_length "
                f"({self.max_query_length}) and {self.template.number_of_special} special tokens"
            )

    def __getstate__(self):
        return {of.name: getattr(self, of.name) for of in fields(self)}  # a pickled backend forgets a setting

    def __setstate__(self, state):
        self.__init__(**state)

    def __call__(self, queries: list[str], documents: list[str]) -> dict[str, list]:
        queries, query_cut = self.encode_queries(queries)
        names = ("input_ids", "token_type_ids", "sides", "attention_mask", "query_cut", "document_cut")
        columns = {name: [] for name in names} | {"query_cut": query_cut}
        for query, document in zip(queries, self.encode(documents), strict=True):
            room = self.max_length - self.template.number_of_special - len(query)
            row = self.template(np.array(query.ids, dtype=int), self.cut(np.array(document.ids, dtype=int), room))
            for name, values in zip(names, (*row, np.ones_like(row[0]))):
                columns[name].append(values.tolist())
            columns["document_cut"].append(len(document) > room)
        return columns

    def cut(self, ids: np.ndarray, length: int) -> np.ndarray:
        """Cuts a document's ids, `(tokens,)`, to at most `length`, and keeps the side that the tokenizer keeps."""
        return ids[-length:] if self.tokenizer.truncation_side == "left" else ids[:length]

    def encode(self, texts: list[str]) -> "list[Encoding | PythonEncoding]":
        """
        Tokenizes each text, without special tokens and without cutting. Raises `ValueError` for a text with a lone
        surrogate.
        """
        try:
            return self.backend.encode_batch(texts, add_special_tokens=False)
        except TypeError:  # its message names neither the fault nor the text
            for text in texts:
                check_text(text, ascii(text[:60]))
            raise

    def encode_queries(self, queries: list[str]) -> "tuple[list[Encoding | PythonEncoding], list[bool]]":
        """Tokenizes each query, to at most `max_query_length` tokens. Also tells which queries were cut."""
        encoded, limit = self.encode(queries), self.max_query_length
        cut = [len(encoding) > limit for encoding in encoded]
        long = [i for i, was_cut in enumerate(cut) if was_cut]
        if self.tokenizer.is_fast:
            kept = self.encode([queries[i][: cut_end(encoded[i], limit)] for i in long])
            for i, encoding in zip(long, kept):
                encoded[i] = encoding
        for i in long:
            encoded[i].truncate(limit)  # a part of a word may have more tokens than it had in the word
        return encoded, cut


@dataclass
class PythonEncoding:
    """
    What a [`PythonBackend`] gives instead of an `Encoding`: `ids`, and of a pair also `type_ids`, `sequence_ids` and
    `tokens`. It has no offsets.
    """

    ids: list[int]
    type_ids: list[int] = field(default_factory=list)
    sequence_ids: list[int | None] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def truncate(self, length: int, direction: str = "right"):
        """Cuts the ids of a text, in place."""
        self.ids = self.ids[max(0, len(self) - length) :] if direction == "left" else self.ids[:length]


class PythonBackend:
    """
    Does for a tokenizer that is written in Python, such as XLM's, what this package asks of a fast tokenizer's
    backend. The methods are those of `Tokenizer`. They do not change the tokenizer's state.

    Special tokens written out in a text are text, because the tokenizer is not asked to look for them. A class that
    itself leaves one whole, such as one that splits at spaces only, still gives the special token's id.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer

    def encode_batch(self, texts: list[str], add_special_tokens: bool = False) -> list[PythonEncoding]:
        """Tokenizes texts. Special tokens are never added here, see `post_process`."""
        tokens = [self.tokenizer.tokenize(text, split_special_tokens=True) for text in texts]
        return [PythonEncoding(self.tokenizer.convert_tokens_to_ids(of_text)) for of_text in tokens]

    def encode(self, first: str, second: str) -> PythonEncoding:
        """Makes the row of a pair."""
        pair = [encoding.ids for encoding in self.encode_batch([first, second])]
        ids = self.tokenizer.build_inputs_with_special_tokens(*pair)
        marked = self.tokenizer.build_inputs_with_special_tokens([-1] * len(pair[0]), [-2] * len(pair[1]))
        return PythonEncoding(
            ids,
            self.tokenizer.create_token_type_ids_from_sequences(*pair),
            [{-1: 0, -2: 1}.get(i) for i in marked],
            self.tokenizer.convert_ids_to_tokens(ids),
        )

    def post_process(self, encoding: PythonEncoding) -> PythonEncoding:
        """Adds the special tokens of a single text."""
        return PythonEncoding(self.tokenizer.build_inputs_with_special_tokens(encoding.ids))

    def num_special_tokens_to_add(self, is_pair: bool) -> int:
        return self.tokenizer.num_special_tokens_to_add(is_pair)


def plain_backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer | PythonBackend:
    """
    Copies a fast tokenizer's backend. The copy does not truncate or pad, and takes special tokens in a text for text.
    A tokenizer that is written in Python gets a [`PythonBackend`].
    """
    if not tokenizer.is_fast:
        return PythonBackend(tokenizer)
    backend = copy.deepcopy(tokenizer).backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend


def pad_rows(
    tokenizer: PreTrainedTokenizerBase, ids: list[np.ndarray], types: list[np.ndarray], padding_side: str | None = None
) -> dict[str, torch.Tensor]:
    """
    Pads rows of token ids and token types, each `(tokens,)`, as the tokenizer does, or on `padding_side`. Returns the
    model's inputs, each of shape `(rows, longest row)`.
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


def tokens_at_once(model: PreTrainedModel, max_tokens: int) -> int:
    """
    Returns the tokens of a batch of `model`: `max_tokens`, but on a CPU at most `CPU_TOKENS`. A BertLong, which computes
    no padding and its attention in parts, gets `max_tokens` everywhere.
    """
    if model.device.type != "cpu" or model.config.model_type == BertLongConfig.model_type:
        return max_tokens
    return min(max_tokens, CPU_TOKENS)


def batches_by_length(
    lengths: np.ndarray,
    max_tokens: int,
    name: str,
    unit: str,
    progress: bool = True,
    distributed: bool = False,
) -> Iterator[list[int]]:
    """
    Makes batches of rows of similar length, longest first: an out-of-memory error shows at once.

    Args:
        lengths (`np.ndarray` of shape `(rows,)`): tokens of each row.
        max_tokens (`int`): rows of a batch times the tokens of its longest row. A longer row is alone in its batch.
        name (`str`), unit (`str`): name and unit of the rows, in the bar.
        progress (`bool`, defaults to `True`): show a bar on stderr.
        distributed (`bool`, defaults to `False`): give this process its share of the batches, in turns. All processes
            end together if a signal comes to one of them, see [`Signals`].

    Yields the places of a batch's rows. Raises `ValueError` if `max_tokens` is below 1.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens_per_batch must be at least 1, got {max_tokens}")
    state = PartialState() if distributed else None
    processes, process = (state.num_processes, state.process_index) if distributed else (1, 0)
    order, turn = np.argsort(-lengths, kind="stable"), 0
    disable = not progress or process > 0
    with tqdm(total=len(order), desc=name, unit=unit, disable=disable, file=sys.stderr) as bar:
        while len(order) and not (distributed and signals.wanted()):
            rows = max(1, max_tokens // max(1, int(lengths[order[0]])))
            part, order = order[:rows].tolist(), order[rows:]
            turn += 1
            if turn % processes == process:
                yield part
            bar.update(len(part))
    if distributed:
        signals.stop_together()


__all__ = [
    "PairEncoder",
    "PairTemplate",
    "PythonBackend",
    "batches_by_length",
    "pad_rows",
    "plain_backend",
    "tokens_at_once",
]
