"""A task in MTEB's layout: read back by datasets and by our own reader, and measured by mteb."""

import json
import re
import shutil

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from modeling_clir.data.collections import Collection, read_collection, write_collection
from modeling_clir.data.mteb import write_task
from tests.conftest import run
from tests.helpers import clir_command, run_here, write


PROGRAM = "scripts/build_mteb_task.py"
DOCUMENTS = {f"d{i}": text for i, text in enumerate(["Der Turm.", "Die Schule.", "Das Meer.", "Ein Hafen.", "Eis."])}
QUERIES = {f"q{i}": text for i, text in enumerate(["tower", "school", "sea", "ice", "not judged"])}
# q2 has no relevant document, q3 no candidates: both count 0
QRELS = {"q0": {"d0": 2, "d1": 0, "d4": 1}, "q1": {"d1": 1}, "q2": {"d2": 0}, "q3": {"d4": 1}}
CANDIDATES = {"q0": {"d3": 3.0, "d0": 2.0, "d1": 1.0}, "q1": {d: -float(d[1:]) for d in DOCUMENTS}, "q2": {"d2": 1.0}}


@pytest.fixture
def collections(tmp_path):
    for name in ("en-de", "de-en"):
        write_collection(tmp_path / name, DOCUMENTS, QUERIES, QRELS, CANDIDATES)
    titled = [
        {"id": "d0", "title": "Turm", "text": "Am Meer."},
        *({"id": d, "text": DOCUMENTS[d]} for d in ("d1", "d2")),
    ]
    write(tmp_path / "de-fr" / "documents.jsonl", *titled)
    write(tmp_path / "de-fr" / "queries.tsv", "q\ttour")
    write(tmp_path / "de-fr" / "qrels.txt", "q 0 d0 1")
    return [tmp_path / name for name in ("en-de", "de-en", "de-fr")]


@pytest.fixture
def task(collections, tmp_path, monkeypatch, capsys):
    options = ("--collections", *collections, "--license", "cc0-1.0")
    run_here(monkeypatch, PROGRAM, tmp_path / "task", *options)
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/task en-de: 4 queries, 5 documents, 9 pairs to rank",
        f"{tmp_path}/task de-en: 4 queries, 5 documents, 9 pairs to rank",
        f"{tmp_path}/task de-fr: 1 queries, 3 documents, 3 pairs to rank",
    ]
    return tmp_path / "task"


def test_datasets_reads_the_parts(task):
    rows = {
        part: load_dataset(str(task), f"en-de-{part}", split="test").to_list()
        for part in ("corpus", "queries", "qrels", "top_ranked")
    }
    assert rows["corpus"] == [{"_id": d, "title": "", "text": text} for d, text in DOCUMENTS.items()]
    assert rows["queries"] == [{"_id": q, "text": QUERIES[q]} for q in QRELS]
    expected = [{"query-id": q, "corpus-id": d, "score": s} for q, judged in QRELS.items() for d, s in judged.items()]
    assert rows["qrels"] == expected
    assert rows["top_ranked"] == [{"query-id": q, "corpus-ids": list(CANDIDATES.get(q, ()))} for q in QRELS]
    card = DatasetCard.load(task / "README.md")
    assert card.data.language == ["de", "en", "fr"] and card.data.license == "cc0-1.0"
    assert "| de-fr | 1 | 3 | 3 |" in card.text


def test_a_task_that_is_written_again_has_its_new_rows(tmp_path):
    for text in ("old", "new"):
        collection = Collection("en-de", {"d": text}, {"q": "a"}, {"q": {"d": 1}}, {"q": ["d"]})
        write_task(tmp_path / "task", [collection])
        rows = load_dataset(str(tmp_path / "task"), "en-de-corpus", split="test", cache_dir=str(tmp_path / "cache"))
        assert rows["text"][:] == [text]
        shutil.rmtree(tmp_path / "task")


@pytest.mark.parametrize("name", ["en-de", "de-fr"])
def test_our_reader_of_such_data_sets_gets_the_collection_back(name, task, collections, tmp_path, monkeypatch):
    (original,) = (folder for folder in collections if folder.name == name)
    options = ("--source", "hub", "--queries", task, "--subset", name, "--candidates", task)
    run_here(monkeypatch, "scripts/prepare_collection.py", tmp_path / "again" / name, *options)
    found, expected = read_collection(tmp_path / "again" / name), read_collection(original)
    assert found.documents == expected.documents and found.qrels == expected.qrels
    assert found.queries == {query: expected.queries[query] for query in expected.qrels}
    assert {q: set(d) for q, d in found.candidates.items()} == {q: set(d) for q, d in expected.candidates.items()}


def test_mteb_measures_what_run_clir_measures(task, collections, tiny_bert, tmp_path, capsys, monkeypatch):
    pytest.importorskip("mteb", reason="mteb is not installed: pip install -e '.[mteb]'")
    from modeling_clir.convert import main as convert

    model = tmp_path / "bertlong"
    assert convert([str(tiny_bert), str(model)]) == 0
    lengths = ("--max_length", "500", "--max_query_length", "128")
    run(*clir_command(model, collections, tmp_path / "ranked", *lengths))
    metrics = json.loads((tmp_path / "ranked/metrics.json").read_text(encoding="utf-8"))
    # The example of the card
    code = re.search(r"```python\n(.*?)```", (task / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    exec(code.replace("MODEL", str(model)), {})
    found = dict(line.split() for line in capsys.readouterr().out.splitlines() if re.match("[a-z]{2}-[a-z]{2} ", line))
    assert set(found) == {"en-de", "de-en", "de-fr"}
    for name, value in found.items():
        assert float(value) == pytest.approx(metrics[name]["MAP"], abs=1e-5)
    assert 0 < metrics["en-de"]["MAP"] < 0.6


def test_unknown_languages_of_mteb(task, collections):
    pytest.importorskip("mteb", reason="mteb is not installed: pip install -e '.[mteb]'")
    from mteb.languages import check_language_code

    from modeling_clir.data.mteb import LANGUAGES, reranking_task, write_task

    for code in LANGUAGES.values():
        check_language_code(code)
    collection = read_collection(collections[2])
    collection.name = "de-qya"
    other = task.parent / "other"
    write_task(other, [collection])
    with pytest.raises(ValueError, match="mteb's code for the language qya is not known here: pass eval_langs"):
        reranking_task(other)
    languages = {"de-qya": ["deu-Latn", "eng-Latn"]}
    assert reranking_task(other, eval_langs=languages).metadata.eval_langs == languages
    (task.parent / "empty").mkdir()
    (task.parent / "empty" / "a.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(ValueError, match="has no config such as en-de-top_ranked"):
        reranking_task(task.parent / "empty")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["sample"], "the collection sample must have the name of its languages"),
        (["x/en-de", "y/en-de"], "two collections have the name en-de"),
        (["nowhere/en-de"], "nowhere"),
    ],
)
def test_mistakes(names, message, tmp_path, mistake, monkeypatch):
    for name in names:
        if "nowhere" not in name:
            write_collection(tmp_path / name, DOCUMENTS, QUERIES, QRELS)
    assert message in mistake(PROGRAM, tmp_path / "task", "--collections", *(tmp_path / name for name in names))
    assert not (tmp_path / "task").exists()
