"""Finds hard negatives of sections: texts that are near, but not about the same."""

from .articles import Article


Place = tuple[int, int]  # number of the article in a list, number of the section in the article


def hard_negatives(articles: list[Article], matched: list[set[int]], number: int) -> dict[Place, list[Place]]:
    """
    Finds up to `number` hard negatives of each matched section, in its own language. They are, in this order:

    1. the sections of the same article that match none,
    2. the nearest sections of other articles,
    3. the sections of the same article that match another one.

    Args:
        articles (`list[Article]`): the articles of a shard in one language.
        matched (`list[set[int]]`): for each article, the numbers of its sections that have a match.
        number (`int`).

    Returns:
        The place of each matched section to the places of its negatives, the first ones hardest. A negative is never
        a near-duplicate of the section (see [`near_duplicates`]).
    """
    raise NotImplementedError


__all__ = ["hard_negatives"]
