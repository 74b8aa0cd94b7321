"""
Two pipelines that Transformers 5 does not have, for the checkpoints that come with this file:
`pipeline("text-ranking", model=..., trust_remote_code=True)` and `pipeline("question-answering", ...)`.
"""

import numpy as np
import torch
from transformers.pipelines.base import ChunkPipeline
from transformers.utils import logging

from .spans_bertlong import are_text, attach_marks, best_spans, cut_end, max_positions, rank_spans


logger = logging.get_logger(__name__)


class TextRankingPipeline(ChunkPipeline):
    """
    Ranks documents for a query.

    ```python
    from transformers import pipeline

    rank = pipeline("text-ranking", model="output/clir-bertlong", trust_remote_code=True)
    rank("Wann wurde der Turm gebaut?", ["The tower was built in 1866.", "The harbour froze."])
    ```

    Call it with a query and its documents, with a dictionary of both (`query`, `documents`), or with a list of such
    dictionaries. It returns `{"corpus_id": place in documents, "score": ..., "text": ...}` for each document, best
    first; for a list of dictionaries a list of such lists. The score is the model's last logit.

    Args:
        top_k (`int`, *optional*): documents to return; all by default.
        max_length (`int`, *optional*): longest pair in tokens; defaults to what model and tokenizer take. A longer
            document is cut (logged).
        max_query_length (`int`, defaults to 128): longest query in tokens, at most half of a pair. The end of a longer
            query is cut off.
        batch_size (`int`, defaults to 16): pairs of a batch.

    Raises `TypeError` if the query is not a text, or documents are not a list of texts, and for another option. Raises
    `ValueError` for a model with more than two labels, and for `top_k` below 1.
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("batch_size", 16)
        super().__init__(*args, **kwargs)
        if self.model.config.num_labels > 2:
            raise ValueError(f"the model classifies into {self.model.config.num_labels} labels: none is relevance")

    def _sanitize_parameters(self, **options):
        if unknown := options.keys() - {"top_k", "max_length", "max_query_length"}:
            raise TypeError(f"text-ranking has no option {sorted(unknown)[0]!r}")
        after = {name: options.pop(name) for name in ("top_k",) if name in options}
        if after.get("top_k") is not None and after["top_k"] < 1:
            raise ValueError(f"top_k must be at least 1, got {after['top_k']}")
        return options, {}, after

    def __call__(self, query, documents=None, **options):
        several = isinstance(query, list)
        inputs = query if several else [query if isinstance(query, dict) else {"query": query, "documents": documents}]
        inputs = [self.check(of_query) for of_query in inputs]
        asked = [of_query for of_query in inputs if of_query["documents"]]
        ranked = iter(super().__call__(asked, **options) if asked else ())
        ranked = [next(ranked) if of_query["documents"] else [] for of_query in inputs]
        return ranked if several else ranked[0]

    @staticmethod
    def check(inputs):
        query, documents = (inputs.get(name) if isinstance(inputs, dict) else None for name in ("query", "documents"))
        if not isinstance(query, str):
            raise TypeError(f"query must be a text, got {type(query).__name__}")
        if not isinstance(documents, (list, tuple)):
            raise TypeError(f"documents must be a list of texts, got {type(documents).__name__}")
        for i, document in enumerate(documents):
            if not isinstance(document, str):
                raise TypeError(f"documents[{i}] must be a text, got {type(document).__name__}")
        return {"query": query, "documents": documents}

    def preprocess(self, inputs, max_length=None, max_query_length=128):
        tokenizer, query, documents = self.tokenizer, inputs["query"], inputs["documents"]
        limit = max_length or min(tokenizer.model_max_length, max_positions(self.model))
        max_query_length = min(max_query_length, limit // 2)
        asked = tokenizer(query, add_special_tokens=False, split_special_tokens=True, verbose=False).encodings[0]
        if len(asked.ids) > max_query_length:
            query = query[: cut_end(asked, max_query_length)]
        for place, document in enumerate(documents):
            encoded = tokenizer(
                query,
                document,
                truncation="only_second",
                max_length=limit,
                return_overflowing_tokens=True,  # tells whether the document was cut
                split_special_tokens=True,
            )
            yield {
                **{name: torch.tensor([encoded[name][0]]) for name in tokenizer.model_input_names if name in encoded},
                "corpus_id": place,
                "text": document,
                "cut": len(encoded.encodings) > 1,
                "is_last": place == len(documents) - 1,
            }

    def _forward(self, inputs):
        outputs = self.model(**{name: inputs[name] for name in self.tokenizer.model_input_names if name in inputs})
        return {**inputs, "score": outputs.logits[:, -1].float()}

    def postprocess(self, pairs, top_k=None):
        if cut := sum(pair["cut"] for pair in pairs):
            logger.warning(f"text-ranking: {cut} of {len(pairs)} documents were cut to fit the longest pair")
        hits = [{"corpus_id": p["corpus_id"], "score": p["score"].item(), "text": p["text"]} for p in pairs]
        return sorted(hits, key=lambda hit: hit["score"], reverse=True)[:top_k]


class QuestionAnsweringPipeline(ChunkPipeline):
    """
    Finds the answer to a question in a context.

    ```python
    from transformers import pipeline

    answer = pipeline("question-answering", model="output/clir-mlqa", trust_remote_code=True)
    answer(question="Wann wurde der Turm gebaut?", context="The tower was built in 1866.")
    ```

    Call it with `question` and `context`, with a dictionary of both, or with a list of such dictionaries. It returns a
    dictionary of `answer`, `start`, `end` (in the context, in characters) and `score` (a probability among the best
    spans). With `top_k` above 1 it returns a list of such dictionaries.

    Args:
        top_k (`int`, defaults to 1): answers of a question.
        max_seq_len (`int`, *optional*): longest window in tokens; defaults to what model and tokenizer take.
        doc_stride (`int`, defaults to 128): tokens that a window shares with the next one; at most a quarter of a
            window.
        max_answer_len (`int`, defaults to 30): longest answer in tokens.
        max_question_len (`int`, defaults to 64): longest question in tokens, at most half of a window. The end of a
            longer question is cut off.
        handle_impossible_answer (`bool`, defaults to `False`): allow the empty answer.

    Raises `ValueError` if question or context is missing or empty, and `TypeError` for another option.
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.tokenizer.padding_side = "right"  # many encoders count positions from the first column

    def _sanitize_parameters(self, **options):
        names = {"preprocess": ("max_seq_len", "doc_stride", "max_question_len")}
        names["postprocess"] = ("top_k", "max_answer_len", "handle_impossible_answer")
        if unknown := options.keys() - {name for of_step in names.values() for name in of_step}:
            raise TypeError(f"question-answering has no option {sorted(unknown)[0]!r}")
        before, after = ({n: options[n] for n in of_step if n in options} for of_step in names.values())
        return before, {}, after

    def __call__(self, *inputs, question=None, context=None, **options):
        if question is not None or context is not None:
            if isinstance(question, list):
                contexts = context if isinstance(context, list) else [context] * len(question)
                inputs = ([{"question": q, "context": c} for q, c in zip(question, contexts, strict=True)],)
            else:
                inputs = ({"question": question, "context": context},)
        return super().__call__(*inputs, **options)

    def preprocess(self, inputs, max_seq_len=None, doc_stride=128, max_question_len=64):
        for name in ("question", "context"):
            if not isinstance(inputs, dict) or not isinstance(inputs.get(name), str) or not inputs[name].strip():
                raise ValueError(f"question and context must be texts that are not empty; {name} is missing")
        tokenizer, question, context = self.tokenizer, inputs["question"], inputs["context"]
        limit = max_seq_len or min(tokenizer.model_max_length, max_positions(self.model))
        max_question_len = min(max_question_len, limit // 2)
        asked = tokenizer(question, add_special_tokens=False, split_special_tokens=True, verbose=False).encodings[0]
        if len(asked.ids) > max_question_len:
            question = question[: cut_end(asked, max_question_len)]
        encoded = tokenizer(
            question,
            context,
            truncation="only_second",
            max_length=limit,
            stride=min(doc_stride, limit // 4),
            return_overflowing_tokens=True,
            split_special_tokens=True,
        )
        windows = encoded.encodings
        in_context = [np.array([side == 1 for side in window.sequence_ids]) for window in windows]
        offsets = [np.array(window.offsets)[inside] for window, inside in zip(windows, in_context)]
        ends = np.cumsum([len(part) for part in offsets])[:-1]
        offsets = np.split(attach_marks(np.concatenate(offsets), context), ends)
        for row, (inside, of_context) in enumerate(zip(in_context, offsets)):
            # One value per token, so that they are padded as the tokens are.
            allowed, places = np.zeros(len(inside), dtype=bool), np.zeros((len(inside), 2), dtype=np.int64)
            allowed[inside], places[inside] = are_text(of_context, context), of_context
            yield {
                **{
                    name: torch.tensor([encoded[name][row]]) for name in tokenizer.model_input_names if name in encoded
                },
                "context": context,
                "allowed": torch.from_numpy(allowed)[None],
                "offsets": torch.from_numpy(places)[None],
                "is_last": row == len(windows) - 1,
            }

    def _forward(self, inputs):
        outputs = self.model(**{name: inputs[name] for name in self.tokenizer.model_input_names if name in inputs})
        return {**inputs, "start": outputs.start_logits, "end": outputs.end_logits}

    def postprocess(self, windows, top_k=1, max_answer_len=30, handle_impossible_answer=False):
        spans, nowhere, n_best = [], [], max(top_k, 20)
        for window in windows:
            best = best_spans(window["start"], window["end"], window["allowed"].bool(), n_best, max_answer_len)
            offsets = window["offsets"][0].tolist()
            for score, start, end in zip(*(part[0].tolist() for part in best)):
                if score > float("-inf"):
                    spans.append((score, offsets[start][0], offsets[end][1]))
            tokens, cls = window["input_ids"][0].tolist(), self.tokenizer.cls_token_id
            at = tokens.index(cls) if cls in tokens else 0
            nowhere.append(float(window["start"][0, at] + window["end"][0, at]))
        context = windows[0]["context"]
        found = rank_spans(spans, context, n_best, min(nowhere) if handle_impossible_answer else None)
        found = [{name: answer[name] for name in ("score", "start", "end", "answer")} for answer in found[:top_k]]
        if top_k > 1:
            return found
        return found[0] if found else {"score": 0.0, "start": 0, "end": 0, "answer": ""}


__all__ = ["QuestionAnsweringPipeline", "TextRankingPipeline"]
