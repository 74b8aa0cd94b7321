"""
Reads the pretraining corpus: sections of multilingual documents, and the pairs of aligned sections,

    sections/{language}.parquet                     id, language, article, title, heading, text
    pairs/{source}-{target}/{train,validation}.parquet
                                                    source_id, target_id, source_negatives, target_negatives,
                                                    optionally source_scores, target_scores

in a local folder or a dataset repository of the Hub. Each of these tables may be in shards: `sections/{language}/*.parquet`
and `pairs/{source}-{target}/{split}/*.parquet`. `scripts/build_corpus.py` writes a corpus.

Memory holds neither texts nor row numbers. `datasets` maps the texts. The row numbers are computed once for the files of
a corpus, by the first process, kept as `.npy` in the cache of `datasets`, and mapped by all processes.

`source_scores` are a teacher's scores. There is a list for each sentence of the target section, in order. It has the
score of the source section, then those of `source_negatives`, for the sentence as the query. `target_scores` are those
for the sentences of the source section.
"""

import ctypes
import glob
import hashlib
import json
import logging
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features, Value, load_dataset
from filelock import FileLock
from huggingface_hub import list_repo_files, snapshot_download
from huggingface_hub.errors import HTTPError
from sentencex import segment

from ..names import check_name, missing_path
from .files import list_files, new_folder
from .languages import warn_of_cards


logger = logging.getLogger(__name__)

MAX_QUERY_WORDS = 64
ROWS_AT_ONCE = 2**15  # while row numbers are computed
INDEX = "row numbers 1"  # changes with what the cache holds

SECTIONS = Features({"id": Value("string"), "text": Value("string")})
PAIRS = Features(
    {
        "source_id": Value("string"),
        "target_id": Value("string"),
        "source_negatives": [Value("string")],
        "target_negatives": [Value("string")],
    }
)
SCORES = Features({"source_scores": [[Value("float32")]], "target_scores": [[Value("float32")]]})


def corpus_files(corpus: str) -> set[str]:
    """
    Lists the names of a corpus' Parquet files. Follows linked subfolders. Raises `FileNotFoundError` for a name that is
    neither a folder nor a dataset of the Hub.
    """
    folder = Path(corpus)
    if folder.is_dir():
        return {path.relative_to(folder).as_posix() for path in list_files(folder) if path.suffix == ".parquet"}
    if "/" not in corpus:  # a corpus on the Hub has a namespace
        raise FileNotFoundError(missing_path(corpus))
    check_name(corpus, "corpus")
    try:
        return {name for name in list_repo_files(corpus, repo_type="dataset") if name.endswith(".parquet")}
    except (HTTPError, OSError) as error:
        raise FileNotFoundError(f"{corpus} is not a folder, and the Hub lists no such dataset: {error}") from error


def reverse(pair: str) -> str:
    """Turns `en-de` into `de-en`."""
    return "-".join(reversed(pair.split("-")))


def has_table(files: set[str], table: str) -> bool:
    return any(file == f"{table}.parquet" or file.startswith(f"{table}/") for file in files)


def find_table(corpus: str, files: set[str], table: str) -> list[str]:
    """
    Lists the files of a table such as `sections/en`: one file, or its shards in the order of their names. Raises
    `FileNotFoundError` without any, and `ValueError` for both forms.
    """
    shards = sorted(file for file in files if PurePosixPath(file).parent == PurePosixPath(table))
    if f"{table}.parquet" in files:
        if shards:
            raise ValueError(f"{corpus} has both {table}.parquet and {shards[0]}; remove one")
        return [f"{table}.parquet"]
    if not shards:
        raise FileNotFoundError(
            f"the corpus {corpus} has no {table}.parquet and no {table}/*.parquet; scripts/build_corpus.py writes them"
        )
    return shards


@dataclass
class Table:
    """The Parquet files of a table, on this machine. `name` and `names` are for messages."""

    name: str
    names: list[str]
    paths: list[Path]
    features: Features

    def __post_init__(self):
        """
        Raises `ValueError` with the file's name if one cannot be read or lacks a column, and if all are empty. Leaves
        empty files out.
        """
        columns, rows = ", ".join(self.features), []
        for name, path in zip(self.names, self.paths):
            try:
                metadata = pq.read_metadata(path)
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{name} must be a Parquet file with the columns {columns}; {error}") from error
            present = metadata.schema.to_arrow_schema().names
            missing = [column for column in self.features if column not in present]
            if missing and set(missing) <= set(SCORES):
                raise ValueError(
                    f"{name} has no teacher's scores ({', '.join(SCORES)}), which --rr_loss margin_mse and kl train "
                    "on: build the corpus with scripts/build_corpus.py --teacher_model"
                )
            if missing:
                raise ValueError(
                    f"{name} must be a Parquet file with the columns {columns}; it has no {', '.join(missing)}, but "
                    f"{', '.join(present)}"
                )
            rows.append(metadata.num_rows)
        if not sum(rows):
            raise ValueError(f"{self.name} must be a Parquet file with the columns {columns} and at least one row")
        self.names = [name for name, number in zip(self.names, rows) if number]
        self.paths = [path for path, number in zip(self.paths, rows) if number]

    def batches(self, columns: list[str]) -> Iterator[tuple[str, list[pa.Array]]]:
        """Yields the name of a file and arrays of up to `ROWS_AT_ONCE` rows, one for each of these columns."""
        types = [self.features.arrow_schema.field(column).type for column in columns]
        for name, path in zip(self.names, self.paths):
            with pq.ParquetFile(path) as file:
                try:
                    for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
                        yield name, [batch[column].cast(kind) for column, kind in zip(columns, types)]
                except (pa.ArrowException, OSError) as error:
                    raise ValueError(f"{name} cannot be read: {error}") from error

    def load(self) -> Dataset:
        """Maps the rows."""
        files = [glob.escape(str(path)) for path in self.paths]  # `datasets` takes brackets in a path for a pattern
        columns = {"features": self.features, "columns": list(self.features)}
        return load_dataset("parquet", data_files={"train": files}, split="train", **columns)

    def fingerprint(self) -> list[tuple]:
        """Tells one state of the files from another: their paths, sizes and times."""
        return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in map(Path.resolve, self.paths)]


def open_tables(corpus: str, files: set[str], wanted: dict[str, tuple[str, Features]]) -> dict[str, Table]:
    """
    Finds tables, and downloads their files if the corpus is on the Hub. `wanted` maps a key to the table's name and
    columns. Raises the errors of [`find_table`] and [`Table`], and `ValueError` for missing scores of a teacher.
    """
    names = {key: find_table(corpus, files, table) for key, (table, _) in wanted.items()}
    folder = Path(corpus)
    if not folder.is_dir():
        patterns = [glob.escape(name) for listed in names.values() for name in listed]
        try:
            folder = Path(snapshot_download(corpus, repo_type="dataset", allow_patterns=patterns))
        except (HTTPError, OSError) as error:
            raise FileNotFoundError(f"the files of {corpus} cannot be downloaded from the Hub: {error}") from error
    tables = {}
    for key, (name, features) in wanted.items():
        name = names[key][0] if len(names[key]) == 1 else name
        paths = [folder / file for file in names[key]]
        tables[key] = Table(f"{corpus}/{name}", [f"{corpus}/{file}" for file in names[key]], paths, features)
    return tables


def cached_arrays(key: list, build: Callable[[], dict[str, np.ndarray]]) -> Path:
    """
    Returns the folder of arrays that `build` gives, `{name}.npy`, in the cache of `datasets`. Of all processes that ask
    for a `key`, one builds; the others wait.
    """
    digest = hashlib.sha256(json.dumps([INDEX, key]).encode()).hexdigest()[:32]
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "modeling_clir" / digest
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                arrays = build()
                with new_folder(folder) as temporary:
                    for name, array in arrays.items():
                        np.save(temporary / f"{name}.npy", array)
    return folder


def release_memory():
    """Gives free memory back to the system; on Linux also what the C library keeps."""
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):  # not with musl
        library.malloc_trim(0)


def section_ids(table: Table) -> pa.Array:
    """Reads the ids of the sections of a language, in the order of their rows."""
    return pa.concat_arrays([ids for _, (ids,) in table.batches(["id"])])


def check_sections(table: Table) -> dict[str, np.ndarray]:
    """
    Reads the sections of a language once and returns how many there are. Raises `ValueError` for a section without
    text or id, and an id that occurs twice.
    """
    found = []
    for name, (ids, texts) in table.batches(["id", "text"]):
        texts = pc.fill_null(texts, "")
        empty = ids.filter(pc.or_(pc.equal(pc.binary_length(texts), 0), pc.utf8_is_space(texts)))
        if len(empty):
            raise ValueError(f"{name}: section {empty[0].as_py()!r} has no text")
        if ids.null_count:
            raise ValueError(f"{name}: a section has no id")
        found.append(ids)
    ids = pa.concat_arrays(found)
    counts = pc.value_counts(ids)
    if len(counts) != len(ids):
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"].as_py()
        raise ValueError(f"{table.name}: the id {twice!r} occurs more than once")
    return {"sections": np.array([len(ids)])}


def row_numbers(ids: list[pa.Array], sections: pa.Array, names: list[str]) -> np.ndarray:
    """
    Finds the numbers of the rows with these ids, in arrays from the files `names`. Raises `ValueError` for an id that no
    section has.
    """
    rows = pc.index_in(pa.chunked_array(ids), value_set=sections)  # one table of the sections for all arrays
    if rows.null_count:
        first = pc.index(pc.is_null(rows), True).as_py()
        name = np.repeat(names, [len(some) for some in ids])[first]
        unknown = pa.chunked_array(ids)[first].as_py()
        raise ValueError(f"{name}: no section has the id {unknown!r} ({rows.null_count} unknown ids in all)")
    return rows.to_numpy()


def index_pairs(table: Table, tables: dict[str, Table]) -> dict[str, np.ndarray]:
    """
    Finds the row numbers of the sections of aligned pairs. `tables` has those of the sections for `"source"` and `"target"`.

    Returns, for both, `{column}_rows` `(pairs,)`, `{column}_negatives` of all pairs `(negatives,)`, `{column}_offsets`
    `(pairs + 1,)`, where the negatives of each pair begin, and `{column}_pool`, the rows without repetition.
    """
    arrays = {}
    for column, side in tables.items():
        names, aligned, negatives, lengths = [], [], [], []
        for name, (ids, lists) in table.batches([f"{column}_id", f"{column}_negatives"]):
            names.append(name)
            aligned.append(ids)
            negatives.append(lists.flatten())
            lengths.append(pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False))
        rows = row_numbers([*aligned, *negatives], section_ids(side), [*names, *names])
        rows, arrays[f"{column}_negatives"] = np.split(rows, [sum(map(len, aligned))])
        arrays[f"{column}_rows"], arrays[f"{column}_pool"] = rows, np.flatnonzero(np.bincount(rows)).astype(rows.dtype)
        arrays[f"{column}_offsets"] = np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.int64)])
    return arrays


def select_pairs(index: Path, chosen: list[int]) -> dict[str, np.ndarray]:
    """Takes the `chosen` pairs of the arrays of [`index_pairs`]. Returns such arrays and `chosen`."""
    chosen = np.array(chosen)
    arrays = {"chosen": chosen}
    for column in ("source", "target"):
        rows, negatives, offsets = (
            np.load(index / f"{column}_{name}.npy", mmap_mode="r") for name in ("rows", "negatives", "offsets")
        )
        lengths = offsets[chosen + 1] - offsets[chosen]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        # The place of a negative is that of its pair's first one, and its place among them.
        places = np.repeat(offsets[chosen] - ends[:-1], lengths) + np.arange(ends[-1])
        arrays[f"{column}_rows"], arrays[f"{column}_negatives"] = rows[chosen], negatives[places]
        arrays[f"{column}_offsets"], arrays[f"{column}_pool"] = ends, np.unique(rows[chosen])
    return arrays


class SectionPairs:
    """
    The aligned sections of one language pair and split, as row numbers that are mapped from the cache.

    Args:
        table (`Table`): the aligned sections.
        pair (`str`): a pair such as `"en-de"`; `table` may have it as `de-en`. `"en-en"` pairs every section with
            itself.
        swapped (`bool`): whether `table` has the pair in the other order.
        split (`str`): `"train"` or `"validation"`.
        tables (`dict[str, Table]`): language to the table of its sections.
        sections (`dict[str, Dataset]`): language to its sections.
        max_pairs (`int`, *optional*): sample this many of the aligned pairs, by `seed`.
        seed (`int`, defaults to 0).
        teacher_scores (`bool`, defaults to `False`): read the scores too.

    Side 0 is the pair's first language, side 1 its second. `rows[side]` and `negatives[side]` are in that language.
    """

    def __init__(self, table, pair, swapped, split, tables, sections, max_pairs=None, seed=0, teacher_scores=False):
        self.languages = pair.split("-")
        self.name = pair
        self.sections = [sections[language] for language in self.languages]
        self.columns = ("target", "source") if swapped else ("source", "target")
        sides = {column: tables[language] for column, language in zip(self.columns, self.languages)}
        key = [table.fingerprint(), {column: side.fingerprint() for column, side in sorted(sides.items())}]
        self.folder = cached_arrays(["pairs", key], lambda: index_pairs(table, sides))
        total = len(np.load(self.folder / "source_rows.npy", mmap_mode="r"))
        if max_pairs is not None and max_pairs < total:
            logger.info(f"{pair} {split}: {max_pairs} of {total} aligned pairs sampled (max_pairs)")
            sample, whole = f"{seed}-{pair}-{split}", self.folder
            self.folder = cached_arrays(
                ["sample", key, max_pairs, sample],
                lambda: select_pairs(whole, sorted(random.Random(sample).sample(range(total), max_pairs))),
            )
        self.map_arrays()
        self.scores = table.load().select_columns(list(SCORES)) if teacher_scores else None

    def map_arrays(self):
        def mapped(name: str) -> list[np.ndarray]:
            return [np.load(self.folder / f"{column}_{name}.npy", mmap_mode="r") for column in self.columns]

        self.rows, self.negatives, self.offsets, self.pools = map(mapped, ("rows", "negatives", "offsets", "pool"))
        chosen = self.folder / "chosen.npy"
        self.chosen = np.load(chosen, mmap_mode="r") if chosen.is_file() else None

    def __getstate__(self):
        """Leaves the arrays out: a process that is given the pairs maps them itself."""
        mapped = ("rows", "negatives", "offsets", "pools", "chosen")
        return {name: value for name, value in self.__dict__.items() if name not in mapped}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.map_arrays()

    def __len__(self):
        return len(self.rows[0])

    def hard_negatives(self, side: int, index: int) -> np.ndarray:
        """Returns the row numbers of the hard negatives of a pair, `(negatives,)`."""
        return self.negatives[side][self.offsets[side][index] : self.offsets[side][index + 1]]

    def with_negatives(self, number: int) -> np.ndarray:
        """Returns the indices of the pairs that list at least `number` hard negatives on both sides, `(pairs,)`."""
        return np.flatnonzero(np.minimum(*map(np.diff, self.offsets)) >= number)

    def teacher_scores(self, side: int, index: int, sentence: int, sentences: int) -> list[float]:
        """
        Returns the teacher's scores of the section on a side and its hard negatives, for a sentence (its place among
        the section's `sentences`) of the other side. Raises `ValueError` if the scores are of another number of
        sentences or negatives.
        """
        row = index if self.chosen is None else int(self.chosen[index])
        scores = self.scores[row][f"{self.columns[side]}_scores"]
        negatives = len(self.hard_negatives(side, index))
        if len(scores) != sentences or {len(listed) for listed in scores} != {1 + negatives}:
            raise ValueError(
                f"{self.name}: the teacher's scores of pair {index} do not fit its {sentences} sentences and "
                f"{negatives} negatives; build the corpus again with scripts/build_corpus.py --teacher_model"
            )
        return scores[sentence]


def sample_negatives(positive, hard_negatives, pool, number: int, rng: random.Random) -> list:
    """
    Draws negatives. With h hard negatives, each draw takes a random negative of the pool with probability (3/4)^h,
    else a random hard negative (Yu, Fei, Li 2021, released code). If one kind is used up, the other is drawn. The
    positive is never drawn, and no negative is drawn twice. Raises `ValueError` if both kinds are used up.
    """
    hard = [negative for negative in dict.fromkeys(hard_negatives) if negative != positive]
    # Draws as much of the pool as can be needed: at most the positive and the hard negatives are skipped.
    places = rng.sample(range(len(pool)), min(len(pool), number + len(hard) + 1))
    easy = (pool[place] for place in places)
    chosen = []
    while len(chosen) < number:
        left = [negative for negative in hard if negative not in chosen]
        negative = None
        if not left or rng.random() < 0.75 ** len(hard):
            negative = next((drawn for drawn in easy if drawn != positive and drawn not in chosen), None)
        if negative is None and not left:
            raise ValueError(f"only {len(chosen)} of {number} negatives can be drawn; lower num_negatives")
        chosen.append(rng.choice(left) if negative is None else negative)
    return chosen


class ExampleKey(NamedTuple):
    """Names an example. Everything random in the example follows from its key and the seed."""

    task: str  # "qlm" or "rr"
    pair: str
    index: int
    epoch: int = 0
    query_side: int | None = None  # None: a coin decides which language the query has


@dataclass
class Example:
    """One query and its documents: the positive first, then (RR) the negatives."""

    task: str
    pair: str  # "query language-document language"
    query: str
    documents: list[str]
    seed: str  # the collator draws the masks by this seed
    query_cut: bool  # whether the sentence was longer than MAX_QUERY_WORDS
    teacher_scores: list[float] | None = None  # one for each document
    grades: list[int] | None = None  # relevance of each document
    first_stage_scores: list[float] | None = None  # one for each document
    id: str = ""  # ids of query and document, for messages


class PretrainingDataset:
    """
    Examples of QLM and RR. The query is one random sentence of a section; the document is the aligned section in the
    other language (Yu, Fei, Li 2021, section 3). In a same-language pair, the sentence is removed from the document
    wherever it occurs, unless the document has no other sentence.

    Args:
        corpus (`str`): folder or Hub name of the corpus.
        pairs (`dict[str, list[str]]`): the language pairs of each task, `{"qlm": ["en-de"], "rr": ["en-de"]}`.
        split (`str`, defaults to `"train"`): `"train"` or `"validation"`.
        num_negatives (`int`, defaults to 1): negatives of an RR example.
        max_pairs (`int`, *optional*): sample at most this many aligned pairs of each language pair.
        seed (`int`, defaults to 0).
        teacher_scores (`bool`, defaults to `False`): RR examples have a teacher's scores. Their negatives are drawn
            from the listed ones alone, because others have no score. Aligned sections that list too few are left out
            of RR and counted in the log.

    `dataset[ExampleKey(...)]` is an [`Example`]. The same key gives the same example in every process and every run.
    Languages that no model card can name are logged.

    Raises `FileNotFoundError` for a missing file or pair. Raises `ValueError` for a file without rows, an id without
    section, a section without text, an id that occurs twice, a pool that is too small for `num_negatives`, and a
    corpus without the teacher's scores.
    """

    def __init__(self, corpus, pairs, split="train", num_negatives=1, max_pairs=None, seed=0, teacher_scores=False):
        self.seed, self.num_negatives = seed, num_negatives
        names = list(dict.fromkeys(name for task in pairs for name in pairs[task]))
        if max_pairs is not None and max_pairs < 1:
            raise ValueError(f"max_pairs must be at least 1, got {max_pairs}")
        files = corpus_files(corpus)
        present = {file.split("/")[1] for file in files if file.startswith("pairs/")}
        for name in names:
            if not {name, reverse(name)} & present:
                known = ", ".join(sorted(present)) or "none"
                raise FileNotFoundError(f"the corpus {corpus} has no language pair {name}; it has {known}")
        languages = list(dict.fromkeys(language for name in names for language in name.split("-")))
        warn_of_cards(languages)
        taught = set(pairs.get("rr", ())) if teacher_scores else set()
        wanted = {language: (f"sections/{language}", SECTIONS) for language in languages}
        swapped = {name for name in names if not has_table(files, f"pairs/{name}/{split}")}
        swapped = {name for name in swapped if has_table(files, f"pairs/{reverse(name)}/{split}")}
        for name in names:
            table = f"pairs/{reverse(name) if name in swapped else name}/{split}"
            wanted[name] = (table, Features(PAIRS | SCORES) if name in taught else PAIRS)
        tables = open_tables(corpus, files, wanted)
        self.sections = {}
        for language in languages:
            cached_arrays(["sections", tables[language].fingerprint()], lambda: check_sections(tables[language]))  # noqa: B023
            self.sections[language] = tables[language].load()
        self.pairs = {
            name: SectionPairs(
                tables[name], name, name in swapped, split, tables, self.sections, max_pairs, seed, name in taught
            )
            for name in names
        }
        release_memory()  # what the first reading of the Parquet files took
        for name, aligned in self.pairs.items():
            if name in pairs.get("rr", ()) and min(map(len, aligned.pools)) <= num_negatives:
                raise ValueError(
                    f"{name} {split}: {num_negatives} negatives cannot be drawn from {min(map(len, aligned.pools))} "
                    f"sections; lower num_{'eval_' if split == 'validation' else ''}negatives"
                )
        self.sizes = {(task, name): len(self.pairs[name]) for task in ("qlm", "rr") for name in pairs.get(task, ())}
        self.taught = {name: self.pairs[name].with_negatives(num_negatives) for name in taught}
        for name, indices in self.taught.items():
            self.sizes["rr", name] = len(indices)
            if left_out := len(self.pairs[name]) - len(indices):
                logger.warning(
                    f"{name} {split}: {left_out} of {len(self.pairs[name])} aligned sections list fewer than "
                    f"{num_negatives} negatives with a teacher's score and are left out of RR"
                )
            if not len(indices):
                raise ValueError(f"{name} {split}: no section lists {num_negatives} negatives; lower num_negatives")

    def __len__(self):
        return sum(self.sizes.values())

    def __getitem__(self, key: ExampleKey) -> Example:
        seed = f"{self.seed}-{key.epoch}-{key.task}-{key.pair}-{key.index}-{key.query_side}"
        rng = random.Random(seed)
        pairs, index = self.pairs[key.pair], key.index
        if key.task == "rr" and key.pair in self.taught:
            index = int(self.taught[key.pair][index])
        side = rng.randrange(2) if key.query_side is None else key.query_side
        query_row, document_row = pairs.rows[side][index], pairs.rows[1 - side][index]
        documents = pairs.sections[1 - side]
        section, aligned = pairs.sections[side][int(query_row)], documents[int(document_row)]
        sentences = split_sentences(section["text"], pairs.languages[side])
        sentence = rng.choice(sentences)
        document = aligned["text"]
        if pairs.languages[0] == pairs.languages[1] and query_row == document_row:
            document = without_sentence(sentences, sentence) or document
        texts, scores = [document], None
        if key.task == "rr":
            hard = pairs.hard_negatives(1 - side, index)
            if key.pair in self.taught:
                places = rng.sample(range(len(hard)), self.num_negatives)
                listed = pairs.teacher_scores(1 - side, index, sentences.index(sentence), len(sentences))
                negatives, scores = hard[places], [listed[place] for place in (0, *(1 + place for place in places))]
            else:
                negatives = sample_negatives(document_row, hard, pairs.pools[1 - side], self.num_negatives, rng)
            texts += [documents[int(row)]["text"] for row in negatives]
        query = as_query(sentence)
        direction = f"{pairs.languages[side]}-{pairs.languages[1 - side]}"
        cut = len(sentence.split()) > MAX_QUERY_WORDS
        ids = f"{section['id']} {aligned['id']}"
        return Example(key.task, direction, query, texts, seed, cut, scores, id=ids)


def as_query(sentence: str) -> str:
    """Cuts a sentence to `MAX_QUERY_WORDS`."""
    return " ".join(sentence.split()[:MAX_QUERY_WORDS])


def without_sentence(sentences: list[str], sentence: str) -> str:
    """Joins the sentences of a section without one of them, wherever it occurs."""
    return " ".join(other for other in sentences if other != sentence)


def split_sentences(text: str, language: str) -> list[str]:
    """Splits a text into sentences, at least one."""
    sentences = [sentence.strip() for sentence in segment(language, text)]
    return [sentence for sentence in sentences if sentence] or [text.strip()]


__all__ = [
    "Example",
    "ExampleKey",
    "PretrainingDataset",
    "as_query",
    "sample_negatives",
    "split_sentences",
    "without_sentence",
]
