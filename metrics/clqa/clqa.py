"""F1 and exact match of answers to questions, as a metric of `evaluate`."""

import datasets
import evaluate

from modeling_clir.evaluation.answer_measures import apply_threshold, best_threshold, evaluate_answers, mean_answers


_DESCRIPTION = """\
F1 and exact match of answers to questions, by the rules of SQuAD v1.1 (XQuAD's too), of SQuAD v2.0 where
a question has no answer, and of MLQA with a language; equal to their evaluation scripts.
"""

_CITATION = """\
@inproceedings{rajpurkar2018know,
  title = {Know What You Don't Know: Unanswerable Questions for SQuAD},
  author = {Rajpurkar, Pranav and Jia, Robin and Liang, Percy},
  booktitle = {Proceedings of ACL},
  year = {2018}
}
@inproceedings{lewis2020mlqa,
  title = {MLQA: Evaluating Cross-lingual Extractive Question Answering},
  author = {Lewis, Patrick and Oguz, Barlas and Rinott, Ruty and Riedel, Sebastian and Schwenk, Holger},
  booktitle = {Proceedings of ACL},
  year = {2020}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[dict]`): `id` of the question, `prediction_text` ("" for no answer) and, for all or for none,
        `no_answer_probability`.
    references (`list[dict]`): `id`, and `answers` with the list `text` of the gold answers, empty where there is none;
        `answer_start` and others are not read. In any order.
    language (`str`, *optional*): of the answers, for the rules of MLQA: "ar", "de", "en", "es", "hi", "vi" or "zh";
        SQuAD's without it.
    no_answer_threshold (`float`, defaults to 1.0): questions with a higher probability are left without an answer.
Returns:
    `dict[str, float]`: F1 and EM in per cent, and the number of questions. Where questions have no answer, the same of
    those that have one (HasAns_F1, ...) and those that have none (NoAns_F1, ...); with probabilities also best_F1 and
    best_EM, and the thresholds that give them, best_F1_threshold and best_EM_threshold. Raises `ValueError` for no
    question, a question without prediction, a prediction to no question of these, an id that is there twice,
    probabilities for some predictions alone, and an unknown language.
Examples:
    >>> metric = evaluate.load("metrics/clqa")
    >>> predictions = [{"id": "q", "prediction_text": "Der große Turm"}]
    >>> references = [{"id": "q", "answers": {"text": ["großer Turm", "große Turm"], "answer_start": [0, 0]}}]
    >>> metric.compute(predictions=predictions, references=references, language="de")
    {'F1': 100.0, 'EM': 100.0, 'questions': 1}
"""


class Clqa(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": {
                        "id": text,
                        "prediction_text": text,
                        "no_answer_probability": datasets.Value("float64"),
                    },
                    "references": {"id": text, "answers": {"text": datasets.Sequence(text)}},
                }
            ),
            reference_urls=[
                "https://rajpurkar.github.io/SQuAD-explorer/",
                "https://github.com/facebookresearch/MLQA",
            ],
        )

    def add_batch(self, *, predictions, references):
        """Adds questions: the answers predicted for them and their gold answers."""
        super().add_batch(
            predictions=[
                {name: one[name] for name in ("id", "prediction_text")}
                | {"no_answer_probability": one.get("no_answer_probability")}
                for one in predictions
            ],
            references=[{"id": one["id"], "answers": {"text": list(one["answers"]["text"])}} for one in references],
        )

    def add(self, *, prediction, reference):
        """Adds one question."""
        self.add_batch(predictions=[prediction], references=[reference])

    def _compute(self, predictions, references, language=None, no_answer_threshold=1.0):
        answers = by_id(references, "references", lambda one: one["answers"]["text"])
        texts = by_id(predictions, "predictions", lambda one: one["prediction_text"])
        scores = {one["id"]: one["no_answer_probability"] for one in predictions}
        measured = evaluate_answers(texts, answers, language)
        if all(score is None for score in scores.values()):
            return mean_answers(measured)
        if None in scores.values():
            raise ValueError("some predictions have a no_answer_probability and some have none")
        means = mean_answers(evaluate_answers(apply_threshold(texts, scores, no_answer_threshold), answers, language))
        if not all(answers.values()):
            for measure in ("F1", "EM"):
                best = best_threshold(measured, texts, scores, measure)
                means |= zip((f"best_{measure}", f"best_{measure}_threshold"), best)
        return means


def by_id(rows, name, value):
    found = {}
    for row in rows:
        if row["id"] in found:
            raise ValueError(f"the {name} have the id {row['id']!r} twice")
        found[row["id"]] = value(row)
    return found
