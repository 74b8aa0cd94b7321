"""MAP, nDCG@20, P@10, R@100 and MRR of a run, as a metric of `evaluate`: those of run_clir.py."""

import datasets
import evaluate

from modeling_clir.evaluation.ranking import evaluate_run


_DESCRIPTION = "MAP, nDCG@20, P@10, R@100 and MRR of a run, by ir_measures; relevant is more than 0."

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
    predictions (`dict[str, dict[str, float]]` or `list[dict[str, float]]`): the run: query id to document id to score,
        or the latter alone, a query each.
    references (`dict[str, dict[str, int]]` or `list[dict[str, int]]`): the qrels: query id to document id to relevance,
        or the latter alone, in the order of the predictions. A judged query that the run lacks, or that has no relevant
        document, counts 0; a query that is not judged does not count.
Returns:
    `dict[str, float]`: MAP, nDCG@20, P@10, R@100 and MRR. Raises `ValueError` for lists of different lengths, and for
    judgements of no query.
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
            predictions = [predictions.get(query, {}) for query in references]
            references = list(references.values())
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
