"""Benchmarks run with tiny models; their counts are compared with other ways to count."""

import argparse
import csv
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification, BertModel

from modeling_clir.convert import main as convert

from .backbones import BERT, tokenizer_of
from .wikipedia.written import page, write_dump


BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
TINY = ["--layers", "1", "--hidden_size", "64", "--vocab_size", "12000", "--repeats", "1"]
MEASURED = ["seconds_per_pair", "best_seconds_per_pair", "pairs_per_second", "tokens_per_second", "peak_memory_gib"]


@pytest.fixture(autouse=True)
def folder_of_benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the processes of the cases


def table(name: str, folder: Path, *options: str) -> list[dict]:
    importlib.import_module(name).main([*TINY, *options, "--output", str(folder)])
    assert (folder / f"benchmark_{name}.png").stat().st_size > 10_000
    with open(folder / f"benchmark_{name}.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert all(float(row[column]) > 0 for column in [*MEASURED, "speed_to_ours", "share_of_peak"])
        assert float(row["tokens_per_second"]) == pytest.approx(
            int(row["tokens"]) / int(row["pairs"]) / float(row["seconds_per_pair"])
        )
        assert row["case"] != "BertLong (ours)" or float(row["speed_to_ours"]) == 1
    return rows


def column(rows: list[dict], *names: str) -> list[tuple]:
    return [tuple(row[name] for name in names) for row in rows]


@pytest.mark.slow
def test_pretraining_step(tmp_path):
    rows = table("pretraining_step", tmp_path, "--pairs", "2")
    cases = ["BertLong (ours)", "Longformer", "2021 recipe"]
    assert column(rows, "task", "case") == [(task, case) for task in ("QLM", "RR") for case in cases]
    assert len({row["tokens"] for row in rows[:3]}) == len({row["tokens"] for row in rows[3:]}) == 1
    for recipe in (rows[2], rows[5]):
        assert float(recipe["padding"]) == 1 - int(recipe["tokens"]) / (2 * 1024)
        assert float(recipe["speed_to_2021"]) == 1


def test_ranking(tmp_path):
    rows = table("ranking", tmp_path, "--pairs", "9")
    assert [row["case"] for row in rows] == ["BertLong (ours)", "Longformer", "CrossEncoder (512)", "2021 recipe"]
    tokens = [int(row["tokens"]) for row in rows]
    assert tokens[0] == tokens[1] == tokens[3] >= tokens[2]
    assert len({int(row["tokens"]) + int(row["tokens_cut"]) for row in rows}) == 1
    ranking = importlib.import_module("ranking")
    args = argparse.Namespace(**{**vars(ranking.benchmark_parser("").parse_args([])), "pairs": 9})
    questions, paragraphs = ranking.candidates(args)
    assert len(set(paragraphs)) == 9
    assert questions[0] == questions[7] != questions[8]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sample", "e5"])
def test_ranking_with_a_model(kind, tiny_bert, tmp_path):
    """Our own; and an encoder of BERT's type with XLM-R's tokenizer, in half precision, as multilingual-e5-small."""
    if kind == "e5":
        tokenizer, tiny_bert = tokenizer_of("xlm-roberta"), tmp_path / "e5"
        sizes = BERT | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        BertModel(BertConfig(**sizes)).half().save_pretrained(tiny_bert)
        tokenizer.save_pretrained(tiny_bert)
    importlib.import_module("ranking").main(
        ["--model", str(tiny_bert), "--pairs", "24", "--repeats", "1", "--output", str(tmp_path)]
    )
    with open(tmp_path / "benchmark_ranking_model.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert column(rows, "case") == [("Reranker (ours)",), ("CrossEncoder, 8 a batch",), ("CrossEncoder, 32 a batch",)]
    assert {row["model"] for row in rows} == {str(tiny_bert)} and rows[0]["speed_to_ours"] == "1.0"
    for name in ("tokens", "tokens_cut", "max_length", "MAP"):
        assert len(set(column(rows, name))) == 1, name
    assert 0 < float(rows[0]["MAP"]) < 1 and all(float(row[name]) > 0 for row in rows for name in MEASURED)


def test_training_with_a_model(tiny_bert, tmp_path):
    options = ["--model", str(tiny_bert), "--train", "--pairs", "16", "--repeats", "1", "--output", str(tmp_path)]
    importlib.import_module("ranking").main(options)
    with open(tmp_path / "benchmark_ranking_model_training.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert column(rows, "case") == [("Reranker (ours)",), ("padded",)]
    assert len(set(column(rows, "tokens", "padding"))) == 1
    assert all(float(row[name]) > 0 for row in rows for name in MEASURED)


@pytest.mark.slow
def test_length(tmp_path, capsys):
    rows = table("length", tmp_path, "--lengths", "128", "64", "--train")
    expected = [(step, n) for step in ("inference", "training") for n in ("64", "128") for _ in range(2)]
    assert column(rows, "step", "length") == expected
    assert column(rows, "tokens") == column(rows, "length")
    assert capsys.readouterr().out.count("(128 over 64 tokens)") == 4


def test_flex_attention_of_the_benchmark():
    length = importlib.import_module("length")
    args = length.benchmark_parser("", texts=False).parse_args(TINY)
    args.lengths, args.dtype = [64], "float32"
    work = length.ours(args, 64, training=False, flex=True)
    work.steps[0]()
    model = work.steps[0].args[0]
    assert model.config._attn_implementation == "flex_attention"


OPTIONS_OF_GPU = [*TINY, "--device", "cpu", "--lengths", "64", "--tokens", "128", "--modernbert_layers", "1"]


def test_cases_on_a_gpu():
    """Each runs once, on a CPU, in this process."""
    gpu, found = importlib.import_module("gpu"), []
    args = gpu.parse(gpu.options(), OPTIONS_OF_GPU)
    for columns, cases in gpu.cases_of(args):
        for name, build in cases.items():
            work = build(args)
            work.steps[0]()
            assert work.tokens == [64, 64] and work.columns == {"padding": 0.0} and len(work.steps) == 1
            assert (work.flops is None) == (name == "ModernBERT")
            found.append((columns["step"], name))
    ours, peers = ["BertLong (ours)", "BertLong, eager", "BertLong, varlen"], ["Longformer", "ModernBERT"]
    ranking = [*ours[:2], "BertLong, flex_attention", ours[2], *peers, "CrossEncoder"]
    assert found == [(task, case) for task in ("QLM", "RR") for case in (*ours, *peers)] + [
        ("rank", case) for case in ranking
    ]


@pytest.mark.slow
def test_gpu(tmp_path):
    """As a user would call it, on a CPU."""
    command = ["benchmarks/gpu.sh", *OPTIONS_OF_GPU, "--output", str(tmp_path)]
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(BENCHMARKS.parent)}
    done = subprocess.run(command, cwd=BENCHMARKS.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "is left out" not in done.stderr, done.stderr[-3000:]
    with open(tmp_path / "benchmark_gpu.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 17 and set(column(rows, "pairs", "tokens", "length")) == {("2", "128", "64")}
    assert all(float(row[name]) > 0 for row in rows for name in MEASURED)


@pytest.mark.slow
def test_batch(tmp_path):
    rows = table("batch", tmp_path, "--pairs", "2", "--batch_sizes", "1", "2")
    assert column(rows, "batch_size") == [("1",), ("1",), ("2",), ("2",)]
    assert len(set(column(rows, "tokens"))) == 1
    assert [float(row["padding"]) > 0 for row in rows] == [False, False, True, True]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--hidden_size", "100"], "multiple of 64"),
        (["--vocab_size", "100"], "at least 12000"),
        (["--layers", "0"], "at least 1"),
        (["--pairs", "100000"], "not 100000"),
        (["--source", "xx"], "xx"),
    ],
)
def test_wrong_options(options, message, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module("ranking").main(options)
    assert message in capsys.readouterr().err


def fails(args: argparse.Namespace):
    raise ValueError("no such case")


def dies(args: argparse.Namespace):
    os._exit(9)


@pytest.mark.slow
def test_cases_that_fail_are_left_out(capsys):
    measure = importlib.import_module("measure")
    args = argparse.Namespace(device="cpu", dtype="float32", repeats=1, seed=0)
    rows, _ = measure.measure([({"batch": 1}, {"one": fails, "other": dies, measure.OURS: measure.multiply})], args)
    assert column(rows, "batch", "case") == [(1, measure.OURS)]
    assert rows[0]["share_of_peak"] == pytest.approx(1, abs=0.5)
    errors = capsys.readouterr().err
    assert "batch 1, one is left out: ValueError: no such case" in errors
    assert "batch 1, other is left out: its process ended with exit code 9" in errors


def sizes(layers: int) -> argparse.Namespace:
    return argparse.Namespace(layers=layers, hidden_size=128, vocab_size=500)


def test_flops_of_bert():
    """One more layer costs as much as torch counts."""
    counted = []
    for layers in (1, 2):
        config = BertConfig(
            vocab_size=500,
            hidden_size=128,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=512,
            attn_implementation="eager",
        )
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            BertForSequenceClassification(config).eval()(torch.ones(1, 70, dtype=torch.long))
        counted.append(counter.get_total_flops())
    measure = importlib.import_module("measure")
    one, two = (measure.count_flops(sizes(layers), 70, 5, full=True) for layers in (1, 2))
    assert two - one == counted[1] - counted[0]


@pytest.mark.parametrize("tokens, query", [(20, 5), (300, 17), (33, 33)])
def test_flops_of_bertlong(tokens, query):
    """Without linear layers, one more layer costs 4 D for each unmasked entry of the model's own masks."""
    from modeling_clir.modeling_bertlong import PaddedLayout

    measure = importlib.import_module("measure")
    valid, is_global = torch.ones(1, tokens, dtype=torch.bool), (torch.arange(tokens) < query)[None]
    layout = PaddedLayout(valid, is_global, [measure.WINDOW])
    local = layout.local_masks[measure.WINDOW][0, 0][query:].sum().item()
    attended = local + query * tokens
    one, two = (measure.count_flops(sizes(layers), tokens, query) for layers in (1, 2))
    width = 128
    assert two - one == 12 * tokens * width**2 + 16 * tokens * width**2 + 4 * width * attended


def test_flops_of_heads():
    """The decoder of the vocabulary is counted only at the labelled tokens."""
    measure = importlib.import_module("measure")
    args, larger = sizes(2), argparse.Namespace(**vars(sizes(2)) | {"vocab_size": 1500})
    assert measure.count_flops(larger, 50, 9, labelled=3) - measure.count_flops(args, 50, 9, labelled=3) == (
        3 * 2 * 128 * 1000
    )
    assert measure.count_flops(larger, 50, 9) == measure.count_flops(args, 50, 9)


def test_wikitext(tmp_path, capsys):
    pytest.importorskip("mwparserfromhell")
    file = write_dump(tmp_path / "a.xml.bz2", [page(n, f"T{n}") for n in range(5)] + [page(9, "R", redirect="T1")])
    importlib.import_module("wikitext").main([str(file), "--repeats", "1"])
    first, *_, last = capsys.readouterr().out.strip().split("\n")
    assert first.startswith("a.xml.bz2: 5 articles, 0.0 MB") and last.startswith("| mwparserfromhell | ")


@pytest.mark.slow
def test_corpus(tmp_path, capsys):
    options = ["--sections", "2000", "--processes", "1", "--batches", "3", "--output", str(tmp_path)]
    importlib.import_module("corpus").main(options)
    with open(tmp_path / "benchmark_corpus.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    cases = [(sections, cache) for sections in ("86", "2000") for cache in ("cold", "warm")]
    assert column(rows, "sections", "cache") == cases
    for row in rows:
        assert float(row["uss_mb"]) > 50 and float(row["seconds"]) > 0 and float(row["anonymous_mb"]) > 50
        assert row["sections"] != "86" or float(row["extra_uss_mb"]) == 0
    assert "extra anonymous mb" in capsys.readouterr().out


@pytest.mark.slow
def test_serving(tiny_bert, tmp_path, capsys):
    options = ("--model", tiny_bert, "--clients", "1", "4", "--seconds", "1", "--requests", "6", "--tiny", "80")
    importlib.import_module("serving").main([*map(str, options), "--killed", "40", "--output", str(tmp_path)])
    with open(tmp_path / "benchmark_serving.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert column(rows, "server", "clients") == [(s, c) for s in ("joined", "exact") for c in ("1", "4")]
    assert all(float(row["share"]) > 0 and float(row["p50 ms"]) <= float(row["p99 ms"]) for row in rows)
    assert all(float(row["difference"]) == 0 for row in rows if row["server"] == "exact")
    printed = capsys.readouterr().out
    assert "of 40 answers; 0 lost, largest difference 0" in printed and "MiB after 80 more" in printed


@pytest.mark.slow
def test_export(tiny_bert, sample_collection, tmp_path, capsys):
    """On a random model; whether int8 passes the gate is that model's matter, and the exit code says it."""
    assert convert([str(tiny_bert), str(tmp_path / "bertlong")]) == 0
    options = (tmp_path / "bertlong", sample_collection / "en-de", "--queries", 2, "--large_pairs", 0)
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("export").main([*map(str, options), "--output", str(tmp_path)])
    with open(tmp_path / "benchmark_export.csv", encoding="utf-8", newline="") as file:
        rows = {row["way"]: row for row in csv.DictReader(file)}
    assert len(rows) == 7 and all(float(row["pairs/s"]) > 0 and float(row["MiB"]) > 0 for row in rows.values())
    exact = rows["torch float32"]
    assert (float(exact["tau"]), float(exact["max drift"])) == (1, 0)
    for way in ("ONNX float32", "OpenVINO float32"):
        assert rows[way]["MAP"] == exact["MAP"] and float(rows[way]["max drift"]) < 1e-3, way
    gates = {way: row["gate"] for way, row in rows.items() if row["gate"]}
    assert list(gates) == ["torch int8", "ONNX int8", "OpenVINO int8"]
    for way, gate in gates.items():
        near = abs(float(rows[way]["MAP"]) - float(exact["MAP"])) <= 0.005
        assert (gate == "pass") == (near and float(rows[way]["tau"]) >= 0.95), way
    assert ended.value.code == ("pass" not in [gates["ONNX int8"], gates["OpenVINO int8"]])
    assert "seconds per 1000 tokens of a row" in capsys.readouterr().out
