"""Reads parallel texts: sentences or documents in two languages that are translations of each other."""

import logging
from dataclasses import dataclass
from pathlib import Path

from .files import check_text, read_jsonl, read_lines
from .hub import read_split


logger = logging.getLogger(__name__)


@dataclass
class ParallelTexts:
    """
    Attributes:
        source, target (`str`): names of the two sides, usually languages.
        source_texts, target_texts (`list[str]`): lists of the same length. Texts at the same place are translations.

    Raises `ValueError` for fewer than two texts.
    """

    source: str
    target: str
    source_texts: list[str]
    target_texts: list[str]

    def __post_init__(self):
        if len(self.source_texts) < 2:
            raise ValueError(f"{self.name}: {len(self.source_texts)} texts; finding the nearest needs two or more")

    @property
    def name(self) -> str:
        return f"{self.source}-{self.target}"


def is_jsonl(path: Path) -> bool:
    return path.name.endswith((".jsonl", ".jsonl.gz"))


def read_texts(path: Path, document_ids: Path | None = None) -> dict[str, str]:
    """
    Reads the texts of a file, plain or `.gz`.

    - A `.jsonl` gives document id to text (`text`, or `sentences`, joined).
    - A text file gives number of the line to line.
    - A text file with `document_ids`, a file with a document id for each line, gives document id to its lines, joined.

    Raises `ValueError` with file and line for an empty text, and for an id that is missing or occurs twice. Raises it
    too if the two files have different numbers of lines.
    """
    texts = {}
    if is_jsonl(path):
        if document_ids is not None:
            raise ValueError(
                f"document ids ({document_ids}) are for text files; the documents of {path} have their own"
            )
        for where, record in read_jsonl(path, required=("id",)):
            if record["id"] in texts:
                raise ValueError(f"{where}: the id {record['id']!r} occurs more than once")
            sentences = record.get("sentences")
            text = record.get("text") if sentences is None else " ".join(sentences)
            if text is None:
                raise ValueError(f"{where}: neither 'sentences' nor 'text'")
            texts[record["id"]] = checked(text, where)
    elif document_ids is None:
        for number, (where, line) in enumerate(read_lines(path, keep_empty=True), start=1):
            texts[str(number)] = checked(line, where)
    else:
        lines, ids = (list(read_lines(file, keep_empty=True)) for file in (path, document_ids))
        if len(lines) != len(ids):
            raise ValueError(
                f"{path} has {len(lines)} lines, {document_ids} {len(ids)}: each line needs a document id"
            )
        documents = {}
        for (where, line), (where_id, key) in zip(lines, ids):
            documents.setdefault(checked(key, where_id), (where, []))[1].append(line.strip())
        for key, (where, sentences) in documents.items():
            texts[key] = checked(" ".join(filter(None, sentences)), f"{where}: document {key!r}")
    return texts


def checked(text: str, where: str) -> str:
    """Strips a text. Raises `ValueError` for an empty text."""
    if not text.strip():
        raise ValueError(f"{where}: the text is empty")
    return text.strip()


def read_parallel_files(
    source: Path, target: Path, names: tuple[str, str] | None = None, document_ids: Path | None = None
) -> ParallelTexts:
    """
    Reads two files by [`read_texts`]. `.jsonl` files are aligned by id, text files by line (or by document id).
    Documents that only one file has are left out and counted in the log. `names` default to the names of the files, or
    to their paths if the names are the same.

    Raises `ValueError` if text files have different numbers of lines, and if there is no id in common.
    """
    if is_jsonl(source) != is_jsonl(target):
        raise ValueError(f"{source} and {target}: give two .jsonl files, or two text files")
    source_texts, target_texts = read_texts(source, document_ids), read_texts(target, document_ids)
    if not is_jsonl(source) and len(source_texts) != len(target_texts):
        raise ValueError(
            f"{source} has {len(source_texts)} lines, {target} {len(target_texts)}: they are not parallel"
        )
    common = [key for key in source_texts if key in target_texts]
    if not common:
        raise ValueError(f"{source} and {target} have no id in common")
    if left_out := len(source_texts) + len(target_texts) - 2 * len(common):
        logger.warning(f"{source} and {target}: {left_out} documents are in only one of the files and are left out")
    if names is None:
        names = (source.name, target.name) if source.name != target.name else (str(source), str(target))
    return ParallelTexts(*names, [source_texts[key] for key in common], [target_texts[key] for key in common])


def find_language(folder: Path, pair: str, language: str) -> Path:
    """
    Finds the file of a language in a folder, plain or `.gz`: `{language}.jsonl`, `{language}.txt`, `*.{language}.txt`
    (NTREX), or `*.{pair}.{language}` with the languages of the pair in either order (Tatoeba in LASER, OPUS).

    Raises `FileNotFoundError` if there is none, `ValueError` if there are several.
    """
    reverse = "-".join(reversed(pair.split("-")))
    patterns = [f"{language}.jsonl", f"{language}.txt", f"*.{language}.txt"]
    patterns += [f"*.{name}.{language}" for name in (pair, reverse)]
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    found = {path for pattern in patterns for end in ("", ".gz") for path in folder.glob(pattern + end)}
    if not found:
        raise FileNotFoundError(
            f"{folder} has no file of the language {language!r} in {pair}: none of {', '.join(patterns)}"
        )
    if len(found) > 1:
        names = ", ".join(sorted(path.name for path in found))
        raise ValueError(f"{folder} has more than one file of the language {language!r} in {pair}: {names}")
    return found.pop()


def read_parallel_folder(folder: Path, pair: str, document_ids: Path | None = None) -> ParallelTexts:
    """Finds the files of a pair such as `"en-de"` by [`find_language`]; reads them by [`read_parallel_files`]."""
    source, target = pair.split("-")
    paths = find_language(folder, pair, source), find_language(folder, pair, target)
    return read_parallel_files(*paths, (source, target), document_ids)


def read_parallel_dataset(
    name: str, columns: tuple[str, str], config: str | None = None, split: str = "test"
) -> ParallelTexts:
    """
    Reads two columns of a dataset of the Hub, or of a local folder that `datasets` reads. A nested column is named
    `translation.en`.

    Raises `ValueError` for a dataset, config, split or column that does not exist, for a row without text, and for a
    text with a NUL character or a lone surrogate.
    """
    where = f"dataset {name}, config {config or 'default'}, split {split}"
    try:
        dataset = read_split(name, config, split).flatten()
    except (OSError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    for column in columns:
        if column not in dataset.column_names:
            raise ValueError(f"{where}: there is no column {column!r}; there are {', '.join(dataset.column_names)}")
    texts = []
    for column in columns:
        texts.append(list(dataset[column]))
        for row, text in enumerate(texts[-1]):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{where}, row {row}: {column!r} must be a text that is not empty, got {text!r:.60}")
            check_text(text, f"{where}, row {row}")
    return ParallelTexts(*columns, *texts)


__all__ = ["ParallelTexts", "read_parallel_dataset", "read_parallel_files", "read_parallel_folder"]
