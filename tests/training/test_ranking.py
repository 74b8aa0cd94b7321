"""Folds, layers and learning rates of finetuning, and which epoch it chooses."""

import json
from copy import deepcopy

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from modeling_clir import BertLongForSequenceClassification, loading
from modeling_clir.data.collections import Collection, assign_folds
from modeling_clir.reranker import Reranker
from modeling_clir.training import ranking
from modeling_clir.training.folds import Fold, FoldResult, measure_folds, plan_folds, read_result, write_result
from modeling_clir.training.layers import finetune_last_layers, head_parameters, reinitialize_layers
from modeling_clir.training.ranking import finetune
from modeling_clir.training.resuming import prepare_output
from modeling_clir.training.trainer import XLRetrievalTrainingArguments

from ..tiny import tiny_config


DOCUMENTS = {f"d{i}": " ".join(f"d{j}" for j in range(i, i + 4)) for i in range(12)}


def collection(name: str, number: int, folds=None, documents=DOCUMENTS) -> Collection:
    """Query i has document i relevant and the next not."""
    queries = {f"q{i}": f"q{i} q{i + 1}" for i in range(number)}
    qrels = {f"q{i}": {f"d{i}": 1, f"d{(i + 1) % 12}": 0} for i in range(number)}
    return Collection(name, documents, queries, qrels, {query: list(documents) for query in queries}, folds)


def arguments(folder, **options) -> XLRetrievalTrainingArguments:
    common = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "per_device_train_batch_size": 4}
    return XLRetrievalTrainingArguments(output_dir=str(folder), **(common | options))


def tiny_reranker(tokenizer, **options) -> Reranker:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    config = BertConfig(vocab_size=len(tokenizer), initializer_range=0.3, num_labels=1, **sizes)
    return Reranker(BertForSequenceClassification(config), tokenizer, 20, 6, **options)


def fold_of(one: Collection, k: int = 0) -> Fold:
    return plan_folds([one], fold=k)[0]


# Folds


def test_each_query_is_tested_once_and_never_trained_on_there():
    collections = [collection("en-de", 12), collection("de-en", 7)]
    assign_folds(collections, seed=3)
    folds = plan_folds(collections)
    assert [fold.name for fold in folds] == [f"fold-{k}" for k in range(5)]
    for one in collections:
        assert sorted(q for fold in folds for q in fold.test[one.name]) == sorted(one.qrels)
        assert sorted(q for fold in folds for q in fold.development[one.name]) == sorted(one.qrels)
    for fold, following in zip(folds, folds[1:] + folds[:1]):
        assert fold.development == following.test
        tested = {q for queries in fold.test.values() for q in queries}
        assert not tested & {q for queries in fold.train.values() for q in queries}
        for one in collections:
            parts = (fold.train, fold.development, fold.test)
            assert sorted(q for part in parts for q in part[one.name]) == sorted(one.qrels)
    alone = collection("en-de", 12)  # the folds of one collection are those of `split`
    assert [alone.split(k, 3)[2] for k in range(5)] == [fold.test["en-de"] for fold in folds]
    assert [fold.name for fold in plan_folds(collections, fold=4)] == ["fold-4"]


def test_transfer(caplog):
    source, target = collection("en-de", 10), collection("en-es", 5)
    source.queries, source.qrels, source.candidates = (
        {f"s{query}": value for query, value in part.items()}
        for part in (source.queries, source.qrels, source.candidates)
    )
    assign_folds([source], 0)
    assign_folds([target], 0)
    (fold,) = plan_folds([target], [source])
    assert fold.name == "transfer" and fold.test == {"en-es": list(target.qrels)}
    assert sorted(fold.train["en-de"] + fold.development["en-de"]) == sorted(source.qrels)
    assert len(fold.development["en-de"]) == 2 and not caplog.text
    (fold,) = plan_folds([target], [source], fold=2)
    assert fold.train == {"en-de": source.split(2)[0]} and fold.test == {"en-es": target.folds[2]}
    same = collection("de-en", 10)
    assign_folds([same], 0)
    plan_folds([target], [same])
    assert "test queries of en-es have the id of a training query, as 'q" in caplog.text


def test_bad_folds():
    five, three = collection("en-de", 10), collection("de-en", 9, [["q0", "q1"], ["q2"], ["q3"]])
    assign_folds([five], 0)
    with pytest.raises(ValueError, match="the same number of folds, got en-de 5, de-en 3"):
        plan_folds([five, three])
    with pytest.raises(ValueError, match="en-de has the folds 0 to 4, got 5"):
        plan_folds([five], fold=5)
    three.qrels["q2"] = {"d2": 0}
    with pytest.raises(ValueError, match="fold-0 of de-en: none of the 1 development queries has a relevant document"):
        plan_folds([three])
    with pytest.raises(ValueError, match="fold-1 of de-en: none of the 2 training queries"):
        three.qrels.update({"q0": {"d0": 0}, "q1": {"d0": 0}, "q2": {"d2": 1}})
        plan_folds([three], fold=1)
    two = collection("de-en", 4, [["q0", "q1"], ["q2", "q3"]])
    with pytest.raises(ValueError, match="fold-0 of de-en: none of the 0 training queries has a relevant document"):
        plan_folds([two])


def test_another_command_does_not_go_on(tmp_path):
    one = collection("en-de", 10)
    assign_folds([one], 0)
    prepare_output(tmp_path, {"num_negatives": 1}, arguments(tmp_path), [one])
    assert json.loads((tmp_path / "en-de.folds.json").read_text(encoding="utf-8")) == one.folds
    prepare_output(tmp_path, {"num_negatives": 2}, arguments(tmp_path), [one])  # nothing was begun yet
    (tmp_path / "fold-0/checkpoint-3").mkdir(parents=True)
    prepare_output(tmp_path, {"num_negatives": 2}, arguments(tmp_path), [one])
    with pytest.raises(ValueError, match="holds results of --num_negatives 2: pass the same options"):
        prepare_output(tmp_path, {"num_negatives": 1}, arguments(tmp_path), [one])
    with pytest.raises(ValueError, match="holds results of --seed 42"):
        prepare_output(tmp_path, {"num_negatives": 2}, arguments(tmp_path, seed=1), [one])
    one.folds = one.folds[::-1]
    with pytest.raises(ValueError, match="holds other folds in en-de"):
        prepare_output(tmp_path, {"num_negatives": 2}, arguments(tmp_path), [one])


# Layers and learning rates


@pytest.mark.parametrize("number", [0, 1, 3])
def test_only_the_last_layers_are_trained(number, tokenizer, tmp_path):
    reranker, one = tiny_reranker(tokenizer), collection("en-de", 10)
    assign_folds([one], 0)
    finetune_last_layers(reranker.model, number)
    before = {name: tensor.clone() for name, tensor in reranker.model.state_dict().items()}
    options = {"num_train_epochs": 1, "learning_rate": 1e-2, "weight_decay": 0.1}
    finetune(reranker, fold_of(one), [one], arguments(tmp_path, **options))
    changed = {name for name, tensor in reranker.model.state_dict().items() if not tensor.equal(before[name])}
    layers = {name.split(".")[3] for name in changed if ".layer." in name}
    assert layers == {str(layer) for layer in range(3 - number, 3)}
    assert not any("embeddings" in name for name in changed)
    # The bias of the head cancels out in the pairwise loss.
    assert {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight"} <= changed


def test_too_many_layers(tokenizer):
    model = tiny_reranker(tokenizer).model
    with pytest.raises(ValueError, match="--num_finetuned_layers must be between 0 and the model's 3 layers, got 4"):
        finetune_last_layers(model, 4)
    with pytest.raises(ValueError, match="--reinit_layers must be between 0 and the model's 3 layers, got -1"):
        reinitialize_layers(model, -1, 0)


def test_layers_drawn_anew(tmp_path):
    torch.manual_seed(0)
    BertLongForSequenceClassification(tiny_config(num_labels=1)).save_pretrained(tmp_path)
    models = [BertLongForSequenceClassification.from_pretrained(tmp_path) for _ in range(2)]
    before = {name: tensor.clone() for name, tensor in models[0].state_dict().items()}
    for model in models:
        torch.rand(3)  # the seed decides, not what was drawn before
        reinitialize_layers(model, 1, seed=5)
    for name, tensor in models[0].state_dict().items():
        assert tensor.equal(models[1].state_dict()[name])
        if ".layer.1." in name and name.endswith("weight") and "LayerNorm" not in name:
            assert not tensor.equal(before[name])
            assert tensor.std() == pytest.approx(0.4, rel=0.2)  # the configuration's initializer_range
        elif ".layer.1." not in name:
            assert tensor.equal(before[name])


@pytest.mark.parametrize(("head", "expected"), [(None, {1e-3}), (5e-2, {1e-3, 5e-2})])
def test_learning_rates(head, expected, tokenizer, tmp_path, monkeypatch):
    reranker, one = tiny_reranker(tokenizer), collection("en-de", 10)
    assign_folds([one], 0)
    seen = []

    class Spy(ranking.RankingTrainer):
        def create_optimizer(self, model=None):
            seen.append(super().create_optimizer(model))
            return seen[-1]

    monkeypatch.setattr(ranking, "RankingTrainer", Spy)
    options = {"num_train_epochs": 1, "learning_rate": 1e-3, "weight_decay": 0.1, "warmup_steps": 0}
    finetune(reranker, fold_of(one), [one], arguments(tmp_path, **options), head_learning_rate=head)
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in seen[0].param_groups for p in group["params"]}
    assert len(rates) == sum(1 for _ in reranker.model.parameters())
    assert {rate for rate, _ in rates.values()} == expected
    weight, bias = (rates[id(parameter)] for _, parameter in head_parameters(reranker.model))
    assert weight == (head or 1e-3, 0.1) and bias == (head or 1e-3, 0.0)


# Which epoch


def test_the_best_epoch_is_that_of_the_development_queries(tokenizer, tmp_path, monkeypatch):
    """MAP is made up: the second and fourth epoch are the best."""
    reranker, one = tiny_reranker(tokenizer), collection("en-de", 10)
    assign_folds([one], 0)
    fold = fold_of(one)
    ranked, weights, values = [], [], iter([0.2, 0.9, 0.5, 0.9])

    def rank(reranker, collection, queries, **options):
        ranked.append(queries)
        weights.append(reranker.model.classifier.weight.detach().clone())
        return {}, {}

    def evaluate(run, qrels):
        assert set(qrels) == set(fold.development["en-de"])
        value = next(values)
        return {query: {"MAP": value} for query in qrels}

    monkeypatch.setattr(ranking, "rank_collection", rank)
    monkeypatch.setattr(ranking, "evaluate_queries", evaluate)
    args = arguments(tmp_path, num_train_epochs=4, learning_rate=1e-2, eval_on_start=True)
    checkpoint, history = finetune(reranker, fold, [one], args)
    assert history == pytest.approx([0.2, 0.9, 0.5, 0.9])
    assert ranked == [fold.development["en-de"]] * 4  # no test query was looked at
    assert FoldResult({}, {}, history).best_epoch == 2
    saved = BertForSequenceClassification.from_pretrained(checkpoint).classifier.weight
    assert saved.equal(weights[1]) and not saved.equal(weights[3])
    assert len(list((tmp_path / "fold-0").glob("checkpoint-*"))) == 2
    assert args.output_dir == str(tmp_path)


def test_results_of_folds(tmp_path):
    one = collection("en-de", 4)
    folds = [Fold("fold-0", {}, {}, {"en-de": ["q3"]}), Fold("fold-1", {}, {}, {"en-de": ["q0", "q2", "q1"]})]
    scores = {"q0": [2.0, 1.0], "q1": [1.0, 2.0], "q2": [0.1, 1 / 3], "q3": [1.0, 0.0]}
    results = []
    for fold, development in zip(folds, [[0.5, 0.75], [0.3]]):
        run = {q: dict(zip(one.qrels[q], scores[q])) for q in fold.test["en-de"]}
        written = FoldResult({"en-de": run}, {"en-de": {"pairs": 2 * len(run)}}, development)
        assert read_result(tmp_path / fold.name, [one]) is None
        (tmp_path / fold.name / "checkpoint-7").mkdir(parents=True)
        write_result(written, tmp_path / fold.name)
        assert not (tmp_path / fold.name / "checkpoint-7").exists()
        results.append(read_result(tmp_path / fold.name, [one]))
        assert results[-1] == written
    run, measured, metrics = measure_folds(one, folds, results)
    assert list(run) == list(measured) == ["q0", "q1", "q2", "q3"]
    assert metrics["MAP"] == pytest.approx((1 + 0.5 + 0.5 + 1) / 4)
    assert metrics["queries"] == 4 and metrics["pairs"] == 8
    first, second = metrics["folds"].values()
    assert first["MAP"] == 1 and second["MAP"] == pytest.approx(2 / 3)
    assert (first["best_epoch"], second["best_epoch"]) == (2, 1)
    assert metrics["MAP"] == pytest.approx((1 * first["MAP"] + 3 * second["MAP"]) / 4)


# Other models


def save_encoder(kind: str, folder):
    """A random encoder without a relevance head, and a tokenizer in the manner of its kind."""
    roberta = kind == "xlm-roberta"
    special = {
        "xlm-roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        "modernbert": ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"],
        "mmbert": ["<bos>", "<pad>", "<eos>", "<unk>", "<mask>"],
    }[kind]
    words = special + [f"{letter}{i}" for letter in "qd" for i in range(20)]
    if kind == "mmbert":  # the tokenizer of Gemma: spaces belong to tokens, and nothing parts words
        words = special + [*"qd0123456789", "▁", *(f"{letter}{i}" for letter in "qd" for i in range(20))]
        merges = [("q", "1"), ("d", "1"), ("d", "2"), ("d", "3"), ("d", "4"), ("d", "5"), ("d", "6")]
        raw = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges, unk_token="<unk>"))
        raw.normalizer = normalizers.Replace(" ", "▁")
    else:
        raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=special[3]))
        raw.pre_tokenizer = pre_tokenizers.Whitespace()
    start, _, end, _, _ = special
    pair = f"{start} $A {end} {end} $B {end}" if roberta else f"{start} $A {end} $B {end}"
    raw.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", pair=pair, special_tokens=[(start, 0), (end, 2)]
    )
    names = dict(zip(("cls_token", "pad_token", "sep_token", "unk_token", "mask_token"), special))
    inputs = ["input_ids", "attention_mask"] if roberta else ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, model_input_names=inputs, **names)
    sizes = {"vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 24, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    sizes |= {"initializer_range": 0.3}
    torch.manual_seed(0)
    if roberta:
        config = XLMRobertaConfig(max_position_embeddings=34, type_vocab_size=1, **sizes)
        XLMRobertaForMaskedLM(config).save_pretrained(folder)
    else:
        config = ModernBertConfig(
            max_position_embeddings=32, cls_token_id=0, sep_token_id=2, local_attention=8, **sizes
        )
        ModernBertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_a_training_that_is_at_its_end_is_not_gone_on_with(tokenizer, tmp_path):
    one = collection("en-de", 10)
    assign_folds([one], 0)
    found = []
    for _ in range(2):
        args = arguments(tmp_path, max_steps=3)  # ends inside an epoch, of two steps
        found.append(finetune(tiny_reranker(tokenizer), fold_of(one), [one], args))
    assert found[0] == found[1] and len(found[0][1]) == 2
    assert sorted(path.name for path in tmp_path.glob("*/checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]


@pytest.mark.parametrize("kind", ["xlm-roberta", "modernbert", "mmbert"])
def test_any_encoder(kind, tmp_path, caplog):
    loading.logger.warning_once.cache_clear()
    save_encoder(kind, tmp_path / "model")
    one = collection("en-de", 10)
    assign_folds([one], 0)
    reranker = Reranker.from_pretrained(tmp_path / "model", max_query_length=6, new_head=True)
    assert reranker.encoder.max_length == 32 and reranker.model.config.num_labels == 1
    assert (
        "has no head to rank" in caplog.text
        and f"this {reranker.model.config.model_type} has no token types" in caplog.text
    )
    finetune_last_layers(reranker.model, 1)
    checkpoint, history = finetune(reranker, fold_of(one), [one], arguments(tmp_path / "out", num_train_epochs=2))
    assert len(history) == 2
    again = Reranker.from_pretrained(checkpoint, max_query_length=6)
    inputs = again.encoder.tokenizer("q1 q2", DOCUMENTS["d3"], return_tensors="pt")
    assert "token_type_ids" not in inputs
    expected = again.model(**inputs).logits.item()
    assert again.score([("q1 q2", DOCUMENTS["d3"])], progress=False) == [pytest.approx(expected, abs=1e-5)]
    assert caplog.text.count("has no token types") == caplog.text.count("has no head to rank") == 1
    long = " ".join(["d1"] * 60)  # as many positions as there are, and not one more
    assert again.score([("q1", long)], progress=False) and again.counts["documents_cut"] == 1
    with pytest.raises(ValueError, match=r"max_length \(33\) is more than the model's 32 positions"):
        Reranker.from_pretrained(tmp_path / "model", max_length=33, new_head=True)


def test_an_encoder_without_a_mask_token(tokenizer, tmp_path):
    tokenizer = deepcopy(tokenizer)
    tokenizer.mask_token = None
    one = collection("en-de", 10)
    assign_folds([one], 0)
    _, history = finetune(tiny_reranker(tokenizer), fold_of(one), [one], arguments(tmp_path, num_train_epochs=1))
    assert len(history) == 1


def test_saving_without_a_tokenizer(tokenizer, tmp_path):
    one, reranker = collection("en-de", 10), tiny_reranker(tokenizer)
    trainer = ranking.RankingTrainer(reranker, {"en-de": one}, {}, args=arguments(tmp_path))
    trainer.processing_class = None
    trainer.save_model(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} >= {"model.safetensors", "config.json"}


def test_passages(tokenizer):
    """The maximum over all windows of 11 tokens, of which each has 5 in common with the next."""
    reranker = tiny_reranker(tokenizer, long_documents="maxp")
    words = [f"d{i}" for i in range(30)]
    scores = reranker.score([("q1", " ".join(words)), ("q1", "d1"), ("q2", "d1")], progress=False)
    assert reranker.counts == {"pairs": 3, "passages": 7, "queries_cut": 0, "documents_cut": 0}
    windows = [" ".join(words[start : start + 11]) for start in (0, 6, 12, 18, 24)]
    plain = tiny_reranker(tokenizer)
    expected = plain.score([("q1", window) for window in windows], progress=False)
    assert scores[0] == pytest.approx(max(expected), abs=1e-5) and len(set(expected)) == 5
    assert scores[1:] == pytest.approx(plain.score([("q1", "d1"), ("q2", "d1")], progress=False), abs=1e-5)
    with pytest.raises(ValueError, match="long_documents must be one of truncate, maxp, got 'sum'"):
        tiny_reranker(tokenizer, long_documents="sum")
