"""Ranking losses over the documents of a query."""

import torch
import torch.nn.functional as F


RANKING_LOSSES = ("pairwise", "margin", "listwise", "pointwise")


def relevance_scores(logits: torch.Tensor) -> torch.Tensor:
    """`(rows, num_labels)` to `(rows,)`: the last logit (of checkpoints of 2021 with two labels, logit 1)."""
    return logits[:, -1]


def ranking_loss(logits: torch.Tensor, group_size: int, kind: str = "pairwise", margin: float = 1.0) -> torch.Tensor:
    """
    Loss of the documents of a query, the positive first; mean over the queries.

    Args:
        logits (`torch.FloatTensor` of shape `(queries * group_size, num_labels)`): rows of a query follow each other.
        group_size (`int`): documents of a query, at least 2 but for `"pointwise"`.
        kind (`str`, defaults to `"pairwise"`): with s+ the score of the positive and s- that of a negative,

            - `"pairwise"`: mean of log(1 + exp(s- - s+)) (Burges et al. 2005, RankNet)
            - `"margin"`: mean of max(0, margin - s+ + s-)
            - `"listwise"`: -log softmax(s)+ over the query's documents
            - `"pointwise"`: (binary) cross-entropy of each document by itself (the 2021 code, with two labels)
        margin (`float`, defaults to 1.0).

    Returns:
        `torch.FloatTensor` of shape `()`.
    """
    if kind not in RANKING_LOSSES:
        raise ValueError(f"the ranking loss must be one of {', '.join(RANKING_LOSSES)}, got {kind!r}")
    logits = logits.float()
    if kind == "pointwise":
        positive = torch.arange(len(logits), device=logits.device) % group_size == 0
        if logits.shape[1] == 1:
            return F.binary_cross_entropy_with_logits(logits[:, 0], positive.float())
        return F.cross_entropy(logits, positive.long())
    if group_size < 2:
        raise ValueError(f"the {kind} loss needs a negative beside the positive: num_negatives must be at least 1")
    scores = relevance_scores(logits).view(-1, group_size)
    if kind == "listwise":
        return F.cross_entropy(scores, scores.new_zeros(len(scores), dtype=torch.long))
    difference = scores[:, :1] - scores[:, 1:]
    return F.softplus(-difference).mean() if kind == "pairwise" else F.relu(margin - difference).mean()


__all__ = ["RANKING_LOSSES", "ranking_loss", "relevance_scores"]
