"""Finds hard negatives of sections: texts in the same language that are near, and about something else."""

from ..data.first_stage import score_bm25, tokenize, top
from .articles import Article, ArticleSection


Place = tuple[int, int]  # number of the article in a list, number of the section in the article

BM25 = {"k1": 1.5, "b": 0.75}  # as in `data/corpus.py`
QUERY = 1000  # characters of a section that search for its neighbours, and as many links
SHINGLE = 3  # tokens
NEAR = 0.5  # share of the shorter text's shingles that makes a near-duplicate


def hard_negatives(articles: list[Article], matched: list[set[int]], number: int) -> dict[Place, list[Place]]:
    """
    Finds up to `number` hard negatives of each matched section, in its own language. They are, in this order:

    1. the sections of the same article that match none,
    2. the sections of other articles that are nearest by BM25 of words and links together (see [`tokenize`]), at least
       one word or link in common,
    3. the sections of the same article that match another section.

    Each group is in the order of the BM25 scores, highest first. A negative is never the section itself, nor one that
    [`near_duplicates`] finds, nor a section without words.

    Args:
        articles (`list[Article]`): the articles of a shard in one language.
        matched (`list[set[int]]`): for each article, the numbers of its sections that have a match.
        number (`int`).

    Returns:
        The place of each matched section to the places of its negatives, in the order of the articles.
    """
    places = [(i, j) for i, article in enumerate(articles) for j in range(len(article.sections))]
    sections = [articles[i].sections[j] for i, j in places]
    shingles = [shingle(section.text) for section in sections]
    numbers = {place: row for row, place in enumerate(places)}
    queries = [(i, j) for i, j in places if j in matched[i]]
    texts = (searched(articles[i].sections[j], QUERY) for i, j in queries)
    negatives = {}
    for (i, j), scores in zip(queries, score_bm25(map(searched, sections), texts, **BM25)):
        own = shingles[numbers[i, j]]
        inside = range(numbers[i, 0], numbers[i, 0] + len(articles[i].sections))
        inside = sorted((row for row in inside if row != numbers[i, j]), key=lambda row: (-scores[row], row))
        groups = [[row for row in inside if places[row][1] not in matched[i]]]
        # Some of the best may be near-duplicates, or are in the article itself
        outside = top(scores, 4 * number + len(articles[i].sections))
        groups.append([int(row) for row in outside if places[row][0] != i and scores[row] > 0])
        groups.append([row for row in inside if places[row][1] in matched[i]])
        found = (row for group in groups for row in group if not near_duplicates(own, shingles[row]))
        negatives[i, j] = [places[row] for row, _ in zip(found, range(number))]
    return negatives


def searched(section: ArticleSection, limit: int | None = None) -> str:
    """Returns the text that BM25 reads: words and keys of links."""
    return " ".join([section.heading, section.text[:limit], *section.links[:limit]])


def shingle(text: str) -> set[tuple[str, ...]]:
    """Returns the runs of `SHINGLE` tokens of a text; all tokens of a shorter text."""
    tokens = tokenize(text)
    return {tuple(tokens[i : i + SHINGLE]) for i in range(max(1, len(tokens) - SHINGLE + 1))} if tokens else set()


def near_duplicates(left: set, right: set) -> bool:
    """
    Says whether two texts, as [`shingle`] gives them, are nearly the same: the shorter one has at least the share `NEAR`
    of its shingles in common with the other one. A text without words is a near-duplicate of every text.
    """
    return len(left & right) >= NEAR * min(len(left), len(right))


__all__ = ["hard_negatives", "near_duplicates", "shingle"]
