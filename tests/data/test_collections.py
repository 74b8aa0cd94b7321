"""Collections for retrieval: their files, training examples and ranking."""

import codecs
import gzip
import json
from pathlib import Path

import pytest

from modeling_clir.data.collections import Collection, check_teacher, count_pairs, read_collection, write_collection
from modeling_clir.data.queries import QueryDataset
from modeling_clir.data.sections import ExampleKey

from ..conftest import REPOSITORY, run
from ..helpers import squad, write


def collection(folder: Path, **files) -> Path:
    texts = {
        "documents": [{"id": "d1", "text": "one"}, {"id": "d2", "text": "two", "title": "T"}],
        "queries": ["q1\tfirst", "q2\tsecond"],
        "qrels": ["q1 0 d1 1", "q2 0 d1 0", "q2 0 d2 2"],
    }
    names = {
        "documents": "documents.jsonl",
        "queries": "queries.tsv",
        "qrels": "qrels.txt",
        "run": "candidates.run",
        "folds": "folds.json",
    }
    for kind, lines in (texts | files).items():
        if lines is not None:
            write(folder / names[kind], *lines)
    return folder


def test_read_collection(tmp_path, caplog):
    folder = collection(tmp_path / "en-de")
    expected = Collection(
        "en-de",
        {"d1": "one", "d2": "T two"},
        {"q1": "first", "q2": "second"},
        {"q1": {"d1": 1}, "q2": {"d1": 0, "d2": 2}},
        {"q1": ["d1", "d2"], "q2": ["d1", "d2"]},
    )
    assert read_collection(folder) == expected and not caplog.messages
    count_pairs([expected])
    assert caplog.messages == [
        "en-de has no candidates.run: 2 judged queries with all 2 documents each are 4 pairs to rank"
    ]
    collection(folder, run=["q2 Q0 d2 1 9.5 tag", "q1 Q0 d1 1 3 tag", "q2 Q0 d1 2 1 tag"], folds=[[["q1"], ["q2"]]])
    read = read_collection(folder)
    count_pairs([read])
    assert len(caplog.messages) == 1  # of a collection with candidates, nothing
    assert read.candidates == {"q1": ["d1"], "q2": ["d2", "d1"]} and read.folds == [["q1"], ["q2"]]
    assert read.first_stage == {"q1": {"d1": 3.0}, "q2": {"d2": 9.5, "d1": 1.0}}


def test_what_a_collection_lacks_is_reported(tmp_path, caplog):
    lines = {"queries": ["q1\tfirst", "q2\tsecond", "q3\tthird"], "folds": [[["q2"]]]}
    read_collection(collection(tmp_path / "c", **lines, qrels=["q1 0 d1 1", "q2 0 d1 0", "q2 0 d2 -1"]))
    assert caplog.messages == [
        f"{tmp_path}/c: 1 of 3 queries have no judgement and are not ranked",
        f"{tmp_path}/c: 1 judged queries have no relevant document, 'q2' the first; they count 0",
        f"{tmp_path}/c/folds.json: 1 of 2 judged queries are in no fold",
    ]


@pytest.mark.parametrize("end", ["", ".gz"])
def test_every_file_may_be_gzipped(end, tmp_path, caplog):
    run, folds = ["q2 Q0 d2 1 9 x", "q1 Q0 d1 1 3 x"], [[["q1"], ["q2"]]]
    for path in list(collection(tmp_path / "c", run=run, folds=folds).iterdir()):
        data = path.read_bytes()
        path.unlink()
        Path(f"{path}{end}").write_bytes(gzip.compress(data) if end else data)
    read = read_collection(tmp_path / "c")
    assert read.candidates == {"q1": ["d1"], "q2": ["d2"]} and read.folds == [["q1"], ["q2"]] and not caplog.messages


@pytest.mark.parametrize("name", ["documents.jsonl", "queries.tsv", "qrels.txt", "candidates.run", "folds.json"])
def test_a_file_that_is_there_twice(name, tmp_path):
    folder = collection(tmp_path / "c", run=["q2 Q0 d2 1 9 x", "q1 Q0 d1 1 3 x"], folds=[[["q1"], ["q2"]]])
    write(folder / f"{name}.gz", "x")
    with pytest.raises(ValueError, match=f"c has both {name} and {name}.gz; remove one"):
        read_collection(folder)


def test_files_that_are_not_read_are_said(tmp_path, caplog):
    folder = collection(tmp_path / "c", run=["q2 Q0 d2 1 9 x", "q1 Q0 d1 1 3 x"])
    for name in ("candidates.trec", "folds.json.bz2", "documents.json", "Queries-fr.tsv", "dense.run", "README.md"):
        write(folder / name, "x")
    read_collection(folder)
    assert [message.split("; ")[0] for message in caplog.messages] == [
        f"{folder}: not read: Queries-fr.tsv, candidates.trec, documents.json, folds.json.bz2"
    ]


def test_queries_without_candidates_are_said(tmp_path, caplog):
    folder = collection(tmp_path / "c", run=["q2 Q0 d2 1 9 x"])
    assert read_collection(folder).candidates == {"q1": [], "q2": ["d2"]}
    message = f"{folder}/candidates.run: 1 of 2 judged queries have no candidates, 'q1' the first; they count 0"
    assert caplog.messages == [message]
    write(folder / "other.run", "")
    with pytest.raises(ValueError, match=r"other\.run has no document for any judged query"):
        read_collection(folder, folder / "other.run")
    caplog.clear()
    texts = {"d": "x"}, {"q": "y", "r": "z"}, {"q": {"d": 1}, "r": {"d": 1}}
    write_collection(tmp_path / "written", *texts, candidates={"q": {"d": 1.0}})
    assert caplog.messages == [
        f"{tmp_path}/written: 1 of 2 judged queries have no candidates, 'r' the first; they count 0"
    ]
    assert read_collection(tmp_path / "written").candidates == {"q": ["d"], "r": []}
    with pytest.raises(ValueError, match="no document for any judged query"):
        write_collection(tmp_path / "none", *texts, candidates={})


def test_byte_order_marks(tmp_path):
    expected = read_collection(collection(tmp_path / "c"))
    for path in (tmp_path / "c").iterdir():
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert read_collection(tmp_path / "c") == expected


@pytest.mark.parametrize("name", [".", "sub/..", "../en-de/", "../en-de"])
def test_name_of_a_collection(name, tmp_path, monkeypatch):
    collection(tmp_path / "en-de")
    (tmp_path / "en-de/sub").mkdir()
    monkeypatch.chdir(tmp_path / "en-de")
    assert read_collection(Path(name)).name == "en-de"


@pytest.mark.parametrize("end", ["\r\n", "\n \n", "\n\n"])
def test_read_collection_line_ends(end, tmp_path):
    write(
        tmp_path / "documents.jsonl.gz", {"id": "a\u00e9", "text": "x\u2028y\r\nz"}, {"id": "d2", "text": "t"}, end=end
    )
    write(tmp_path / "queries.tsv", "q1\ta\tb\u2028c\x85d ", "q2\te", end=end)
    write(tmp_path / "qrels.txt.gz", "q1\t0\td2\t-1", "q2   0 d2 1 ", end=end)
    read = read_collection(tmp_path)
    assert read.documents == {"a\u00e9": "x\u2028y\r\nz", "d2": "t"}
    assert read.queries == {"q1": "a\tb\u2028c\x85d ", "q2": "e"}
    assert read.qrels == {"q1": {"d2": -1}, "q2": {"d2": 1}}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"documents": ["", {"id": "d1", "text": "x"}, {"id": "d1", "text": "y"}]},
            "documents.jsonl:3: the document id",
        ),
        ({"documents": [{"id": "d1", "text": " \u00a0"}]}, "documents.jsonl:1: the document 'd1' has no text"),
        ({"documents": [{"id": "d1"}]}, "documents.jsonl:1: the key 'text' is missing"),
        ({"documents": [{"id": "d1", "text": None}]}, "documents.jsonl:1: 'text' must be a string"),
        (
            {"documents": [{"id": "d 1", "text": "x"}]},
            "documents.jsonl:1: the document id 'd 1' is empty or has a space",
        ),
        ({"documents": [{"id": "", "text": "x"}]}, "documents.jsonl:1: the document id '' is empty or has a space"),
        ({"documents": ["nonsense"]}, "documents.jsonl:1: not JSON"),
        ({"queries": ["q1\tx", "", "q2"]}, "queries.tsv:3: expected 2 columns, got 1"),
        ({"queries": ["q1 x"]}, "queries.tsv:1: expected 2 columns, got 1"),
        ({"queries": ["q1\tx", "q1\ty"]}, "queries.tsv:2: the query id 'q1' occurs more than once"),
        ({"queries": ["q1\tx", "q 1\tx"]}, "queries.tsv:2: the query id 'q 1' is empty or has a space"),
        ({"queries": ["q1\t "]}, "queries.tsv:1: the query 'q1' has no text"),
        ({"qrels": []}, "qrels.txt has no judgement"),
        ({"qrels": ["q1 0 d1"]}, "qrels.txt:1: expected 4 columns, got 3"),
        ({"qrels": ["q1 0 d1 1 x"]}, "qrels.txt:1: expected 4 columns, got 5"),
        ({"qrels": ["q1 0 d1 1", "q3 0 d1 1"]}, "qrels.txt:2: no query has the id 'q3'"),
        ({"qrels": ["q1 0 d3 1"]}, "qrels.txt:1: no document has the id 'd3'"),
        ({"qrels": ["q1 0 d1 1.0"]}, "qrels.txt:1: the relevance must be a whole number"),
        ({"qrels": ["q1 0 d1 -"]}, "qrels.txt:1: the relevance must be a whole number"),
        ({"qrels": ["q1 0 d1 --1"]}, "qrels.txt:1: the relevance must be a whole number"),
        ({"qrels": ["q1 0 d1 ²"]}, "qrels.txt:1: the relevance must be a whole number"),
        ({"qrels": ["q1 0 d1 1", "q2 0 d1 1", "q1 0 d1 0"]}, "qrels.txt:3: document 'd1' is judged twice"),
        ({"run": ["q1 Q0 d1 1 1"]}, "candidates.run:1: expected 6 columns, got 5"),
        ({"run": ["q1 Q0 d3 1 1 x"]}, "candidates.run:1: no document has the id 'd3'"),
        ({"run": ["q3 Q0 d1 1 1 x"]}, "candidates.run:1: no query has the id 'q3'"),
        ({"run": ["q1 Q0 d1 1 1 x"] * 2 + ["q2 Q0 d1 1 1 x"]}, "candidates.run:2: document 'd1' is listed twice"),
        ({"run": ["q1 Q0 d1 1 x x"]}, "candidates.run:1: the score must be a finite number, got 'x'"),
        ({"folds": [[["q1"], ["q9"]]]}, "folds.json: query 'q9' has no judgement"),
        ({"folds": ["{"]}, "folds.json:2: not JSON"),
        ({"documents": ['{"id": "d1", "text": "a \\ud83d b"}']}, "documents.jsonl:1: a string has a lone surrogate"),
        ({"queries": ["q1\tx", "q2\ta\0b"]}, "queries.tsv:2: has a NUL character"),
        ({"folds": [{"q1": ["q2"]}]}, "folds.json: expected a list of folds"),
        ({"folds": [[1]]}, "folds.json: expected a list of folds"),
        ({"folds": [[["q1", "q2"], []]]}, "folds.json: expected a list of folds"),
        ({"folds": [[["q1"], ["q1", "q2"]]]}, "folds.json: query 'q1' occurs more than once"),
    ],
)
def test_read_collection_errors(files, message, tmp_path):
    collection(tmp_path / "c", **files)
    with pytest.raises(ValueError, match=message) as error:
        read_collection(tmp_path / "c")
    assert str(error.value).startswith(str(tmp_path / "c"))


@pytest.mark.parametrize("missing", ["documents", "queries", "qrels"])
def test_read_collection_without_a_file(missing, tmp_path):
    with pytest.raises(FileNotFoundError, match=missing):
        read_collection(collection(tmp_path / "c", **{missing: None}))


def test_judged_by_bm25(tmp_path):
    """Finds the documents nearest to the query in their own language; words of another language would find others."""
    texts = {"en": ["ship sails sea", "ship sails lake", "ship train", "cheese"], "de": ["Meer", "See", "Zug", "Käse"]}
    for language, contexts in texts.items():
        paragraphs = [
            {"context": text, "qas": [{"id": f"q{i}", "question": f"{text}?"}]} for i, text in enumerate(contexts)
        ]
        write(tmp_path / f"x.{language}.json", {"data": [{"title": "t", "paragraphs": paragraphs}]})
    flags = ("--pairs", "de-en", "--squad", tmp_path, "--judged")
    run("scripts/build_collections.py", tmp_path / "out", *flags, "2")
    read = read_collection(tmp_path / "out/de-en")
    keys = {text: key for key, text in read.documents.items()}
    ship, lake, train, _ = (keys[text] for text in texts["en"])
    assert read.queries["q0"] == "Meer?" and read.qrels["q0"] == {ship: 1, lake: 0, train: 0}
    assert all(sorted(judged) == sorted(read.candidates[query]) for query, judged in read.qrels.items())
    done = run("scripts/build_collections.py", tmp_path / "other", *flags, "0", check=False)
    assert done.returncode and "--judged must be at least 1, got 0" in done.stderr


def test_write_collection(tmp_path):
    texts = {"f/1": "one\u2028two\ttwo\r\n\x85", "2#1": "长城 \U0001f984", "3": '"{\\'}
    queries = {"q": "a\tb\nc\u2028d", "r#1": "长城"}
    qrels = {"q": {"3": 1, "f/1": 0}, "r#1": {"2#1": 3}}
    write_collection(tmp_path / "a/b", texts, queries, qrels)
    read = read_collection(tmp_path / "a/b")
    assert read.documents == texts and read.qrels == qrels
    assert read.queries == {"q": "a b c d", "r#1": "长城"}
    with pytest.raises(FileExistsError):
        write_collection(tmp_path / "a/b", texts, queries, qrels)


@pytest.mark.parametrize(
    ("documents", "queries", "qrels", "message"),
    [
        (
            {"my folder/d": "x"},
            {"q": "y"},
            {"q": {"my folder/d": 1}},
            "document id 'my folder/d' is empty or has a space",
        ),
        ({"d": "x"}, {"q 1": "y"}, {"q 1": {"d": 1}}, "query id 'q 1' is empty or has a space"),
        ({"d": "x"}, {"q": " "}, {"q": {"d": 1}}, "query 'q' has no text"),
        ({"d": "x"}, {"q": "y"}, {"q": {"e": 1}}, "no document has the id 'e'"),
        ({"d": "x \ud83d"}, {"q": "y"}, {"q": {"d": 1}}, "document 'd': the text has a lone surrogate"),
        ({"d": "x"}, {"q": "y\0"}, {"q": {"d": 1}}, "query 'q': the text has a NUL character"),
        ({"d": "x"}, {"q": "y"}, {"r": {"d": 1}}, "no query has the id 'r'"),
    ],
)
def test_write_collection_refuses_what_it_could_not_read(documents, queries, qrels, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_collection(tmp_path / "c", documents, queries, qrels)
    assert list(tmp_path.iterdir()) == []


def test_candidates_are_not_copied(tmp_path):
    candidates = read_collection(collection(tmp_path / "c")).candidates
    assert candidates["q1"] is candidates["q2"]


@pytest.mark.parametrize("number", [5, 6, 23])
def test_split(number):
    ids = [f"q{i}" for i in range(number)]
    one = Collection("x", {}, dict.fromkeys(ids, "t"), {q: {"d": 1} for q in ids}, {})
    other = Collection("x", {}, one.queries, dict(reversed(one.qrels.items())), {})
    tested = []
    for fold in range(5):
        train, development, test = one.split(fold)
        assert sorted(train + development + test) == sorted(ids)
        assert test and development and train
        assert development == one.split((fold + 1) % 5)[2]
        assert (train, development, test) == other.split(fold)  # whatever the order of the files
        tested += test
    assert sorted(tested) == sorted(ids)
    assert number < 23 or one.split(0, seed=1) != one.split(0)
    for bad in (-1, 5):
        with pytest.raises(ValueError, match="folds 0 to 4"):
            one.split(bad)
    few = Collection("x", {}, {}, {query: {"d": 1} for query in ids[:4]}, {})
    with pytest.raises(ValueError, match="fold 4 of x has no queries"):
        few.split(4)
    one.folds = [ids[:2], ids[2:3], ids[3:]]
    assert one.split(2) == (ids[2:3], ids[:2], ids[3:])
    with pytest.raises(ValueError, match="folds 0 to 2"):
        one.split(3)


def test_scores_of_a_first_stage():
    texts = {f"d{i}": f"text {i}" for i in range(5)}
    qrels = {query: {"d0": 1, "d1": 0} for query in ("q", "r", "s")}
    first = {"q": {"d3": 0.25, "d0": 0.5, "d2": -4.0}, "r": {"d2": 7.0}, "s": {}}
    one = Collection("c", texts, {q: f"query {q}" for q in qrels}, qrels, {q: list(first[q]) for q in qrels})
    dataset = QueryDataset([one], {"c": ["q", "r", "s"]}, num_negatives=4, seed=0)
    assert dataset[ExampleKey("rr", "c", 0)].first_stage_scores is None
    one.first_stage = first
    expected = ({"text 0": 0.5, "text 1": -4.0, "text 2": -4.0, "text 3": 0.25, "text 4": -4.0}, {}, {})
    for index, (scores, lowest) in enumerate(zip(expected, (-4.0, 7.0, 0.0))):
        example = dataset[ExampleKey("rr", "c", index)]
        assert example.first_stage_scores == [scores.get(text, lowest) for text in example.documents]
        assert len(example.documents) == 5


def test_query_dataset(tmp_path):
    texts = {f"d{i}": f"text {i}" for i in range(8)}
    qrels = {"q1": {"d0": 1, "d1": 2, "d2": 0, "d3": -1, "d4": 0}, "q2": {"d5": 1, "d6": 0}, "q3": {"d7": 1}}
    one = Collection("en-de", texts, {q: f"query {q}" for q in qrels}, qrels, {})
    dataset = QueryDataset([one], {"en-de": ["q1", "q2"]}, num_negatives=2, seed=0)
    assert dataset.sizes == {("rr", "en-de"): 3} and len(dataset) == 3
    drawn = {"query q1": set(), "query q2": set()}
    for epoch in range(60):
        examples = [dataset[ExampleKey("rr", "en-de", index, epoch)] for index in range(3)]
        assert examples == [dataset[ExampleKey("rr", "en-de", index, epoch)] for index in range(3)]
        assert [example.documents[0] for example in examples] == ["text 0", "text 1", "text 5"]
        for example in examples:
            assert len(set(example.documents)) == 3
            drawn[example.query].update(example.documents[1:])
    assert drawn["query q1"] == {"text 2", "text 3", "text 4"}  # judged not relevant, as there are enough
    assert drawn["query q2"] == {f"text {i}" for i in (0, 1, 2, 3, 4, 6, 7)}  # never a relevant document
    assert all(dataset[ExampleKey("rr", "en-de", 2, epoch)].documents[1] == "text 6" for epoch in range(20))
    with pytest.raises(ValueError, match="no training query has a relevant document"):
        QueryDataset([one], {"en-de": []}, 1, 0)
    with pytest.raises(ValueError, match="'q1' has fewer than 7 documents"):
        QueryDataset([one], {"en-de": ["q1"]}, 7, 0)
    assert len(QueryDataset([one], {"en-de": ["q1"]}, 6, 0)[ExampleKey("rr", "en-de", 0)].documents) == 7


def test_order_of_negatives(tmp_path):
    """First documents judged not relevant, then unjudged candidates, then the rest; no document twice."""
    texts = {f"d{i}": f"text {i}" for i in range(30)}
    qrels = {"q": {"d0": 1, "d1": 2, "d2": 0}}
    candidates = {"q": ["d5", "d0", "d2", "d4", "d1", "d3"]}
    one = Collection("c", texts, {"q": "x"}, qrels, candidates)
    rest = set(texts) - {f"d{i}" for i in range(6)}
    for number in (1, 2, 3, 4, 6, 28):
        dataset, seen = QueryDataset([one], {"c": ["q"]}, number, seed=0), [set() for _ in range(number)]
        for epoch in range(50):
            example = dataset[ExampleKey("rr", "c", epoch % 2, epoch)]
            assert example == dataset[ExampleKey("rr", "c", epoch % 2, epoch)]
            ids = [text.replace("text ", "d") for text in example.documents]
            assert ids[0] == f"d{epoch % 2}" and len(set(ids)) == 1 + number
            for place, document in enumerate(ids[1:]):
                seen[place].add(document)
        assert seen[0] == {"d2"}
        assert all(place == {"d3", "d4", "d5"} for place in seen[1:4])
        drawn = set().union(*seen[4:])
        assert drawn <= rest and (number < 28 or drawn == rest)


def test_grades_of_the_listwise_loss():
    """Documents of a lower grade are listed too; with binary judgements all is as for the other losses."""
    texts = {f"d{i}": f"text {i}" for i in range(8)}
    qrels = {"q": {"d0": 3, "d1": 1, "d2": 0, "d3": -1, "d4": 3, "d5": 2}}
    one = Collection("c", texts, {"q": "x"}, qrels, {})
    dataset, seen = QueryDataset([one], {"c": ["q"]}, 3, 0, "listwise"), {}
    for epoch in range(60):
        for index in range(4):
            example = dataset[ExampleKey("rr", "c", index, epoch)]
            ids = [text.replace("text ", "d") for text in example.documents]
            assert example.grades == [qrels["q"].get(document, 0) for document in ids] and len(set(ids)) == 4
            assert all(grade < example.grades[0] for grade in example.grades[1:])
            seen.setdefault(ids[0], set()).update(ids[1:])
    assert seen == {
        "d0": {"d1", "d2", "d3", "d5"},
        "d4": {"d1", "d2", "d3", "d5"},
        "d5": {"d1", "d2", "d3"},
        "d1": {"d2", "d3", "d6", "d7"},  # too few are judged
    }
    one.qrels = {"q": {document: min(grade, 1) for document, grade in qrels["q"].items()}}
    pairwise, listwise = (QueryDataset([one], {"c": ["q"]}, 3, 0, loss) for loss in ("pairwise", "listwise"))
    for index in range(4):
        key = ExampleKey("rr", "c", index)
        assert pairwise[key].documents == listwise[key].documents and pairwise[key].grades is None
        assert listwise[key].grades[0] == 1 and max(listwise[key].grades[1:]) <= 0


@pytest.mark.parametrize("loss", ["margin_mse", "kl"])
def test_scores_of_a_teacher(loss, tmp_path, caplog):
    """Only documents with a score are trained on; the others are counted."""
    folder, documents = tmp_path / "c", [f"d{i}" for i in range(9)]
    write(folder / "documents.jsonl", *({"id": d, "text": d.replace("d", "text ")} for d in documents))
    write(folder / "queries.tsv", "q\tx", "other\ty")
    write(folder / "qrels.txt", "q 0 d0 1", "q 0 d1 2", "q 0 d2 0", "q 0 d3 0", "other 0 d0 1", "other 0 d1 0")
    write(folder / "candidates.run", *(f"q Q0 d{i} {i} {-i} x" for i in (0, 2, 4, 5, 6)), "other Q0 d1 1 0 x")
    write(folder / "teacher.run", *(f"q Q0 d{i} {i} {10 - i}.5 x" for i in (0, 2, 4, 6, 7)))
    one = read_collection(folder)
    assert one.teacher == {"q": {"d0": 10.5, "d2": 8.5, "d4": 6.5, "d6": 4.5, "d7": 3.5}, "other": {}}
    dataset = QueryDataset([one], {"c": ["q"]}, 3, 0, loss)
    assert caplog.messages[-1] == (
        "c: 3 judged documents and candidates of the training queries have no score in teacher.run and are not "
        "trained on; 1 of them are relevant"
    )
    assert dataset.sizes == {("rr", "c"): 1}
    for epoch in range(20):
        example = dataset[ExampleKey("rr", "c", 0, epoch)]
        ids = [text.replace("text ", "d") for text in example.documents]
        assert ids[:2] == ["d0", "d2"] and set(ids[2:]) == {"d4", "d6"}  # judged first, then candidates
        assert example.teacher_scores == [one.teacher["q"][document] for document in ids]
    full = QueryDataset([one], {"c": ["q"]}, 4, 0, loss)[ExampleKey("rr", "c", 0)]
    assert set(full.documents) == {"text 0", "text 2", "text 4", "text 6", "text 7"}
    with pytest.raises(ValueError, match="'q' has fewer than 5 documents with a teacher's score that are not"):
        QueryDataset([one], {"c": ["q"]}, 5, 0, loss)
    with pytest.raises(ValueError, match=r"no training query has a relevant document with a teacher's score$"):
        QueryDataset([one], {"c": ["other"]}, 1, 0, loss)
    (folder / "teacher.run").unlink()
    with pytest.raises(ValueError, match=r"c has no teacher\.run; scripts/first_stage\.py --teacher_model"):
        QueryDataset([read_collection(folder)], {"c": ["q"]}, 1, 0, loss)
    with pytest.raises(FileNotFoundError, match=r"c has no teacher\.run.*first_stage\.py .*c --teacher_model"):
        check_teacher(folder)


def test_drawing_negatives_does_not_go_through_the_collection(monkeypatch):
    texts = {f"d{i}": str(i) for i in range(100_000)}
    one = Collection("c", texts, {"q": "x"}, {"q": {"d0": 1, "d1": 0}}, {"q": list(texts)})
    looked_at = 0

    class Counted(list):
        def __getitem__(self, place):
            nonlocal looked_at
            looked_at += 1
            return super().__getitem__(place)

        def __iter__(self):
            raise AssertionError("goes through all documents")

    dataset = QueryDataset([one], {"c": ["q"]}, num_negatives=8, seed=0)
    one.candidates["q"], dataset.documents["c"] = Counted(texts), Counted(texts)
    monkeypatch.setattr(one, "documents", type("Texts", (), {"__getitem__": lambda self, key: texts[key]})())
    for epoch in range(20):
        assert len(set(dataset[ExampleKey("rr", "c", 0, epoch)].documents)) == 9
    assert 0 < looked_at < 20 * 40


def test_build_collections(sample_collection):
    for name in ("en-de", "de-en"):
        query_language, language = name.split("-")
        read = read_collection(sample_collection / name)
        lines = [
            json.loads(line)
            for line in (REPOSITORY / f"sample/test/{language}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        assert read.documents == {f"test/{line['id']}": " ".join(line["sentences"]) for line in lines}
        source = (REPOSITORY / f"sample/test/queries.{query_language}.tsv").read_text(encoding="utf-8")
        assert read.queries == dict(line.split("\t") for line in source.splitlines())
        assert set(read.qrels) == set(read.queries) and read.name == name
        for fold in range(5):
            assert all(read.split(fold))


def test_build_collections_of_squad(tmp_path):
    for language in ("en", "de"):
        write(tmp_path / f"squad/x.{language}.json", squad(language))
    options = ("--squad", tmp_path / "squad", "--squad_articles", ":1")
    run("scripts/build_collections.py", tmp_path / "out", "--pairs", "de-en", *options)
    read = read_collection(tmp_path / "out/de-en")
    assert read.documents == {"squad/0.0": "en 0.0", "squad/0.1": "en 0.1"}
    assert read.queries["0.1.0"] == "de 0.1.0?" and read.qrels["0.1.0"] == {"squad/0.1": 1}


def test_build_collections_checks_all_before_it_writes_one(tmp_path):
    for language, ids in (("en", "ab"), ("de", "a")):
        write(tmp_path / f"docs/{language}.jsonl", *({"id": i, "text": f"{language} {i}"} for i in ids))
        write(tmp_path / f"docs/queries.{language}.tsv", "q1\tx", "q2\ty")
    write(tmp_path / "docs/qrels.txt", "q1 0 a 1", "q2 0 b 1")
    options = ("--pairs", "de-en,en-de", "--documents", tmp_path / "docs")
    done = run("scripts/build_collections.py", tmp_path / "out", *options, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'out/en-de'}: no document has the id 'docs/b'\n"
    assert not (tmp_path / "out").exists()
    write(tmp_path / "out/en-de/mine", "mine")
    write(tmp_path / "docs/qrels.txt", "q1 0 a 1")
    done = run("scripts/build_collections.py", tmp_path / "out", *options, check=False)
    assert done.returncode == 2 and "en-de exists" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["en-de"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--pairs", "en-xx", "--documents", "sample/test"), "xx.jsonl"),
        (("--pairs", "en", "--documents", "sample/test"), "'en'"),
    ],
)
def test_build_collections_refuses(options, message, tmp_path):
    done = run("scripts/build_collections.py", tmp_path / "out", *options, check=False)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr and done.stderr.startswith("error: ")
    assert list(tmp_path.iterdir()) == []
