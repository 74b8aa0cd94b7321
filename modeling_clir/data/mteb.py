"""Writes collections as a cross-lingual reranking task in MTEB's layout, and opens such a task for the package mteb."""

from __future__ import annotations

import re
import zlib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .collections import Collection
from .files import new_folder
from .languages import card_languages


if TYPE_CHECKING:
    from mteb.abstasks.retrieval import AbsTaskRetrieval

PARTS = ("corpus", "queries", "qrels", "top_ranked")
PAIR = re.compile("[a-z]{2,3}-[a-z]{2,3}")
DEEPEST = 1000  # candidates of a query that mteb's MAP counts
# mteb names languages by ISO 639-3 and script.
LANGUAGES = {
    **{"ar": "ara-Arab", "bg": "bul-Cyrl", "bn": "ben-Beng", "cs": "ces-Latn", "da": "dan-Latn", "de": "deu-Latn"},
    **{"el": "ell-Grek", "en": "eng-Latn", "es": "spa-Latn", "et": "est-Latn", "fa": "fas-Arab", "fi": "fin-Latn"},
    **{"fr": "fra-Latn", "he": "heb-Hebr", "hi": "hin-Deva", "hr": "hrv-Latn", "hu": "hun-Latn", "id": "ind-Latn"},
    **{"it": "ita-Latn", "ja": "jpn-Jpan", "ko": "kor-Kore", "lt": "lit-Latn", "lv": "lav-Latn", "nl": "nld-Latn"},
    **{"no": "nor-Latn", "pl": "pol-Latn", "pt": "por-Latn", "ro": "ron-Latn", "ru": "rus-Cyrl", "sk": "slk-Latn"},
    **{"sl": "slv-Latn", "so": "som-Latn", "sv": "swe-Latn", "sw": "swa-Latn", "ta": "tam-Taml", "te": "tel-Telu"},
    **{"th": "tha-Thai", "tl": "tgl-Latn", "tr": "tur-Latn", "uk": "ukr-Cyrl", "ur": "urd-Arab", "vi": "vie-Latn"},
    **{"yo": "yor-Latn", "zh": "zho-Hans"},
}


def check_pairs(names: list[str]):
    """Raises `ValueError` for a collection whose name is not a pair of languages, and for a name that occurs twice."""
    for name in names:
        if not PAIR.fullmatch(name):
            raise ValueError(
                f"the collection {name} must have the name of its languages, query first, such as en-de: mteb names "
                "the subsets of a task by them"
            )
        if names.count(name) > 1:
            raise ValueError(f"two collections have the name {name}: a task has one for each pair of languages")


def task_tables(collection: Collection) -> dict[str, dict[str, list]]:
    """
    Makes the tables of a subset, each from column to values: `corpus` (`_id`, `title`, `text`), `queries` (`_id`,
    `text`), `qrels` (`query-id`, `corpus-id`, `score`) and `top_ranked` (`query-id`, `corpus-ids`). Only judged queries
    are in them. A title is part of the text, as in the collection.
    """
    judged = [(query, *item) for query, grades in collection.qrels.items() for item in grades.items()]
    documents = list(collection.documents)
    return {
        "corpus": {
            "_id": documents,
            "title": [""] * len(documents),
            "text": list(collection.documents.values()),
        },
        "queries": {
            "_id": list(collection.qrels),
            "text": [collection.queries[query] for query in collection.qrels],
        },
        "qrels": dict(zip(("query-id", "corpus-id", "score"), map(list, zip(*judged)))),
        "top_ranked": {
            "query-id": list(collection.qrels),
            "corpus-ids": [list(collection.candidates[query]) for query in collection.qrels],
        },
    }


def write_task(
    folder: Path, collections: list[Collection], license: str | None = None
) -> list[tuple[str, int, int, int]]:
    """
    Writes a folder, all or nothing: `{pair}-{part}/test-{checksum}.parquet` for each collection and each of `PARTS`,
    and a card by which `datasets` finds them, here and on the Hub.

    Args:
        folder (`Path`): a new folder.
        collections (`list[Collection]`): their names are pairs of languages.
        license (`str`, *optional*): license of the texts, for the card.

    Returns the name, queries, documents and pairs to rank of each collection. Raises the errors of [`check_pairs`] and
    `FileExistsError`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from huggingface_hub import DatasetCard, DatasetCardData

    check_pairs([collection.name for collection in collections])
    rows = [(c.name, len(c.qrels), len(c.documents), sum(map(len, c.candidates.values()))) for c in collections]
    languages = sorted({language for collection in collections for language in collection.name.split("-")})
    with new_folder(folder) as temporary:
        configs = []
        for collection in collections:
            for part, columns in task_tables(collection).items():
                configs.append({"config_name": f"{collection.name}-{part}"})
                path = temporary / configs[-1]["config_name"] / "test.parquet"
                path.parent.mkdir()
                pq.write_table(pa.table(columns), path)
                # `datasets` caches a folder's rows by the names of its files: other rows need another name
                path = path.rename(path.with_stem(f"test-{zlib.crc32(path.read_bytes()):08x}"))
                configs[-1]["data_files"] = [{"split": "test", "path": path.relative_to(temporary).as_posix()}]
        data = DatasetCardData(
            language=card_languages(languages) or None,
            license=license,
            pretty_name=folder.resolve().name,
            task_categories=["text-ranking"],
            tags=["mteb", "cross-lingual"],
            configs=configs,
        )
        card = DatasetCard.from_template(
            data,
            template_str=files("modeling_clir").joinpath("templates/mteb_card.md").read_text(encoding="utf-8"),
            name=folder.resolve().name,
            license=license,
            first=collections[0].name,
            rows=rows,
            deepest=DEEPEST,
        )
        card.save(temporary / "README.md")
    return rows


def reranking_task(
    path: str | Path, name: str = "CrossLingualReranking", revision: str = "main", **metadata: Any
) -> AbsTaskRetrieval:
    """
    Opens what [`write_task`] wrote as a task for `mteb.evaluate`. There is a subset for each pair of languages.

    Args:
        path (`str` or `Path`): folder or Hub name.
        name (`str`, defaults to `"CrossLingualReranking"`): name of the task, in mteb's results.
        revision (`str`, defaults to `"main"`): commit of a data set on the Hub; a folder has none.
        metadata: further fields of mteb's `TaskMetadata`, such as `license`, or others than these: `description`,
            `main_score` (`"map_at_1000"`, our MAP), and `eval_langs`, a dictionary from pair to mteb's codes of both
            languages, which is needed for a language that `LANGUAGES` lacks.

    Raises `ValueError` for a data set without such pairs, and for an unknown language.
    """
    from datasets import get_dataset_config_names
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    configs = get_dataset_config_names(str(path), revision=revision)
    pairs = [config.removesuffix("-top_ranked") for config in configs if config.endswith("-top_ranked")]
    if not pairs:
        raise ValueError(f"{path} has no config such as en-de-top_ranked: write it with scripts/build_mteb_task.py")
    check_pairs(pairs)
    codes = {language for pair in pairs for language in pair.split("-")}
    if "eval_langs" not in metadata and (unknown := sorted(codes - LANGUAGES.keys())):
        raise ValueError(
            f"mteb's code for the language {unknown[0]} is not known here: pass eval_langs, such as "
            '{"en-de": ["eng-Latn", "deu-Latn"]}'
        )
    fields = {
        "name": name,
        "description": "Documents in one language are reranked for queries in another language.",
        "dataset": {"path": str(path), "revision": revision},
        "type": "Reranking",
        "category": "t2t",
        "modalities": ["text"],
        "eval_splits": ["test"],
        "main_score": "map_at_1000",
    }
    if "eval_langs" not in metadata:
        fields["eval_langs"] = {pair: [LANGUAGES[language] for language in pair.split("-")] for pair in pairs}
    task_class = type(name, (AbsTaskRetrieval,), {"metadata": TaskMetadata(**(fields | metadata))})
    return task_class()


__all__ = ["LANGUAGES", "check_pairs", "reranking_task", "task_tables", "write_task"]
