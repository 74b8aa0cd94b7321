"""Finds the longest input of a model, the place to cut a text, and the spans that answer a question."""

import sys
import unicodedata

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Encoding
from transformers import PreTrainedModel


def attach_marks(offsets: np.ndarray, text: str) -> np.ndarray:
    """
    Adds combining marks to the tokens before them: a tokenizer's normalization may drop vowel signs and accents.

    Args:
        offsets (`np.ndarray` of shape `(tokens, 2)`): start and end of each token in the text, in characters, in any
            order.
        text (`str`): the text.

    Returns:
        The offsets with the marks, in the same shape and order.
    """
    spans, place = np.unique(offsets, axis=0, return_inverse=True)
    starts = np.append(spans[1:, 0], len(text))
    for i in np.flatnonzero(starts > spans[:, 1]):
        end = spans[i, 1]
        while end < starts[i] and unicodedata.category(text[end]).startswith("M"):
            end += 1
        spans[i, 1] = end
    return spans[place.reshape(-1)]


def are_text(offsets: np.ndarray, text: str) -> np.ndarray:
    """
    Tells which tokens, by their offsets `(tokens, 2)`, are more than space. An answer may begin or end there. Returns
    shape `(tokens,)`.
    """
    return np.array([bool(text[start:end].strip()) for start, end in offsets.tolist()], dtype=bool)


def max_positions(model: PreTrainedModel) -> int:
    """
    Returns the longest input of a model in tokens, or `sys.maxsize` if it has no limit. If the table of positions has
    a padding row (as RoBERTa's has), positions count from the row after that.
    """
    limit = getattr(model.config, "max_position_embeddings", None) or 0
    limit = limit if limit > 0 else sys.maxsize  # XLNet's is -1
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            limit = min(limit, len(module.weight) - module.padding_idx - 1)
    return limit


def cut_end(encoding: Encoding, limit: int) -> int:
    """
    Returns the place, in characters, to cut a text so that at most `limit` of its tokens are left. It is the end of a
    word, unless one word has more tokens than `limit`. It is never inside a letter that has several tokens.
    """
    words, offsets = encoding.word_ids, encoding.offsets
    ends = [i for i in range(1, limit + 1) if offsets[i - 1][1] <= offsets[i][0]]
    ends_of_words = [i for i in ends if words[i - 1] != words[i]]
    return offsets[(ends_of_words or ends)[-1] - 1][1] if ends else 0


def best_spans(
    start_logits: torch.Tensor, end_logits: torch.Tensor, allowed: torch.Tensor, n_best: int, max_answer_length: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Finds the best spans of tokens of each window. A span's score is the sum of the logits of its first and last token
    (Devlin et al. 2019, BERT, section 4.2).

    Args:
        start_logits, end_logits (`torch.Tensor` of shape `(windows, tokens)`).
        allowed (`torch.BoolTensor` of shape `(windows, tokens)`): tokens at which an answer may begin or end.
        n_best (`int`): number of spans.
        max_answer_length (`int`): tokens of the longest span.

    Returns:
        Scores, first tokens and last tokens, each of shape `(windows, spans)`, best first. If a window has fewer
        spans, the scores of the others are `-inf`.
    """
    start = start_logits.float().masked_fill(~allowed, -torch.inf)
    end = end_logits.float().masked_fill(~allowed, -torch.inf)
    length = min(max_answer_length, start.shape[1])
    ends = F.pad(end, (0, length - 1), value=-torch.inf).unfold(1, length, 1)  # windows, first token, tokens further
    scores = (start[:, :, None] + ends).flatten(1)
    scores, place = scores.topk(min(n_best, scores.shape[1]), dim=1)
    first = place // length
    return scores, first, first + place % length


def rank_spans(
    spans: list[tuple[float, int, int]], context: str, n_best: int, no_answer_score: float | None = None
) -> list[dict]:
    """
    Ranks the spans of all windows of a context, best first. Each span occurs once and has no spaces at its ends.

    Args:
        spans (`list[tuple[float, int, int]]`): score, start and end in the context, in characters.
        context (`str`).
        n_best (`int`): number of spans to keep.
        no_answer_score (`float`, *optional*): score of the empty answer. If given, the empty answer is always kept.

    Returns:
        Dictionaries of `answer`, `start`, `end`, `logit` (the span's score) and `score` (softmax over the kept spans).
    """
    best = {}
    for logit, start, end in spans:
        text = context[start:end]
        start, end = start + len(text) - len(text.lstrip()), end - len(text) + len(text.rstrip())
        if start < end:
            best[start, end] = max(logit, best.get((start, end), logit))
    ranked = [(logit, start, end) for (start, end), logit in best.items()]
    ranked = sorted(ranked, key=lambda span: (-span[0], span[1], span[2]))[:n_best]
    if no_answer_score is not None:
        ranked = sorted([*ranked[: max(n_best - 1, 1)], (no_answer_score, 0, 0)], key=lambda span: -span[0])
    if not ranked:
        return []
    logits = np.array([logit for logit, _, _ in ranked])
    shares = np.exp(logits - logits.max())
    return [
        {"answer": context[start:end], "start": start, "end": end, "logit": float(logit), "score": float(share)}
        for (logit, start, end), share in zip(ranked, shares / shares.sum())
    ]


__all__ = ["are_text", "attach_marks", "best_spans", "cut_end", "max_positions", "rank_spans"]
