"""Answers questions with spans of a context, which it finds in windows of the context."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import AutoModelForQuestionAnswering, PreTrainedModel, PreTrainedTokenizerBase

from .data.pairs import batches_by_length, tokens_at_once
from .data.questions import Question
from .data.windows import WindowEncoder
from .loading import fit_tokenizer, load_pretrained, longest_input
from .precision import scores_in_float32
from .spans_bertlong import best_spans, rank_spans


@dataclass
class Prediction:
    """
    Attributes:
        answer (`str`): the best span of the context; empty only if there is none.
        no_answer_probability (`float`): probability of "no answer" against the best span, from the scores of both
            (Devlin et al. 2019, BERT, section 4.3).
        n_best (`list[dict]`): the best spans and the empty answer, best first; see `rank_spans`.
    """

    answer: str
    no_answer_probability: float
    n_best: list[dict]


class Reader:
    """
    Answers questions from their contexts. Windows of similar length are computed together. Threads may share a reader.

    ```python
    reader = Reader.from_pretrained("output/clir-mlqa")
    reader.answer([Question("1", "Wann wurde der Turm gebaut?", "The tower was built in 1866.", [])])["1"].answer
    ```

    Args:
        model (`PreTrainedModel`): a model with start and end logits, each `(batch_size, tokens)`. Both are computed in
            float32.
        tokenizer (`PreTrainedTokenizerBase`): a fast tokenizer. [`fit_tokenizer`] changes it in place.
        max_length (`int`, *optional*): longest window in tokens; defaults to what both model and tokenizer take.
        doc_stride (`int`, defaults to 128), max_question_length (`int`, defaults to 64): see [`WindowEncoder`].
        max_answer_length (`int`, defaults to 30): longest answer in tokens.
        max_tokens_per_batch (`int`, defaults to 16384): rows of a batch times the tokens of its longest row, at most;
            see [`tokens_at_once`].

    Raises `ValueError` if the lengths do not fit the model or each other, and if the tokenizer is not the model's.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int | None = None,
        doc_stride: int = 128,
        max_question_length: int = 64,
        max_answer_length: int = 30,
        max_tokens_per_batch: int = 16384,
    ):
        for name, value in (("max_answer_length", max_answer_length), ("max_tokens_per_batch", max_tokens_per_batch)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        max_length = longest_input(model, tokenizer, max_length)
        self.encoder = WindowEncoder(tokenizer, max_length, doc_stride, max_question_length)
        fit_tokenizer(tokenizer, model)
        self.model = scores_in_float32(model)
        self.max_answer_length, self.max_tokens_per_batch = max_answer_length, max_tokens_per_batch

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        max_length: int | None = None,
        doc_stride: int = 128,
        max_question_length: int = 64,
        max_answer_length: int = 30,
        max_tokens_per_batch: int = 16384,
        new_head: bool = False,
        **options,
    ) -> "Reader":
        """
        Opens the reader of a folder or Hub repository. The encoder may be any encoder of text.

        Args:
            name_or_path (`str` or `Path`): folder or Hub repository.
            max_length, doc_stride, max_question_length, max_answer_length, max_tokens_per_batch: see the class.
            new_head (`bool`, defaults to `False`): draw a head (logged) if the checkpoint has none, in order to train
                it.
            options: see [`Reranker.from_pretrained`].

        Raises `ValueError` in the cases of the class and of [`load_pretrained`].
        """
        model, tokenizer = load_pretrained(
            AutoModelForQuestionAnswering, name_or_path, "answer questions", 2, new_head, **options
        )
        lengths = (max_length, doc_stride, max_question_length, max_answer_length)
        return cls(model, tokenizer, *lengths, max_tokens_per_batch)

    @torch.inference_mode()
    def answer(
        self,
        questions: Iterable[Question],
        n_best: int = 20,
        progress: bool = True,
        name: str = "answers",
        distributed: bool = False,
    ) -> dict[str, Prediction]:
        """
        Answers questions. Returns question id to prediction, in the order of the questions.

        Args:
            questions (`Iterable[Question]`): questions with their contexts; gold answers are not read.
            n_best (`int`, defaults to 20): answers to keep of each question.
            progress (`bool`, defaults to `True`): show a bar on stderr.
            name (`str`, defaults to `"answers"`): name of the questions, in the bar and the log.
            distributed (`bool`, defaults to `False`): every process calls this with the same questions, computes its
                share of the batches and gets all predictions. The batches are the same as with one process.

        Raises `TypeError` for an object that is not a [`Question`], and `ValueError` for an id that occurs twice, for
        a score that is NaN and for `n_best` below 1.
        """
        if n_best < 1:
            raise ValueError(f"n_best must be at least 1, got {n_best}")
        self.model.eval()
        questions = list(questions)
        for i, question in enumerate(questions):
            if not isinstance(question, Question):
                raise TypeError(f"questions[{i}] must be a Question, got {type(question).__name__}: {question!r}")
        if len({question.id for question in questions}) < len(questions):
            raise ValueError("two questions have the same id: give each question its own id")
        state = PartialState() if distributed else None
        windows = self.encoder(questions, progress and (state is None or state.is_main_process), f"windows of {name}")
        lengths, found = np.array([len(window.ids) for window in windows], dtype=int), []
        limit = tokens_at_once(self.model, self.max_tokens_per_batch)
        for part in batches_by_length(lengths, limit, name, "window", progress, distributed):
            found += self.read([windows[i] for i in part], part, n_best, name)
        if distributed and state.num_processes > 1:
            found = gather_object(found)
        spans, nowhere = defaultdict(list), defaultdict(list)
        for i, of_window, no_answer in sorted(found):
            spans[windows[i].question] += of_window
            nowhere[windows[i].question].append(no_answer)
        predictions = {}
        for number, question in enumerate(questions):
            no_answer = min(nowhere[number])
            best = rank_spans(spans[number], question.context, n_best, no_answer)
            first = next((answer for answer in best if answer["answer"]), None)
            probability = float(np.exp(-np.logaddexp(0, first["logit"] - no_answer))) if first else 1.0
            predictions[question.id] = Prediction(first["answer"] if first else "", probability, best)
        return predictions

    def read(self, windows: list, places: list[int], n_best: int, name: str) -> list[tuple[int, list, float]]:
        """
        Returns for each window its place, its best spans (score, start and end in characters) and its score of no
        answer.
        """
        inputs = {key: value.to(self.model.device) for key, value in self.encoder.batch(windows).items()}
        outputs = self.model(**inputs)
        logits = torch.stack([outputs.start_logits, outputs.end_logits]).float().cpu()
        allowed = torch.zeros(logits.shape[1:], dtype=torch.bool)
        for row, window in enumerate(windows):
            logits[:, row, len(window.ids) :] = 0  # logits of padding may be NaN
            allowed[row, window.first : window.first + len(window.offsets)] = torch.from_numpy(window.allowed)
        if logits.isnan().any():
            raise ValueError(
                f"{name}: a score is not a number; the checkpoint has NaN weights, or its numbers overflow"
            )
        found = []
        best = best_spans(*logits, allowed, n_best, self.max_answer_length)
        for row, (window, *parts) in enumerate(zip(windows, *(part.tolist() for part in best))):
            spans = [
                (score, int(window.offsets[start - window.first, 0]), int(window.offsets[end - window.first, 1]))
                for score, start, end in zip(*parts)
                if score > -torch.inf
            ]
            nowhere = self.encoder.no_answer_place(window)
            found.append((places[row], spans, float(logits[0, row, nowhere] + logits[1, row, nowhere])))
        return found


__all__ = ["Prediction", "Reader"]
