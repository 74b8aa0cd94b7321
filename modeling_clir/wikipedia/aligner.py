"""Matches the sections of an article in two languages, one to one. docs/aligner.md explains features and weights."""

import math
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import regex

from ..data.first_stage import tokenize
from .articles import Article, ArticleSection


if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from .headings import HeadingTable

FEATURES = ("lead", "links", "headings", "position", "length", "numbers", "names", "vectors")
# Weight of each feature, and the bias. `python benchmarks/aligner.py --fit DEV` prints these lines.
WEIGHTS = (2.96, 1.57, 6.02, 1.74, 2.39, 1.57, 1.15, 0.00, -2.31)
WEIGHTS_WITH_VECTORS = (2.78, 0.83, 3.61, 2.00, 2.12, 0.83, 0.57, 1.92, -2.88)
THRESHOLD = 0.3
ROUNDS = 2  # of counting a `HeadingTable`
MAX_TOKENS = 256  # of a section that is encoded

DIGITS = regex.compile(r"\d+(?:[.,'’\u00a0\u202f]\d{3}(?!\d))*")
HAN_VALUES = dict(zip("〇一二三四五六七八九", range(10))) | {"零": 0, "两": 2, "兩": 2}
HAN_UNITS = {"十": 10, "百": 100, "千": 1000}
HAN_NUMBER = regex.compile(f"[{''.join([*HAN_VALUES, *HAN_UNITS])}]{{2,}}")


class Match(NamedTuple):
    """Numbers of the sections in the source and the target article, and how sure the match is, 0 to 1."""

    source: int
    target: int
    score: float


def align_sections(
    source: Article,
    target: Article,
    headings: "HeadingTable | None" = None,
    vectors: tuple[np.ndarray, np.ndarray] | None = None,
    threshold: float = THRESHOLD,
) -> list[Match]:
    """
    Matches sections of the same article in two languages. Two sections match if each scores best with the other one,
    and not below `threshold`. The leads match if each article has one; apart from that, leads are sections like others.

    Args:
        source, target (`Article`).
        headings (`HeadingTable`, *optional*): of these two languages, in this order.
        vectors (`tuple[np.ndarray, np.ndarray]`, *optional*): of the source's and of the target's sections,
            `(sections, width)` each, as [`encode_sections`] makes them.
        threshold (`float`, defaults to 0.3): the lowest score of a match, 0 to 1. A lower one gives more matches, and
            more wrong ones.

    Returns:
        The matches in the order of the source. A section has at most one.

    Raises `ValueError` if the vectors are not as many as the sections.
    """
    features = section_features(source, target, headings, vectors)
    weights = WEIGHTS if vectors is None else WEIGHTS_WITH_VECTORS
    scores = match_scores(features, np.asarray(weights))
    lead = [[i for i, section in enumerate(a.sections) if is_lead(section)] for a in (source, target)]
    if len(lead[0]) == len(lead[1]) == 1:
        match_leads(scores, lead[0][0], lead[1][0])
    return mutual_best(scores, threshold)


def is_lead(section: ArticleSection) -> bool:
    return not section.heading


def match_leads(scores: np.ndarray, source: int, target: int):
    """Makes two sections score 1 with each other, and 0 with all others."""
    scores[source], scores[:, target] = 0, 0
    scores[source, target] = 1


def mutual_best(scores: np.ndarray, threshold: float) -> list[Match]:
    """
    Lists the pairs whose score is the best of row and column and not below `threshold`. Of equal scores the first
    counts.
    """
    if not scores.size:
        return []
    best, best_of_column = scores.argmax(axis=1), scores.argmax(axis=0)
    return [
        Match(i, int(j), float(scores[i, j]))
        for i, j in enumerate(best)
        if best_of_column[j] == i and scores[i, j] >= threshold
    ]


def match_scores(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """
    Scores all pairs of sections.

    Each section chooses one section of the other article, or none. The weighted features are the logits of the choice;
    the logit of none is 0. The score of a pair is the geometric mean of the probabilities that the two choose each
    other.

    Args:
        features (`np.ndarray` of shape `(source sections, target sections, features)`).
        weights (`np.ndarray` of shape `(features + 1,)`): the last one is the bias.

    Returns:
        `(source sections, target sections)`.
    """
    logits = features @ weights[:-1] + weights[-1]
    if not logits.size:
        return logits
    log_probabilities = [
        logits - np.logaddexp(0, np.logaddexp.reduce(logits, axis=axis, keepdims=True)) for axis in (0, 1)
    ]
    return np.exp(sum(log_probabilities) / 2)


# ---------------------------------------------------------------------------------------------------------------------
# Features
# ---------------------------------------------------------------------------------------------------------------------


def section_features(
    source: Article,
    target: Article,
    headings: "HeadingTable | None" = None,
    vectors: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """
    Compares all sections of the source with all of the target. Takes what [`align_sections`] takes.

    Returns:
        `(source sections, target sections, len(FEATURES))`. A feature that the articles do not have is 0.
    """
    sections = source.sections, target.sections
    features = np.zeros((len(sections[0]), len(sections[1]), len(FEATURES)))
    if not features.size:
        return features
    texts = [[f"{section.heading}\n{section.text}" for section in part] for part in sections]
    columns = {
        "lead": np.equal.outer(*[[is_lead(section) for section in part] for part in sections]),
        "links": overlap(*[[set(section.links) for section in part] for part in sections]),
        "position": -np.abs(np.subtract.outer(*[(np.arange(len(part)) + 0.5) / len(part) for part in sections])),
        "length": compare_lengths(*sections, headings.ratio if headings else 1.0),
        "numbers": overlap(*[[numbers(text) for text in part] for part in texts]),
        "names": overlap(*shared_words(*texts)),
    }
    if headings:
        columns["headings"] = headings.score(*[[section.heading for section in part] for part in sections])
    if vectors is not None:
        columns["vectors"] = compare_vectors(*vectors, features.shape[:2])
    for name, column in columns.items():
        features[:, :, FEATURES.index(name)] = column
    return features


def overlap(source: list[set[str]], target: list[set[str]]) -> np.ndarray:
    """
    Measures how much two sections share: log(1 + sum of the weights of the strings that both have). A string weighs the
    more the fewer sections of the two articles have it: log of (sections + 1) over sections with it.
    """
    found = Counter(item for items in (*source, *target) for item in items)
    places = {item: place for place, item in enumerate(sorted(found))}
    weights = np.log([(len(source) + len(target) + 1) / found[item] for item in places])
    has = [np.zeros((len(part), len(places))) for part in (source, target)]
    for matrix, part in zip(has, (source, target)):
        for row, items in zip(matrix, part):
            row[[places[item] for item in items]] = 1
    return np.log1p(has[0] * weights @ has[1].T)


def numbers(text: str) -> set[str]:
    """
    Finds the whole numbers in a text of any language, in ASCII digits without leading zeros: digits of any script,
    also with thousands parted, and Chinese numerals of two characters or more ("一九四三", "二十五"). Dates give year
    and day, and the month too where it is a number.
    """
    found = set()
    for match in DIGITS.findall(text):
        digits = "".join(str(unicodedata.digit(c)) for c in match if c.isdigit())
        found.add(digits.lstrip("0") or "0")
    return found | {str(han_number(match)) for match in HAN_NUMBER.findall(text)}


def han_number(text: str) -> int:
    """Returns the value of a Chinese numeral, in units ("二十五") or digit by digit ("一九四三")."""
    if not any(c in HAN_UNITS for c in text):
        return int("".join(str(HAN_VALUES[c]) for c in text))
    total = digit = 0
    for c in text:
        if c in HAN_UNITS:
            total, digit = total + (digit or 1) * HAN_UNITS[c], 0
        else:
            digit = HAN_VALUES[c]
    return total + digit


def shared_words(source: list[str], target: list[str]) -> tuple[list[set[str]], list[set[str]]]:
    """Finds the words of each text that both articles have, numbers excluded. Across scripts most of them are names."""
    words = [[{word for word in tokenize(text) if not word.isdigit()} for text in part] for part in (source, target)]
    shared = set().union(*words[0]) & set().union(*words[1])
    return tuple([words_of_text & shared for words_of_text in part] for part in words)


def compare_lengths(source: list[ArticleSection], target: list[ArticleSection], ratio: float) -> np.ndarray:
    """
    Compares the lengths in bytes of UTF-8: minus the mean of two absolute logarithms. One is of the lengths' ratio
    over `ratio`, the other of the ratio of the shares that the sections have of their articles.
    """
    lengths = [np.array([len(s.text.encode("utf-8", "replace")) + 1 for s in part]) for part in (source, target)]
    logs = [np.log(length) for length in lengths]
    shares = [np.log(length / length.sum()) for length in lengths]
    absolute = np.abs(np.subtract.outer(*logs) - math.log(ratio))
    return -(absolute + np.abs(np.subtract.outer(*shares))) / 2


def compare_vectors(source: np.ndarray, target: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """
    Returns by how many standard deviations the cosine of two sections is above the mean cosine of both with the other
    article's sections. So encoders whose cosines are all high, or all low, give the same values.
    """
    if (len(source), len(target)) != shape:
        raise ValueError(f"expected vectors of {shape} sections, got {(len(source), len(target))}")
    cosines = source.astype(np.float64) @ target.T
    margins = cosines - (cosines.mean(axis=0, keepdims=True) + cosines.mean(axis=1, keepdims=True)) / 2
    return margins / (margins.std() + 1e-3)


def encode_sections(model: "SentenceTransformer", sections: list[ArticleSection]) -> np.ndarray:
    """
    Computes the vectors of sections, `(sections, width)`, from the heading and the text up to `MAX_TOKENS` tokens.

    Args:
        model (`SentenceTransformer`): of [`load_dense`]. Its `max_seq_length` is lowered to `MAX_TOKENS`.
        sections (`list[ArticleSection]`): of any articles and languages.
    """
    model.max_seq_length = min(model.max_seq_length or MAX_TOKENS, MAX_TOKENS)
    texts = [f"{section.heading}. {section.text}" if section.heading else section.text for section in sections]
    return model.encode_document(texts, normalize_embeddings=True, show_progress_bar=False)


__all__ = ["FEATURES", "ROUNDS", "THRESHOLD", "Match", "align_sections", "encode_sections"]
