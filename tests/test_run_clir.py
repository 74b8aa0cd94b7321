"""run_clir.py by its command line: folds, resuming after a kill, several processes, bad input."""

import json

import pytest
import pytrec_eval
import torch

import run_clir
from modeling_clir.data.collections import read_collection
from modeling_clir.data.runs import read_run

from .conftest import kill_when, run
from .helpers import clir_command, write


TRAIN = ("--do_train", "--num_train_epochs", "3", "--per_device_train_batch_size", "4", "--learning_rate", "1e-3")


@pytest.fixture
def clir(call):
    return lambda *arguments: call(run_clir, clir_command(*arguments))


def results(capsys) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("en-de ")]


@pytest.fixture(scope="module")
def model(tiny_bert, tmp_path_factory):
    """Saves the tiny BERT with dropout: random draws must be the same after a kill, too."""
    folder = tmp_path_factory.mktemp("dropout") / "bert"
    folder.mkdir()
    for path in tiny_bert.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_a_killed_run_goes_on_and_gives_the_same(clir, model, sample_collection, tmp_path, capsys):
    collections = [sample_collection / "en-de"]
    clir(model, collections, tmp_path / "whole", *TRAIN)
    printed = results(capsys)

    killed = tmp_path / "killed"
    kill_when(clir_command(model, collections, killed, *TRAIN), killed, "fold-2/checkpoint-*/trainer_state.json")
    finished = [path.parent.name for path in sorted(killed.glob("*/result.json"))]
    assert finished == ["fold-0", "fold-1"] and not (killed / "metrics.json").exists()
    broken = killed / "fold-2/checkpoint-999"  # a checkpoint that was being written
    broken.mkdir()
    (broken / "trainer_state.json").write_text('{"epoch": 3.0, ', encoding="utf-8")
    times = {path: path.stat().st_mtime_ns for name in finished for path in (killed / name).iterdir()}

    clir(model, collections, killed, *TRAIN)
    assert results(capsys) == printed and len(printed) == 6 and "en-de fold-4 MAP" in printed[4]
    for name in ("en-de.run", "en-de.csv", "metrics.json", "en-de.folds.json", "fold-2/en-de.run"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert {path: path.stat().st_mtime_ns for path in times} == times  # not run again
    assert not list(killed.glob("*/checkpoint-*")) and (killed / "development.png").is_file()

    # Each query is measured once. The mean equals the folds' means weighted by their queries, and trec_eval's.
    metrics = json.loads((killed / "metrics.json").read_text(encoding="utf-8"))["en-de"]
    folds = metrics["folds"].values()
    assert [fold["queries"] for fold in folds] == [5, 5, 5, 5, 4] and metrics["queries"] == 24
    assert metrics["pairs"] == 24 * 37
    for fold in folds:
        assert len(fold["development_MAP"]) == 3
        assert fold["development_MAP"][fold["best_epoch"] - 1] == max(fold["development_MAP"])
    for name in ("MAP", "nDCG@20", "P@10", "R@100", "MRR", "Judged@20"):
        assert metrics[name] == pytest.approx(sum(fold[name] * fold["queries"] for fold in folds) / 24)
    with open(sample_collection / "en-de/qrels.txt", encoding="utf-8") as file:
        qrels = pytrec_eval.parse_qrel(file)
    with open(killed / "en-de.run", encoding="utf-8") as file:
        found = pytrec_eval.RelevanceEvaluator(qrels, {"map"}).evaluate(pytrec_eval.parse_run(file))
    assert metrics["MAP"] == pytest.approx(sum(values["map"] for values in found.values()) / 24)
    rows = [line.split(",") for line in (killed / "en-de.csv").read_text(encoding="utf-8").splitlines()]
    assert rows[0][:2] == ["query", "MAP"] and len(rows) == 25
    for row in rows[1:]:
        assert float(row[1]) == pytest.approx(found[row[0]]["map"])


def test_one_fold_is_that_of_all_folds_and_languages_are_trained_together(clir, model, sample_collection, tmp_path):
    collections = [sample_collection / "en-de", sample_collection / "de-en"]
    flags = ("--num_train_epochs", "1", "--num_finetuned_layers", "1", "--head_learning_rate", "1e-2")
    clir(model, collections, tmp_path / "one", *TRAIN, *flags, "--fold", "1")
    clir(model, collections, tmp_path / "all", *TRAIN, *flags)
    metrics = json.loads((tmp_path / "one/metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) == {"en-de", "de-en"} and metrics["de-en"]["queries"] == 5
    assert (tmp_path / "one/fold-1/model.safetensors").is_file()
    for name in ("en-de", "de-en"):
        runs = [read_run(tmp_path / which / f"{name}.run") for which in ("one", "all")]
        assert len(runs[0]) == 5 and len(runs[1]) == 24
        assert runs[0] == {query: runs[1][query] for query in runs[0]}
    folds = [json.loads((tmp_path / f"all/{name}.folds.json").read_text(encoding="utf-8")) for name in metrics]
    assert folds[0] == folds[1]  # the same topics

    # The folder keeps all folds, whichever is run again; and another command does not replace them.
    written = {path: path.read_bytes() for path in (tmp_path / "all").rglob("*") if path.is_file()}
    clir(model, collections, tmp_path / "all", *TRAIN, *flags, "--fold", "1")
    assert {path: path.read_bytes() for path in written} == written
    clir(model, collections, tmp_path / "one", *TRAIN, *flags, "--fold", "0")
    run = read_run(tmp_path / "one/en-de.run")
    assert len(run) == 10 and run == {query: read_run(tmp_path / "all/en-de.run")[query] for query in run}
    metrics = json.loads((tmp_path / "one/metrics.json").read_text(encoding="utf-8"))
    assert list(metrics["de-en"]["folds"]) == ["fold-0", "fold-1"]
    for changed, message in {
        (): "holds results of run_clir.py --do_train: pass another --output_dir for run_clir.py without training",
        (*TRAIN, *flags, "--adam_beta2", "0.9"): r"holds results of --adam_beta2 0.999 \(now 0.9\): pass the same",
    }.items():
        with pytest.raises(ValueError, match=message):
            clir(model, collections, tmp_path / "all", *changed)
    assert {path: path.read_bytes() for path in written} == written


def test_another_zero_shot_run_does_not_replace_the_first(clir, tiny_bert, sample_collection, tmp_path):
    collections = [sample_collection / "en-de"]
    clir(tiny_bert, collections, tmp_path, "--fold", "1")
    written = (tmp_path / "en-de.run").read_bytes()
    clir(tiny_bert, collections, tmp_path, "--fold", "1")
    with pytest.raises(ValueError, match=r"holds results of --fold 1 \(now None\), --long_documents truncate"):
        clir(tiny_bert, collections, tmp_path, "--long_documents", "maxp")
    with pytest.raises(ValueError, match=r"run_clir.py without training: pass another --output_dir for .* --do_train"):
        clir(tiny_bert, collections, tmp_path, *TRAIN)
    assert (tmp_path / "en-de.run").read_bytes() == written


def test_transfer(clir, model, sample_collection, tmp_path):
    flags = (
        "--train_collections",
        str(sample_collection / "de-en"),
        "--num_train_epochs",
        "1",
        "--reinit_layers",
        "1",
    )
    clir(model, [sample_collection / "en-de"], tmp_path, *TRAIN, *flags)
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) == {"en-de"} and metrics["en-de"]["queries"] == 24
    assert list(metrics["en-de"]["folds"]) == ["transfer"]


def test_two_processes_write_the_run_of_one(clir, tiny_bert, sample_collection, tmp_path):
    """The runs are equal byte for byte, though one process has two threads and other addresses of the weights."""
    collections, flags = [sample_collection / "en-de"], ("--max_tokens_per_batch", "1000")  # many batches
    run(*clir_command(tiny_bert, collections, tmp_path / "2", *flags), processes=2)
    torch.set_num_threads(2)
    clir(tiny_bert, collections, tmp_path / "1", *flags)
    for name in ("en-de.run", "en-de.csv", "metrics.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


@pytest.mark.slow
def test_two_processes_train_as_one(tiny_bert, sample_collection, tmp_path):
    for number in (1, 2):
        flags = (*TRAIN, "--fold", "0", "--per_device_train_batch_size", str(4 // number))
        folder = tmp_path / str(number)
        run(*clir_command(tiny_bert, [sample_collection / "en-de"], folder, *flags), processes=number)
    one, two = (read_run(tmp_path / number / "en-de.run") for number in ("1", "2"))
    assert one.keys() == two.keys()
    for query, scores in one.items():
        assert two[query] == pytest.approx(scores, abs=1e-4)


BAD_INPUT = {
    "no negatives": ((*TRAIN, "--num_negatives", "0"), "--num_negatives must be at least 1, got 0"),
    "nothing to train": (("--train_collections", "x"), "--train_collections needs --do_train"),
    "no such model": (("--model_name_or_path", "/nowhere"), "there is no /nowhere"),
    "too long": (("--max_length", "4000"), r"max_length \(4000\) is more than the model's 128 positions"),
    "too many layers": ((*TRAIN, "--num_finetuned_layers", "3"), "between 0 and the model's 2 layers, got 3"),
    "no such folder": (("--collections", "mmarco/v2/de"), "prepare_collection.py FOLDER --queries mmarco/v2/de$"),
    "two runs": (("--candidates", ".", "."), "--candidates takes a run of each of --collections, got 2 of 1"),
    "no such fold": ((*TRAIN, "--fold", "5"), "en-de has the folds 0 to 4, got 5"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input(name, clir, tiny_bert, sample_collection, tmp_path):
    flags, message = BAD_INPUT[name]
    with pytest.raises((OSError, ValueError), match=message):
        clir(tiny_bert, [sample_collection / "en-de"], tmp_path / "out", *flags)


def test_a_run_is_reranked(clir, tiny_bert, sample_collection, tmp_path):
    folder, first = sample_collection / "en-de", tmp_path / "first.trec"
    ids = [line.split("\t")[0] for line in (folder / "queries.tsv").read_text(encoding="utf-8").splitlines()]
    documents = list(read_collection(folder).documents)
    lines = [f"{q} Q0 {d} {r} {-r} bm25" for q in ids for r, d in enumerate(documents[:3])]
    clir(tiny_bert, [folder], tmp_path / "out", "--candidates", write(first, *lines))
    ranked = read_run(tmp_path / "out/en-de.run")
    assert {query: set(scores) for query, scores in ranked.items()} == {query: set(documents[:3]) for query in ids}
    for line, message in {
        f"{ids[0]} Q0 nowhere 4 1 bm25": "first.trec:73: no document has the id 'nowhere'",
        f"nobody Q0 {documents[0]} 1 1 bm25": "first.trec:73: no query has the id 'nobody'",
        lines[4]: f"first.trec:73: document {documents[1]!r} is listed twice for query {ids[1]!r}",
        f"{ids[0]} Q0 {documents[4]} 4 high bm25": "first.trec:73: the score must be a finite number, got 'high'",
    }.items():
        with pytest.raises(ValueError, match=message):
            clir(tiny_bert, [folder], tmp_path / "bad", "--candidates", write(first, *lines, line))
    assert not (tmp_path / "bad").exists()


def test_a_query_without_candidates_counts_0(clir, tiny_bert, sample_collection, tmp_path, caplog):
    folder, first = sample_collection / "en-de", tmp_path / "first.trec"
    qrels = read_collection(folder).qrels
    lines = [f"{query} Q0 {document} 1 1 x" for query, judged in qrels.items() for document, r in judged.items() if r]
    gone = next(iter(qrels))
    lines = [line for line in lines if not line.startswith(f"{gone} ")]
    clir(tiny_bert, [folder], tmp_path / "out", "--candidates", write(first, *lines))
    metrics = json.loads((tmp_path / "out/metrics.json").read_text(encoding="utf-8"))["en-de"]
    assert metrics["queries"] == len(qrels) and metrics["MAP"] == pytest.approx(1 - 1 / len(qrels))
    assert f"1 of {len(qrels)} judged queries have no candidates, {gone!r} the first; they count 0" in caplog.text
    assert f"\n{gone},0.0," in (tmp_path / "out/en-de.csv").read_text(encoding="utf-8")


def test_collections_of_the_same_name(clir, tiny_bert, sample_collection, tmp_path):
    flags = (*TRAIN, "--train_collections", str(sample_collection / "en-de"))
    with pytest.raises(ValueError, match="two of the collections' folders have the same name"):
        clir(tiny_bert, [sample_collection / "en-de"], tmp_path / "out", *flags)
