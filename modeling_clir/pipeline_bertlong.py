"""
The question-answering pipeline, which Transformers 5 no longer has: `pipeline("question-answering", model=...,
trust_remote_code=True)` for the checkpoints that come with this file.
"""

import numpy as np
import torch
from transformers.pipelines.base import ChunkPipeline

from .spans_bertlong import are_text, attach_marks, best_spans, cut_end, max_positions, rank_spans


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


__all__ = ["QuestionAnsweringPipeline"]
