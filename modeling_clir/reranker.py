"""Scores documents for queries."""

import math
import textwrap
import threading
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .data.pairs import PairEncoder, batches_by_length, pad_rows, tokens_at_once
from .exported import ExportedModel, find_graph, load_exported
from .loading import check_labels, fit_tokenizer, load_pretrained, longest_input
from .losses import relevance_scores
from .precision import scores_in_float32


logger = logging.get_logger(__name__)

LONG_DOCUMENTS = ("truncate", "maxp")
TEXTS_AT_ONCE = 1024  # texts tokenized together: during tokenization a text takes many times the memory of its ids


class EncodedPairs:
    """
    Pairs of a query and a document as rows of a [`PairEncoder`]. Keeps the ids of every distinct text, and makes rows
    on demand.

    Args:
        encoder (`PairEncoder`): tokenizer and lengths.
        pairs (`list[tuple[str, str]]`): queries and documents.
        passages (`bool`, defaults to `False`): make a row for each passage of a document that does not fit beside the
            longest query, instead of cutting it. The second half of a passage is also the first half of the next.
        max_document_length (`int`, *optional*): cut longer documents to so many tokens first.

    Attributes:
        lengths (`np.ndarray` of shape `(rows,)`): tokens of each row.
        pair_of (`np.ndarray` of shape `(rows,)`): the place of each row's pair.
        counts (`dict[str, int]`): number of `pairs`, of pairs whose query (`queries_cut`) or document
            (`documents_cut`) was cut, and with `passages` the number of rows (`passages`).
        long_documents (`int`): number of distinct documents with several passages.
    """

    def __init__(
        self,
        encoder: PairEncoder,
        pairs: list[tuple[str, str]],
        passages: bool = False,
        max_document_length: int | None = None,
    ):
        self.encoder = encoder
        queries, query_of = distinct([query for query, _ in pairs])
        documents, document_of = distinct([document for _, document in pairs])
        self.queries, query_cut, self.documents = [], [], []
        for start in range(0, len(queries), TEXTS_AT_ONCE):
            encoded, cut = encoder.encode_queries(queries[start : start + TEXTS_AT_ONCE])
            self.queries += [np.array(encoding.ids, dtype=np.int32) for encoding in encoded]
            query_cut += cut
        parts, too_long = [], []  # places of each document's passages, if it has several
        for start in range(0, len(documents), TEXTS_AT_ONCE):
            for encoding in encoder.encode(documents[start : start + TEXTS_AT_ONCE]):
                ids = np.array(encoding.ids, dtype=np.int32)
                too_long.append(max_document_length is not None and len(ids) > max_document_length)
                ids = encoder.cut(ids, max_document_length) if too_long[-1] else ids
                split = split_passages(ids, encoder.room) if passages else [encoder.cut(ids, encoder.max_length + 1)]
                parts.append(range(len(self.documents), len(self.documents) + len(split)))
                self.documents += split

        rows = [(pair, place) for pair, document in enumerate(document_of) for place in parts[document]]
        self.pair_of, self.document_of = np.array(rows, dtype=int).reshape(-1, 2).T
        self.query_of = query_of[self.pair_of]
        query_lengths = np.array([len(ids) for ids in self.queries], dtype=int)[self.query_of]
        document_lengths = np.array([len(ids) for ids in self.documents], dtype=int)[self.document_of]
        special = encoder.template.number_of_special
        self.room = encoder.max_length - special - query_lengths  # for the document
        self.lengths = special + query_lengths + np.minimum(document_lengths, self.room)
        document_cut = np.array(too_long, dtype=bool)[document_of]  # of each pair
        document_cut[self.pair_of[document_lengths > self.room]] = True
        self.counts = {
            "pairs": len(pairs),
            "queries_cut": int(np.array(query_cut, dtype=int)[query_of].sum()),
            "documents_cut": int(document_cut.sum()),
        }
        self.counts |= {"passages": len(rows)} if passages else {}
        self.long_documents = sum(len(places) > 1 for places in parts)

    def rows(self, places: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns the ids and token types of the rows at `places`, each `(tokens,)`."""
        rows = []
        for i in places:
            document = self.encoder.cut(self.documents[self.document_of[i]], self.room[i])
            rows.append(self.encoder.template(self.queries[self.query_of[i]], document)[:2])
        return rows

    def batch(self, places: list[int]) -> dict[str, torch.Tensor]:
        """Pads the rows at `places` as the tokenizer does. Returns the model's inputs, each `(rows, longest row)`."""
        return pad_rows(self.encoder.tokenizer, *zip(*self.rows(places)))


def split_passages(ids: np.ndarray, room: int) -> list[np.ndarray]:
    """Cuts a document, `(tokens,)`, into passages of at most `room` tokens. The next one repeats the second half."""
    step = room - room // 2
    return [ids[start : start + room] for start in range(0, max(1, len(ids) - room + step), step)]


def distinct(texts: list[str]) -> tuple[list[str], np.ndarray]:
    """Returns the distinct texts, and for each text its place among the distinct texts."""
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    return list(places), np.array([places[text] for text in texts], dtype=int)


def as_documents(documents: Iterable[str | Mapping]) -> list[dict]:
    """
    Makes a list of `{"text": ...}` or `{"text": ..., "id": ...}` from any ordered container or iterator of texts and
    mappings. Of a mapping it takes `text`, with `title` in front, and `id`, as of a line of `documents.jsonl`. Raises
    `TypeError` that names the first element that is neither.
    """
    found = []
    for i, document in enumerate(as_list(documents, "documents", "a list of texts")):
        fields = document if isinstance(document, Mapping) else {"text": document}
        for name in ("text", "title") if fields.get("title") is not None else ("text",):
            if not isinstance(fields.get(name), str):
                what = f"documents[{i}]" if fields is not document else f"documents[{i}][{name!r}]"
                value = fields.get(name)
                raise TypeError(f"{what} must be a text, got {type(value).__name__}: {value!r}")
        text = f"{fields['title']} {fields['text']}" if fields.get("title") else fields["text"]
        found.append({"text": text} | ({"id": fields["id"]} if "id" in fields else {}))
    return found


def as_pairs(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """
    Makes a list of pairs of a query and a document from any ordered container or iterator. Raises `TypeError` that
    names the first element that is not two texts.
    """
    found = []
    for i, pair in enumerate(as_list(pairs, "pairs", "a list of (query, document)")):
        if isinstance(pair, (str, Mapping, Set)) or not isinstance(pair, Iterable):
            raise TypeError(f"pairs[{i}] must be a query and a document, got {type(pair).__name__}: {pair!r}")
        pair = tuple(pair)
        if len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise TypeError(
                f"pairs[{i}] must be a query and a document, both texts, got "
                f"{', '.join(type(x).__name__ for x in pair)}"
            )
        found.append(pair)
    return found


def as_list(values: Iterable, name: str, wanted: str) -> list:
    unordered = isinstance(values, (str, bytes, Mapping, set, frozenset)) or not isinstance(values, Iterable)
    if unordered or hasattr(values, "columns"):  # iterating over a table gives the names of its columns
        raise TypeError(f"{name} must be {wanted}, in an order, got {type(values).__name__}")
    return list(values)


def as_number(value: float, name: str) -> float:
    """Makes a float. Raises `ValueError` for anything but a finite number."""
    if not hasattr(value, "__float__") or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)


class LastCall(threading.local):
    """Keeps the counts of each thread's last call. A copy, also one by pickling, starts anew."""

    def __init__(self):
        self.counts = {"pairs": 0, "queries_cut": 0, "documents_cut": 0}

    def __reduce__(self):
        return LastCall, ()


class Reranker:
    """
    Scores documents for queries. A text that occurs in many pairs is tokenized once. Pairs of similar length share a
    batch. Results come in the caller's order. Threads may share a reranker: a call changes nothing but `counts`, which
    every thread has of its own.

    ```python
    reranker = Reranker.from_pretrained("output/demo/clir-bertlong")
    for hit in reranker.rank(query, documents):
        print(f"{hit['score']:.3f}  {hit['text']}")
    ```

    Args:
        model (`PreTrainedModel`): a model with sequence classification logits `(batch_size, num_labels)`. It has one
            label, or two labels and the second is the score. The score is the logit without a sigmoid, in float32.
        tokenizer (`PreTrainedTokenizerBase`): any tokenizer. [`fit_tokenizer`] changes it in place.
        max_length (`int`, *optional*): longest pair in tokens, see [`PairEncoder`]; defaults to what both model and
            tokenizer take.
        max_query_length (`int`, defaults to 128): longest query in tokens.
        max_tokens_per_batch (`int`, defaults to 8192): rows of a batch times the tokens of its longest row, at most;
            see [`tokens_at_once`]. A longer pair is computed alone.
        long_documents (`str`, defaults to `"truncate"`): `"truncate"` cuts a document that does not fit, `"maxp"`
            scores its passages and takes the maximum.

    Attributes:
        counts (`dict[str, int]`): counts of this thread's last call, see [`EncodedPairs`].

    Raises `ValueError` if the lengths do not fit the model or leave no room for a document, if the tokenizer is not
    the model's, and if the model has more than two labels.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int | None = None,
        max_query_length: int = 128,
        max_tokens_per_batch: int = 8192,
        long_documents: str = "truncate",
    ):
        if max_tokens_per_batch < 1:
            raise ValueError(f"max_tokens_per_batch must be at least 1, got {max_tokens_per_batch}")
        if long_documents not in LONG_DOCUMENTS:
            raise ValueError(f"long_documents must be one of {', '.join(LONG_DOCUMENTS)}, got {long_documents!r}")
        check_labels(model)
        max_length = longest_input(model, tokenizer, max_length)
        self.encoder = PairEncoder(tokenizer, max_length, max_query_length)
        if not isinstance(model, ExportedModel):  # an export is fitted already
            fit_tokenizer(tokenizer, model)
            model = scores_in_float32(model)
        self.model, self.long_documents = model, long_documents
        self.max_tokens_per_batch = max_tokens_per_batch
        self.last_call = LastCall()

    @property
    def counts(self) -> dict[str, int]:
        return self.last_call.counts

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        max_length: int | None = None,
        max_query_length: int = 128,
        max_tokens_per_batch: int = 8192,
        long_documents: str = "truncate",
        new_head: bool = False,
        backend: str | None = None,
        **options,
    ) -> "Reranker":
        """
        Opens the reranker of a folder or Hub repository. The encoder may be any encoder of text.

        Args:
            name_or_path (`str` or `Path`): folder or Hub repository.
            max_length, max_query_length, max_tokens_per_batch, long_documents: see the class.
            new_head (`bool`, defaults to `False`): draw a head (logged) if the checkpoint has none, in order to train
                it.
            backend (`str`, *optional*): `"onnx"` or `"openvino"` to rank with the export in the folder, by
                `python -m modeling_clir.convert ... --to onnx`. A folder without weights needs no `backend`: its ONNX
                export ranks.
            options: `revision`, `token`, `cache_dir`, `subfolder`, `local_files_only` and the like, for model,
                configuration and tokenizer; other options of the model's `from_pretrained`, such as
                `device_map="cuda"`. `dtype` defaults to float32 on a CPU and to the checkpoint's own type on a GPU.
                `dtype="int8"` calls [`quantize_int8`], on CPUs only.

        Raises `ValueError` in the cases of the class and of [`load_pretrained`].
        """
        if find_graph(name_or_path, backend, **options):
            model, tokenizer = load_exported(name_or_path, backend or "onnx", **options)
        else:
            model, tokenizer = load_pretrained(
                AutoModelForSequenceClassification, name_or_path, "rank", new_head=new_head, **options
            )
        return cls(model, tokenizer, max_length, max_query_length, max_tokens_per_batch, long_documents)

    def rank(
        self,
        query: str,
        documents: Iterable[str | Mapping],
        progress: bool = False,
        first_stage_scores: Iterable[float] | None = None,
        first_stage_weight: float | None = None,
        top_k: int | None = None,
    ) -> list[dict]:
        """
        Ranks documents for a query. Returns `{"corpus_id": place in documents, "score": ..., "text": ...}` for each
        document, best first, and the document's `id` if it has one.

        Args:
            query (`str`).
            documents (`Iterable[str | Mapping]`): texts, or mappings as the lines of `documents.jsonl`: `text`, and if
                given `id` and `title`, which is put in front. They come in an order: a list, a tuple, an array, a
                column of a table, whose index does not count.
            progress (`bool`, defaults to `False`): show a bar on stderr.
            first_stage_scores (`Iterable[float]`, *optional*): the first stage's score of each document. Each hit's
                `score` is then the reranker's score plus `first_stage_weight` times the first stage's score; the hit
                has both parts too, `reranker_score` and `first_stage_score`.
            first_stage_weight (`float`, *optional*): needed with `first_stage_scores`. `run_clir.py
                --first_stage_weight tune` finds one.
            top_k (`int`, *optional*): return so many of the best documents; defaults to all.

        Raises `TypeError` if the query is not a text, documents or scores are not a list (or another ordered
        container), or `top_k` is not an integer. Raises `ValueError` for another number of scores than documents, for
        a score or weight that is not a finite number, for scores without a weight or a weight without scores, and for
        `top_k` below 1.
        """
        if not isinstance(query, str):
            raise TypeError(f"query must be a text, got {type(query).__name__}: {query!r}")
        if (first_stage_scores is None) != (first_stage_weight is None):
            raise ValueError("first_stage_scores and first_stage_weight are needed together")
        if top_k is not None and (isinstance(top_k, bool) or not hasattr(top_k, "__index__")):
            raise TypeError(f"top_k must be an integer, got {type(top_k).__name__}: {top_k!r}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        documents = as_documents(documents)
        parts = None
        if first_stage_scores is not None:
            parts = as_list(first_stage_scores, "first_stage_scores", "a list of numbers")
            parts = [as_number(value, f"first_stage_scores[{i}]") for i, value in enumerate(parts)]
            weight = as_number(first_stage_weight, "first_stage_weight")
            if len(parts) != len(documents):
                raise ValueError(f"first_stage_scores has {len(parts)} scores for {len(documents)} documents")
        scores = self.score([(query, document["text"]) for document in documents], progress)
        hits = [{"corpus_id": i, "score": score} | documents[i] for i, score in enumerate(scores)]
        if parts is not None:
            for hit, score, part in zip(hits, scores, parts):
                hit |= {"score": score + weight * part, "reranker_score": score, "first_stage_score": part}
        return sorted(hits, key=lambda hit: hit["score"], reverse=True)[:top_k]  # stable: ties as they came

    def score(
        self,
        pairs: Iterable[tuple[str, str]],
        progress: bool = True,
        name: str = "reranking",
        distributed: bool = False,
    ) -> list[float]:
        """
        Scores each pair of a query and a document. Logs how many pairs were cut.

        Args:
            pairs (`Iterable[tuple[str, str]]`): queries and documents.
            progress (`bool`, defaults to `True`): show a bar on stderr.
            name (`str`, defaults to `"reranking"`): name of the pairs, in the bar, the log and errors.
            distributed (`bool`, defaults to `False`): every process calls this with the same pairs, computes its share
                of the batches and gets all scores. The batches are the same as with one process. On a CPU the scores
                are the same to the last bit if `MKL_CBWR` is set as in `run_clir.py`. Otherwise MKL's rounding depends
                on the number of threads and on the place of the weights in memory.

        Raises `TypeError` for an element that is not a pair of texts, and `ValueError` for a score that is not finite.
        """
        self.model.eval()
        pairs, passages = as_pairs(pairs), self.long_documents == "maxp"
        state = PartialState() if distributed else None
        encoded = EncodedPairs(self.encoder, pairs, passages)
        self.last_call.counts = encoded.counts
        if state is None or state.is_main_process:
            log_counts(encoded, name)
        found = np.zeros(len(encoded.lengths))
        unit = "passage" if passages else "pair"
        limit = tokens_at_once(self.model, self.max_tokens_per_batch)
        for rows in batches_by_length(encoded.lengths, limit, name, unit, progress, distributed):
            found[rows] = self.score_batch(encoded.batch(rows))
            for i in rows:
                if not math.isfinite(found[i]):
                    query, document = (textwrap.shorten(text, 60) for text in pairs[encoded.pair_of[i]])
                    raise ValueError(
                        f"{name}: the score of document {document!r} for query {query!r} is {found[i]}; the "
                        "checkpoint has NaN weights, or its numbers overflow"
                    )
        if distributed and state.num_processes > 1:  # each score is 0 in all processes but one
            found = reduce(torch.tensor(found, dtype=torch.float32, device=state.device), "sum").double().cpu().numpy()
        scores = np.full(len(pairs), -np.inf)
        np.maximum.at(scores, encoded.pair_of, found)
        return scores.tolist()

    @torch.inference_mode()
    def score_batch(self, inputs: dict[str, torch.Tensor]) -> np.ndarray:
        """Scores padded rows, each input `(rows, longest row)`. Returns `(rows,)`."""
        inputs = {key: value.to(self.model.device) for key, value in inputs.items()}
        return relevance_scores(self.model(**inputs).logits.float()).double().cpu().numpy()


def log_counts(encoded: EncodedPairs, name: str):
    counts, encoder = encoded.counts, encoded.encoder
    if counts["queries_cut"] or counts["documents_cut"]:
        logger.warning(
            f"{name}: in {counts['documents_cut']} of {counts['pairs']} pairs the document was cut to fit "
            f"{encoder.max_length} tokens, in {counts['queries_cut']} the query to {encoder.max_query_length}"
        )
    if encoded.long_documents:
        logger.warning(
            f"{name}: {encoded.long_documents} documents do not fit; {len(encoded.lengths)} passages are scored"
        )


__all__ = ["LONG_DOCUMENTS", "EncodedPairs", "Reranker"]
