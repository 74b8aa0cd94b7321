"""What a corpus itself says about headings: which ones translate each other, and which ones are boilerplate."""

import json
from collections import Counter
from collections.abc import Iterable
from itertools import product

import numpy as np
import regex

from ..data.first_stage import tokenize
from .aligner import align_sections
from .articles import Article, ArticleSection


# Rule of [`Boilerplate`]
MIN_ARTICLES = 20  # with the heading
MIN_SHARE = 0.01  # of the articles
MAX_PROSE = 0.25  # of what leads have

# End of a sentence: a terminal of any script ("." "。" "।" "؟"), perhaps in quotes or brackets.
SENTENCE_END = regex.compile(r"\p{Sentence_Terminal}[\p{Pe}\p{Pf}\p{Pi}\"']*$")


class HeadingTable:
    """
    Counts which words of headings stand over the same sections in two languages, and how long the sections are.

    The table is learned from the corpus itself, without labels: from the headings of the sections that
    [`align_sections`] matches, first without a table, then with the table so far. Counts are additive: tables of
    shards are counted apart and merged, and the merged table equals the table of all shards in one.

        table = None
        for _ in range(ROUNDS):
            table = HeadingTable.merge(HeadingTable.count(shard, table) for shard in shards)

    Args:
        pairs (`Counter`, *optional*): (source word, target word) to the number of matched sections with such headings.
        sources, targets (`Counter`, *optional*): word to the number of matched sections with the word in the heading.
        lengths (`tuple[int, int]`, defaults to `(0, 0)`): bytes of the matched sections of source and target.
    """

    def __init__(
        self,
        pairs: Counter | None = None,
        sources: Counter | None = None,
        targets: Counter | None = None,
        lengths: tuple[int, int] = (0, 0),
    ):
        self.pairs, self.sources, self.targets = Counter(pairs), Counter(sources), Counter(targets)
        self.lengths = tuple(lengths)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HeadingTable) and self.to_json() == other.to_json()

    @classmethod
    def count(cls, articles: Iterable[tuple[Article, Article]], table: "HeadingTable | None" = None) -> "HeadingTable":
        """
        Counts the matches of [`align_sections`].

        Args:
            articles (`Iterable[tuple[Article, Article]]`): articles in the source and in the target language.
            table (`HeadingTable`, *optional*): the merged table of the round before.
        """
        counts = cls()
        for source, target in articles:
            for match in align_sections(source, target, table):
                counts.add(source.sections[match.source], target.sections[match.target])
        return counts

    def add(self, source: ArticleSection, target: ArticleSection):
        """Counts one match."""
        lengths = [len(section.text.encode("utf-8", "replace")) for section in (source, target)]
        self.lengths = (self.lengths[0] + lengths[0], self.lengths[1] + lengths[1])
        if source.heading and target.heading:
            words = set(tokenize(source.heading)), set(tokenize(target.heading))
            self.sources.update(words[0])
            self.targets.update(words[1])
            self.pairs.update(product(*words))

    @classmethod
    def merge(cls, tables: "Iterable[HeadingTable]") -> "HeadingTable":
        """Adds up the counts of tables."""
        merged = cls()
        for table in tables:
            merged.pairs.update(table.pairs)
            merged.sources.update(table.sources)
            merged.targets.update(table.targets)
            merged.lengths = (merged.lengths[0] + table.lengths[0], merged.lengths[1] + table.lengths[1])
        return merged

    def without_rare(self) -> "HeadingTable":
        """Drops pairs that were counted once. No score changes; only do this to a table that is not merged further."""
        pairs = Counter({pair: number for pair, number in self.pairs.items() if number > 1})
        return HeadingTable(pairs, self.sources, self.targets, self.lengths)

    @property
    def ratio(self) -> float:
        """Bytes of the source per byte of the target; 1.0 without matches."""
        return self.lengths[0] / self.lengths[1] if all(self.lengths) else 1.0

    def score(self, sources: list[str], targets: list[str]) -> np.ndarray:
        """
        Compares headings, 0 to 1: how well each word of one goes with its best word of the other, on average over
        both. Two words go together by Dice's coefficient of their counts. One count is taken off, so that two words
        that occur together once, perhaps in the match that is being judged, score 0.

        Returns:
            `(sources, targets)`.
        """
        words = [[sorted(set(tokenize(heading))) for heading in headings] for headings in (sources, targets)]
        scores = np.zeros((len(sources), len(targets)))
        for i, row in enumerate(words[0]):
            for j, column in enumerate(words[1]):
                if row and column:
                    dice = np.array([[self.dice(a, b) for b in column] for a in row])
                    scores[i, j] = (dice.max(axis=0).mean() + dice.max(axis=1).mean()) / 2
        return scores

    def dice(self, source: str, target: str) -> float:
        number = self.pairs[source, target] - 1
        return 2 * number / (self.sources[source] + self.targets[target]) if number > 0 else 0.0

    def to_json(self) -> str:
        """Writes the table as JSON, the same for equal tables."""
        pairs = [[*pair, number] for pair, number in sorted(self.pairs.items())]
        words = [sorted(counts.items()) for counts in (self.sources, self.targets)]
        return json.dumps([pairs, *words, self.lengths], ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "HeadingTable":
        pairs, *words, lengths = json.loads(text)
        return cls(Counter({(a, b): number for a, b, number in pairs}), *map(Counter, map(dict, words)), lengths)


def normalize(heading: str) -> str:
    """Returns the heading in the form that is counted: its tokens, or the text itself if it has none."""
    return " ".join(tokenize(heading)) or heading.strip()


class Boilerplate:
    """
    Finds the headings of boilerplate ("See also", "Einzelnachweise") in one language, without a list of them.

    A heading is boilerplate if many articles have it, and what stands below is no prose:

    - at least `MIN_ARTICLES` articles and a share of `MIN_SHARE` of all have it. So no heading is boilerplate in a
      corpus of fewer articles.
    - over all its sections there is no text at all; or the mean length of a line, or the share of lines that end like
      a sentence, is below `MAX_PROSE` times that of leads. Frequent lists ("Filmography") are boilerplate too.

    Counts are additive, as in [`HeadingTable`].

    Args:
        headings (`dict[str, tuple[int, int, int, int]]`, *optional*): heading, as [`normalize`] gives it, to the
            numbers of articles, lines, characters, and lines that end like a sentence. "" stands for the lead.
    """

    def __init__(self, headings: dict[str, tuple[int, int, int, int]] | None = None):
        self.headings = dict(headings or {})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Boilerplate) and self.headings == other.headings

    @classmethod
    def count(cls, articles: Iterable[Article]) -> "Boilerplate":
        """Counts the headings of articles. Sections without text must be among them, with the text ""."""
        counts = cls()
        for article in articles:
            seen = {}
            for section in article.sections:
                lines = [line.strip() for line in section.text.split("\n") if line.strip()]
                ends = sum(bool(SENTENCE_END.search(line)) for line in lines)
                heading = normalize(section.heading)
                old = seen.get(heading, (1, 0, 0, 0))
                seen[heading] = plus(old, (0, len(lines), sum(map(len, lines)), ends))
            counts.add(seen)
        return counts

    @classmethod
    def merge(cls, parts: "Iterable[Boilerplate]") -> "Boilerplate":
        """Adds up the counts."""
        merged = cls()
        for part in parts:
            merged.add(part.headings)
        return merged

    def add(self, headings: dict[str, tuple[int, int, int, int]]):
        for heading, numbers in headings.items():
            self.headings[heading] = plus(self.headings.get(heading, (0, 0, 0, 0)), numbers)

    def is_boilerplate(self, heading: str) -> bool:
        """Says whether the sections below this heading are to be left out. The lead never is."""
        articles, lines, characters, ends = self.headings.get(normalize(heading), (0, 0, 0, 0))
        all_articles, lead_lines, lead_characters, lead_ends = self.headings.get("", (0, 0, 0, 0))
        if not heading.strip() or articles < max(MIN_ARTICLES, MIN_SHARE * all_articles):
            return False
        if not lines or not lead_lines:
            return not lines
        return (
            characters / lines < MAX_PROSE * lead_characters / lead_lines
            or ends / lines < MAX_PROSE * lead_ends / lead_lines
        )

    def without_rare(self) -> "Boilerplate":
        """Drops the headings of fewer than `MIN_ARTICLES` articles. No answer changes, unless it is merged further."""
        kept = {heading: n for heading, n in self.headings.items() if n[0] >= MIN_ARTICLES or not heading}
        return Boilerplate(kept)

    def to_json(self) -> str:
        """Writes the counts as JSON, the same for equal counts."""
        return json.dumps(sorted(self.headings.items()), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Boilerplate":
        return cls({heading: tuple(numbers) for heading, numbers in json.loads(text)})


def plus(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(left, right))


__all__ = ["Boilerplate", "HeadingTable"]
