"""Answers questions in several pairs of languages; measures and writes the answers, and shows results as matrices."""

import csv
import json
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure

from ..data.files import new_file
from ..data.questions import QuestionSet
from ..reader import Prediction, Reader
from .answer_measures import ARTICLES, apply_threshold, best_threshold, evaluate_answers, mean_answers


def given_answers(questions: QuestionSet, predictions: dict[str, Prediction], threshold: float) -> dict[str, str]:
    """
    Returns question id to answer. If questions of the set may lack an answer, the answer is empty for a question whose
    probability of "no answer" is above the threshold.
    """
    answers = {question: prediction.answer for question, prediction in predictions.items()}
    if questions.may_lack_answers:
        answers = apply_threshold(answers, no_answer_probabilities(predictions), threshold)
    return answers


def no_answer_probabilities(predictions: dict[str, Prediction]) -> dict[str, float]:
    return {question: prediction.no_answer_probability for question, prediction in predictions.items()}


def measure_answers(questions: QuestionSet, answers: dict[str, str]) -> dict[str, float]:
    """
    Computes F1 and EM in per cent, see [`mean_answers`].

    Args:
        questions (`QuestionSet`): a set with answers.
        answers (`dict[str, str]`): question id to the predicted answer.

    Returns:
        The means by the rules of the data set: MLQA's for the language of the context, or SQuAD's. Also F1 and EM by
        the other rules: `squad_F1` and `squad_EM`, or `mlqa_F1` and `mlqa_EM` if MLQA has the language.

    Raises `ValueError` for a set of MLQA in a language that MLQA does not have.
    """
    language = questions.context_language
    has_rules = language in ARTICLES or questions.answered_like == "mlqa"  # without rules evaluate_answers raises
    languages = {"squad": None} | ({"mlqa": language} if has_rules else {})
    found = {style: mean_answers(evaluate_answers(answers, questions.answers, by)) for style, by in languages.items()}
    own = found.pop(questions.answered_like)
    return own | {f"{style}_{name}": means[name] for style, means in found.items() for name in ("F1", "EM")}


def evaluate_development(reader: Reader, sets: list[QuestionSet]) -> dict[str, float]:
    """
    Measures a model on development questions, and tunes the threshold of "no answer".

    Args:
        reader (`Reader`).
        sets (`list[QuestionSet]`): sets with answers; may be empty.

    Returns:
        - `F1_context-de.question-en`, `EM_context-de.question-en` and so on, for each pair of languages: the mean in
          per cent over the sets that have the pair
        - `F1`, `EM`: the means over the pairs, missing without sets
        - `threshold`: the probability of "no answer" with the best F1 over all questions of the sets that have
          unanswerable questions; 0.5 without such sets
    """
    predictions = [reader.answer(one.questions, 1, name=f"{one.name} {one.key}", distributed=True) for one in sets]
    threshold = tune_threshold(sets, predictions)
    found = defaultdict(list)
    for one, predicted in zip(sets, predictions):
        measured = measure_answers(one, given_answers(one, predicted, threshold))
        for name in ("F1", "EM"):
            found[f"{name}_{one.key}"].append(measured[name])
    means = {name: sum(values) / len(values) for name, values in found.items()}
    for name in ("F1", "EM") if means else ():
        values = [value for key, value in means.items() if key.startswith(f"{name}_")]
        means[name] = sum(values) / len(values)
    return means | {"threshold": threshold}


def tune_threshold(sets: list[QuestionSet], predictions: list[dict[str, Prediction]]) -> float:
    measured, answers, probabilities = {}, {}, {}
    for number, (one, predicted) in enumerate(zip(sets, predictions)):
        if one.unanswerable:
            language = one.context_language if one.answered_like == "mlqa" else None
            given = {question: prediction.answer for question, prediction in predicted.items()}
            own = evaluate_answers(given, one.answers, language)
            measured |= {(number, question): values for question, values in own.items()}
            answers |= {(number, question): answer for question, answer in given.items()}
            for question, probability in no_answer_probabilities(predicted).items():
                probabilities[number, question] = probability
    return best_threshold(measured, answers, probabilities)[1] if measured else 0.5


def write_answers(folder: Path, questions: QuestionSet, predictions: dict[str, Prediction], answers: dict[str, str]):
    """
    Writes `{pair}.json` (question id to answer, the format of the official scripts) and `{pair}.nbest.json`. If
    questions may lack an answer, also `{pair}.no_answer.json` (question id to the probability of "no answer").
    """
    contents = {
        "json": answers,
        "nbest.json": {question: prediction.n_best for question, prediction in predictions.items()},
    }
    if questions.may_lack_answers:
        contents["no_answer.json"] = no_answer_probabilities(predictions)
    for ending, content in contents.items():
        with new_file(folder / f"{questions.key}.{ending}") as file:
            json.dump(content, file, ensure_ascii=False, indent=1)


def answer_set(
    reader: Reader, questions: QuestionSet, threshold: float, n_best: int = 20, folder: Path | None = None
) -> dict[str, float | str]:
    """
    Answers the questions of one pair of languages, on all processes together.

    Args:
        reader (`Reader`).
        questions (`QuestionSet`).
        threshold (`float`): threshold of "no answer", see [`given_answers`].
        n_best (`int`, defaults to 20): number of answers that are written for each question.
        folder (`Path`, *optional*): folder for [`write_answers`].

    Returns:
        `context` and `question` (their languages), the measures of [`measure_answers`] if the set has answers, and the
        `threshold` if it was applied.
    """
    name = f"{questions.name} {questions.key}"
    predictions = reader.answer(questions.questions, n_best, name=name, distributed=True)
    answers = given_answers(questions, predictions, threshold)
    if folder is not None:
        write_answers(folder, questions, predictions, answers)
    result = {"context": questions.context_language, "question": questions.question_language}
    if questions.has_answers:
        result |= measure_answers(questions, answers)
    return result | ({"threshold": threshold} if questions.may_lack_answers else {})


# ---------------------------------------------------------------------------------------------------------------------
# Matrices
# ---------------------------------------------------------------------------------------------------------------------


def matrix(results: list[dict], measure: str) -> tuple[list[str], list[str], dict[tuple[str, str], float]]:
    """
    Returns languages of questions (rows) and contexts (columns), and the values by both.

    Args:
        results (`list[dict]`): results of one data set; each has `context`, `question` and the measures.
        measure (`str`): name of a measure, such as `"F1"`.
    """
    questions, contexts = ({result[side]: None for result in results} for side in ("question", "context"))
    values = {(result["question"], result["context"]): result[measure] for result in results}
    return list(questions), list(contexts), values


def markdown(results: list[dict]) -> str:
    """Writes tables of F1 and EM in per cent: a row per question language, a column per context language, means."""
    tables = []
    for measure in ("F1", "EM"):
        rows, columns, values = matrix(results, measure)
        lines = [[f"{measure}: question, context", *columns, "mean"], ["---", *["---:"] * (len(columns) + 1)]]
        for row in rows:
            lines.append([row, *values_of(values, [(row, column) for column in columns])])
        lines.append(["mean", *(values_of(values, [(row, c) for row in rows])[-1] for c in columns)])
        lines[-1].append(f"{sum(values.values()) / len(values):.1f}")
        tables.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(tables)


def values_of(values: dict[tuple[str, str], float], places: list[tuple[str, str]]) -> list[str]:
    """Formats the values, with "-" for a missing value, and their mean."""
    there = [values[place] for place in places if place in values]
    return [f"{values[p]:.1f}" if p in values else "-" for p in places] + [f"{sum(there) / len(there):.1f}"]


def plot_matrices(results: dict[str, list[dict]], path: Path):
    """Writes a PNG with heat maps of F1 and EM of each data set."""
    figure = Figure(figsize=(9, 4 * len(results)), layout="constrained")
    grid = figure.subplots(len(results), 2, squeeze=False)
    for row, (name, of_set) in zip(grid, results.items()):
        for axes, measure in zip(row, ("F1", "EM")):
            questions, contexts, values = matrix(of_set, measure)
            table = [[values.get((question, context), float("nan")) for context in contexts] for question in questions]
            axes.imshow(table, vmin=0, vmax=100, cmap="viridis")
            for y, line in enumerate(table):
                for x, value in enumerate(line):
                    if value == value:
                        axes.text(
                            x, y, f"{value:.1f}", ha="center", va="center", color="white" if value < 60 else "black"
                        )
            axes.set(title=f"{name}, {measure}", xlabel="context", ylabel="question")
            axes.set_xticks(range(len(contexts)), contexts)
            axes.set_yticks(range(len(questions)), questions)
    figure.savefig(path, dpi=120)


def write_results(results: dict[str, list[dict]], folder: Path):
    """
    Writes `{set}.md`, `results.csv` and `results.png`.

    Args:
        results (`dict[str, list[dict]]`): name of the data set to the measured results of its pairs of languages, from
            [`answer_set`].
        folder (`Path`).
    """
    for name, of_set in results.items():
        with new_file(folder / f"{name}.md") as file:
            file.write(markdown(of_set) + "\n")
    rows = [{"set": name} | result for name, of_set in results.items() for result in of_set]
    names = list(dict.fromkeys(name for row in rows for name in row))
    with new_file(folder / "results.csv") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    plot_matrices(results, folder / "results.png")


__all__ = [
    "answer_set",
    "evaluate_development",
    "given_answers",
    "markdown",
    "measure_answers",
    "plot_matrices",
    "write_answers",
    "write_results",
]
