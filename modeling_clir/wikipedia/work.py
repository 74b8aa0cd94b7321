"""
The work folder of a build, `{output}.work`: its settings, counts, and articles in shards.

A shard is a file in the folder of each `read` task. A topic, the articles with one key, is in one shard.
"""

import gzip
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from itertools import combinations, pairwise
from pathlib import Path

from ..data.files import new_file
from .articles import Article, ArticleSection
from .engine import finished_folders, task_folder
from .headings import Boilerplate


BUFFER = 32 << 20  # characters of articles that a reading task holds before it writes them to the shards
SPLITS = ("train", "validation")
Topic = dict[str, Article]  # language -> article, of one key


@dataclass(frozen=True)
class Settings:
    """
    What decides the content of a corpus.

    Args:
        output (`str`): folder to write. What is unfinished is in `{output}.work`.
        languages (`tuple[str, ...]`): in the order of the pairs' names.
        source (`str`): one of `SOURCES`.
        input (`str`): a folder, or a name on the Hub for the sources on the Hub.
        tasks (`int`): tasks of a stage, and shards of the corpus.
        encoder (`str`, *optional*): model whose vectors help to align.
        num_negatives (`int`, defaults to 5): hard negatives listed for each section.
        validation_fraction (`float`, defaults to 0.01): share of the topics that is held out.
        topics (`str`, *optional*): table that joins articles of dumps by hand, see `build_topics`.
        files (`tuple[tuple[str, int], ...]`): names and bytes of a local input, so that a change is seen.
    """

    output: str
    languages: tuple[str, ...]
    source: str
    input: str
    tasks: int
    encoder: str | None = None
    num_negatives: int = 5
    validation_fraction: float = 0.01
    topics: str | None = None
    files: tuple[tuple[str, int], ...] = ()

    @property
    def work(self) -> Path:
        return Path(f"{self.output}.work")

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return list(combinations(self.languages, 2))


def remove_work(work: Path):
    """Removes the work folder, the settings last, so that a run that is killed meanwhile can be told."""
    for path in sorted(work.iterdir(), key=lambda path: path.name == "settings.json"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    work.rmdir()


def keep_settings(settings: Settings):
    """Writes the settings to the work folder, or checks that they are the same as there."""
    path = settings.work / "settings.json"
    new = json.loads(json.dumps(asdict(settings)))
    if not path.exists():
        with new_file(path) as file:
            json.dump(new, file, indent=1)
    old = json.loads(path.read_text(encoding="utf-8"))
    for field in fields(settings):
        if old.get(field.name) != new[field.name]:
            values = "" if field.name == "files" else f" {old.get(field.name)!r}, not {new[field.name]!r}"
            raise ValueError(
                f"{settings.work} was begun with other {field.name}{values and ':'}{values}; take the same settings, or "
                "remove the folder to start anew"
            )


def write_counts(folder: Path, counts: Counter):
    """Writes counts whose keys are tuples of strings."""
    with new_file(folder / "counts.json") as file:
        json.dump([[*key, number] for key, number in sorted(counts.items())], file, ensure_ascii=False)


def read_counts(settings: Settings, stage: str) -> Counter:
    """Adds up the counts of a stage's tasks."""
    total = Counter()
    for folder in finished_folders(settings.work, stage):
        for *key, number in json.loads((folder / "counts.json").read_text(encoding="utf-8")):
            total[tuple(key)] += number
    return total


def fingerprint(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def shard_of(key: str, shards: int) -> int:
    return int.from_bytes(fingerprint(key)[:8], "big") % shards


def split_of(key: str, fraction: float) -> str:
    """Returns the split of a topic. It depends on the key alone, so it is the same in all languages and corpora."""
    return "validation" if int.from_bytes(fingerprint(key)[8:16], "big") < fraction * 2**64 else "train"


class Shards:
    """
    Writes articles to the shards' files `{shard:05d}.jsonl.gz` in a folder. Memory holds `BUFFER` characters whatever the
    number of shards is.
    """

    def __init__(self, folder: Path, number: int):
        self.folder, self.number = folder, number
        self.lines: dict[int, list[str]] = {}
        self.size = 0

    def add(self, article: Article, file: str):
        sections = [[s.heading, s.level, s.text, s.links] for s in article.sections]
        record = [article.key, article.language, article.page_id, article.title, sections, file]
        line = json.dumps(record, ensure_ascii=False)
        self.lines.setdefault(shard_of(article.key, self.number), []).append(line)
        self.size += len(line)
        if self.size > BUFFER:
            self.flush()

    def flush(self):
        for shard, lines in sorted(self.lines.items()):
            packed = gzip.compress("".join(f"{line}\n" for line in lines).encode(), compresslevel=1, mtime=0)
            with open(self.folder / f"{shard:05d}.jsonl.gz", "ab") as file:
                file.write(packed)
        self.lines, self.size = {}, 0


def read_shard(settings: Settings, shard: int, counts: Counter) -> list[Article]:
    """
    Reads the articles of a shard, sorted by key and language, whatever task has written them. Of several articles in
    one language with the same key it keeps the first by page id; `counts` gets the others. Raises `ValueError` for two
    with the same page id.
    """
    found: dict[tuple[str, int], list[tuple]] = {}
    for folder in finished_folders(settings.work, "read"):
        path = folder / f"{shard:05d}.jsonl.gz"
        if not path.exists():
            continue
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                key, language, page_id, title, sections, file = json.loads(line)
                article = Article(key, language, page_id, title, [ArticleSection(*section) for section in sections])
                place = key, settings.languages.index(language)
                found.setdefault(place, []).append((len(page_id), page_id, file, article))
    articles = []
    for _, same in sorted(found.items()):
        same.sort(key=lambda one: one[:3])
        for one, other in pairwise(same):
            if one[1] == other[1]:
                raise ValueError(f"{other[2]}: page {one[1]} ({one[3].title!r}) is a duplicate; it is in {one[2]} too")
        counts[same[0][3].language, "further articles of a topic"] += len(same) - 1
        articles.append(same[0][3])
    return articles


def read_topics(settings: Settings, shard: int, counts: Counter) -> list[Topic]:
    """
    Reads the topics of a shard that several languages have, without boilerplate and sections without text. `counts`
    gets what is left out, by language and reason.
    """
    boilerplate = {
        language: Boilerplate.from_json(text) for language, text in read_sum(settings, "sum_boilerplate").items()
    }
    topics: dict[str, Topic] = {}
    for article in read_shard(settings, shard, counts):
        topics.setdefault(article.key, {})[article.language] = article
    kept = []
    for topic in topics.values():
        for language, article in topic.items():
            counts[language, "articles"] += 1
            if len(topic) == 1:
                counts[language, "articles in one language alone"] += 1
                continue
            sections = []
            for section in article.sections:
                if boilerplate[language].is_boilerplate(section.heading):
                    counts[language, "sections of boilerplate"] += 1
                elif not section.text.strip():
                    counts[language, "sections without text"] += 1
                else:
                    sections.append(section)
            article.sections = sections
        if len(topic) > 1:
            kept.append(topic)
    return kept


def read_sum(settings: Settings, stage: str) -> dict[str, str]:
    path = task_folder(settings.work, stage, 0) / "sum.json"
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: dict[str, str]):
    with new_file(path) as file:
        json.dump(value, file, ensure_ascii=False)


def read_tables(settings: Settings, stage: str) -> Iterator[dict[str, str]]:
    for folder in finished_folders(settings.work, stage):
        yield json.loads((folder / "counts.json").read_text(encoding="utf-8"))
