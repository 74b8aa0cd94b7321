"""F1 and exact match of answers to questions (those of run_mlqa.py), as a metric of `evaluate`."""

from numbers import Integral

import datasets
import evaluate

from modeling_clir.data.files import check_text
from modeling_clir.evaluation.answer_measures import apply_threshold, best_threshold, evaluate_answers, mean_answers


_DESCRIPTION = """\
F1 and exact match (EM) of answers to questions. With a language the rules are MLQA's. Without a language the rules are
SQuAD v2.0's if a question has no answer, and SQuAD v1.1's (also XQuAD's) otherwise. Results equal those of the
official evaluation scripts.
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
    predictions (`list[dict]` or `dict[str, str]`): a dict per question with `id`, `prediction_text` ("" for no answer)
        and, for all questions or for none, `no_answer_probability`. Or a dict from id to answer, as in the prediction
        files of SQuAD's script.
    references (`list[dict]` or `dict`): a dict per question with `id` and `answers`, in any order. `answers` is a dict
        with the list `text` (as in the data sets of the Hub and the metric squad) or a list of dicts with `text` (as
        in SQuAD's files). It is empty if the question has no answer. Other fields are not read. Or the content of a
        SQuAD file: a dict with `data`.
    language (`str`, *optional*): language of the answers, for MLQA's rules: "ar", "de", "en", "es", "hi", "vi" or
        "zh". Without a language the rules are SQuAD's.
    no_answer_threshold (`float`, defaults to 1.0): a question counts as unanswered if its no-answer probability is
        higher.

    Ids may be strings or whole numbers: 1 and "1" are the same id.
Returns:
    `dict[str, float]`: F1 and EM in per cent, and the number of questions. If some questions have no answer, also the
    same measures of questions with an answer (HasAns_F1, ...) and without (NoAns_F1, ...). If there are probabilities
    too, also best_F1 and best_EM, and the thresholds that reach them, best_F1_threshold and best_EM_threshold.

    Raises `ValueError` for predictions or references of another shape, a question without prediction, a prediction
    whose question is not in the references, an id that occurs twice, probabilities for some predictions only, an
    unknown language, and if there are no questions.
Examples:
    >>> metric = evaluate.load("metrics/clqa")
    >>> predictions = [{"id": "q", "prediction_text": "Der große Turm"}]
    >>> references = [{"id": "q", "answers": {"text": ["großer Turm", "große Turm"], "answer_start": [0, 0]}}]
    >>> metric.compute(predictions=predictions, references=references, language="de")
    {'F1': 100.0, 'EM': 100.0, 'questions': 1}
"""

PREDICTION = '{"id": "q1", "prediction_text": "1866"}'
REFERENCE = '{"id": "q1", "answers": {"text": ["1866"]}}'


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
        if isinstance(predictions, dict):
            predictions = [{"id": key, "prediction_text": text} for key, text in predictions.items()]
        super().add_batch(
            predictions=[read_prediction(one) for one in predictions],
            references=[read_reference(one) for one in read_squad(references)],
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


def read_prediction(row):
    if not isinstance(row, dict) or "id" not in row or not isinstance(row.get("prediction_text"), str):
        raise ValueError(f"a prediction must be like {PREDICTION}, got {row!r:.200}")
    check_text(row["prediction_text"], f"prediction {row['id']!a}")
    return {
        "id": read_id(row["id"]),
        "prediction_text": row["prediction_text"],
        "no_answer_probability": row.get("no_answer_probability"),
    }


def read_reference(row):
    try:
        key, answers = row["id"], row["answers"]
        texts = answers["text"] if isinstance(answers, dict) else [answer["text"] for answer in answers]
        valid = not isinstance(texts, str) and all(isinstance(text, str) for text in texts)
    except (KeyError, TypeError):
        valid = False
    if not valid:
        raise ValueError(f"a reference must be like {REFERENCE}, got {row!r:.200}")
    for text in texts:
        check_text(text, f"reference {key!a}")
    return {"id": read_id(key), "answers": {"text": list(texts)}}


def read_squad(references):
    """Returns the questions of the content of a SQuAD file. Returns a list of references unchanged."""
    if not isinstance(references, dict):
        return references
    try:
        return [qa for article in references["data"] for paragraph in article["paragraphs"] for qa in paragraph["qas"]]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"references must be a list of {REFERENCE}, or the content of a SQuAD file, got {references!r:.200}"
        ) from error


def read_id(key):
    if not isinstance(key, (str, Integral)):
        raise ValueError(f"an id must be a string or a whole number, got {key!r}")
    check_text(str(key), f"id {key!a}")
    return str(key)


def by_id(rows, name, value):
    found = {}
    for row in rows:
        if row["id"] in found:
            raise ValueError(f"the {name} have the id {row['id']!r} twice")
        found[row["id"]] = value(row)
    return found
