"""Measures answers to questions: exact match and F1 of tokens, by the rules of SQuAD v1.1, SQuAD v2.0 and MLQA."""

import math
import re
import string
import unicodedata
from collections import Counter
from functools import reduce
from itertools import accumulate
from operator import add


def whole_words(words: str) -> re.Pattern:
    return re.compile(rf"\b(?:{'|'.join(words.split())})\b")


# The articles that MLQA's script removes, by language. The Arabic one is removed inside words too: of the two
# alternatives in MLQA's expression, the one with a space before the article never matches.
ARTICLES = {
    "ar": re.compile("ال"),
    "de": whole_words("der die das dem den des ein eine einem einen einer eines"),
    "en": whole_words("a an the"),
    "es": whole_words("el la los las un una unos unas"),
    "hi": None,
    "vi": whole_words("của là cái chiếc những"),
    "zh": None,
}
IDEOGRAPH = re.compile("[\u4e00-\u9fa5]")

Measured = dict[str, dict[str, float]]


def normalize_answer(text: str, language: str | None = None) -> str:
    """
    Lowercases an answer, removes punctuation, then articles, and separates the tokens by single spaces.

    Args:
        text (`str`): an answer.
        language (`str`, *optional*): language of the answer, for MLQA's rules: "ar", "de", "en", "es", "hi", "vi" or
            "zh". Without a language the rules are SQuAD's: English articles, and only the punctuation of ASCII.

    Removed punctuation leaves no space, a removed article leaves one. Tokens are separated by spaces. With "zh" each
    ideograph (U+4E00 to U+9FA5) is a token too.

    Source: the evaluation scripts of SQuAD v1.1 and v2.0 (Rajpurkar et al. 2016, 2018), which both normalize in the
    same way, and of MLQA (Lewis et al. 2020). Raises `ValueError` for another language.
    """
    if language is not None and language not in ARTICLES:
        raise ValueError(
            f"there are no rules for answers in {language!r}: MLQA's rules are for {', '.join(ARTICLES)}; for SQuAD's "
            "rules pass no language (None)"
        )
    text = "".join(character for character in text.lower() if not is_punctuation(character, language))
    if articles := ARTICLES["en" if language is None else language]:
        text = articles.sub(" ", text)
    if language == "zh":
        text = IDEOGRAPH.sub(r" \g<0> ", text)
    return " ".join(text.split())


def is_punctuation(character: str, language: str | None) -> bool:
    """Tells whether a character is punctuation: ASCII's ("$" and "+" too), and with a language also Unicode's."""
    return character in string.punctuation or (language is not None and unicodedata.category(character)[0] == "P")


def exact_match(prediction: str, answers: list[str], language: str | None = None, unanswerable: bool = False) -> bool:
    """Tells whether the prediction is one of the answers, both normalized. For the arguments see [`token_f1`]."""
    return normalize_answer(prediction, language) in normalized_answers(answers, language, unanswerable)


def token_f1(prediction: str, answers: list[str], language: str | None = None, unanswerable: bool = False) -> float:
    """
    Computes the F1 of a prediction: the harmonic mean of precision and recall of its tokens, and the largest over the
    answers. A token that occurs several times counts several times.

    Args:
        prediction (`str`): "" for no answer.
        answers (`list[str]`): the gold answers; empty if the question has no answer.
        language (`str`, *optional*): see [`normalize_answer`].
        unanswerable (`bool`, defaults to `False`): apply the rules of SQuAD v2.0 although there are answers. By the
            rules of SQuAD v2.0, gold answers that normalization empties do not count, the gold answer is "" if no
            other is left, and the F1 of "" and "" is 1. By the rules of SQuAD v1.1 and MLQA, every gold answer counts,
            and F1 is 0 if no token is shared.

    Returns:
        From 0 to 1. Raises `ValueError` for an unknown language.
    """
    unanswerable = unanswerable or not answers
    predicted = normalize_answer(prediction, language).split()
    golds = [gold.split() for gold in normalized_answers(answers, language, unanswerable)]
    return max(f1(predicted, gold, unanswerable) for gold in golds)


def normalized_answers(answers: list[str], language: str | None, unanswerable: bool) -> list[str]:
    golds = [normalize_answer(answer, language) for answer in answers]
    if unanswerable or not golds:
        golds = [gold for gold in golds if gold] or [""]
    return golds


def f1(predicted: list[str], gold: list[str], unanswerable: bool) -> float:
    same = (Counter(predicted) & Counter(gold)).total()
    if not same:
        return float(unanswerable and not predicted and not gold)
    precision, recall = same / len(predicted), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def evaluate_answers(
    predictions: dict[str, str], answers: dict[str, list[str]], language: str | None = None
) -> Measured:
    """
    Computes F1 and EM of each question. Empty answers are compared by the rules of SQuAD v2.0 if any question has no
    answer, else by the rules of SQuAD v1.1 and MLQA; see [`token_f1`]. Answers are normalized by MLQA's rules with a
    language, else by SQuAD's (also XQuAD's) rules.

    Args:
        predictions (`dict[str, str]`): question id to the predicted answer, "" for no answer.
        answers (`dict[str, list[str]]`): question id to the gold answers, an empty list for an unanswerable question.
        language (`str`, *optional*): language of the answers and contexts; see [`normalize_answer`].

    Returns:
        Question id, in the order of `answers`, to `F1` and `EM`, from 0 to 1 ([`mean_answers`] gives per cent). If the
        set has unanswerable questions, also to `answerable`, 1 or 0.

    Raises `ValueError` for a question without a prediction (the official scripts count it as 0), for a prediction
    whose question is not in `answers`, and for an unknown language.
    """
    check_questions(predictions, answers, "answers")
    unanswerable = not all(answers.values())
    measured = {}
    for question, golds in answers.items():
        prediction = predictions[question]
        measured[question] = {
            "F1": token_f1(prediction, golds, language, unanswerable),
            "EM": float(exact_match(prediction, golds, language, unanswerable)),
        }
        if unanswerable:
            measured[question]["answerable"] = float(bool(golds))
    return measured


def check_questions(predictions: dict[str, str], others: dict, name: str):
    if missing := [question for question in others if question not in predictions]:
        raise ValueError(
            f'question {missing[0]!r} has no prediction ({len(missing)} of {len(others)} have none); predict "" for '
            "a question without an answer"
        )
    if unknown := [question for question in predictions if question not in others]:
        raise ValueError(
            f"the {name} have no question {unknown[0]!r}, which has a prediction ({len(unknown)} of "
            f"{len(predictions)}): are these the {name} of another question set?"
        )


def mean_answers(measured: Measured) -> dict[str, float]:
    """
    Averages the values of [`evaluate_answers`] over the questions.

    Returns:
        `F1` and `EM` in per cent, from 0 to 100, as the official scripts print them, and the number of `questions`. If
        some questions are unanswerable, also the same measures of the questions with an answer (`HasAns_F1`,
        `HasAns_EM`, `HasAns_questions`) and without (`NoAns_F1`, ...), named as in SQuAD v2.0. A part without
        questions is left out. Raises `ValueError` if there are no questions.
    """
    if not measured:
        raise ValueError("there are no questions")
    parts = {"": list(measured.values())}
    if not all(answerable(one) for one in parts[""]):
        parts["HasAns_"] = [one for one in parts[""] if answerable(one)]
        parts["NoAns_"] = [one for one in parts[""] if not answerable(one)]
    means = {}
    for name, part in parts.items():
        if part:
            for measure in ("F1", "EM"):
                # Adds one by one as the scripts do; the last digits of sum() differ from Python 3.12 on.
                means[name + measure] = 100 * reduce(add, (one[measure] for one in part)) / len(part)
            means[f"{name}questions"] = len(part)
    return means


def answerable(measures: dict[str, float]) -> bool:
    return bool(measures.get("answerable", 1))


def apply_threshold(
    predictions: dict[str, str], no_answer_scores: dict[str, float], threshold: float
) -> dict[str, str]:
    """
    Replaces the prediction by "" for each question whose no-answer score is above the threshold. Raises `ValueError`
    for a question without prediction or score, and for a score that is NaN.
    """
    check_scores(predictions, no_answer_scores)
    return {
        question: "" if no_answer_scores[question] > threshold else prediction
        for question, prediction in predictions.items()
    }


def best_threshold(
    measured: Measured, predictions: dict[str, str], no_answer_scores: dict[str, float], measure: str = "F1"
) -> tuple[float, float]:
    """
    Finds the threshold for [`apply_threshold`] with the largest mean. It equals the threshold of SQuAD v2.0's script:
    questions are answered by ascending score, and the best place to stop is found (the first, if several are best).

    Args:
        measured (`dict[str, dict[str, float]]`): from [`evaluate_answers`].
        predictions (`dict[str, str]`): the measured predictions, before any threshold.
        no_answer_scores (`dict[str, float]`): question id to a score, such as a probability; the higher, the less
            likely the question has an answer. Equal scores stay in the order of the dict, and the best place may lie
            between them.
        measure (`str`, defaults to `"F1"`): measure to optimize, `"F1"` or `"EM"`.

    Returns:
        The mean in per cent, and the threshold: the score of the last question that is answered, or 0.0 if it is best
        to answer none (0.0 answers none only if all scores are above 0).

    Raises `ValueError` if there are no questions, for a question without prediction, measures or score, and for a
    score that is NaN.
    """
    if not measured:
        raise ValueError("there are no questions")
    check_questions(predictions, measured, "measures")
    check_scores(predictions, no_answer_scores)
    order = sorted(no_answer_scores, key=no_answer_scores.__getitem__)
    # An answer turns an unanswerable question from right to wrong.
    gains = (measured[q][measure] if answerable(measured[q]) else -bool(predictions[q]) for q in order)
    sums = list(accumulate(gains, initial=sum(not answerable(one) for one in measured.values())))
    best = max(range(len(sums)), key=sums.__getitem__)
    return 100 * sums[best] / len(measured), no_answer_scores[order[best - 1]] if best else 0.0


def check_scores(predictions: dict[str, str], no_answer_scores: dict[str, float]):
    check_questions(predictions, no_answer_scores, "no-answer scores")
    for question, score in no_answer_scores.items():
        if math.isnan(score):
            raise ValueError(f"question {question!r}: the no-answer score is NaN")


__all__ = [
    "apply_threshold",
    "best_threshold",
    "evaluate_answers",
    "exact_match",
    "mean_answers",
    "normalize_answer",
    "token_f1",
]
