"""
From Wikipedia to a pretraining corpus (see `data/sections.py`): what the stages of the build do.

    index         dumps only: the index of topics
    read          articles as plain text, from files or parts of files, into shards by the hash of their key
    boilerplate   per shard: how often headings occur, and over what
    headings1, 2  per shard: which words of headings stand over the same sections (two rounds)
    align         per shard: matches of all language pairs, hard negatives; the files of the corpus
    finish        checks, dataset card, and the corpus under its name

Each `sum_...` stage between them adds up the counts of the shards. There are as many shards as tasks. A topic, the
articles with one key, is in one shard, so that shards need nothing of each other. Memory holds one page in `read`, one
shard in the later stages.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from ..data.corpus_card import corpus_card
from ..data.corpus_files import write_pairs, write_sections
from ..data.files import check_text, refuse_existing
from ..names import check_name
from ..program import is_mistake
from .aligner import ROUNDS, align_sections, encode_sections
from .articles import Article
from .dumps import Dump, find_dumps, read_articles
from .engine import Progress, Stage, finished_folders, run_stages, task_folder
from .headings import Boilerplate, HeadingTable
from .hub_sources import SOURCES as HUB_SOURCES
from .hub_sources import find_files, read_hub_articles
from .negatives import hard_negatives
from .topics import Topics, build_topics
from .work import (
    SPLITS,
    Settings,
    Shards,
    Topic,
    keep_settings,
    read_counts,
    read_shard,
    read_sum,
    read_tables,
    read_topics,
    remove_work,
    split_of,
    write_counts,
    write_json,
)


SOURCES = ("dumps", *HUB_SOURCES)
# What counts say besides what was left out. Disambiguation pages of the index are counted again when they are read.
KEPT = ("articles", "sections", "topics", "pages", "pages without text", "disambiguation pages", "redirects")
KEPT += ("links", "Wikidata ids", *SPLITS)


def stages(settings: Settings) -> list[Stage]:
    tasks = settings.tasks
    found = [Stage("index", index, 1)] if settings.source == "dumps" else []
    found += [
        Stage("read", read, tasks, "pages"),
        Stage("boilerplate", count_boilerplate, tasks, "articles"),
        Stage("sum_boilerplate", sum_boilerplate, 1),
    ]
    for count, add in ((count_headings1, sum_headings1), (count_headings2, sum_headings2)):
        number = count.__name__[-1]
        found += [Stage(f"headings{number}", count, tasks, "topics"), Stage(f"sum_headings{number}", add, 1)]
    return [*found, Stage("align", align, tasks, "topics"), Stage("finish", finish, 1)]


def build(settings: Settings, executor: str = "local", workers: int = 1, slurm: dict[str, str] | None = None) -> bool:
    """
    Builds the corpus, or goes on where a run with the same settings ended. Takes what [`run_stages`] takes.

    Returns whether the corpus is there; then `{output}.work` is removed. With SLURM it comes later.

    Raises `FileExistsError` if the output exists, and `ValueError` if another run is at work, if the run to go on with
    had other settings, and for mistakes in the input, with file and place.
    """
    output, work = Path(settings.output), settings.work
    if not work.exists():
        refuse_existing(output)
    work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(work / "lock", timeout=0):
            keep_settings(settings)
            # With both folders, a run was killed as it removed the work folder, or SLURM has finished
            try:
                done = output.exists() or run_stages(stages(settings), work, settings, executor, workers, slurm)
            except Exception as error:
                if executor != "slurm" and is_mistake(error) and not any(work.glob("*/[0-9]*")):
                    remove_work(work)  # no task has finished
                raise
    except Timeout as error:
        raise ValueError(f"another run is at work in {work}; wait for it, or end it") from error
    if done:
        remove_work(work)
    return done


# ---------------------------------------------------------------------------------------------------------------------
# Stages
# ---------------------------------------------------------------------------------------------------------------------


def dumps_of(settings: Settings) -> list[Dump]:
    return find_dumps(Path(settings.input), list(settings.languages))


def index(settings: Settings, task: int, folder: Path, progress: Progress):
    table = Path(settings.topics) if settings.topics else None
    write_counts(folder, build_topics(folder / "topics.sqlite", dumps_of(settings), table=table))


def read(settings: Settings, task: int, folder: Path, progress: Progress):
    """Reads a share of every language's files."""
    shards, counts = Shards(folder, settings.tasks), Counter()
    for language in settings.languages:
        own: Counter = Counter()
        number = 0
        for file, article in read_language(settings, language, task, own):
            for section in article.sections:
                check_text(f"{section.heading}\n{section.text}", f"{file}: article {article.title!r}")
            shards.add(article, file)
            pages = sum(count for reason, count in own.items() if is_page(reason))
            progress.add(pages - number)
            number = pages
        progress.add(sum(count for reason, count in own.items() if is_page(reason)) - number)
        counts.update({(language, reason): count for reason, count in own.items()})
    shards.flush()
    write_counts(folder, counts)


def is_page(reason: str) -> bool:
    """Tells whether a count of the readers is one of pages, each of which is in one such count."""
    return not reason.startswith(("links", "articles without"))


def read_language(settings: Settings, language: str, task: int, counts: Counter) -> Iterator[tuple[str, Article]]:
    """Yields (file, article) of the files or parts of files that are this task's."""
    if settings.source != "dumps":
        languages = list(settings.languages)
        for article in read_hub_articles(
            settings.source, settings.input, language, languages, counts, task, settings.tasks
        ):
            yield settings.input, article
        return
    topics = Topics(task_folder(settings.work, "index", 0) / "topics.sqlite")
    number = settings.languages.index(language)
    dump = dumps_of(settings)[number]
    parts = 1 if len(dump.files) >= settings.tasks else settings.tasks
    units = [(file, part) for file in dump.files for part in range(parts)]
    for place, (file, part) in enumerate(units):
        if (place + number) % settings.tasks == task:  # single files of two languages are two tasks'
            for article in read_articles(file, language, topics, counts, part, parts):
                yield str(file), article


def count_boilerplate(settings: Settings, task: int, folder: Path, progress: Progress):
    articles = read_shard(settings, task, Counter())
    progress.add(len(articles))
    counts = {
        language: Boilerplate.count(article for article in articles if article.language == language).to_json()
        for language in settings.languages
    }
    write_json(folder / "counts.json", counts)


def sum_boilerplate(settings: Settings, task: int, folder: Path, progress: Progress):
    total = {language: Boilerplate() for language in settings.languages}
    for counts in read_tables(settings, "boilerplate"):
        for language, text in counts.items():
            total[language].add(Boilerplate.from_json(text).headings)
    write_json(folder / "sum.json", {language: one.without_rare().to_json() for language, one in total.items()})


def count_headings(settings: Settings, task: int, folder: Path, progress: Progress, round: int):
    tables = heading_tables(settings, round - 1)
    topics = read_topics(settings, task, Counter())
    counts = {}
    for a, b in settings.pairs:
        articles = [(topic[a], topic[b]) for topic in topics if a in topic and b in topic]
        counts[f"{a}-{b}"] = HeadingTable.count(articles, tables[a, b]).to_json()
    progress.add(len(topics))
    write_json(folder / "counts.json", counts)


def sum_headings(settings: Settings, task: int, folder: Path, progress: Progress, round: int):
    total = {f"{a}-{b}": HeadingTable() for a, b in settings.pairs}
    for counts in read_tables(settings, f"headings{round}"):
        total = {
            pair: HeadingTable.merge((table, HeadingTable.from_json(counts[pair]))) for pair, table in total.items()
        }
    write_json(folder / "sum.json", {pair: table.without_rare().to_json() for pair, table in total.items()})


# The functions of a stage are found by their name in other processes.
def count_headings1(*args):
    count_headings(*args, round=1)


def sum_headings1(*args):
    sum_headings(*args, round=1)


def count_headings2(*args):
    count_headings(*args, round=2)


def sum_headings2(*args):
    sum_headings(*args, round=2)


def heading_tables(settings: Settings, round: int) -> dict[tuple[str, str], HeadingTable | None]:
    """Reads the table of each pair that a round has made; `None` for round 0."""
    texts = read_sum(settings, f"sum_headings{round}") if round else {}
    return {(a, b): HeadingTable.from_json(texts[f"{a}-{b}"]) if round else None for a, b in settings.pairs}


def align(settings: Settings, task: int, folder: Path, progress: Progress):
    """Writes the files of one shard: pairs of matched sections, and the sections that are in pairs or negatives."""
    counts: Counter = Counter()
    tables = heading_tables(settings, ROUNDS)
    topics = read_topics(settings, task, counts)
    vectors = encode(settings, topics)
    rows: dict[str, list[tuple]] = {language: [] for language in settings.languages}
    for split in SPLITS:
        held = [t for t in topics if split_of(next(iter(t.values())).key, settings.validation_fraction) == split]
        matches = {}  # (number of the topic, source, target) -> matches
        for number, topic in enumerate(held):
            for a, b in combinations(topic, 2):
                pair_vectors = (vectors[topic[a].key, a], vectors[topic[b].key, b]) if settings.encoder else None
                matches[number, a, b] = align_sections(topic[a], topic[b], tables[a, b], pair_vectors)
            progress.add()
        negatives = {}  # language -> (topic, section) -> places
        for language in settings.languages:
            numbers = [number for number, topic in enumerate(held) if language in topic]
            matched: dict[int, set[int]] = {number: set() for number in numbers}
            for (number, a, b), found in matches.items():
                if language in (a, b):
                    matched[number] |= {match[language == b] for match in found}
            places = hard_negatives(
                [held[number][language] for number in numbers],
                [matched[number] for number in numbers],
                settings.num_negatives,
            )
            negatives[language] = {
                (numbers[i], j): [(numbers[k], m) for k, m in others] for (i, j), others in places.items()
            }
            used = set(negatives[language]).union(*negatives[language].values())
            for number, j in sorted(used):
                article = held[number][language]
                section = article.sections[j]
                values = section_id(article, j), language, article.key, article.title, section.heading, section.text
                rows[language].append(values)
                counts[language, "sections"] += 1
            total = sum(len(held[number][language].sections) for number in numbers)
            counts[language, "sections in no pair and no negative"] += total - len(used)
        write_split(settings, task, folder, split, held, matches, negatives, counts)
    for language, values in rows.items():
        if values:
            write_sections(folder / "sections" / language / f"{task:05d}.parquet", values)
    write_counts(folder, counts)


def write_split(settings, task, folder, split, topics, matches, negatives, counts):
    """Writes the pairs of one split of a shard."""
    for a, b in settings.pairs:
        pairs = []
        for number, topic in enumerate(topics):
            found = matches.get((number, a, b))
            if found is None:
                continue
            counts[f"{a}-{b}", "topics"] += 1
            counts[f"{a}-{b}", "topics without a match"] += not found
            ids = [
                [
                    [section_id(topics[k][language], m) for k, m in negatives[language][number, match[side]]]
                    for side, language in enumerate((a, b))
                ]
                for match in found
            ]
            pairs += [
                (section_id(topic[a], match.source), section_id(topic[b], match.target), *lists)
                for match, lists in zip(found, ids)
            ]
        counts[f"{a}-{b}", split] += len(pairs)
        if pairs:
            write_pairs(folder / "pairs" / f"{a}-{b}" / split / f"{task:05d}.parquet", pairs)


def section_id(article: Article, number: int) -> str:
    return f"{article.language}:{article.page_id}#{number}"


def encode(settings: Settings, topics: list[Topic]) -> dict:
    """Computes the vectors of all sections with the encoder: (key, language) -> `(sections, width)`."""
    if not settings.encoder:
        return {}
    from ..data.first_stage import load_dense

    articles = [article for topic in topics for article in topic.values()]
    sections = [section for article in articles for section in article.sections]
    if not sections:
        return {}
    vectors = encode_sections(load_dense(settings.encoder), sections)
    found, start = {}, 0
    for article in articles:
        found[article.key, article.language] = vectors[start : start + len(article.sections)]
        start += len(article.sections)
    return found


# ---------------------------------------------------------------------------------------------------------------------
# End
# ---------------------------------------------------------------------------------------------------------------------


def finish(settings: Settings, task: int, folder: Path, progress: Progress):
    """
    Checks the files, writes the dataset card, and gives the corpus its name. The files are linked, so that a killed
    task can be repeated.
    """
    output = Path(settings.output)
    unfinished = settings.work / "corpus" / output.name
    if output.exists():  # renamed just before the task was killed
        return
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    counts = read_counts(settings, "align")
    check_counts(settings, counts)
    rows: Counter = Counter()
    for shard in finished_folders(settings.work, "align"):
        for path in sorted(shard.rglob("*.parquet")):
            new = unfinished / path.relative_to(shard)
            new.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, new)
            rows[tuple(new.relative_to(unfinished).parts[:-1])] += pq.read_metadata(new).num_rows
    for language in settings.languages:
        check_rows(f"sections/{language}", rows["sections", language], counts[language, "sections"])
    for a, b in settings.pairs:
        for split in SPLITS:
            check_rows(f"pairs/{a}-{b}/{split}", rows["pairs", f"{a}-{b}", split], counts[f"{a}-{b}", split])
    card = corpus_card(unfinished, "cc-by-sa-4.0", sources(settings), left_out(settings, counts))
    (unfinished / "README.md").write_text(card, encoding="utf-8")
    unfinished.rename(output)


def link_or_copy(path: Path, new: Path):
    try:
        os.link(path, new)
    except OSError:  # some file systems have no hard links
        shutil.copyfile(path, new)


def check_rows(table: str, rows: int, counted: int):
    if rows != counted:
        raise RuntimeError(f"{table} has {rows} rows, but {counted} were counted")


def check_counts(settings: Settings, counts: Counter):
    """Raises `ValueError` if there is nothing to train on."""
    for language in settings.languages:
        if not counts[language, "articles"]:
            raise ValueError(f"{settings.input} has no articles in {language!r} (see the counts of what was left out)")
    if not any(counts[f"{a}-{b}", split] for a, b in settings.pairs for split in SPLITS):
        raise ValueError(
            f"{settings.input}: no topic has matching sections in two of the languages "
            f"{', '.join(settings.languages)}; are the language links or Wikidata ids those of these dumps?"
        )


def sources(settings: Settings) -> list[str]:
    if settings.source != "dumps":
        name = HUB_SOURCES[settings.source].name
        return [f"{language}: {name}, {settings.source}" for language in settings.languages]
    table = [f"topics: {Path(settings.topics).name}"] if settings.topics else []
    return table + [
        f"{dump.language}: dump of {dump.date or 'unknown date'}: {', '.join(file.name for file in dump.files)}"
        for dump in dumps_of(settings)
    ]


def left_out(settings: Settings, counts: Counter) -> dict[str, int]:
    """Lists what was left out, by language or pair and reason."""
    total: Counter = Counter()
    for stage in ("index", "read") if settings.source == "dumps" else ("read",):
        total.update(read_counts(settings, stage))
    total.update(counts)
    names = [*settings.languages, *(f"{a}-{b}" for a, b in settings.pairs)]
    reasons = sorted((names.index(name), reason) for name, reason in total if reason not in KEPT)
    return {f"{names[place]}: {reason}": total[names[place], reason] for place, reason in reasons}


def list_input(source: str, name: str, languages: list[str], topics: str | None = None) -> tuple[tuple[str, int], ...]:
    """
    Lists the files that a build reads, with their bytes; nothing for a data set on the Hub. Raises the errors of the
    readers for a language without files.
    """
    if source == "dumps":
        found = [
            file
            for dump in find_dumps(Path(name), languages)
            for file in (*dump.files, dump.page_props, dump.langlinks, dump.page)
            if file is not None
        ] + ([Path(topics)] if topics else [])
    else:
        check_name(name, "data set")
        found = [Path(name, file) for language in languages for file in find_files(source, name, language)]
        if not Path(name).is_dir():
            return ()
    return tuple((str(file), file.stat().st_size) for file in found)


__all__ = ["SOURCES", "build", "list_input", "stages"]
