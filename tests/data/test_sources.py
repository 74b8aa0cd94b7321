"""Collections of other sources, in their layouts."""

import json

import pytest

from modeling_clir.data.collections import read_collection, write_collection
from modeling_clir.data.sources import BeirFolder, HubDataset, IrDataset, RerankingLists, gather, open_hub

from ..helpers import run_here, write


CORPUS = [
    {"_id": "1", "title": "Haus", "text": "eins"},
    {"_id": "02", "title": "", "text": "zwei"},
    {"_id": "3", "text": "drei"},
    {"_id": "4", "title": "", "text": " "},
]
QUERIES = [{"_id": "q1", "text": "one"}, {"_id": "q2", "text": "two"}, {"_id": "train", "text": "x"}]
QRELS = ["query-id\tcorpus-id\tscore", "q1\t1\t2", "q1\t02\t0", "q2\t4\t1", "q2\t3\t1", "lost\t1\t1"]
DOCUMENTS = {"1": "Haus eins", "02": "zwei", "3": "drei"}


def beir(folder, corpus=CORPUS, queries=QUERIES, qrels=QRELS):
    write(folder / "corpus.jsonl", *corpus)
    write(folder / "queries.jsonl", *queries)
    write(folder / "qrels/test.tsv", *qrels)
    return folder


def hub_layout(folder, configs: dict[str, dict[str, list[dict]]]):
    """Writes a folder like a data set of the Hub: JSON lines for each config and split, listed in a README."""
    head = ["---", "configs:"]
    for config, splits in configs.items():
        head += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            write(folder / f"{config}/{split}.jsonl", *rows)
            head += [f"  - split: {split}", f"    path: {config}/{split}.jsonl"]
    write(folder / "README.md", *head, "---")
    return folder


def hub(folder, prefix="", top_ranked=None, qrels="qrels", key="id", split="test"):
    """Writes a data set in the layout of BEIR and MTEB."""
    rows = [line.split("\t") for line in QRELS[1:]]
    parts = {
        "corpus": [{key: row["_id"], "title": row.get("title"), "text": row["text"]} for row in CORPUS],
        "queries": [{key: row["_id"], "text": row["text"]} for row in QUERIES],
        qrels: [{"query-id": q, "corpus-id": d, "score": float(r)} for q, d, r in rows],
    }
    if top_ranked:
        parts["top_ranked"] = [{"query-id": q, "corpus-ids": listed} for q, listed in top_ranked.items()]
    return hub_layout(folder, {f"{prefix}{name}": {split: lines} for name, lines in parts.items()})


def gathered(source, candidates=None, **options):
    return gather(source, source, source, candidates, **options)


def test_beir_folder(tmp_path):
    source = open_hub(str(beir(tmp_path / "beir")))
    assert isinstance(source, BeirFolder)
    documents, queries, qrels, candidates, dropped = gathered(source)
    assert documents == DOCUMENTS and queries == {"q1": "one", "q2": "two"} and candidates is None
    assert qrels == {"q1": {"1": 2, "02": 0}, "q2": {"3": 1}}
    assert dropped == {
        "documents without text": 1,
        "judgements of unknown documents": 1,
        "judgements of unknown queries": 1,
        "queries without judgement": 1,
    }
    write(tmp_path / "beir/qrels/dev.tsv", *QRELS[2:4], QRELS[2])  # without names of columns
    documents, queries, qrels, _, dropped = gathered(open_hub(str(tmp_path / "beir"), split="dev"), judged_only=True)
    assert documents == {"02": "zwei"} and list(queries) == ["q1"] and qrels == {"q1": {"02": 0}}
    assert dropped["documents that are not judged"] == 2 and dropped["repeated judgements"] == 1


def test_repeated_lines_are_counted(tmp_path):
    once = gathered(BeirFolder(beir(tmp_path / "once")))
    twice = beir(tmp_path / "twice", [*CORPUS, CORPUS[0], CORPUS[0]], [*QUERIES, QUERIES[1]])
    *collection, dropped = gathered(BeirFolder(twice))
    assert tuple(collection) == once[:-1]
    assert dropped == once[-1] | {"repeated documents": 2, "repeated queries": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"corpus": [*CORPUS, CORPUS[0] | {"text": "x"}]},
            r"corpus.jsonl:5: the document '1' has another text at .*/corpus.jsonl:1; keep one of the two",
        ),
        (
            {"queries": [QUERIES[0], QUERIES[1], QUERIES[1] | {"text": "x"}]},
            r"queries.jsonl:3: the query 'q2' has another text at .*/queries.jsonl:2; keep one of the two",
        ),
        ({"queries": [{"_id": "q 1", "text": "x"}]}, "beir: the query id 'q 1' is empty or has a space"),
        ({"corpus": [{"_id": "1"}]}, "corpus.jsonl:1: the key 'text' is missing"),
        ({"corpus": [{"_id": "1", "text": 5}]}, "corpus.jsonl:1: 'text' must be a string"),
        ({"qrels": ["a\tb\tc", "q1\t1\t0.5"]}, "test.tsv:2: the relevance must be a whole number, got '0.5'"),
        ({"qrels": ["a\tb\tc", "q1\t1"]}, "test.tsv:2: expected 3 columns, got 2"),
        ({"qrels": [*QRELS, "q1\t1\t0"]}, "beir: document '1' is judged both 2 and 0 for query 'q1'"),
        (
            {"qrels": ["a\tb\tc", "q1\t7\t1"]},
            "no judgement of .*beir is of a query of .*beir and a document of .*beir",
        ),
    ],
)
def test_beir_folder_errors(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        gathered(open_hub(str(beir(tmp_path / "beir", **changes))))


@pytest.mark.parametrize(
    "layout", [{}, {"qrels": "default", "key": "_id"}, {"prefix": "de-en-"}, {"split": "train"}, {"qrels": "default"}]
)
def test_hub_dataset(layout, tmp_path):
    name = str(hub(tmp_path / "hub", **layout))
    source = open_hub(name, "de-en" if "prefix" in layout else None)
    assert isinstance(source, HubDataset)
    assert gathered(source) == gathered(BeirFolder(beir(tmp_path / "beir")))


def test_candidates_of_a_hub_dataset(tmp_path):
    source = open_hub(str(hub(tmp_path / "hub", top_ranked={"q1": ["1", "3", "4"], "q2": ["02"], "train": ["1"]})))
    documents, queries, _, candidates, dropped = gathered(source, source)
    assert documents == DOCUMENTS and list(queries) == ["q1", "q2"]
    assert candidates == {"q1": {"1": 0, "3": 0}, "q2": {"02": 0}}
    assert dropped["candidates of unknown documents"] == 1


def test_hub_dataset_errors(tmp_path):
    source = open_hub(str(hub(tmp_path / "hub")))
    with pytest.raises(ValueError, match="hub has no config top_ranked; it has corpus, queries, qrels"):
        list(source.candidates())
    with pytest.raises(
        ValueError, match=r"hub has no config de-en-corpus or corpus-de-en or .*; it has corpus, queries, qrels"
    ):
        list(open_hub(source.name, "de-en").documents())
    with pytest.raises(ValueError, match="hub has no column 'score' or 'rel' but id, text"):
        list(source.rows(source.load("queries"), ("score", "rel")))
    write(tmp_path / "splits/train.jsonl", {"query-id": "1", "corpus-id": "1", "score": 1})
    write(tmp_path / "splits/validation.jsonl", {"query-id": "1", "corpus-id": "1", "score": 1})
    with pytest.raises(
        ValueError, match=r"has no split test of default; it has train, validation\. Choose with --split"
    ):
        open_hub(str(tmp_path / "splits"))
    with pytest.raises(OSError):
        open_hub(str(tmp_path / "missing"))


def test_mteb_neuclir_and_miracl(tmp_path):
    """Configs are `corpus-{subset}`, `queries-{subset}` and `{subset}`; MIRACL has other columns."""
    expected = gathered(BeirFolder(beir(tmp_path / "beir")))
    rows = [line.split("\t") for line in QRELS[1:]]
    names = {
        "neuclir": ("_id", "text", "query-id", "corpus-id", "_id"),
        "miracl": ("query_id", "query", "query_id", "docid", "docid"),
    }
    for name, (query, text, judged, document, key) in names.items():
        parts = {
            "corpus-fas": {"corpus": [{key: r["_id"], "title": r.get("title"), "text": r["text"]} for r in CORPUS]},
            "queries-fas": {"queries": [{query: r["_id"], text: r["text"]} for r in QUERIES]},
            "fas": {"test": [{judged: q, document: d, "score": int(r)} for q, d, r in rows]},
        }
        others = {config.replace("fas", "rus"): splits for config, splits in parts.items()}
        folder = str(hub_layout(tmp_path / name, others | parts))
        assert gathered(open_hub(folder, "fas")) == expected
        message = f"{name} has no config corpus or docs or default; it has corpus-rus, queries-rus, .*--subset"
        with pytest.raises(ValueError, match=message):
            list(open_hub(folder).documents())


def test_neuclir_bench(tmp_path, monkeypatch, capsys):
    """Queries are split by their language, judgements by the documents' language; documents are another data set."""
    judged = [{"id": q, "ignore": "0", "docid": d, "relevance": int(r)} for q, d, r in map(str.split, QRELS[1:])]
    bench = {
        "queries": {
            "eng": [{"id": r["_id"], "query": r["text"]} for r in QUERIES],
            "fas": [{"id": r["_id"], "query": "fas"} for r in QUERIES],
        },
        "qrels": {"mlir": judged[:1], "fas": judged, "rus": judged[:1], "zho": judged[:1]},
    }
    hub_layout(tmp_path / "bench", bench)
    texts = [{"id": r["_id"], "title": r.get("title"), "text": r["text"]} for r in CORPUS]
    hub_layout(tmp_path / "neuclir1", {"default": {"fas": texts, "rus": texts[:1]}})
    options = ["--source", "hub", "--queries", tmp_path / "bench", "--documents", tmp_path / "neuclir1"]
    with pytest.raises(
        SystemExit, match=r"neuclir1 has no split test of default; it has fas, rus\. Choose with --split"
    ):
        run_here(monkeypatch, "scripts/prepare_collection.py", tmp_path / "c", *options)
    options += ["--split", "fas"]
    with pytest.raises(SystemExit, match=r"no split deu of queries; it has eng, fas\. .*--queries_split"):
        run_here(monkeypatch, "scripts/prepare_collection.py", tmp_path / "c", *options, "--queries_split", "deu")
    run_here(monkeypatch, "scripts/prepare_collection.py", tmp_path / "c", *options, "--queries_split", "eng")
    assert "2 queries, 3 documents, 3 judgements" in capsys.readouterr().out
    read = read_collection(tmp_path / "c")
    assert read.queries == {"q1": "one", "q2": "two"} and read.documents == DOCUMENTS
    assert read.qrels == {"q1": {"1": 2, "02": 0}, "q2": {"3": 1}}
    source = open_hub(str(tmp_path / "bench"), split="fas")
    with pytest.raises(ValueError, match=r"bench has no config corpus or docs or default; it has queries, qrels\."):
        list(source.documents())


def test_clirudit(tmp_path, monkeypatch):
    documents = [{"docid": 7, "title": "T", "subtitle": None, "abstract": "A"}, {"docid": 8, "abstract": "B"}]
    documents += [{"docid": 9, "title": "T", "subtitle": "S", "abstract": "C"}]
    parts = {
        "docs": {"en.test": [{"docid": 7, "title": "T", "subtitle": "", "abstract": "en"}], "fr.test": documents},
        "queries": {"fr.test": [{"qid": 1, "query": "un"}], "en_fr.test": [{"qid": 1, "query": "one"}]},
        "qrels": {
            "fr.test": [{"qid": 1, "docid": 7, "rel": 1}],
            "en_fr.test": [{"qid": 1, "docid": 7, "rel": 1}, {"qid": 1, "docid": 9, "rel": 0}],
        },
    }
    folder = hub_layout(tmp_path / "clirudit", parts)
    options = ("--source", "hub", "--queries", folder, "--split", "en_fr.test", "--documents_split", "fr.test")
    run_here(monkeypatch, "scripts/prepare_collection.py", tmp_path / "c", *options)
    read = read_collection(tmp_path / "c")
    assert read.documents == {"7": "T A", "8": "B", "9": "T S C"}
    assert read.queries == {"1": "one"} and read.qrels == {"1": {"7": 1, "9": 0}}


def test_reranking_lists(tmp_path):
    rows = [
        {"query": "one", "positive": ["eins", "auch eins"], "negative": ["zwei", "eins"]},
        {"query": "two", "positive": ["zwei"], "negative": ["drei", ""]},
        {"query": "nothing", "positive": [], "negative": []},
    ]
    write(tmp_path / "lists/test.jsonl", *rows)
    source = open_hub(str(tmp_path / "lists"))
    assert isinstance(source, RerankingLists)
    documents, queries, qrels, candidates, dropped = gathered(source, source)
    assert sorted(documents.values()) == ["auch eins", "drei", "eins", "zwei"]
    assert queries == {"q0": "one", "q1": "two"}
    judged = {queries[q]: {documents[d]: r for d, r in listed.items()} for q, listed in qrels.items()}
    assert judged == {"one": {"eins": 1, "auch eins": 1, "zwei": 0}, "two": {"zwei": 1, "drei": 0}}
    assert {q: set(listed) for q, listed in candidates.items()} == {q: set(listed) for q, listed in qrels.items()}
    assert {score for listed in candidates.values() for score in listed.values()} == {0}
    assert dropped["documents without text"] == 1 and dropped["queries without judgement"] == 1
    write(tmp_path / "several/test.jsonl", {"query": ["a", "b"], "positive": ["c"], "negative": ["d"]})
    with pytest.raises(ValueError, match="several: the query of row 0 is not one text"):
        gathered(open_hub(str(tmp_path / "several")))


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """Registers ir_datasets with German and English documents, and queries with judgements and candidates."""
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path / "home"))
    import ir_datasets
    from ir_datasets.formats import TrecQrels, TrecScoredDocs, TsvDocPairs, TsvDocs, TsvQueries
    from ir_datasets.util import LocalDownload

    def file(name, *lines):
        return LocalDownload(write(tmp_path / name, *lines))

    documents = TsvDocs(file("de.tsv", "d1\teins", "d2\tzwei", "d3\tdrei"), lang="de")
    queries = TsvQueries(file("queries.tsv", "q1\tone", "q2\ttwo"), lang="en")
    qrels = TrecQrels(file("qrels.txt", "q1 0 d1 3", "q1 0 d2 -1", "q2 0 d2 1", "q2 0 d9 1"), {})
    scored = TrecScoredDocs(file("x.run", "q1 Q0 d3 1 2.5 t", "q1 Q0 d1 2 2 t", "q2 Q0 d2 1 1 t"))
    pairs = TsvDocPairs(file("pairs.tsv", "q1\td1\td2", "q1\td2\td3", "q2\td2\td1"))
    name = f"tiny-{tmp_path.name}"
    for part, components in {
        "de": [documents],
        "en": [TsvDocs(file("en.tsv", "d1\tone", "d2\ttwo"), lang="en")],
        "de/en": [documents, queries, qrels, scored],
        "pairs": [pairs],
    }.items():
        ir_datasets.registry.register(f"{name}/{part}", ir_datasets.Dataset(*components))
    return name


def test_ir_datasets(registered):
    source = IrDataset(f"{registered}/de/en")
    documents, queries, qrels, candidates, dropped = gathered(source, source)
    assert documents == {"d1": "eins", "d2": "zwei", "d3": "drei"} and queries == {"q1": "one", "q2": "two"}
    assert qrels == {"q1": {"d1": 3, "d2": -1}, "q2": {"d2": 1}}
    assert candidates == {"q1": {"d3": 2.5, "d1": 2.0}, "q2": {"d2": 1.0}}
    assert dropped == {"judgements of unknown documents": 1}
    documents, *_, dropped = gathered(source, judged_only=True)
    assert list(documents) == ["d1", "d2"] and dropped["documents that are not judged"] == 1
    other = gather(IrDataset(f"{registered}/en"), source, source, IrDataset(f"{registered}/pairs"))
    assert other[0] == {"d1": "one", "d2": "two"}
    assert other[3] == {"q1": {"d1": 1, "d2": 1}, "q2": {"d2": 1, "d1": 0}}
    assert other[4] == {"judgements of unknown documents": 1, "candidates of unknown documents": 1}
    with pytest.raises(ValueError, match=f"the id '{registered}/en' of ir_datasets has no qrels"):
        gathered(IrDataset(f"{registered}/en"))
    with pytest.raises(ValueError, match=f"the id '{registered}/en' of ir_datasets has no docpairs"):
        gathered(source, IrDataset(f"{registered}/en"))
    with pytest.raises(ValueError, match="ir_datasets has no id 'nonsense'"):
        IrDataset("nonsense")


def test_ids_that_the_documentation_names(registered):
    import ir_datasets

    for name in ("neuclir/1/zh/trec-2022", "mmarco/v2/de/dev/small", "mmarco/v2/fr"):
        assert ir_datasets.load(name).has("docs")
    assert IrDataset("mmarco/v2/de/dev/small").dataset.has("scoreddocs")


def test_prepare_collection_of_ir_datasets(registered, tmp_path, monkeypatch, capsys):
    options = ["--queries", f"{registered}/de/en", "--documents", f"{registered}/de"]
    options += ["--candidates", f"{registered}/de/en"]
    run_here(monkeypatch, "scripts/prepare_collection.py", tmp_path / "en-de", *options)
    assert capsys.readouterr().out == (
        f"{tmp_path / 'en-de'}: 2 queries, 3 documents, 3 judgements\nleft out: 1 judgements of unknown documents\n"
    )
    read = read_collection(tmp_path / "en-de")
    assert read.candidates == {"q1": ["d3", "d1"], "q2": ["d2"]} and read.documents["d3"] == "drei"


def test_prepare_collection_of_a_folder(tmp_path, monkeypatch, capsys):
    options = ("--source", "hub", "--queries", beir(tmp_path / "beir"), "--judged_only")
    run_here(monkeypatch, "scripts/prepare_collection.py", tmp_path / "c", *options)
    output = capsys.readouterr().out
    assert "2 queries, 3 documents, 3 judgements" in output and "left out: 1 documents without text" in output
    assert read_collection(tmp_path / "c").qrels == {"q1": {"1": 2, "02": 0}, "q2": {"3": 1}}
    with pytest.raises(SystemExit, match=r"^error: .*/c exists; remove it or name another folder"):
        run_here(monkeypatch, "scripts/prepare_collection.py", tmp_path / "c", *options)


def test_write_collection_with_candidates_and_folds(tmp_path):
    texts = ({"d1": "x", "d2": "y"}, {"q": "a", "r": "b"}, {"q": {"d1": 1}, "r": {"d2": 1}})
    write_collection(tmp_path / "c", *texts, {"q": {"d1": 0.5, "d2": 2}, "r": {"d1": 0, "d2": 0}}, [["q"], ["r"]])
    read = read_collection(tmp_path / "c")
    assert read.candidates == {"q": ["d2", "d1"], "r": ["d2", "d1"]} and read.folds == [["q"], ["r"]]
    assert json.loads((tmp_path / "c/folds.json").read_text(encoding="utf-8")) == [["q"], ["r"]]
    for candidates, folds, message in (
        ({"q": {"d9": 1}, "r": {"d1": 1}}, None, "bad: no document has the id 'd9'"),
        (None, [["q"], ["x"]], "bad: query 'x' has no judgement"),
    ):
        with pytest.raises(ValueError, match=message):
            write_collection(tmp_path / "bad", *texts, candidates, folds)
    assert not (tmp_path / "bad").exists()
