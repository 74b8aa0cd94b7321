"""Reranking: the scores of documents for queries."""

import math
import sys
import textwrap
from collections.abc import Iterable

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from tqdm.auto import tqdm
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .data.pairs import PairEncoder, load_tokenizer, max_positions, pad_rows, split_passages
from .losses import relevance_scores
from .quantization import quantize_int8


logger = logging.get_logger(__name__)

LONG_DOCUMENTS = ("truncate", "maxp")
TEXTS_AT_ONCE = 1024  # tokenized together: while it is, a text takes many times the memory of its ids


class PairTemplate:
    """
    Puts together the rows of a [`PairEncoder`] from a query and a document that were tokenized apart, as its tokenizer
    does before it adds special tokens. These, before, between and behind the two, are read off a row.

    Raises `ValueError` where rows have another form.
    """

    def __init__(self, encoder: PairEncoder):
        row = encoder(["a b"], ["c d"])
        ids, types, sides = np.array(row["input_ids"][0]), np.array(row.encodings[0].type_ids), row.sequence_ids(0)
        query, document = ([i for i, side in enumerate(sides) if side == wanted] for wanted in (0, 1))
        if not query or not document:
            raise ValueError(f"{row.tokens(0)} lacks the query or the document")
        self.query_type, self.document_type = types[query[0]], types[document[0]]
        places = (slice(query[0]), slice(query[-1] + 1, document[0]), slice(document[-1] + 1, None))
        self.special = [(ids[place], types[place]) for place in places]
        if not np.array_equal(self(ids[query], ids[document]), [ids, types]):
            raise ValueError(f"{row.tokens(0)} is not a query and then a document, with special tokens around them")

    def __call__(self, query: np.ndarray, document: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids `(query tokens,)` and `(document tokens,)` to ids and token types of the pair, each `(tokens,)`."""
        before, between, behind = self.special
        query = query, np.full(len(query), self.query_type)
        document = document, np.full(len(document), self.document_type)
        ids, types = zip(before, query, between, document, behind)
        return np.concatenate(ids), np.concatenate(types)


class EncodedPairs:
    """
    Pairs of a query and a document as rows of a [`PairEncoder`]. Kept are the ids of every distinct text; a row is made
    when it is asked for.

    Attributes:
        lengths (`np.ndarray` of shape `(pairs,)`): tokens of each row.
        counts (`dict[str, int]`): number of `pairs`, of pairs in which the query was cut (`queries_cut`), and the
        document (`documents_cut`).
    """

    def __init__(self, encoder: PairEncoder, pairs: list[tuple[str, str]]):
        self.encoder, self.pairs = encoder, pairs
        try:
            self.template = PairTemplate(encoder)
        except ValueError as error:
            logger.warning_once(f"queries and documents are tokenized anew in every pair: {error}")
            self.template = None
        queries, self.query_of = distinct([query for query, _ in pairs])
        documents, self.document_of = distinct([document for _, document in pairs])
        self.queries, query_cut = [], []
        for start in range(0, len(queries), TEXTS_AT_ONCE):
            kept, cut = encoder.cut(queries[start : start + TEXTS_AT_ONCE])
            self.queries += self.tokenize(kept)
            query_cut += cut
        self.documents = []
        for start in range(0, len(documents), TEXTS_AT_ONCE):
            self.documents += self.tokenize(documents[start : start + TEXTS_AT_ONCE])

        special = encoder.tokenizer.num_special_tokens_to_add(pair=True)
        query_lengths = np.array([len(ids) for ids in self.queries], dtype=int)[self.query_of]
        document_lengths = np.array([len(ids) for ids in self.documents], dtype=int)[self.document_of]
        self.room = encoder.max_length - special - query_lengths  # for the document
        self.lengths = special + query_lengths + np.minimum(document_lengths, self.room)
        self.counts = {
            "pairs": len(pairs),
            "queries_cut": int(np.array(query_cut, dtype=int)[self.query_of].sum()),
            "documents_cut": int((document_lengths > self.room).sum()),
        }

    def tokenize(self, texts: list[str]) -> list[np.ndarray]:
        """The ids of each text, at most `max_length + 1`: one more than any row has room for."""
        encoded = self.encoder.tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=True,
            truncation=True,
            max_length=self.encoder.max_length + 1,
        )
        return [np.array(ids, dtype=np.int32) for ids in encoded["input_ids"]]

    def rows(self, places: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The ids and token types of the pairs at `places`, each `(tokens,)`."""
        if self.template is None:
            encoded = self.encoder([self.pairs[i][0] for i in places], [self.pairs[i][1] for i in places])
            return [(np.array(row.ids), np.array(row.type_ids)) for row in encoded.encodings]
        rows = []
        for i in places:
            document, room = self.documents[self.document_of[i]], self.room[i]
            document = document[-room:] if self.encoder.tokenizer.truncation_side == "left" else document[:room]
            rows.append(self.template(self.queries[self.query_of[i]], document))
        return rows

    def batch(self, places: list[int]) -> dict[str, torch.Tensor]:
        """The pairs at `places` as the tokenizer pads them: the model's inputs, each `(pairs, longest row)`."""
        return pad_rows(self.encoder.tokenizer, *zip(*self.rows(places)))


def distinct(texts: list[str]) -> tuple[list[str], np.ndarray]:
    """The distinct texts, and of each text its place among them."""
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    return list(places), np.array([places[text] for text in texts], dtype=int)


class Reranker:
    """
    Scores documents for queries. A text that occurs in many pairs is tokenized once, pairs of similar length are
    computed together, and the results come in the caller's order.

    ```python
    reranker = Reranker.from_pretrained("output/demo/clir-bertlong")
    for hit in reranker.rank(query, documents):
        print(f"{hit['score']:.3f}  {hit['text']}")
    ```

    Args:
        model (`PreTrainedModel`): with sequence classification logits `(batch_size, num_labels)`; the last one is the
        score, as it is, without a sigmoid.
        tokenizer (`PreTrainedTokenizerBase`): a fast tokenizer.
        max_length (`int`, *optional*): longest pair in tokens, see [`PairEncoder`]; defaults to what both the model and
        the tokenizer take.
        max_query_length (`int`, defaults to 128): longest query in tokens.
        max_tokens_per_batch (`int`, defaults to 8192): rows of a batch times the tokens of its longest one. A longer
        pair is computed alone.

    Attributes:
        counts (`dict[str, int]`): how many `pairs` the last call scored, and in how many the query (`queries_cut`) or
        the document (`documents_cut`) did not fit.

    Raises `ValueError` where the lengths do not fit the model or leave no room for a document.
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
        limit = max_positions(model.config)
        if (max_length or limit) > limit:
            raise ValueError(f"max_length ({max_length}) is more than the model's {limit} positions")
        if max_tokens_per_batch < 1:
            raise ValueError(f"max_tokens_per_batch must be at least 1, got {max_tokens_per_batch}")
        if long_documents not in LONG_DOCUMENTS:
            raise ValueError(f"long_documents must be one of {', '.join(LONG_DOCUMENTS)}, got {long_documents!r}")
        self.model, self.long_documents = model, long_documents
        self.encoder = PairEncoder(tokenizer, max_length or min(limit, tokenizer.model_max_length), max_query_length)
        self.max_tokens_per_batch = max_tokens_per_batch
        self.counts = {"pairs": 0, "queries_cut": 0, "documents_cut": 0}

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        max_length: int | None = None,
        max_query_length: int = 128,
        max_tokens_per_batch: int = 8192,
        **options,
    ) -> "Reranker":
        """
        The reranker of a folder or Hub repository. `options` are those of the model's `from_pretrained`, as
        `dtype=torch.bfloat16` or `device_map="cuda"`; `dtype="int8"` is [`quantize_int8`], for CPUs. Raises `ValueError`
        for a checkpoint without a relevance head and for int8 elsewhere than on a CPU.
        """
        int8 = options.get("dtype") in ("int8", torch.int8)
        if int8:
            options["dtype"] = torch.float32
        model, report = AutoModelForSequenceClassification.from_pretrained(
            name_or_path, output_loading_info=True, **options
        )
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"{name_or_path} cannot rank, it lacks {', '.join(missing)}: finetune it first")
        if int8:
            quantize_int8(model)
        return cls(model, load_tokenizer(name_or_path), max_length, max_query_length, max_tokens_per_batch)

    def rank(self, query: str, documents: list[str], progress: bool = False) -> list[dict]:
        """`{"corpus_id": place in documents, "score": ..., "text": ...}` of each document, best first."""
        scores = self.score([(query, document) for document in documents], progress)
        ranked = sorted(range(len(documents)), key=scores.__getitem__, reverse=True)  # stable: ties as they came
        return [{"corpus_id": i, "score": scores[i], "text": documents[i]} for i in ranked]

    @torch.inference_mode()
    def score(
        self,
        pairs: Iterable[tuple[str, str]],
        progress: bool = True,
        name: str = "reranking",
        distributed: bool = False,
    ) -> list[float]:
        """
        The score of each pair of a query and a document.

        Args:
            pairs (`Iterable[tuple[str, str]]`).
            progress (`bool`, defaults to `True`): show a bar on stderr.
            name (`str`, defaults to `"reranking"`): of the pairs, in the bar, the log and errors.
            distributed (`bool`, defaults to `False`): every process calls this with the same pairs, computes its share
                of the batches and gets all scores. The batches are those of one process. On a CPU the scores are too, to
                the last bit, where `MKL_CBWR` is set as in `run_clir.py`: else MKL rounds in another way by the number
                of threads and by where the weights lie in memory.

        Raises `ValueError` for a score that is not finite. Pairs that were cut are counted in the log.
        """
        self.model.eval()
        pairs = list(pairs)
        if self.long_documents == "maxp":
            return self.score_passages(pairs, progress, name, distributed)
        return self.score_pairs(pairs, progress, name, distributed)

    def score_passages(self, pairs: list[tuple[str, str]], progress: bool, name: str, distributed: bool):
        passages = split_passages(self.encoder, list(dict.fromkeys(document for _, document in pairs)))
        owners = [i for i, (_, document) in enumerate(pairs) for _ in passages[document]]
        split = [(query, passage) for query, document in pairs for passage in passages[document]]
        scores = [-math.inf] * len(pairs)
        for owner, score in zip(owners, self.score_pairs(split, progress, name, distributed)):
            scores[owner] = max(scores[owner], score)
        self.counts |= {"pairs": len(pairs), "passages": len(split)}
        long = sum(len(parts) > 1 for parts in passages.values())
        logger.warning(f"{name}: {long} of {len(passages)} documents are long; {len(split)} passages were scored")
        return scores

    def score_pairs(self, pairs: list[tuple[str, str]], progress: bool, name: str, distributed: bool) -> list[float]:
        state = PartialState() if distributed else None
        processes, process = (state.num_processes, state.process_index) if distributed else (1, 0)
        scores = [0.0] * len(pairs)
        disable = not progress or process > 0
        with tqdm(total=len(pairs), desc=name, unit="pair", disable=disable, file=sys.stderr) as bar:
            encoded = EncodedPairs(self.encoder, pairs)
            self.counts = encoded.counts
            if process == 0 and (self.counts["queries_cut"] or self.counts["documents_cut"]):
                logger.warning(
                    f"{name}: in {self.counts['documents_cut']} of {len(pairs)} pairs the document was cut to fit "
                    f"{self.encoder.max_length} tokens, in {self.counts['queries_cut']} the query to "
                    f"{self.encoder.max_query_length}"
                )
            order = np.argsort(-encoded.lengths, kind="stable")  # where memory is short, the first batch tells
            turn = 0
            while len(order):
                rows = max(1, self.max_tokens_per_batch // int(encoded.lengths[order[0]]))
                part, order = order[:rows].tolist(), order[rows:]
                bar.update(len(part))
                turn += 1
                if turn % processes != process:
                    continue
                inputs = {key: value.to(self.model.device) for key, value in encoded.batch(part).items()}
                for i, score in zip(part, relevance_scores(self.model(**inputs).logits.float()).tolist()):
                    if not math.isfinite(score):
                        query, document = (textwrap.shorten(text, 60) for text in pairs[i])
                        raise ValueError(
                            f"{name}: the score of document {document!r} for query {query!r} is {score}; the "
                            "checkpoint has NaN weights, or its numbers overflow"
                        )
                    scores[i] = score
        if processes > 1:  # each is 0 but in one process
            scores = reduce(torch.tensor(scores, device=state.device), "sum").tolist()
        return scores


__all__ = ["LONG_DOCUMENTS", "EncodedPairs", "Reranker"]
