"""The logic of the page of `space/app.py`: documents from text and files, ranking, and the sentences behind a score."""

import csv
import html
import io
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import ModelCard
from sentencex import segment

from .data.files import read_jsonl, read_text
from .data.languages import languages_of
from .reranker import Reranker


MAX_DOCUMENTS = 200
MAX_SENTENCES = 200  # of all documents together, for highlighting: each is one more score
MAX_CHARACTERS = 1_000_000  # of all documents together
COLUMNS = ("text", "document")  # of a CSV file


@dataclass
class Hit:
    """
    A ranked document.

    Attributes:
        number (`int`): place of the document in the list, from 1.
        score (`float`).
        text (`str`).
        sentences (`list[tuple[str, float]]`, *optional*): parts of the text, which make it up, and how far the score
            drops if that part is left out; `None` without highlighting.
    """

    number: int
    score: float
    text: str
    sentences: list[tuple[str, float]] | None = None


# ---------------------------------------------------------------------------------------------------------------------
# Documents
# ---------------------------------------------------------------------------------------------------------------------


def split_pasted(text: str) -> list[str]:
    """Splits pasted text at empty lines. Without an empty line each line is a document."""
    lines = [line.strip() for line in text.strip().splitlines()]
    if "" not in lines:
        return [line for line in lines if line]
    return [part.strip() for part in "\n".join(lines).split("\n\n") if part.strip()]


def read_upload(path: Path) -> list[str]:
    """
    Reads documents from a file in UTF-8.

    - `.txt`: documents are separated by empty lines, see [`split_pasted`]
    - `.jsonl`: a JSON object in each line, with `text` and optional `title`
    - `.csv`: a column `text` or `document` and an optional column `title`, or one column without a name

    Raises `ValueError` with the file's name and the line for another kind of file
    and for a file that cannot be read.
    """
    readers = {".txt": lambda path: split_pasted(read_text(path)), ".jsonl": read_json_lines, ".csv": read_csv}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path.name}: only files that end in {', '.join(readers)} are read")
    try:
        return readers[path.suffix.lower()](path)
    except ValueError as error:  # names the file on the server
        raise ValueError(str(error).replace(str(path), path.name)) from None


def read_json_lines(path: Path) -> list[str]:
    return [with_title(record.get("title"), record["text"]) for _, record in read_jsonl(path, required=("text",))]


def read_csv(path: Path) -> list[str]:
    text = read_text(path)
    if not text.strip():
        return []
    try:
        delimiter = csv.Sniffer().sniff(text.splitlines()[0], ",;\t").delimiter
    except csv.Error:  # one column
        delimiter = ","
    csv.field_size_limit(MAX_CHARACTERS)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: not CSV ({error})") from None
    names = [name.strip().lower() for name in rows[0][1]]
    column = next((names.index(name) for name in COLUMNS if name in names), None)
    if column is None:
        if max(len(row) for _, row in rows) == 1:
            return [row[0] for _, row in rows]
        raise ValueError(f"{path}: no column has the name {' or '.join(COLUMNS)}, but there are {', '.join(names)}")
    title = names.index("title") if "title" in names else None
    for line, row in rows[1:]:
        if len(row) != len(names):
            raise ValueError(f"{path}:{line}: {len(row)} columns, the first row has {len(names)}")
    return [with_title(row[title] if title is not None else None, row[column]) for _, row in rows[1:]]


def with_title(title: str | None, text: str) -> str:
    return f"{title} {text}" if title and text.strip() else text


def read_sample(folder: Path) -> dict[str, list[str]]:
    """Reads the sample, `{language}.jsonl`: language to documents, in the same order for all languages."""
    return {
        path.stem: [" ".join(record["sentences"]) for _, record in read_jsonl(path, required=("sentences",))]
        for path in sorted(folder.glob("*.jsonl"))
    }


def check_input(query: str, documents: list[str]):
    """Raises `ValueError`, for the page's reader, if there is no query, no document, or too much text."""
    if not query.strip():
        raise ValueError("Type a query first.")
    if not any(text.strip() for text in documents):
        raise ValueError("There are no documents: paste some, upload a file, or choose the sample.")
    if len(documents) > MAX_DOCUMENTS:
        raise ValueError(f"These are {len(documents)} documents; this page ranks at most {MAX_DOCUMENTS} at a time.")
    if (characters := sum(map(len, documents))) > MAX_CHARACTERS:
        raise ValueError(f"The documents have {characters:,} characters; this page ranks at most {MAX_CHARACTERS:,}.")


# ---------------------------------------------------------------------------------------------------------------------
# Ranking
# ---------------------------------------------------------------------------------------------------------------------


def split_sentences(text: str, language: str) -> list[str]:
    """Splits a text into sentences, by the rules of a language (`"en"`). The parts make up the text again."""
    return list(segment(language, text))


def rank(
    reranker: Reranker, query: str, documents: list[str], language: str = "en", highlight: bool = True
) -> tuple[list[Hit], list[str]]:
    """
    Ranks documents and finds the sentences that carry each score, by occlusion: each sentence is left out in turn, and
    the score drops by what the sentence adds.

    Args:
        reranker (`Reranker`).
        query (`str`).
        documents (`list[str]`).
        language (`str`, defaults to `"en"`): language of the documents, for their sentences.
        highlight (`bool`, defaults to `True`): do it. It is off for more than `MAX_SENTENCES` sentences.

    Returns the hits, best first, and notes for the reader (`list[str]`): what was left out or cut, and why nothing is
    highlighted.
    """
    numbers = [number for number, text in enumerate(documents, start=1) if text.strip()]
    found = reranker.rank(query, [documents[number - 1] for number in numbers])
    hits = [Hit(numbers[hit["corpus_id"]], hit["score"], hit["text"]) for hit in found]
    counts, notes = reranker.counts, []
    if empty := len(documents) - len(numbers):
        notes.append(f"{empty} of {len(documents)} documents have no text and were left out.")
    if cut := counts["documents_cut"]:
        limit = reranker.encoder.max_length
        notes.append(f"{cut} of {len(numbers)} documents were cut: the model reads {limit} tokens at a time.")
    if counts["queries_cut"]:
        notes.append(f"The query was cut to {reranker.encoder.max_query_length} tokens.")
    if not highlight:
        return hits, notes
    parts = [split_sentences(hit.text, language) for hit in hits]
    if (number := sum(map(len, parts))) > MAX_SENTENCES:
        notes.append(f"Nothing is highlighted: the documents have {number} sentences, more than {MAX_SENTENCES}.")
        return hits, notes
    shorter = [
        (query, "".join(sentences[:i] + sentences[i + 1 :]))
        for sentences in parts
        if len(sentences) > 1
        for i in range(len(sentences))
    ]
    scores = iter(reranker.score(shorter, progress=False) if shorter else ())
    for hit, sentences in zip(hits, parts):
        # A single sentence carries all of the score: nothing is left without it
        hit.sentences = [(text, hit.score - next(scores) if len(sentences) > 1 else 0.0) for text in sentences]
    return hits, notes


# ---------------------------------------------------------------------------------------------------------------------
# Showing
# ---------------------------------------------------------------------------------------------------------------------


def show_hits(hits: list[Hit], notes: list[str]) -> str:
    """Makes HTML of hits and notes. The darker a sentence, the more the score drops without it."""
    largest = max((drop for hit in hits for _, drop in hit.sentences or ()), default=0.0)
    items = []
    for place, hit in enumerate(hits, start=1):
        text = html.escape(hit.text)
        if hit.sentences is not None:
            text = "".join(show_sentence(part, drop, largest) for part, drop in hit.sentences)
        head = f"<b>{place}.</b> <span class='score'>{hit.score:.2f}</span> <small>document {hit.number}</small>"
        items.append(f"<li class='hit'>{head}<div class='text'>{text}</div></li>")
    said = "".join(f"<p class='note'>{html.escape(note)}</p>" for note in notes)
    return f"{said}<ol class='hits'>{''.join(items)}</ol>"


def show_sentence(text: str, drop: float, largest: float) -> str:
    strength = drop / largest if largest > 0 else 0.0
    if strength < 0.1:
        return html.escape(text)
    return (
        f"<mark style='background: rgba(255, 165, 0, {0.6 * strength:.2f})' "
        f"title='without this sentence the score is {drop:.2f} lower'>{html.escape(text)}</mark>"
    )


def show_problem(message: str) -> str:
    return f"<p class='problem' role='alert'>{html.escape(message)}</p>"


def describe_model(name: str, reranker: Reranker) -> str:
    """Says in Markdown what a model is, and what its card says of its quality."""
    model, said = reranker.model, []
    number = sum(parameter.numel() for parameter in model.parameters())  # an export has none here
    size = f" of {number / 1e6:.1f}M parameters" if number else ", exported,"
    said.append(
        f"**{Path(name).name}** is a {model.config.model_type}{size} that reads up to {reranker.encoder.max_length} "
        "tokens of query and document together."
    )
    try:
        data = ModelCard.load(Path(name) / "README.md" if Path(name).is_dir() else name).data
    except (OSError, ValueError, yaml.YAMLError):
        return f"{said[0]} It has no card, so nothing is known about its quality."
    if languages := languages_of(data.get("language")):
        said.append(f"Languages: {', '.join(languages)}.")
    measured = [
        f"{result.metric_type} {format_measure(result.metric_value)} ({result.dataset_name})"
        for result in data.eval_results or ()
    ][:6]
    said.append(f"Its card measures: {'; '.join(measured)}." if measured else "Its card gives no measures.")
    said.append(f"License: {data.get('license') or 'not stated'}.")
    said.append("Scores order the documents of one query; they are no probabilities.")
    return " ".join(said)


def format_measure(value) -> str:
    """A card of another program may have a text, or a list of numbers."""
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


__all__ = [
    "Hit",
    "check_input",
    "describe_model",
    "rank",
    "read_sample",
    "read_upload",
    "show_hits",
    "show_problem",
    "split_pasted",
    "split_sentences",
]
