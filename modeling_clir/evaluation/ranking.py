"""Ranking the documents of a collection, and how good a ranking is."""

import math
import sys
from pathlib import Path

import ir_measures
import torch
from ir_measures import AP, RR, P, R, nDCG
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..data.collections import Collection
from ..data.pairs import PairEncoder
from ..training.losses import relevance_scores


MEASURES = {"MAP": AP, "nDCG@20": nDCG @ 20, "P@10": P @ 10, "R@100": R @ 100, "MRR": RR}

Run = dict[str, dict[str, float]]


@torch.inference_mode()
def rank_collection(
    model: PreTrainedModel,
    encoder: PairEncoder,
    collection: Collection,
    queries: list[str] | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> tuple[Run, dict[str, int]]:
    """
    Scores every candidate document of the queries.

    Args:
        model (`PreTrainedModel`): with sequence classification logits `(batch_size, num_labels)`; the last one is the
        score.
        encoder (`PairEncoder`): tokenizer and lengths.
        collection (`Collection`): what is ranked.
        queries (`list[str]`, *optional*): ids; all judged queries by default.
        batch_size (`int`, defaults to 32): pairs of similar length together.

    Returns:
        `{query id: {document id: score}}`, and how many `pairs` were scored, `queries_cut` and `documents_cut`. Raises
        `ValueError` for a score that is NaN.
    """
    model.eval()
    pairs = [(q, d) for q in (collection.qrels if queries is None else queries) for d in collection.candidates[q]]
    run: Run = {query: {} for query, _ in pairs}
    counts = {"pairs": len(pairs), "queries_cut": 0, "documents_cut": 0}
    order = sorted(pairs, key=lambda p: len(collection.queries[p[0]]) + len(collection.documents[p[1]]), reverse=True)
    with tqdm(total=len(order), desc=collection.name, unit="pair", disable=not progress, file=sys.stderr) as bar:
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            encoded = encoder([collection.queries[q] for q, _ in part], [collection.documents[d] for _, d in part])
            counts["queries_cut"] += sum(encoded["query_cut"])
            counts["documents_cut"] += sum(encoded["document_cut"])
            inputs = {name: encoded[name] for name in encoder.tokenizer.model_input_names if name in encoded}
            inputs = encoder.tokenizer.pad(inputs, return_tensors="pt").to(model.device)
            scores = relevance_scores(model(**inputs).logits.float()).tolist()
            for (query, document), score in zip(part, scores):
                if math.isnan(score):
                    raise ValueError(
                        f"{collection.name}: the score of document {document!r} for query {query!r} is not a number; "
                        "the checkpoint has NaN weights, or its numbers overflow"
                    )
                run[query][document] = score
            bar.update(len(part))
    return run, counts


def evaluate_run(run: Run, qrels: dict[str, dict[str, int]]) -> dict[str, float]:
    """MAP, nDCG@20, P@10, R@100 and MRR by `ir_measures`; a judged query that the run lacks counts 0."""
    found = ir_measures.calc_aggregate(list(MEASURES.values()), qrels, run)
    return {name: found[measure] for name, measure in MEASURES.items()}


def write_run(run: Run, path: Path, tag: str):
    """Writes a TREC run; ties are ordered by descending document id, as trec_eval reads them."""
    with open(path, "w", encoding="utf-8") as file:
        for query, scores in run.items():
            ranked = sorted(scores.items(), key=lambda item: (item[1], item[0]), reverse=True)
            file.writelines(
                f"{query} Q0 {document} {rank} {score!r} {tag}\n" for rank, (document, score) in enumerate(ranked, 1)
            )


__all__ = ["MEASURES", "evaluate_run", "rank_collection", "write_run"]
