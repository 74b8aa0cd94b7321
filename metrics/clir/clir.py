"""A metric of `evaluate`: the measures of run_clir.py for a run (MAP, nDCG@20, P@10, R@100, MRR, Judged@20)."""

import datasets
import evaluate

from modeling_clir.evaluation.ranking import (
    check_qrels,
    check_queries,
    check_relevance,
    check_run,
    check_scores,
    evaluate_run,
)


_DESCRIPTION = """\
MAP, nDCG@20, P@10, R@100, MRR and Judged@20 of a run, by ir_measures: the means over all judged queries. MAP is the
mean of average precision (AP), MRR the mean of reciprocal rank (RR), Judged@20 the mean share of the first 20
documents that are judged. A document is relevant if its relevance is above 0.
"""

_CITATION = """\
@inproceedings{macavaney2022irmeasures,
  title = {Streamlining Evaluation with ir-measures},
  author = {MacAvaney, Sean and Macdonald, Craig and Ounis, Iadh},
  booktitle = {Advances in Information Retrieval (ECIR)},
  year = {2022}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`dict[str, dict[str, float]]` or `list[dict[str, float]]`): the run, query id to document id to score.
        A list has one entry per query, document id to score.
    references (`dict[str, dict[str, int]]` or `list[dict[str, int]]`): the qrels, query id to document id to
        relevance. A list has the same queries as the list of predictions, in the same order.

    Ids may be strings or whole numbers: 1 and "1" are the same id. A judged query counts 0 if the run lacks it, has no
    document for it, or if it has no relevant document (then its Judged@20 still counts). A query without judgements
    does not count.
Returns:
    `dict[str, float]`: MAP, nDCG@20, P@10, R@100, MRR and Judged@20, from 0 to 1.

    Raises `ValueError` for a score that is not a finite number, a relevance that is not a whole number, an id of
    another type, a run without any judged query, lists of different lengths, and if there are no judgements.
Examples:
    >>> metric = evaluate.load("metrics/clir")
    >>> metric.compute(predictions={"q1": {"d1": 0.2, "d2": 0.9}}, references={"q1": {"d1": 1}})["MAP"]
    0.5
"""


class Clir(evaluate.Metric):
    def _info(self):
        strings = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": {"documents": strings, "scores": datasets.Sequence(datasets.Value("float64"))},
                    "references": {"documents": strings, "relevances": datasets.Sequence(datasets.Value("int64"))},
                }
            ),
        )

    def add_batch(self, *, predictions, references):
        """Adds queries: their scores and their judgements."""
        if isinstance(predictions, dict) != isinstance(references, dict):
            raise ValueError("predictions and references must both be dicts by query id, or both lists")
        if isinstance(references, dict):
            run, qrels = check_run(predictions), check_qrels(references)
            if qrels:
                check_queries(run, qrels)
            predictions, references = [run.get(query, {}) for query in qrels], list(qrels.values())
        else:
            predictions = [check_scores(one, f"prediction {i}") for i, one in enumerate(predictions)]
            references = [check_relevance(one, f"reference {i}") for i, one in enumerate(references)]
        super().add_batch(
            predictions=[{"documents": list(one), "scores": list(one.values())} for one in predictions],
            references=[{"documents": list(one), "relevances": list(one.values())} for one in references],
        )

    def add(self, *, prediction, reference):
        """Adds one query: document id to score, document id to relevance."""
        self.add_batch(predictions=[prediction], references=[reference])

    def _compute(self, predictions, references):
        if not references:
            raise ValueError("there are no judgements")
        run = {str(i): dict(zip(one["documents"], one["scores"])) for i, one in enumerate(predictions)}
        qrels = {str(i): dict(zip(one["documents"], one["relevances"])) for i, one in enumerate(references)}
        return evaluate_run(run, qrels)
