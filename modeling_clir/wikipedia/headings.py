"""What a corpus itself says about headings: which ones translate each other, and which ones are boilerplate."""

import json
from collections import Counter
from collections.abc import Iterable

import regex

from ..data.first_stage import tokenize
from .articles import Article


# Rule of [`Boilerplate`]
MIN_ARTICLES = 20  # with the heading
MIN_SHARE = 0.01  # of the articles with headings
MAX_LINE = 0.25  # of the length of a line in leads


def normalize(heading: str) -> str:
    """Returns the heading in the form that is counted: tokens of [`tokenize`], or the text itself without any."""
    return " ".join(tokenize(heading)) or heading.strip()


class HeadingTable:
    """
    Counts how often a heading of one language stands over the same section as a heading of another language.

    The table is learned from the corpus itself, without labels. Counts are additive: tables of shards are counted
    apart and merged, and the merged table equals the table of all shards in one.

        table = None
        for _ in range(ROUNDS):  # the first round matches without a table, the next one with the table so far
            table = HeadingTable.merge(HeadingTable.count(shard, table) for shard in shards)

    Args:
        pairs (`Counter`, *optional*): `(source heading, target heading)` to the number of matched sections.
    """

    def __init__(self, pairs: Counter | None = None):
        self.pairs = Counter(pairs)
        self.sources, self.targets = Counter(), Counter()
        for (source, target), number in self.pairs.items():
            self.sources[source] += number
            self.targets[target] += number

    @classmethod
    def count(
        cls, articles: Iterable[tuple[Article, Article]], table: "HeadingTable | None" = None
    ) -> "HeadingTable":
        """
        Counts the headings of sections that [`align_sections`] matches.

        Args:
            articles (`Iterable[tuple[Article, Article]]`): an article in the source and in the target language.
            table (`HeadingTable`, *optional*): the merged table of the round before.
        """
        from .aligner import align_sections

        pairs = Counter()
        for source, target in articles:
            for match in align_sections(source, target, table):
                pair = source.sections[match.source].heading, target.sections[match.target].heading
                if all(pair):
                    pairs[tuple(map(normalize, pair))] += 1
        return cls(pairs)

    @classmethod
    def merge(cls, tables: "Iterable[HeadingTable]") -> "HeadingTable":
        """Adds up the counts of tables."""
        pairs = Counter()
        for table in tables:
            pairs.update(table.pairs)
        return cls(pairs)

    def score(self, source: str, target: str) -> float:
        """
        Returns how sure it is that two headings stand over the same section, 0 to 1: Dice's coefficient of the counts.
        A pair that was seen once scores 0.
        """
        source, target = normalize(source), normalize(target)
        number = self.pairs[source, target]
        return 2 * (number - 1) / (self.sources[source] + self.targets[target]) if number else 0.0

    def to_json(self) -> str:
        """Writes the table as JSON, the same for equal tables."""
        return json.dumps([[*pair, number] for pair, number in sorted(self.pairs.items())], ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "HeadingTable":
        return cls(Counter({(source, target): number for source, target, number in json.loads(text)}))


class Boilerplate:
    """
    Finds the headings of boilerplate ("See also", "Einzelnachweise") in one language, without a list of them.

    A heading is boilerplate if at least `MIN_ARTICLES` articles and a share of `MIN_SHARE` of all have it, and if the
    text below it is no prose: its lines have on average less than `MAX_LINE` of the characters that a line of a lead
    has. So no heading of a corpus of fewer than `MIN_ARTICLES` articles is boilerplate. Counts are additive.

    Args:
        articles (`int`, defaults to 0): number of articles counted.
        lead (`tuple[int, int]`, defaults to `(0, 0)`): lines of leads, and their characters.
        headings (`dict[str, tuple[int, int, int]]`, *optional*): heading to number of articles, lines and characters.
    """

    def __init__(self, articles=0, lead=(0, 0), headings=None):
        self.articles, self.lead, self.headings = articles, tuple(lead), dict(headings or {})

    @classmethod
    def count(cls, articles: Iterable[Article]) -> "Boilerplate":
        """Counts the headings of articles. Sections without text must be among them, with the text ""."""
        counts = cls()
        for article in articles:
            counts.articles += 1
            seen = {}
            for section in article.sections:
                lines = [line for line in regex.split(r"\n+", section.text) if line.strip()]
                size = len(lines), sum(map(len, lines))
                if section.heading:
                    old = seen.get(normalize(section.heading), (1, 0, 0))
                    seen[normalize(section.heading)] = (1, old[1] + size[0], old[2] + size[1])
                else:
                    counts.lead = (counts.lead[0] + size[0], counts.lead[1] + size[1])
            counts.add(seen)
        return counts

    def add(self, headings: dict[str, tuple[int, int, int]]):
        for heading, numbers in headings.items():
            old = self.headings.get(heading, (0, 0, 0))
            self.headings[heading] = tuple(a + b for a, b in zip(old, numbers))

    @classmethod
    def merge(cls, parts: "Iterable[Boilerplate]") -> "Boilerplate":
        """Adds up the counts."""
        counts = cls()
        for part in parts:
            counts.articles += part.articles
            counts.lead = (counts.lead[0] + part.lead[0], counts.lead[1] + part.lead[1])
            counts.add(part.headings)
        return counts

    def is_boilerplate(self, heading: str) -> bool:
        number, lines, characters = self.headings.get(normalize(heading), (0, 0, 0))
        if number < max(MIN_ARTICLES, MIN_SHARE * self.articles):
            return False
        return characters * self.lead[0] < MAX_LINE * self.lead[1] * lines or not characters

    def to_json(self) -> str:
        """Writes the counts as JSON, the same for equal counts."""
        return json.dumps([self.articles, self.lead, sorted(self.headings.items())], ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Boilerplate":
        articles, lead, headings = json.loads(text)
        return cls(articles, lead, {heading: tuple(numbers) for heading, numbers in headings})


__all__ = ["Boilerplate", "HeadingTable"]
