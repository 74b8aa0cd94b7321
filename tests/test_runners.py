"""The runners, by their command lines: a user's first steps, runs that must be equivalent, and bad input."""

import json

import ir_measures
import numpy as np
import pytest
from ir_measures import AP
from safetensors.torch import load_file

import run_clir
from modeling_clir.data.runs import read_run

from .conftest import run
from .helpers import QUIET, SHORT, clir_command


COMMON = (*QUIET, *SHORT)
TRAIN = ("--do_train", "--do_eval", "--qlm_pairs", "en-de", "--rr_pairs", "en-de,fr-es", "--max_pairs", "32",
         "--max_eval_pairs", "6", "--learning_rate", "1e-3", "--num_train_epochs", "2", "--save_strategy", "no",
         "--max_position_embeddings", "128", "--attention_window", "16")  # fmt: skip


def pretrain(model, corpus, output, *flags, processes=1):
    where = ("--model_name_or_path", model, "--corpus", corpus, "--output_dir", output)
    return run("run_pretraining.py", *where, *COMMON, *TRAIN, *flags, processes=processes)


def evaluation(folder) -> dict:
    metrics = json.loads((folder / "eval_results.json").read_text(encoding="utf-8"))
    return {name: value for name, value in metrics.items() if "qlm" in name or "rr" in name}


@pytest.fixture(scope="module")
def pretrained(tiny_bert, sample_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained") / "clir-bertlong"
    pretrain(tiny_bert, sample_corpus, folder, "--per_device_train_batch_size", "8")
    return folder


def test_pretraining_writes_a_checkpoint_that_opens_anywhere(pretrained):
    names = {path.name for path in pretrained.iterdir()}
    assert {"model.safetensors", "modeling_bertlong.py", "configuration_bertlong.py", "tokenizer.json"} <= names
    assert {"README.md", "learning_curve.png", "trainer_state.json", "eval_results.json"} <= names
    tokenizer = json.loads((pretrained / "tokenizer.json").read_text(encoding="utf-8"))
    assert tokenizer["truncation"] is None
    config = json.loads((pretrained / "config.json").read_text(encoding="utf-8"))
    assert len(config["auto_map"]) == 6 and config["model_type"] == "bertlong-xlr" and len(config["id2label"]) == 1
    card = (pretrained / "README.md").read_text(encoding="utf-8")
    metrics = evaluation(pretrained)
    assert f"| mean | {metrics['eval_qlm_loss']:.3f} |" in card and "| de-en |" in card
    assert {"eval_rr_mrr_fr-es", "eval_rr_mrr_es-fr", "eval_qlm_loss_de-en", "eval_qlm_accuracy_en-de"} <= set(metrics)
    history = json.loads((pretrained / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    assert any("eval_rr_mrr" in record for record in history)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "processes"),
    [
        (("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "4"), 1),
        (("--per_device_train_batch_size", "4", "--gradient_checkpointing", "true"), 2),
        (("--per_device_train_batch_size", "8", "--dataloader_num_workers", "2"), 1),
        (("--per_device_train_batch_size", "8", "--per_device_eval_batch_size", "3"), 1),
    ],
    ids=["accumulation", "two processes", "workers", "evaluation batch"],
)
def test_equivalent_runs(flags, processes, pretrained, tiny_bert, sample_corpus, tmp_path):
    pretrain(tiny_bert, sample_corpus, tmp_path / "out", *flags, processes=processes)
    assert "| batch (queries) | 8 |" in (tmp_path / "out/README.md").read_text(encoding="utf-8")
    expected, found = evaluation(pretrained), evaluation(tmp_path / "out")
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_resumed_run_equals_uninterrupted(pretrained, tiny_bert, sample_corpus, tmp_path):
    flags = ("--per_device_train_batch_size", "8", "--save_strategy", "steps", "--save_steps", "15")
    pretrain(tiny_bert, sample_corpus, tmp_path / "out", *flags, "--max_steps", "15")
    pretrain(tiny_bert, sample_corpus, tmp_path / "out", *flags, "--resume_from_checkpoint", "true")
    one, other = (load_file(folder / "model.safetensors") for folder in (pretrained, tmp_path / "out"))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert (tensor - other[name]).abs().max() < 1e-6, name
    assert evaluation(tmp_path / "out") == pytest.approx(evaluation(pretrained), abs=1e-6)


def test_trainer_checkpoints_carry_the_hub_files(tiny_bert, sample_corpus, tmp_path):
    flags = ("--per_device_train_batch_size", "8", "--max_steps", "2", "--save_strategy", "steps", "--save_steps", "2")
    pretrain(tiny_bert, sample_corpus, tmp_path / "out", *flags)
    checkpoint = tmp_path / "out/checkpoint-2"
    assert (checkpoint / "modeling_bertlong.py").is_file()
    assert len(json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["auto_map"]) == 6
    done = run(
        "run_pretraining.py", "--model_name_or_path", tiny_bert, "--corpus", sample_corpus, "--output_dir",
        tmp_path / "out", *COMMON, *TRAIN, check=False,
    )  # fmt: skip
    assert done.returncode and "holds results of --max_steps 2 (now -1)" in done.stderr


def test_short_model_stays_a_bert(tiny_bert, sample_corpus, tmp_path):
    flags = ("--keep_bert", "true", "--per_device_train_batch_size", "8", "--max_steps", "2")
    pretrain(tiny_bert, sample_corpus, tmp_path / "out", *flags)
    config = json.loads((tmp_path / "out/config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "bert" and "auto_map" not in config


def test_reranking(pretrained, sample_collection, tmp_path):
    folders = [sample_collection / "en-de", sample_collection / "de-en"]
    done = run(*clir_command(pretrained, folders, tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) == {"en-de", "de-en"} and metrics["en-de"]["queries"] == 24
    assert "en-de MAP" in done.stdout and "pair/s" in done.stderr
    qrels = list(ir_measures.read_trec_qrels(str(folders[0] / "qrels.txt")))
    written = list(ir_measures.read_trec_run(str(tmp_path / "en-de.run")))
    assert len(written) == 24 * 37
    assert ir_measures.calc_aggregate([AP], qrels, written)[AP] == pytest.approx(metrics["en-de"]["MAP"], abs=1e-9)


def test_precision_of_reranking(pretrained, sample_collection, tmp_path, call):
    scores = {}
    for dtype in ("float32", "bfloat16", "int8"):
        call(run_clir, clir_command(pretrained, [sample_collection / "en-de"], tmp_path / dtype, "--dtype", dtype))
        run_of_dtype = read_run(tmp_path / dtype / "en-de.run")
        scores[dtype] = np.array(
            [run_of_dtype[query][d] for query in sorted(run_of_dtype) for d in sorted(run_of_dtype[query])]
        )
    for dtype, least in (("bfloat16", 0.8), ("int8", 0.5)):  # the scores of this model are within 0.003 of their mean
        assert not np.array_equal(scores[dtype], scores["float32"])
        assert np.corrcoef(scores[dtype], scores["float32"])[0, 1] > least


def test_finetuning_a_bertlong(pretrained, sample_collection, tmp_path):
    flags = ("--do_train", "--fold", "1", "--num_train_epochs", "1", "--per_device_train_batch_size", "8")
    run(*clir_command(pretrained, [sample_collection / "en-de"], tmp_path, *flags))
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["en-de"]["queries"] == 5
    names = {path.name for path in (tmp_path / "fold-1").iterdir()}
    assert {"model.safetensors", "modeling_bertlong.py", "tokenizer.json"} <= names
    tokenizer = json.loads((tmp_path / "fold-1/tokenizer.json").read_text(encoding="utf-8"))
    assert tokenizer["truncation"] is None
    before, after = (load_file(folder / "model.safetensors") for folder in (pretrained, tmp_path / "fold-1"))
    assert (before["classifier.weight"] - after["classifier.weight"]).abs().max() > 0


BAD_INPUT = {
    "unknown mask mode": (("--mask_mode", "queries"), "argument --mask_mode: invalid choice: 'queries'"),
    "no pair": (("--qlm_pairs", "", "--rr_pairs", ""), "pass --qlm_pairs, --rr_pairs or both"),
    "not a pair": (("--rr_pairs", "enfr"), "two languages joined by a hyphen, as en-de; got 'enfr'"),
    "no negatives": (("--num_eval_negatives", "0"), "--num_eval_negatives must be at least 1 for RR, got 0"),
    "nothing to do": (
        ("--do_train", "false", "--do_eval", "false"),
        "nothing to do: pass --do_train, --do_eval or both",
    ),
    "no such model": (("--model_name_or_path", "/nowhere"), "there is no /nowhere"),
    "no checkpoint": (
        ("--resume_from_checkpoint", "/nowhere"),
        "--resume_from_checkpoint: there is no folder /nowhere",
    ),
    "unknown pair": (("--rr_pairs", "en-zh"), "has no language pair en-zh; it has"),
    "unknown loss": (("--rr_loss", "hinge"), "rr_loss must be one of pairwise, margin, listwise, pointwise"),
    "missing corpus": (("--corpus", "/nowhere"), "there is no /nowhere"),
    "too long": (("--max_length", "4000"), "max_length (4000) is more than the model's 128 positions"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input(name, mistake, tiny_bert, sample_corpus, tmp_path):
    flags, message = BAD_INPUT[name]
    where = ("--model_name_or_path", tiny_bert, "--corpus", sample_corpus, "--output_dir", tmp_path / "out")
    assert message in mistake("run_pretraining.py", *where, *COMMON, *TRAIN, *flags)
    assert not (tmp_path / "out").exists()


def test_model_without_tokenizer(mistake, tiny_bert, sample_corpus, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).write_bytes((tiny_bert / name).read_bytes())
    where = ("--model_name_or_path", model, "--corpus", sample_corpus, "--output_dir", tmp_path / "out")
    assert "has no tokenizer" in mistake("run_pretraining.py", *where, *COMMON, *TRAIN)
    assert not (tmp_path / "out").exists()


def test_checkpoint_of_another_size(mistake, tiny_bert, sample_corpus, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    for path in tiny_bert.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    config = json.loads((model / "config.json").read_text(encoding="utf-8")) | {"intermediate_size": 64}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    where = ("--model_name_or_path", model, "--corpus", sample_corpus, "--output_dir", tmp_path / "out")
    message = mistake("run_pretraining.py", *where, *COMMON, *TRAIN)
    assert "another size" in message and "(48, 32)" in message
    assert not (tmp_path / "out").exists()


def test_a_mistake_on_two_processes_is_said_once(tiny_bert, sample_corpus, tmp_path):
    where = ("--model_name_or_path", tiny_bert, "--corpus", sample_corpus, "--output_dir", tmp_path / "out")
    done = run("run_pretraining.py", *where, *COMMON, *TRAIN, "--rr_pairs", "en-zh", processes=2, check=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode and len(errors) == 1 and "has no language pair en-zh" in errors[0]
    assert done.stderr.count("Traceback") == 1 and "torchelastic" not in done.stderr  # accelerate's own exit code
