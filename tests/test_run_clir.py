"""run_clir.py by its command line: folds, resuming after a kill, several processes, bad input."""

import json

import pytest
import pytrec_eval
import torch

import run_clir
from modeling_clir.data.collections import assign_folds, read_collection
from modeling_clir.data.runs import read_run
from modeling_clir.evaluation.fusion import add_first_stage, choose_weight
from modeling_clir.evaluation.ranking import evaluate_run, rank_collection
from modeling_clir.reranker import Reranker
from modeling_clir.training.folds import plan_folds

from .conftest import kill_when, run
from .helpers import clir_command, write


TRAIN = ("--do_train", "--num_train_epochs", "3", "--per_device_train_batch_size", "4", "--learning_rate", "1e-3")


@pytest.fixture
def clir(call):
    return lambda *arguments: call(run_clir, clir_command(*arguments))


def results(capsys) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("en-de ")]


@pytest.mark.slow
def test_a_killed_run_goes_on_and_gives_the_same(clir, dropout_bert, sample_collection, tmp_path, capsys):
    collections = [sample_collection / "en-de"]
    clir(dropout_bert, collections, tmp_path / "whole", *TRAIN)
    printed = results(capsys)

    killed = tmp_path / "killed"
    kill_when(
        clir_command(dropout_bert, collections, killed, *TRAIN), killed, "fold-2/checkpoint-*/trainer_state.json"
    )
    finished = [path.parent.name for path in sorted(killed.glob("*/result.json"))]
    assert finished == ["fold-0", "fold-1"] and not (killed / "metrics.json").exists()
    broken = killed / "fold-2/checkpoint-999"  # a checkpoint that was being written
    broken.mkdir()
    (broken / "trainer_state.json").write_text('{"epoch": 3.0, ', encoding="utf-8")
    times = {path: path.stat().st_mtime_ns for name in finished for path in (killed / name).iterdir()}

    clir(dropout_bert, collections, killed, *TRAIN)
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


def test_one_fold_is_that_of_all_folds_and_languages_are_trained_together(
    clir, dropout_bert, sample_collection, tmp_path
):
    collections = [sample_collection / "en-de", sample_collection / "de-en"]
    flags = ("--num_train_epochs", "1", "--num_finetuned_layers", "1", "--head_learning_rate", "1e-2")
    clir(dropout_bert, collections, tmp_path / "one", *TRAIN, *flags, "--fold", "1")
    clir(dropout_bert, collections, tmp_path / "all", *TRAIN, *flags)
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
    clir(dropout_bert, collections, tmp_path / "all", *TRAIN, *flags, "--fold", "1")
    assert {path: path.read_bytes() for path in written} == written
    clir(dropout_bert, collections, tmp_path / "one", *TRAIN, *flags, "--fold", "0")
    run = read_run(tmp_path / "one/en-de.run")
    assert len(run) == 10 and run == {query: read_run(tmp_path / "all/en-de.run")[query] for query in run}
    metrics = json.loads((tmp_path / "one/metrics.json").read_text(encoding="utf-8"))
    assert list(metrics["de-en"]["folds"]) == ["fold-0", "fold-1"]
    for changed, message in {
        (): "holds results of run_clir.py --do_train: pass another --output_dir for run_clir.py without training",
        (*TRAIN, *flags, "--adam_beta2", "0.9"): r"holds results of --adam_beta2 0.999 \(now 0.9\): pass the same",
    }.items():
        with pytest.raises(ValueError, match=message):
            clir(dropout_bert, collections, tmp_path / "all", *changed)
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


def test_transfer(clir, dropout_bert, sample_collection, tmp_path):
    flags = (
        "--train_collections",
        str(sample_collection / "de-en"),
        "--num_train_epochs",
        "1",
        "--reinit_layers",
        "1",
    )
    clir(dropout_bert, [sample_collection / "en-de"], tmp_path, *TRAIN, *flags)
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) == {"en-de"} and metrics["en-de"]["queries"] == 24
    assert list(metrics["en-de"]["folds"]) == ["transfer"]


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def with_first_stage(sample_collection, tmp_path_factory):
    """Copies two collections, with a first stage that finds the relevant document among 8 for 3 of 4 queries."""
    root = tmp_path_factory.mktemp("first_stage")
    for name in ("en-de", "de-en"):
        folder = root / name
        folder.mkdir()
        for path in (sample_collection / name).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        read, lines = read_collection(folder), []
        for number, (query, judged) in enumerate(read.qrels.items()):
            relevant = [d for d, relevance in judged.items() if relevance > 0]
            listed = list(dict.fromkeys([*relevant, *read.documents]))[:8]
            if number % 4 == 0:
                listed.reverse()
            lines += [f"{query} Q0 {d} {rank} {0.9 - 0.01 * rank!r} dense" for rank, d in enumerate(listed, 1)]
        write(folder / "candidates.run", *lines)
    return root


def check_sums(output, collection, weights):
    """Checks both runs, and the measures of the three rows."""
    both, alone = (read_run(output / f"{collection.name}.{kind}") for kind in ("run", "reranker.run"))
    assert both.keys() == alone.keys() == weights.keys()
    for query, scores in alone.items():
        assert scores.keys() == collection.first_stage[query].keys()
        for document, score in scores.items():
            expected = score + weights[query] * collection.first_stage[query][document]
            assert both[query][document] == pytest.approx(expected, abs=1e-12)
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))[collection.name]
    qrels = {query: collection.qrels[query] for query in both}
    first = {query: collection.first_stage[query] for query in both}
    for means, run_of in ((metrics, both), (metrics["reranker"], alone), (metrics["first_stage"], first)):
        expected = evaluate_run(run_of, qrels)
        assert {name: means[name] for name in expected} == pytest.approx(expected)
    return metrics


def test_the_first_stage_is_added(clir, tiny_bert, with_first_stage, tmp_path, capsys):
    folder = with_first_stage / "en-de"
    clir(tiny_bert, [folder], tmp_path / "alone")
    printed = results(capsys)
    clir(tiny_bert, [folder], tmp_path / "both", "--first_stage_weight", "2.5")
    first, reranker, both = results(capsys)
    assert (tmp_path / "both/en-de.reranker.run").read_bytes() == (tmp_path / "alone/en-de.run").read_bytes()
    assert not (tmp_path / "alone/en-de.reranker.run").exists()
    collection = read_collection(folder)
    metrics = check_sums(tmp_path / "both", collection, dict.fromkeys(collection.qrels, 2.5))
    assert metrics["first_stage_weight"] == {"zero-shot": 2.5}
    assert [reranker.replace(" reranker:", "")] == printed
    assert first.startswith(f"en-de first_stage: MAP {metrics['first_stage']['MAP']:.4f} nDCG@20 ")
    assert both.startswith(f"en-de MAP {metrics['MAP']:.4f} nDCG@20 ")
    csv = (tmp_path / "both/en-de.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert sum(float(line.split(",")[1]) for line in csv) / len(csv) == pytest.approx(metrics["MAP"])


def test_the_weight_of_the_first_stage_is_tuned(clir, tiny_bert, with_first_stage, tmp_path, capsys):
    """A correction of the first stage is trained; the weight in the sum is chosen on each development fold."""
    folder, flags = with_first_stage / "en-de", ("--num_train_epochs", "1", "--fold")
    flags = (*TRAIN, "--first_stage_weight", "tune", "--train_first_stage_weight", "20", *flags)
    for fold in ("3", "1"):
        clir(tiny_bert, [folder], tmp_path, *flags, fold)
    collection = read_collection(folder)
    chosen = {
        name: json.loads((tmp_path / name / "result.json").read_text(encoding="utf-8"))["first_stage_weight"]
        for name in ("fold-1", "fold-3")
    }
    assign_folds([collection], 42)
    weights = {query: chosen[f"fold-{k}"] for k in (1, 3) for query in collection.folds[k]}
    metrics = check_sums(tmp_path, collection, weights)
    assert metrics["first_stage_weight"] == chosen
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in (".run", ".json")}
    clir(tiny_bert, [folder], tmp_path, *flags, "1")  # it goes on
    assert {path: path.read_bytes() for path in written} == written

    # The weight is that of the development queries.
    reranker = Reranker.from_pretrained(tmp_path / "fold-1", 100, 30)
    fold = plan_folds([collection], fold=1)[0]
    development = fold.development["en-de"]
    run, _ = rank_collection(reranker, collection, development, progress=False)
    qrels = {query: collection.qrels[query] for query in development}
    weight, precision = choose_weight([(run, collection.first_stage, qrels)])
    assert weight == pytest.approx(chosen["fold-1"])
    assert evaluate_run(add_first_stage(run, collection.first_stage, weight), qrels)["MAP"] == precision


def test_the_weight_of_a_correction_is_that_of_the_sum(clir, tiny_bert, with_first_stage, tmp_path):
    """In transfer the source needs a first stage for training; the weight is the same in training and ranking."""
    source, target = with_first_stage / "de-en", with_first_stage / "en-de"
    flags = (*TRAIN, "--num_train_epochs", "1", "--train_collections", str(source), "--train_first_stage_weight", "20")
    clir(tiny_bert, [target], tmp_path, *flags)
    collection = read_collection(target)
    metrics = check_sums(tmp_path, collection, dict.fromkeys(collection.qrels, 20.0))
    assert metrics["first_stage_weight"] == {"transfer": 20.0}


FIRST_STAGE_MISTAKES = {
    "no run": (("--first_stage_weight", "1"), "adds the scores of candidates.run, which en-de lacks: write it"),
    "no development": (("--first_stage_weight", "tune"), "the development fold, which only --do_train has: pass a"),
    "negative": (("--first_stage_weight", "-1"), "must be a number of 0 or more, or tune, got -1"),
    "a word": (("--first_stage_weight", "auto"), "must be a number of 0 or more, or tune, got auto"),
    "nan": (("--train_first_stage_weight", "nan"), "--train_first_stage_weight must be 0 or more, got nan"),
    "no training": (("--train_first_stage_weight", "1"), "--train_first_stage_weight needs --do_train"),
    "pointwise": (
        (*TRAIN, "--train_first_stage_weight", "1", "--rr_loss", "pointwise"),
        "--train_first_stage_weight needs a loss that compares documents: --rr_loss is pointwise",
    ),
}


@pytest.mark.parametrize("name", FIRST_STAGE_MISTAKES)
def test_mistakes_with_a_first_stage(name, clir, tiny_bert, sample_collection, tmp_path):
    flags, message = FIRST_STAGE_MISTAKES[name]
    with pytest.raises(ValueError, match=message):
        clir(tiny_bert, [sample_collection / "en-de"], tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_a_source_without_a_first_stage(clir, tiny_bert, sample_collection, with_first_stage, tmp_path):
    flags = (*TRAIN, "--train_collections", str(sample_collection / "de-en"), "--first_stage_weight", "tune")
    with pytest.raises(ValueError, match=r"candidates\.run, which de-en lacks"):
        clir(tiny_bert, [with_first_stage / "en-de"], tmp_path / "out", *flags)


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
