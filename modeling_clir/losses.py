"""Ranking losses over the documents of a query."""

import torch
import torch.nn.functional as F


TEACHER_LOSSES = ("margin_mse", "kl")
RANKING_LOSSES = ("pairwise", "margin", "listwise", "pointwise", *TEACHER_LOSSES)


def relevance_scores(logits: torch.Tensor) -> torch.Tensor:
    """
    Returns the score of each row, which is the last logit. Maps `(rows, num_labels)` to `(rows,)`. Checkpoints of 2021
    have two logits; logit 1 is the score.
    """
    return logits[:, -1]


def ranking_loss(
    logits: torch.Tensor,
    group_size: int,
    kind: str = "pairwise",
    margin: float = 1.0,
    teacher_scores: torch.Tensor | None = None,
    grades: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Computes a ranking loss, the mean over the queries. Each query has one positive document, followed by its
    negatives.

    Args:
        logits (`torch.FloatTensor` of shape `(queries * group_size, num_labels)`): logits of the documents, query by
            query.
        group_size (`int`): documents per query. At least 2, except for `"pointwise"`.
        kind (`str`, defaults to `"pairwise"`): one of the following; s+ is the score of the positive, s- of a
            negative.

            - `"pairwise"`: mean of log(1 + exp(s- - s+)) (Burges et al. 2005, RankNet)
            - `"margin"`: mean of max(0, margin - s+ + s-)
            - `"listwise"`: -log of the positive's share in the softmax of the query's scores. With `grades`: the
              cross-entropy of the softmax against the documents' shares in the gains 2^grade - 1 (Cao et al. 2007,
              ListNet's top-one cross-entropy; Bruch et al. 2019, who show that with these gains it bounds nDCG)
            - `"pointwise"`: (binary) cross-entropy of each document by itself (the 2021 code, with two labels)
            - `"margin_mse"`: mean of ((s+ - s-) - (t+ - t-))^2, t being the teacher's scores (Hofstätter et al. 2020)
            - `"kl"`: KL divergence of the softmax of the query's scores from the softmax of the teacher's (Hinton et
              al. 2015; Lin et al. 2021 for ranking)
        margin (`float`, defaults to 1.0): for `"margin"`, the difference of scores at which the loss is 0.
        teacher_scores (`torch.FloatTensor` of shape `(queries, group_size)`, *optional*): for `"margin_mse"` and
            `"kl"`.
        grades (`torch.LongTensor` of shape `(queries, group_size)`, *optional*): for `"listwise"`, relevance of each
            document. Grades below 0 count as 0. The positive's is above 0.

    Returns:
        `torch.FloatTensor` of shape `()`.

    Raises:
        `ValueError` for another kind, and for a group without negatives if `kind` needs one or the teacher's scores.
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
    if kind in TEACHER_LOSSES:
        if teacher_scores is None:
            raise ValueError(f"the {kind} loss needs the scores of a teacher")
        if kind == "kl":
            shares, teacher_shares = scores.log_softmax(1), teacher_scores.float().log_softmax(1)
            return F.kl_div(shares, teacher_shares, reduction="batchmean", log_target=True)
        return F.mse_loss(scores[:, :1] - scores[:, 1:], teacher_scores[:, :1] - teacher_scores[:, 1:])
    if kind == "listwise" and grades is not None:
        grades = grades.clamp(min=0).float()
        highest = grades.amax(1, keepdim=True)
        gains = torch.exp2(grades - highest) - torch.exp2(-highest)  # 2^grade - 1 would overflow from 128 on
        return F.cross_entropy(scores, gains / gains.sum(1, keepdim=True))
    if kind == "listwise":
        return F.cross_entropy(scores, scores.new_zeros(len(scores), dtype=torch.long))
    difference = scores[:, :1] - scores[:, 1:]
    return F.softplus(-difference).mean() if kind == "pairwise" else F.relu(margin - difference).mean()


__all__ = ["RANKING_LOSSES", "TEACHER_LOSSES", "ranking_loss", "relevance_scores"]
