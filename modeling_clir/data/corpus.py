"""Builds a pretraining corpus (see `sections.py`) from aligned documents and parallel SQuAD files."""

import logging
import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from .corpus_card import corpus_card
from .corpus_files import write_pairs, write_sections
from .files import find_file, folder_name, new_folder, read_json, read_jsonl
from .first_stage import SCORES_AT_ONCE, load_dense, score_bm25, top
from .languages import warn_of_cards


if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from ..teacher import Teacher

logger = logging.getLogger(__name__)

BM25 = {"k1": 1.5, "b": 0.75}  # bm25s' own values; the collections of results/ were judged with these values
Negatives = dict[tuple[str, str, str], dict[str, list[str]]]  # (query language, language, split) -> key -> keys


@dataclass
class Section:
    """
    One section in all its languages. The dicts map a language to a text.

    `key` is `folder/...`. Sections of an article are hard negatives of each other, and are held out together.
    """

    key: str
    article: str
    title: dict[str, str] = field(default_factory=dict)
    heading: dict[str, str] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)


class Paragraph(NamedTuple):
    """A paragraph of a SQuAD file: number of the article, number in the article, texts, question id to question."""

    article: int
    part: int
    title: str
    text: str
    questions: dict[str, str]


def read_documents(
    folder: Path,
    languages: list[str],
    max_sentences: int | None = None,
    left_out: Counter | None = None,
    strict: bool = False,
) -> list[Section]:
    """
    Reads a folder of `{language}.jsonl[.gz]`, aligned by `id`. Each line has `id`, `sentences` (a list) or `text`, and
    optionally `article` (defaults to the title, then to the id), `title`, `heading`. Documents without text are left
    out in the language where they have none, and counted in the log.

    Args:
        folder (`Path`).
        languages (`list[str]`).
        max_sentences (`int`, *optional*): most sentences of a section. Longer documents are cut if they are
            sentence-parallel: all languages have the same number of sentences, and the same `sentence_ids` if there
            are any. Other documents stay whole, and are counted in the log.
        left_out (`Counter`, *optional*): what is left out is added, by reason.
        strict (`bool`, defaults to `False`): the first document or part without text is an error.

    Raises `FileNotFoundError` for a language without file. Raises `ValueError` with file and line for a line that does
    not parse, a missing key, and an id that occurs twice.
    """
    if max_sentences is not None and max_sentences < 1:
        raise ValueError(f"max_sentences must be at least 1, got {max_sentences}")
    name = folder_name(folder)
    empty = []  # file:line of documents without text
    records = defaultdict(dict)  # id -> language -> record
    for language in languages:
        for where, record in read_jsonl(find_file(folder, f"{language}.jsonl"), required=("id",)):
            if record.get("sentences") is None:
                if record.get("text") is None:
                    raise ValueError(f"{where}: neither 'sentences' nor 'text'")
                record["sentences"] = [record["text"]]
            if not " ".join(record["sentences"]).strip():
                if strict:
                    raise ValueError(f"{where}: the document has no text; without --strict it is left out and counted")
                empty.append(where)
                continue
            if language in records[record["id"]]:
                raise ValueError(f"{where}: the id {record['id']!r} occurs more than once")
            records[record["id"]][language] = record
    if empty:
        logger.warning(f"{folder}: {len(empty)} documents have no text, {empty[0]} the first; left out")
    sections, whole, cut = [], 0, []
    for key, versions in records.items():
        first = next(iter(versions.values()))
        article = f"{name}/{first.get('article') or first.get('title') or key}"
        lengths = {len(record["sentences"]) for record in versions.values()}
        ids = {tuple(map(str, record.get("sentence_ids") or ())) for record in versions.values()}
        parallel = len(lengths) == 1 and len(ids) == 1
        whole += max_sentences is not None and not parallel
        number = max(lengths)
        step = max_sentences if max_sentences is not None and parallel else number
        # Pieces of about equal length instead of a short one at the end.
        pieces = -(-number // step)
        bounds = [round(i * number / pieces) for i in range(pieces + 1)]
        for part, (start, end) in enumerate(pairwise(bounds), start=1):
            section = Section(f"{name}/{key}" + (f"#{part}" if pieces > 1 else ""), article)
            for language, record in versions.items():
                section.title[language] = record.get("title") or ""
                section.heading[language] = record.get("heading") or ""
                section.text[language] = " ".join(record["sentences"][start:end]).strip()
            if all(section.text.values()):
                sections.append(section)
            elif strict:
                raise ValueError(
                    f"{folder}: the part {section.key!r} has no text in some language; without --strict it is left out "
                    "and counted"
                )
            else:
                cut.append(section.key)
    if left_out is not None:
        left_out.update({"documents without text": len(empty), "parts of documents without text": len(cut)})
    if cut:
        logger.warning(f"{folder}: {len(cut)} parts have no text in some language, {cut[0]!r} the first; left out")
    if whole:
        logger.warning(f"{folder}: {whole} of {len(records)} documents are not sentence-parallel and stay whole")
    return sections


def parallel_squad(
    folder: Path,
    languages: list[str],
    articles: slice = slice(None),
    left_out: Counter | None = None,
    strict: bool = False,
) -> dict[str, list[Paragraph]]:
    """
    Reads the SQuAD files `*.{language}.json[.gz]` of a folder, which must have the same paragraphs and questions in
    the same order. Returns language to paragraphs of the chosen `articles`. Languages without a file are left out and
    logged. Paragraphs and questions that are empty in one language are left out in all, and counted in the log. The
    number of paragraphs is added to `left_out`. If `strict`, the first of them is an error.

    Raises `FileNotFoundError` if no language has a file. Raises `ValueError` for more than one file of a language,
    another layout, files that are not parallel, and a question id that occurs twice.
    """
    read, reference = {}, None
    empty, unasked = set(), set()  # (article, part) of paragraphs; ids of questions
    for language in languages:
        files = sorted(path for end in ("", ".gz") for path in folder.glob(f"*.{language}.json{end}"))
        if not files:
            logger.warning(f"{folder}: no file *.{language}.json; the language is left out")
            continue
        if len(files) > 1:
            raise ValueError(f"{folder} has more than one file *.{language}.json: {', '.join(f.name for f in files)}")
        path, data = files[0], read_json(files[0])
        try:
            data = data["data"]
            layout = [[[qa["id"] for qa in p["qas"]] for p in article["paragraphs"]] for article in data]
            ids = Counter(i for article in layout for paragraph in article for i in paragraph)
            for number, article in enumerate(data):
                for part, paragraph in enumerate(article["paragraphs"]):
                    empty |= set() if paragraph["context"].strip() else {(number, part)}
                    unasked |= {qa["id"] for qa in paragraph["qas"] if not qa["question"].strip()}
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not in SQuAD's layout ({error!r})") from error
        if twice := [i for i, number in ids.items() if number > 1]:
            raise ValueError(f"{path}: the question id {twice[0]!r} occurs more than once")
        reference = reference or (path, layout)
        if layout != reference[1]:
            pairs = zip(layout, reference[1])
            at = next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(layout), len(reference[1])))
            raise ValueError(
                f"{path} is not parallel to {reference[0]}: article {at} has other paragraphs or questions"
            )
        read[language] = data
    if not read:
        raise FileNotFoundError(f"{folder}: none of the languages {', '.join(languages)} has a file *.LANGUAGE.json")
    if empty and strict:
        number, part = min(empty)
        raise ValueError(
            f"{folder}: paragraph {part} of article {number} is empty in some language; without --strict it is left out "
            "and counted"
        )
    if left_out is not None:
        left_out["paragraphs that are empty in some language"] += len(empty)
    if empty or unasked:
        logger.warning(
            f"{folder}: {len(empty)} paragraphs and {len(unasked)} questions are empty in some language; left out"
        )
    return {
        language: [
            Paragraph(
                number,
                part,
                str(data[number].get("title") or ""),
                paragraph["context"],
                {qa["id"]: qa["question"] for qa in paragraph["qas"] if qa["id"] not in unasked},
            )
            for number in range(len(data))[articles]
            for part, paragraph in enumerate(data[number]["paragraphs"])
            if (number, part) not in empty
        ]
        for language, data in read.items()
    }


def read_squad(
    folder: Path,
    languages: list[str],
    articles: slice = slice(None),
    left_out: Counter | None = None,
    strict: bool = False,
) -> list[Section]:
    """Makes a section of each paragraph of [`parallel_squad`], with the key `folder/article.paragraph`."""
    name, sections = folder_name(folder), {}
    for language, paragraphs in parallel_squad(folder, languages, articles, left_out, strict).items():
        for paragraph in paragraphs:
            key = f"{name}/{paragraph.article}.{paragraph.part}"
            section = sections.setdefault(key, Section(key, f"{name}/{paragraph.article}"))
            section.title[language] = paragraph.title
            section.heading[language] = ""
            section.text[language] = paragraph.text
    return list(sections.values())


def read_questions(folder: Path, languages: list[str], articles: slice = slice(None)):
    """
    Reads the questions of [`parallel_squad`]. The relevant section of a question is its paragraph.

    Returns:
        `{language: {question id: text}}` and `{question id: {section key: 1}}`.
    """
    name, questions, relevant = folder_name(folder), {}, {}
    for language, paragraphs in parallel_squad(folder, languages, articles).items():
        questions[language] = {}
        for paragraph in paragraphs:
            questions[language] |= paragraph.questions
            relevant |= {key: {f"{name}/{paragraph.article}.{paragraph.part}": 1} for key in paragraph.questions}
    return questions, relevant


def article_folds(sections: list[Section], qrels: dict[str, dict[str, int]], number: int = 5) -> list[list[str]]:
    """
    Parts the queries into `number` folds of whole articles, in turns in the order of the articles. A query belongs to
    the article of its first relevant section. Raises `ValueError` if there are fewer articles than folds, and for a
    query without a relevant section.
    """
    article_of = {section.key: section.article for section in sections}
    articles = {}
    for query, judged in qrels.items():
        relevant = next((section for section, relevance in judged.items() if relevance > 0), None)
        if relevant is None:
            raise ValueError(f"query {query!r} has no relevant section, so it belongs to no article")
        articles.setdefault(article_of[relevant], []).append(query)
    if len(articles) < number:
        raise ValueError(f"{number} folds of whole articles need {number} articles with queries, got {len(articles)}")
    return [[query for queries in list(articles.values())[i::number] for query in queries] for i in range(number)]


def parse_articles(text: str) -> slice:
    """Turns `"24:36"` into a slice. Either end may be missing. Raises `ValueError` for anything else."""
    if not re.fullmatch(r"[0-9]*:[0-9]*", text):
        raise ValueError(f"--squad_articles must be like 24:36, 24: or :36; got {text!r}")
    return slice(*[int(number) if number else None for number in text.split(":")])


def hold_out(sections: list[Section], fraction: float, seed: int) -> tuple[list[Section], list[Section]]:
    """
    Parts the sections into training and validation. Holds out whole articles, with at least `fraction` of the sections
    of each source (the folder in their key).
    """
    sources = defaultdict(lambda: defaultdict(list))
    for section in sections:
        sources[section.key.split("/")[0]][section.article].append(section)
    train, validation = [], []
    for source, articles in sources.items():
        names = sorted(articles)
        random.Random(f"{seed}-{source}").shuffle(names)
        total, held = sum(map(len, articles.values())), 0
        for name in names:
            part = validation if held < fraction * total else train
            held += len(articles[name]) if part is validation else 0
            part.extend(articles[name])
    return train, validation


def hard_negatives(sections: list[Section], language: str, number: int, seed: int) -> dict[str, list[str]]:
    """
    Finds up to `number` hard negatives of each section in one language. They are sampled from the other sections of
    its article. A section that is alone in its article gets the nearest sections of other articles by BM25.
    """
    sections = [section for section in sections if language in section.text]
    articles = defaultdict(list)
    for section in sections:
        articles[section.article].append(section.key)
    negatives = {}
    for section in sections:
        others = [key for key in articles[section.article] if key != section.key]
        rng = random.Random(f"{seed}-{language}-{section.key}")
        negatives[section.key] = rng.sample(others, min(number, len(others)))
    alone = [section for section in sections if not negatives[section.key]]
    if alone and number > 0:
        texts = [section.text[language] for section in sections]
        scores_of_alone = score_bm25(texts, (section.text[language] for section in alone), **BM25)
        for section, scores in zip(alone, scores_of_alone):
            nearest = [sections[place].key for place in top(scores, number + 1)]
            negatives[section.key] = [key for key in nearest if key != section.key][:number]
    return negatives


def mine_negatives(
    query_vectors: dict[str, np.ndarray], vectors: dict[str, np.ndarray], number: int, margin: float
) -> tuple[dict[str, list[str]], int]:
    """
    Finds up to `number` hard negatives of each section in another language: the nearest sections there that are not
    its own translation. A candidate that scores above `margin` times the translation is likely relevant and left out
    (Moreira et al. 2024, NV-Retriever, "TopK-PercPos"; `relative_margin` of sentence-transformers'
    `mine_hard_negatives`).

    Args:
        query_vectors, vectors (`dict[str, np.ndarray]`): section key to normalized vector, `(width,)`, in the language
            of the queries and in that of the negatives.
        number (`int`): negatives per section.
        margin (`float`): the highest score of a negative, as a share of the translation's score.

    Returns:
        Key to the keys of the negatives, best first, for each section that both languages have; and the number of
        candidates that were left out.
    """
    keys = list(vectors)
    places = {key: place for place, key in enumerate(keys)}
    aligned = [key for key in query_vectors if key in vectors]
    if not aligned:
        return {}, 0
    matrix = np.stack(list(vectors.values()))  # (candidates, width)
    negatives, left_out, step = {}, 0, max(1, SCORES_AT_ONCE // len(keys))
    for start in range(0, len(aligned), step):
        part = aligned[start : start + step]
        own = [places[key] for key in part]
        scores = np.stack([query_vectors[key] for key in part]) @ matrix.T  # (part, candidates)
        positive = scores[range(len(part)), own]
        limit = positive - (1 - margin) * np.abs(positive)  # also below the positive if that is negative
        scores[range(len(part)), own] = -np.inf
        likely = scores > limit[:, None]
        left_out += int(likely.sum())
        scores[likely] = -np.inf
        for key, row in zip(part, scores):
            negatives[key] = [keys[place] for place in top(row, number) if row[place] > -np.inf] if number else []
    return negatives, left_out


def near_negatives(
    splits: dict[str, list[Section]], pairs: list[tuple[str, str]], number: int, seed: int
) -> Negatives:
    """Finds the hard negatives of [`hard_negatives`], which do not depend on the language of the query."""
    languages = list(dict.fromkeys(language for pair in pairs for language in pair))
    found = {
        (language, split): hard_negatives(part, language, number, seed)
        for language in tqdm(languages, desc="Hard negatives")
        for split, part in splits.items()
    }
    directions = [*pairs, *((target, source) for source, target in pairs)]
    return {(source, target, split): found[target, split] for source, target in directions for split in splits}


def dense_negatives(
    splits: dict[str, list[Section]],
    pairs: list[tuple[str, str]],
    model: "SentenceTransformer",
    number: int,
    margin: float,
) -> Negatives:
    """Finds the hard negatives of [`mine_negatives`] with the vectors of `model`. Logs how many were left out."""
    vectors, negatives, left_out, short = {}, {}, 0, 0
    for language in dict.fromkeys(language for pair in pairs for language in pair):
        for split, part in splits.items():
            texts = {section.key: section.text[language] for section in part if language in section.text}
            encoded = model.encode_document(list(texts.values()), normalize_embeddings=True, show_progress_bar=True)
            vectors[language, split] = dict(zip(texts, encoded))
    for source, target in dict.fromkeys([*pairs, *((target, source) for source, target in pairs)]):
        for split in splits:
            queries, documents = vectors[source, split], vectors[target, split]
            found, likely = mine_negatives(queries, documents, number, margin)
            negatives[source, target, split] = found
            left_out += likely
            short += sum(len(listed) < number for listed in found.values())
    lists = sum(map(len, negatives.values()))
    logger.warning(
        f"hard negatives of {lists} sections and directions: {left_out} candidates score above {margin:g} times the "
        f"aligned section and are left out; {short} lists have fewer than {number}"
    )
    return negatives


def score_sections(
    teacher: "Teacher",
    aligned: list[Section],
    part: list[Section],
    query: str,
    language: str,
    negatives: dict[str, list[str]],
) -> list[list[list[float]]]:
    """
    Scores what pretraining may read together: each sentence of a section in the language `query`, with the section and
    its hard negatives in `language`. The texts are those of [`PretrainingDataset`].

    Args:
        teacher (`Teacher`).
        aligned (`list[Section]`): sections that both languages have.
        part (`list[Section]`): sections of the split, the negatives among them.
        query, language (`str`): language of the sentences and of the documents.
        negatives (`dict[str, list[str]]`): section key to the keys of its negatives.

    Returns:
        For each aligned section and each of its sentences, the scores of the section and then of its negatives.
    """
    from .sections import as_query, split_sentences, without_sentence

    texts = {section.key: section.text[language] for section in part if language in section.text}
    pairs, shapes = [], []
    for section in aligned:
        sentences = split_sentences(section.text[query], query)
        others = [texts[key] for key in negatives[section.key]]
        for sentence in sentences:
            document = texts[section.key]
            if query == language:
                document = without_sentence(sentences, sentence) or document
            pairs += [(as_query(sentence), text) for text in (document, *others)]
        shapes.append((len(sentences), 1 + len(others)))
    scores = iter(teacher.score(pairs, f"teacher, {query}-{language}"))
    return [[list(islice(scores, width)) for _ in range(height)] for height, width in shapes]


def judge_nearest(
    documents: dict[str, str], queries: dict[str, str], qrels: dict[str, dict[str, int]], number: int
) -> dict[str, dict[str, int]]:
    """
    Adds up to `number` unjudged documents of each query to the qrels, with relevance 0. They are the nearest by BM25
    to the query in the documents' language.
    """
    keys, judged = list(documents), {}
    scores_of_queries = score_bm25(documents.values(), (queries[query] for query in qrels), **BM25)
    for (query, known), scores in zip(qrels.items(), scores_of_queries):
        nearest = [keys[place] for place in top(scores, number + len(known))]
        judged[query] = known | dict.fromkeys([key for key in nearest if key not in known][:number], 0)
    return judged


def write_corpus(
    output: Path,
    sections: list[Section],
    languages: list[str],
    validation_fraction: float = 0.05,
    num_negatives: int = 5,
    same_language: bool = False,
    seed: int = 0,
    negatives_from: str | None = None,
    negatives_margin: float = 0.95,
    teacher_model: str | None = None,
    prompts: tuple[str, str] | None = None,
    license: str | None = None,
    sources: Sequence[str] = (),
    left_out: Mapping[str, int] | None = None,
) -> dict[str, dict[str, int]]:
    """
    Writes a corpus folder with its dataset card, all or nothing.

    Args:
        output (`Path`): folder to write; it must not exist.
        sections (`list[Section]`).
        languages (`list[str]`): languages; every two make a pair.
        validation_fraction (`float`, defaults to 0.05): see [`hold_out`].
        num_negatives (`int`, defaults to 5): see [`hard_negatives`].
        same_language (`bool`, defaults to `False`): also pair each section with itself.
        seed (`int`, defaults to 0).
        negatives_from (`str`, *optional*): folder or Hub name of a dense model that finds the hard negatives, see
            [`mine_negatives`]. A section is encoded once in each language, as a document.
        negatives_margin (`float`, defaults to 0.95): see [`mine_negatives`]. The log counts what is left out.
        teacher_model (`str`, *optional*): folder or Hub name of a [`Teacher`], whose scores are written too, see
            [`score_sections`].
        prompts (`tuple[str, str]`, *optional*): of both models, see [`load_dense`].
        license, sources, left_out: see [`corpus_card`].

    Returns:
        `{pair: {split: number of aligned sections}}`.

    Raises `FileExistsError` if `output` exists. Raises `ValueError` for a bad argument, two sections with the same
    key, and if no section exists in two of the languages. Languages that no model card can name are logged.
    """
    if not 0 <= validation_fraction < 1:
        raise ValueError(f"validation_fraction must be at least 0 and less than 1, got {validation_fraction}")
    if num_negatives < 0:
        raise ValueError(f"num_negatives must not be negative, got {num_negatives}")
    if negatives_margin <= 0:
        raise ValueError(f"negatives_margin must be more than 0, got {negatives_margin}")
    if hyphens := [language for language in languages if "-" in language]:
        raise ValueError(f"a language must have no hyphen (it joins the languages of a pair); got {hyphens[0]!r}")
    warn_of_cards(languages)
    if twice := [key for key, number in Counter(section.key for section in sections).items() if number > 1]:
        raise ValueError(f"the section {twice[0]!r} occurs more than once: give the folders different names")
    splits = dict(zip(("train", "validation"), hold_out(sections, validation_fraction, seed)))
    pairs = list(combinations(languages, 2)) + [(language, language) for language in languages if same_language]
    if not any(source in s.text and target in s.text for source, target in pairs for s in sections):
        raise ValueError(f"no section exists in two of the languages {', '.join(languages)}: are the ids the same?")
    teacher, counts = None, defaultdict(dict)
    if teacher_model is not None:
        from ..teacher import Teacher

        teacher = Teacher(teacher_model, prompts)
    with new_folder(output) as folder:
        for language in languages:
            rows = (
                (f"{language}:{s.key}", language, s.article, s.title[language], s.heading[language], s.text[language])
                for s in sections
                if language in s.text
            )
            write_sections(folder / f"sections/{language}.parquet", rows)
        if negatives_from is None:
            negatives = near_negatives(splits, pairs, num_negatives, seed)
        else:
            model = load_dense(negatives_from, prompts)
            negatives = dense_negatives(splits, pairs, model, num_negatives, negatives_margin)
        for source, target in pairs:
            for split, part in splits.items():
                aligned = [s for s in part if source in s.text and target in s.text]
                columns = [[f"{language}:{s.key}" for s in aligned] for language in (source, target)]
                directions = ((target, source), (source, target))  # query, document
                for query, language in directions:
                    listed = negatives[query, language, split]
                    columns.append([[f"{language}:{key}" for key in listed[s.key]] for s in aligned])
                if teacher is not None:
                    scores = {
                        (query, language): score_sections(
                            teacher, aligned, part, query, language, negatives[query, language, split]
                        )
                        for query, language in dict.fromkeys(directions)
                    }
                    columns += [scores[direction] for direction in directions]
                write_pairs(folder / f"pairs/{source}-{target}/{split}.parquet", zip(*columns), teacher is not None)
                counts[f"{source}-{target}"][split] = len(aligned)
        (folder / "README.md").write_text(corpus_card(folder, license, sources, left_out), encoding="utf-8")
    return dict(counts)


__all__ = [
    "Section",
    "article_folds",
    "judge_nearest",
    "mine_negatives",
    "parse_articles",
    "read_documents",
    "read_questions",
    "read_squad",
    "write_corpus",
]
