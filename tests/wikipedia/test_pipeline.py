"""The corpus that comes of dumps: what is in it, and that it is the same however it was built."""

import errno
import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest


pytest.importorskip("datatrove")

from modeling_clir.wikipedia import engine, pipeline, work
from modeling_clir.wikipedia.pipeline import build, list_input
from modeling_clir.wikipedia.work import SPLITS, Settings

from ..helpers import write
from .wikis import LANGUAGES, write_wikis
from .written import write_sql


TOPICS = 12


@pytest.fixture(scope="module")
def dumps(tmp_path_factory) -> Path:
    return write_wikis(tmp_path_factory.mktemp("dumps"), TOPICS)


@pytest.fixture(scope="module")
def corpus(dumps, tmp_path_factory) -> Path:
    return build_here(dumps, tmp_path_factory.mktemp("built") / "corpus")


def settings_of(dumps: Path, output: Path, **changes) -> Settings:
    values = {"languages": LANGUAGES, "tasks": 3, "validation_fraction": 0.2, "num_negatives": 3} | changes
    files = list_input("dumps", str(dumps), list(values["languages"]), values.get("topics"))
    return Settings(output=str(output), source="dumps", input=str(dumps), files=files, **values)


def build_here(dumps: Path, output: Path, executor: str = "local", workers: int = 1, **changes) -> Path:
    assert build(settings_of(dumps, output, **changes), executor, workers)
    return output


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder: Path, table: str) -> list[dict]:
    return [row for path in sorted((folder / table).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


# ---------------------------------------------------------------------------------------------------------------------
# What is in it
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", ["en-de", "en-fr", "de-fr"])
def test_sections_with_the_same_number_match(corpus, pair):
    pairs = [row for split in SPLITS for row in rows(corpus, f"pairs/{pair}/{split}")]
    topics = TOPICS * 2 // 3 if "fr" in pair else TOPICS
    assert len(pairs) > 0.9 * 5 * topics
    assert all(row["source_id"].split(":")[1] == row["target_id"].split(":")[1] for row in pairs)


def test_ids_name_the_rows_of_their_language_once(corpus):
    for language in LANGUAGES:
        sections = rows(corpus, f"sections/{language}")
        ids = [row["id"] for row in sections]
        assert len(ids) == len(set(ids)) and all(row["language"] == language and row["text"] for row in sections)
        for path in corpus.glob("pairs/*/*"):
            pair = path.parent.name.split("-")
            for side, name in enumerate(("source", "target")):
                if pair[side] == language:
                    for row in rows(corpus, str(path.relative_to(corpus))):
                        negatives = row[f"{name}_negatives"]
                        assert {row[f"{name}_id"], *negatives} <= set(ids)
                        assert len(negatives) == 3 and row[f"{name}_id"] not in negatives


def test_topics_are_held_out_in_all_languages_with_their_negatives(corpus):
    topics = {}
    for split in SPLITS:
        names = [n for p in corpus.glob(f"pairs/*/{split}") for n in rows(corpus, str(p.relative_to(corpus)))]
        ids = {i for r in names for i in (r["source_id"], *r["source_negatives"], *r["target_negatives"])}
        topics[split] = {i.split(":")[1].split("#")[0] for i in ids}
    assert topics["train"] and topics["validation"] and not topics["train"] & topics["validation"]


def test_card_counts_what_is_there_and_what_is_not(corpus):
    card = (corpus / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-sa-4.0" in card and "enwiki-20240501-pages-articles-multistream.xml.bz2" in card
    for language in LANGUAGES:
        for reason in ("redirect", "stub", "articles in one language alone"):
            assert f"{language}: {reason}" in card
    for language in LANGUAGES:
        assert f"{len(rows(corpus, f'sections/{language}'))}" in card


def test_datasets_opens_the_corpus_by_its_card(corpus):
    from datasets import load_dataset

    pairs = load_dataset(str(corpus), "en-de")
    assert pairs["train"].num_rows == len(rows(corpus, "pairs/en-de/train"))


# ---------------------------------------------------------------------------------------------------------------------
# However it was built
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_workers_write_the_same_bytes(dumps, corpus, tmp_path):
    assert content(build_here(dumps, tmp_path / "corpus", workers=2)) == content(corpus)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]  # the work folder is removed


def test_pairs_do_not_depend_on_the_number_of_tasks(dumps, corpus, tmp_path):
    other = build_here(dumps, tmp_path / "corpus", tasks=1)
    for path in corpus.glob("pairs/*/*"):
        name = str(path.relative_to(corpus))
        ids = [sorted((row["source_id"], row["target_id"]) for row in rows(one, name)) for one in (corpus, other)]
        assert ids[0] == ids[1]


@pytest.mark.parametrize("stage", ["read", "finish"])
def test_a_run_that_ends_in_any_stage_goes_on_there(dumps, corpus, tmp_path, monkeypatch, stage):
    class Stopped(BaseException):
        """Passes everything that handles errors, as a killed process does."""

    done = []

    def count(self):
        done.append(Path(self.file).name)
        if Path(self.file).name.startswith(f"{stage}-"):
            raise Stopped

    show = engine.Progress.show
    monkeypatch.setattr(engine.Progress, "show", count)
    with pytest.raises(Stopped):
        build_here(dumps, tmp_path / "corpus")
    finished = list(done)
    monkeypatch.setattr(engine.Progress, "show", lambda self: (done.append(self.file.name), show(self)))
    assert content(build_here(dumps, tmp_path / "corpus")) == content(corpus)
    assert not set(done[len(finished) :]) & set(finished)  # no finished task is done again


def test_other_settings_do_not_go_on(dumps, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "align", None)
    with pytest.raises(TypeError):
        build_here(dumps, tmp_path / "corpus")
    with pytest.raises(ValueError, match=r"corpus\.work was begun with other tasks: 3, not 4"):
        build_here(dumps, tmp_path / "corpus", tasks=4)


def test_a_killed_worker_ends_the_run(dumps, tmp_path, monkeypatch):
    stages = pipeline.stages(settings_of(dumps, tmp_path / "corpus"))
    stages[0] = stages[0]._replace(function=kill_self, tasks=2)
    with pytest.raises(ChildProcessError, match="a process of the stage 'index' was killed"):
        engine.run_stages(stages, tmp_path / "work", settings_of(dumps, tmp_path / "corpus"), "local", 2)


def kill_self(*args):
    os.kill(os.getpid(), 9)


# ---------------------------------------------------------------------------------------------------------------------
# What goes wrong
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["read", "align"])
def test_full_disk_names_the_folder_and_leaves_nothing_half(dumps, corpus, tmp_path, monkeypatch, stage):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(
            work.Shards if stage == "read" else pipeline, "flush" if stage == "read" else "write_pairs", full
        )
        with pytest.raises(ValueError, match=rf"corpus\.work/{stage}/00000: no space left on device"):
            build_here(dumps, tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists() and not list((tmp_path / "corpus.work" / stage).iterdir())
    assert content(build_here(dumps, tmp_path / "corpus")) == content(corpus)


def test_full_disk_is_named_even_if_the_error_cannot_be_written(dumps, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(engine, "new_file", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        build_here(dumps, tmp_path / "corpus")
    assert error.value.filename == str(tmp_path / "corpus.work")


def test_wikidata_ids_of_other_dumps_leave_nothing_to_align(dumps, tmp_path):
    folder = tmp_path / "dumps"
    write_wikis(folder, topics=2)
    for place, language in enumerate(LANGUAGES):
        props = [(topic, "wikibase_item", f"Q{place}00{topic}", None) for topic in (1, 2)]
        write_sql(folder / f"{language}wiki-20240501-page_props.sql.gz", "page_props", props)
    with pytest.raises(ValueError, match="no topic has matching sections in two of the languages en, de, fr"):
        build_here(folder, tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_a_mistake_in_the_first_stage_leaves_nothing(dumps, corpus, tmp_path):
    """So that the same command works when the missing file is there."""
    folder = tmp_path / "dumps"
    shutil.copytree(dumps, folder)
    for file in folder.glob("*.sql.gz"):
        file.unlink()
    with pytest.raises(ValueError, match="nothing joins the articles in 'en'"):
        build_here(folder, tmp_path / "corpus")
    assert [path.name for path in tmp_path.iterdir()] == ["dumps"]
    for file in dumps.glob("*.sql.gz"):
        shutil.copy(file, folder)
    assert content(build_here(folder, tmp_path / "corpus")) == content(corpus)


def test_a_table_of_topics_gives_the_pairs_of_wikidata_ids(dumps, corpus, tmp_path):
    folder = tmp_path / "dumps"
    shutil.copytree(dumps, folder)
    for file in folder.glob("*.sql.gz"):
        file.unlink()
    rows = [f"Q{n}\t{language}\t{language.upper()} topic {n}" for n in range(1, 13) for language in LANGUAGES]
    table = write(tmp_path / "topics.tsv", *rows)
    built = build_here(folder, tmp_path / "corpus", topics=str(table))
    ours, theirs = content(built), content(corpus)
    assert {name for name in ours if ours[name] != theirs.get(name)} == {"README.md"} and ours.keys() == theirs.keys()
    assert "fr: rows of the table of topics without an article: 4" in (built / "README.md").read_text(encoding="utf-8")


def test_an_encoder_helps_to_align(dumps, tiny_bert, tmp_path):
    """A random one: it says little, and the other features still find the known pairs."""
    built = build_here(dumps, tmp_path / "corpus", encoder=str(tiny_bert))
    pairs = [row for split in SPLITS for row in rows(built, f"pairs/en-de/{split}")]
    right = [row["source_id"].split(":")[1] == row["target_id"].split(":")[1] for row in pairs]
    assert len(pairs) > 0.8 * 5 * TOPICS and sum(right) > 0.9 * len(pairs)


def test_settings_are_kept_as_json(dumps, tmp_path):
    settings = settings_of(dumps, tmp_path / "corpus")
    settings.work.mkdir()
    work.keep_settings(settings)
    assert json.loads((settings.work / "settings.json").read_text(encoding="utf-8"))["languages"] == list(LANGUAGES)
    work.keep_settings(settings)
