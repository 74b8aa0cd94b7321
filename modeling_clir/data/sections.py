"""
Reads the pretraining corpus: sections of multilingual documents, and the pairs of aligned sections,

    sections/{language}.parquet                     id, language, article, title, heading, text
    pairs/{source}-{target}/{train,validation}.parquet
                                                    source_id, target_id, source_negatives, target_negatives,
                                                    optionally source_scores, target_scores

in a local folder or a dataset repository of the Hub. `datasets` maps the files, so that memory holds only row numbers.
`scripts/build_corpus.py` writes a corpus.

`source_scores` are a teacher's scores. There is a list for each sentence of the target section, in order. It has the
score of the source section, then those of `source_negatives`, for the sentence as the query. `target_scores` are those
for the sentences of the source section.
"""

import glob
import logging
import random
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features, Value, load_dataset
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import list_repo_files
from huggingface_hub.errors import HTTPError
from sentencex import segment

from ..names import check_name, missing_path
from .files import list_files
from .languages import warn_of_cards


logger = logging.getLogger(__name__)

MAX_QUERY_WORDS = 64

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
    Lists the names of a corpus' files. Follows linked subfolders. Raises `FileNotFoundError` for a name that is
    neither a folder nor a dataset of the Hub.
    """
    folder = Path(corpus)
    if folder.is_dir():
        return {path.relative_to(folder).as_posix() for path in list_files(folder) if path.suffix == ".parquet"}
    if "/" not in corpus:  # a corpus on the Hub has a namespace
        raise FileNotFoundError(missing_path(corpus))
    check_name(corpus, "corpus")
    try:
        return set(list_repo_files(corpus, repo_type="dataset"))
    except (HTTPError, OSError) as error:
        raise FileNotFoundError(f"{corpus} is not a folder, and the Hub lists no such dataset: {error}") from error


def load_parquet(corpus: str, files: set[str], name: str, features: Features) -> Dataset:
    """
    Reads the columns `features` of the file `name`. Raises `FileNotFoundError` if it is not among the corpus' `files`,
    and `ValueError` if it cannot be read or has no row.
    """
    if name not in files:
        raise FileNotFoundError(f"the corpus {corpus} has no {name}; scripts/build_corpus.py writes it")
    path, data_files = corpus, name
    if Path(corpus).is_dir():  # `datasets` takes brackets in a path for a pattern
        path, data_files = "parquet", glob.escape(f"{corpus}/{name}")
    columns = {"features": features, "columns": list(features)}
    try:
        return load_dataset(path, data_files={"train": data_files}, split="train", **columns)
    except (DatasetGenerationError, ValueError) as error:
        raise ValueError(
            f"{corpus}/{name} must be a Parquet file with the columns {', '.join(features)} and at least one row; "
            f"{error.__cause__ or error}"
        ) from error


def row_numbers(ids: pa.ChunkedArray, sections: Dataset, where: str) -> np.ndarray:
    """Finds the numbers of the rows with these ids. Raises `ValueError` for an id that no section has."""
    rows = pc.index_in(ids, value_set=sections.data["id"].combine_chunks())
    if rows.null_count:
        unknown = ids.filter(pc.is_null(rows))
        raise ValueError(f"{where}: no section has the id {unknown[0].as_py()!r} ({len(unknown)} unknown ids in all)")
    return rows.to_numpy().astype(np.int64)


class SectionPairs:
    """
    The aligned sections of one language pair and split, as row numbers.

    Args:
        corpus (`str`): folder or Hub name.
        files (`set[str]`): the names of the corpus' files.
        pair (`str`): a pair such as `"en-de"`; the corpus may hold it as `de-en`. `"en-en"` pairs every section with
            itself.
        split (`str`): `"train"` or `"validation"`.
        sections (`dict[str, Dataset]`): language to its sections.
        max_pairs (`int`, *optional*): sample this many of the aligned pairs, by `seed`.
        seed (`int`, defaults to 0).
        teacher_scores (`bool`, defaults to `False`): read the scores too.

    Side 0 is the pair's first language, side 1 its second. `rows[side]` and `negatives[side]` are in that language.
    """

    def __init__(self, corpus, files, pair, split, sections, max_pairs=None, seed=0, teacher_scores=False):
        self.languages = pair.split("-")
        self.name = pair
        self.sections = [sections[language] for language in self.languages]
        source, target = self.languages
        file, columns = f"pairs/{pair}/{split}.parquet", ("source", "target")
        swapped = f"pairs/{target}-{source}/{split}.parquet"
        if file not in files and swapped in files:
            file, columns = swapped, ("target", "source")
        pairs = load_parquet(corpus, files, file, Features(PAIRS | SCORES) if teacher_scores else PAIRS)
        if max_pairs is not None and max_pairs < len(pairs):
            chosen = sorted(random.Random(f"{seed}-{pair}-{split}").sample(range(len(pairs)), max_pairs))
            logger.info(f"{pair} {split}: {max_pairs} of {len(pairs)} aligned pairs sampled (max_pairs)")
            pairs = pairs.select(chosen).flatten_indices()
        self.rows, self.negatives, self.offsets, self.pools = [], [], [], []
        for side, column in enumerate(columns):
            self.rows.append(row_numbers(pairs.data[f"{column}_id"], self.sections[side], f"{corpus}/{file}"))
            lists = pairs.data[f"{column}_negatives"].combine_chunks()
            self.negatives.append(row_numbers(lists.flatten(), self.sections[side], f"{corpus}/{file}"))
            lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
            self.offsets.append(np.concatenate([[0], np.cumsum(lengths)]))
            self.pools.append(np.unique(self.rows[side]))
        self.columns = columns
        self.scores = pairs.select_columns([f"{column}_scores" for column in columns]) if teacher_scores else None

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
        scores = self.scores[index][f"{self.columns[side]}_scores"]
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
            if not {name, "-".join(reversed(name.split("-")))} & present:
                known = ", ".join(sorted(present)) or "none"
                raise FileNotFoundError(f"the corpus {corpus} has no language pair {name}; it has {known}")
        languages = list(dict.fromkeys(language for name in names for language in name.split("-")))
        warn_of_cards(languages)
        taught = set(pairs.get("rr", ())) if teacher_scores else set()
        check_scores(corpus, files, taught, split)
        self.sections = {language: load_sections(corpus, files, language) for language in languages}
        self.pairs = {
            name: SectionPairs(corpus, files, name, split, self.sections, max_pairs, seed, name in taught)
            for name in names
        }
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
        section = pairs.sections[side][int(query_row)]["text"]
        sentences = split_sentences(section, pairs.languages[side])
        sentence = rng.choice(sentences)
        document = documents[int(document_row)]["text"]
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
        return Example(key.task, direction, query, texts, seed, len(sentence.split()) > MAX_QUERY_WORDS, scores)


def as_query(sentence: str) -> str:
    """Cuts a sentence to `MAX_QUERY_WORDS`."""
    return " ".join(sentence.split()[:MAX_QUERY_WORDS])


def without_sentence(sentences: list[str], sentence: str) -> str:
    """Joins the sentences of a section without one of them, wherever it occurs."""
    return " ".join(other for other in sentences if other != sentence)


def check_scores(corpus: str, files: set[str], pairs: set[str], split: str):
    """
    Raises `ValueError` for a pair of a corpus without a teacher's scores. Looks at local files only: a file of the Hub
    says it when it is loaded.
    """
    for name in sorted(pairs) if Path(corpus).is_dir() else ():
        for file in (f"pairs/{name}/{split}.parquet", f"pairs/{'-'.join(reversed(name.split('-')))}/{split}.parquet"):
            if file in files and not set(SCORES) <= set(pq.read_schema(Path(corpus) / file).names):
                raise ValueError(
                    f"{corpus}/{file} has no teacher's scores ({', '.join(SCORES)}), which --rr_loss margin_mse and "
                    "kl train on: build the corpus with scripts/build_corpus.py --teacher_model"
                )


def load_sections(corpus: str, files: set[str], language: str) -> Dataset:
    """Reads the sections of a language. Raises `ValueError` for a section without text and an id that occurs twice."""
    name = f"sections/{language}.parquet"
    sections = load_parquet(corpus, files, name, SECTIONS)
    ids, texts = sections.data["id"], sections.data["text"]
    empty = ids.filter(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(pc.fill_null(texts, ""))), 0))
    if len(empty):
        raise ValueError(f"{corpus}/{name}: section {empty[0].as_py()!r} has no text ({len(empty)} such sections)")
    counts = pc.value_counts(ids.combine_chunks())
    if len(counts) != len(ids):
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"].as_py()
        raise ValueError(f"{corpus}/{name}: the id {twice!r} occurs more than once")
    return sections


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
