"""int8 is close to float32 on every path through the model."""

import re
import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from modeling_clir.convert import bert_to_bertlong, load_bert
from modeling_clir.data.files import read_jsonl
from modeling_clir.quantization import quantize_int8
from modeling_clir.reranker import Reranker
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def pairs() -> list[tuple[str, str]]:
    queries, documents = (
        [
            " ".join(record["sentences"])[:120]
            for _, record in read_jsonl(REPOSITORY / f"sample/test/{language}.jsonl", ())
        ]
        for language in ("de", "en")
    )
    return [(query, document) for query in queries[:4] for document in documents[:12]]


@pytest.fixture(scope="module")
def folders(tiny_bert, pairs, tmp_path_factory):
    """Saves a BERT and a BertLong that have learned the relevant pairs: every fourth, with an offset per query."""
    folder = tmp_path_factory.mktemp("quantized")
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    batch = tokenizer(*map(list, zip(*pairs)), truncation="only_second", padding=True, return_tensors="pt")
    labels = torch.tensor([[float(i % 12 % 4 == i // 12)] for i in range(len(pairs))])
    bert = load_bert(tiny_bert)
    for name, saved in {"bert": bert, "bertlong": bert_to_bertlong(bert, 128, 8)}.items():
        saved.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        model = AutoModelForSequenceClassification.from_pretrained(folder / name).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        for _ in range(500):  # an upper limit: the vocabulary differs between processes
            loss = binary_cross_entropy_with_logits(model(**batch).logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if loss < 0.02:
                break
        assert loss < 0.02
        model.save_pretrained(folder / name)
    return folder


@pytest.fixture(params=["bert", "bertlong"])
def folder(request, folders):
    return str(folders / request.param)


def linear_layers(model) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


@pytest.mark.parametrize("dtype", ["int8", torch.int8])
def test_scores_and_order_are_close_to_those_of_float32(dtype, folder, pairs):
    exact = Reranker.from_pretrained(folder, max_query_length=60)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "(?s).*quantiz")  # the warning of a deprecated function
        quantized = Reranker.from_pretrained(folder, max_query_length=60, dtype=dtype)
    kept = linear_layers(quantized.model)
    queries_and_keys = [
        name for name in linear_layers(exact.model) if ".layer.0." in name and re.search("query|key", name)
    ]
    assert kept == [*queries_and_keys, "classifier"]
    assert len(kept) == (5 if folder.endswith("bertlong") else 3)
    expected, found = (torch.tensor(reranker.score(pairs, progress=False)) for reranker in (exact, quantized))
    assert 0 < (found - expected).abs().max() < 0.5 * expected.std()
    assert (found - expected).abs().mean() < 0.1 * expected.std()
    ranked = [sorted(range(12), key=found[i : i + 12].tolist().__getitem__, reverse=True) for i in range(0, 48, 12)]
    kept = [len({*places[:3]} & {i, i + 4, i + 8}) for i, places in enumerate(ranked)]
    assert sum(kept) >= 11  # of 12 relevant documents: a model of 32 dimensions may lose one to rounding


def test_what_is_computed_together_changes_little(folder, pairs):
    one, other = (
        torch.tensor(
            Reranker.from_pretrained(folder, max_query_length=60, max_tokens_per_batch=budget, dtype="int8").score(
                pairs, progress=False
            )
        )
        for budget in (1, 8192)
    )
    assert (one - other).abs().mean() < 0.1 * one.std()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("hidden_states", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
def test_every_way_through_the_model(attention, hidden_states, gradients, folders, pairs):
    """Covers packed and padded layouts, the last layer for global and for all tokens, and use without `Reranker`."""
    folder = folders / "bertlong"
    batch = AutoTokenizer.from_pretrained(folder)(*map(list, zip(*pairs[:20])), padding=True, return_tensors="pt")
    logits = []
    for quantize in (False, True):
        model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation=attention)
        if quantize:
            assert quantize_int8(model) is model
        with torch.set_grad_enabled(gradients):
            logits.append(model(**batch, output_hidden_states=hidden_states).logits.detach())
    assert 0 < (logits[0] - logits[1]).abs().max() < 0.5 * logits[0].std()


def test_refused(folder):
    def loaded(**options):
        return AutoModelForSequenceClassification.from_pretrained(folder, **options)

    with pytest.raises(ValueError, match=r"int8 is for inference: call model.eval\(\) first"):
        quantize_int8(loaded().train())
    with pytest.raises(ValueError, match="int8 is for CPUs, the model is on meta: use bfloat16 there"):
        quantize_int8(loaded().to("meta"))
    with pytest.raises(ValueError, match=r"made from float32 weights, the model has torch\.bfloat16"):
        quantize_int8(loaded(dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="it may be quantized already"):
        quantize_int8(quantize_int8(loaded()))
