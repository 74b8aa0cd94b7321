"""Encodes questions and contexts as inputs of the model. A long context becomes several windows that overlap."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers import Encoding
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..spans_bertlong import are_text, attach_marks
from .pairs import PairEncoder, pad_rows
from .questions import Question


if TYPE_CHECKING:  # loads datasets, which a reader does not need
    from .sections import ExampleKey

logger = logging.getLogger(__name__)

QUESTIONS_AT_ONCE = 256  # tokenized together


@dataclass
class Window:
    """
    `[CLS] question [SEP] part of the context [SEP]`.

    Attributes:
        question (`int`): index among the questions.
        ids, types (`np.ndarray` of shape `(tokens,)`): token ids and segments; the question is segment 0.
        first (`int`): index of the first token of the context.
        offsets (`np.ndarray` of shape `(context tokens, 2)`): start and end of each token in the context, in
            characters.
        allowed (`np.ndarray` of shape `(context tokens,)`): whether an answer may begin or end at the token. It may
            not at a token of only spaces.
        is_first, is_last (`bool`): whether this is the first and the last window of the context.
    """

    question: int
    ids: np.ndarray
    types: np.ndarray
    first: int
    offsets: np.ndarray
    allowed: np.ndarray
    is_first: bool = False
    is_last: bool = False

    def span(self, text: str, start: int) -> tuple[int, int] | None:
        """
        Finds the first and last token of the shortest span that holds an answer, without the spaces at its ends.
        `None` if the window does not hold the whole answer. Tokens are counted from the first token of the context.

        Args:
            text (`str`): the answer.
            start (`int`): place of its first character in the context.
        """
        start, end = start + len(text) - len(text.lstrip()), start + len(text.rstrip())
        if not len(self.offsets) or (start < self.offsets[0, 0] and not self.is_first):
            return None
        if end > self.offsets[-1, 1] and not self.is_last:
            return None
        inside = np.flatnonzero((self.offsets[:, 1] > start) & (self.offsets[:, 0] < end))
        return (int(inside[0]), int(inside[-1])) if len(inside) else None


def check_offsets(tokenizer: PreTrainedTokenizerBase):
    """Raises `ValueError` for a tokenizer that is written in Python."""
    if not tokenizer.is_fast:
        raise ValueError(
            f"a {type(tokenizer).__name__} is written in Python and gives no offsets, by which an answer is found in "
            "its context: to answer questions choose a model with a fast tokenizer"
        )


@dataclass
class WindowEncoder:
    """
    Args:
        tokenizer (`PreTrainedTokenizerBase`): a fast tokenizer.
        max_length (`int`): longest window in tokens, with question and special tokens.
        doc_stride (`int`, defaults to 128): tokens that a window shares with the next one.
        max_question_length (`int`, defaults to 64): longest question in tokens; longer ones are cut at the end.

    Raises `ValueError` for a tokenizer that is written in Python, and if the lengths leave no room for a context.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    doc_stride: int = 128
    max_question_length: int = 64

    def __post_init__(self):
        check_offsets(self.tokenizer)
        self.pairs = PairEncoder(self.tokenizer, self.max_length, self.max_question_length)
        if not 0 <= self.doc_stride < self.pairs.room:
            raise ValueError(
                f"doc_stride ({self.doc_stride}) must be at least 0 and less than the {self.pairs.room} tokens that "
                f"max_length ({self.max_length}) leaves for the context beside a question of max_question_length "
                f"({self.max_question_length}) and {self.pairs.template.number_of_special} special tokens"
            )

    def __call__(self, questions: list[Question], progress: bool = True, name: str = "windows") -> list[Window]:
        """Makes the windows of all questions, question by question. Logs how many questions were cut."""
        windows, cut = [], 0
        with tqdm(total=len(questions), desc=name, unit="question", disable=not progress) as bar:
            for start in range(0, len(questions), QUESTIONS_AT_ONCE):
                part = questions[start : start + QUESTIONS_AT_ONCE]
                asked, was_cut = self.pairs.encode_queries([question.text for question in part])
                cut += sum(was_cut)
                contexts = self.pairs.encode([question.context for question in part])
                for number, (question, context) in enumerate(zip(asked, contexts), start):
                    windows += self.windows(number, np.array(question.ids), context, questions[number].context)
                bar.update(len(part))
        if cut and progress:
            logger.warning(
                f"{name}: {cut} of {len(questions)} questions were cut to {self.max_question_length} tokens"
            )
        return windows

    def windows(self, number: int, question: np.ndarray, encoding: Encoding, context: str) -> list[Window]:
        """Makes the windows of one context: each has the question, `(tokens,)`, and as much context as fits."""
        ids = np.array(encoding.ids, dtype=np.int32)
        offsets = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
        offsets = attach_marks(offsets, context) if len(ids) else offsets
        allowed = are_text(offsets, context)
        room = self.max_length - self.pairs.template.number_of_special - len(question)
        found = []
        for start in range(0, max(1, len(ids) - self.doc_stride), room - self.doc_stride):
            part = slice(start, start + room)
            row, types, sides = self.pairs.template(question, ids[part])
            first = len(row) if not len(ids) else int(np.argmax(sides == 1))
            found.append(
                Window(number, row.astype(np.int32), types.astype(np.int8), first, offsets[part], allowed[part])
            )
        found[0].is_first = found[-1].is_last = True
        return found

    def batch(self, windows: list[Window]) -> dict[str, torch.Tensor]:
        """
        Makes the model's inputs, each of shape `(windows, longest window)`. Pads on the right, because many encoders
        count positions from the first column.
        """
        ids, types = [window.ids for window in windows], [window.types for window in windows]
        return pad_rows(self.tokenizer, ids, types, "right")

    def no_answer_place(self, window: Window) -> int:
        """Finds the token whose logits stand for "no answer in this window": [CLS], else the first token."""
        at = np.flatnonzero(window.ids == self.tokenizer.cls_token_id)
        return int(at[0]) if len(at) else 0


class TrainingWindows:
    """
    The windows of the training questions, with the first and last token of the answer; both are [CLS] if the window
    does not hold the whole answer. Only the first answer of a question is used.

    It is both data set and collator. As a data set, `windows[ExampleKey(...)]` is a [`Window`]. As a collator, it
    turns a list of windows into a batch: the model's inputs, each of shape `(windows, longest window)`,
    `start_positions` and `end_positions`, each of shape `(windows,)`, `task` (`"qa"`), `pairs` (`"train"` for each
    window) and `ids` (of the questions).

    Args:
        questions (`list[Question]`).
        encoder (`WindowEncoder`).
        progress (`bool`, defaults to `True`): show a bar on stderr.

    Attributes:
        sizes (`dict[tuple[str, str], int]`), lengths (`dict[tuple[str, str], np.ndarray]`): number of windows, and
            tokens of each window, for the samplers.

    Logs how many answers no window holds completely.
    """

    def __init__(self, questions: list[Question], encoder: WindowEncoder, progress: bool = True):
        self.questions, self.encoder = questions, encoder
        self.windows = encoder(questions, progress, "training windows")
        self.sizes = {("qa", "train"): len(self.windows)}
        self.lengths = {("qa", "train"): np.array([len(window.ids) for window in self.windows])}
        answerable = {i for i, question in enumerate(questions) if question.answers}
        found = {window.question for window in self.windows if self.span(window)}
        if lost := len(answerable - found):
            logger.warning(
                f"{lost} of {len(answerable)} training answers fit into no window of {encoder.max_length} tokens, "
                f"{questions[min(answerable - found)].id} the first; these questions are trained as without an answer"
            )

    def span(self, window: Window) -> tuple[int, int] | None:
        answers = self.questions[window.question].answers
        return window.span(*answers[0]) if answers else None

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: "ExampleKey") -> Window:
        return self.windows[key.index]

    def __call__(self, windows: list[Window]) -> dict:
        batch = self.encoder.batch(windows)
        places = []
        for window in windows:
            if span := self.span(window):
                places.append([window.first + place for place in span])
            else:
                places.append([self.encoder.no_answer_place(window)] * 2)
        start, end = torch.tensor(places).unbind(1)
        batch |= {"start_positions": start, "end_positions": end}
        ids = [self.questions[window.question].id for window in windows]
        return batch | {"task": "qa", "pairs": ["train"] * len(windows), "ids": ids}


__all__ = ["TrainingWindows", "Window", "WindowEncoder", "check_offsets"]
