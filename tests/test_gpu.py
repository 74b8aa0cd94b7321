"""
What CUDA changes: kernels, precision, the compiler, the optimizer, memory, NCCL. `make gpu` runs the tests on a GPU. The
same bodies run on a CPU with the fast tests, with what stands there for CUDA's part (the reference of varlen, gloo, a
compiler that only traces), so that they are not code that nobody ran.
"""

import json

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from modeling_clir import BertLongForSequenceClassification, BertLongForXLRetrieval
from modeling_clir.reranker import Reranker

from .conftest import run
from .helpers import SHORT
from .tiny import build, pair_batch, use


CLOSE = {torch.float32: 1e-4, torch.bfloat16: 0.1}  # share of the norm


@pytest.fixture(params=[pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    return request.param


def model_and_batch(model_class=BertLongForXLRetrieval) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """Heads of 32, because flex_attention compiles for 16 and more; in float64 on the CPU. Rows span several blocks."""
    options = {"hidden_size": 64, "intermediate_size": 96, "initializer_range": 0.1}
    return build(model_class, **options), pair_batch(lengths=(300, 170, 23, 7), query=7)


def outputs(model, inputs, train: bool) -> dict[str, torch.Tensor]:
    """The logits and, with `train`, the gradients of all parameters, in float64 on the CPU."""
    model.zero_grad()
    with torch.set_grad_enabled(train):
        found = model(**inputs)
    real = inputs["attention_mask"] > 0
    numbers = {"words": found.prediction_logits[real], "relevance": found.relevance_logits}
    if train:
        (numbers["words"].float().sin().mean() + numbers["relevance"].float().sum()).backward()
        numbers |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: tensor.detach().double().cpu() for name, tensor in numbers.items()}


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float):
    """In half precision a gradient may be noise where it should be 0, as that of a key's bias is."""
    assert found.keys() == expected.keys()
    noise = 1e-3 if tolerance < 0.01 else 0.1 * max(numbers.norm() for numbers in expected.values())
    for name, numbers in expected.items():
        assert (found[name] - numbers).norm() <= tolerance * (numbers.norm() + noise), name


def moved(inputs: dict[str, torch.Tensor], device: str) -> dict[str, torch.Tensor]:
    return {name: tensor.to(device) for name, tensor in inputs.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention", "varlen"])
def test_attention(device, implementation, dtype):
    """Numbers and gradients are those of float64 on the CPU, with weights in `dtype`."""
    if device == "cuda" and implementation == "varlen" and dtype == torch.float32:
        pytest.skip("varlen computes in half precision on a GPU: test_attention_under_autocast")
    train = device == "cuda" or implementation != "flex_attention"  # it has no gradients on a CPU
    model, inputs = model_and_batch()
    expected = outputs(model, inputs, train)
    model = use(model, implementation).to(device, dtype)
    assert_close(outputs(model, moved(inputs, device), train), expected, CLOSE[dtype])


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention", "varlen"])
def test_attention_under_autocast(device, implementation):
    """Weights in float32, as in a training with --bf16."""
    train = device == "cuda" or implementation != "flex_attention"
    model, inputs = model_and_batch()
    expected = outputs(model, inputs, train)
    model = use(model, implementation).to(device, torch.float32)
    with torch.autocast(device, dtype=torch.bfloat16):
        found = outputs(model, moved(inputs, device), train)
    assert_close(found, expected, CLOSE[torch.bfloat16])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled(device, dtype):
    torch.compiler.reset()
    model, inputs = model_and_batch()
    expected = outputs(model, inputs, train=True)
    model.to(device, dtype)
    model.compile(backend="inductor" if device == "cuda" else "aot_eager")
    assert_close(outputs(model, moved(inputs, device), train=True), expected, CLOSE[dtype])


def test_scores_do_not_depend_on_the_batch(device):
    """A row's score in a batch with others, from pinned memory, is its score alone."""
    model, inputs = model_and_batch(BertLongForSequenceClassification)
    model = use(model, "varlen" if device == "cuda" else "sdpa").to(device, torch.bfloat16)
    if device == "cuda":
        inputs = {name: tensor.pin_memory() for name, tensor in inputs.items()}
    with torch.no_grad():
        together = model(**{name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()}).logits
        alone = [model(**moved({k: t[i : i + 1] for k, t in inputs.items()}, device)).logits for i in range(4)]
    torch.testing.assert_close(together, torch.cat(alone), atol=0.02, rtol=0)


def test_reranker(device, tiny_bert):
    found = {}
    pairs = [("wer entdeckte radium", "marie curie"), ("berlin", "die hauptstadt " * 20), ("rom", "paris")]
    for where in ("cpu", device):
        reranker = Reranker.from_pretrained(str(tiny_bert), max_query_length=30, dtype=torch.float32)
        reranker.model.to(where)
        found[where] = reranker.score(pairs, progress=False)
    assert list(found[device]) == pytest.approx(list(found["cpu"]), abs=1e-4)


def test_data_parallel_with_one_process(device, tmp_path):
    """The gradients through NCCL are those of the model alone; no parameter is waited for."""
    model, inputs = model_and_batch()
    model, inputs = model.to(device, torch.float32), moved(inputs, device)
    expected = outputs(model, inputs, train=True)
    torch.distributed.init_process_group(
        "nccl" if device == "cuda" else "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        wrapped = DistributedDataParallel(model, device_ids=[0] if device == "cuda" else None)
        found = outputs(wrapped, inputs, train=True)
    finally:
        torch.distributed.destroy_process_group()
    found = {name.removeprefix("module."): numbers for name, numbers in found.items()}
    assert_close(found, expected, 1e-5)


def test_pretraining(device, tiny_bert, sample_corpus, tmp_path):
    """Three runs have the same losses: the plain one on a CPU, and the fused optimizer and bfloat16 on the device."""
    losses = {}
    for name, *options in (
        ("plain", "--use_cpu", "--optim", "adamw_torch"),
        ("fused", "--optim", "adamw_torch_fused", "--dataloader_pin_memory", "true"),
        ("bfloat16", "--optim", "adamw_torch_fused", "--bf16"),
    ):
        if device == "cpu" and name != "plain":
            options.append("--use_cpu")
        where = ("--model_name_or_path", tiny_bert, "--corpus", sample_corpus, "--output_dir", tmp_path / name)
        flags = ("--do_train", "--qlm_pairs", "en-de", "--rr_pairs", "en-de", "--max_pairs", "32", "--max_steps", "4")
        flags += ("--attention_window", "16", "--max_position_embeddings", "128", "--save_strategy", "no")
        flags += ("--report_to", "none", "--disable_tqdm", "true", "--logging_steps", "1", "--learning_rate", "1e-3")
        run("run_pretraining.py", *where, *SHORT, *flags, "--per_device_train_batch_size", "8", *options)
        state = json.loads((tmp_path / name / "trainer_state.json").read_text(encoding="utf-8"))
        losses[name] = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert len(losses["plain"]) == 4
    assert losses["fused"] == pytest.approx(losses["plain"], rel=1e-3)
    assert losses["bfloat16"] == pytest.approx(losses["plain"], rel=0.03)
