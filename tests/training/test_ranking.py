"""Finetuning a reranker: learning rates, the epoch that is chosen, any encoder."""

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

from modeling_clir import loading
from modeling_clir.data.collections import assign_folds
from modeling_clir.data.queries import QueryDataset
from modeling_clir.data.sections import ExampleKey
from modeling_clir.losses import ranking_loss
from modeling_clir.reranker import Reranker
from modeling_clir.training import ranking
from modeling_clir.training.folds import FoldResult
from modeling_clir.training.layers import finetune_last_layers, head_parameters
from modeling_clir.training.ranking import finetune
from modeling_clir.training.trainer import BatchFacts

from .helpers import DOCUMENTS, arguments, collection, fold_of, tiny_reranker


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


def test_the_best_epoch_is_that_of_the_development_queries(tokenizer, tmp_path, monkeypatch):
    """MAP is invented: the second and fourth epoch are the best."""
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
    checkpoint, history, _ = finetune(reranker, fold, [one], args)
    assert history == pytest.approx([0.2, 0.9, 0.5, 0.9])
    assert ranked == [fold.development["en-de"]] * 4  # no test query was read
    assert FoldResult({}, {}, history).best_epoch == 2
    saved = BertForSequenceClassification.from_pretrained(checkpoint).classifier.weight
    assert saved.equal(weights[1]) and not saved.equal(weights[3])
    assert len(list((tmp_path / "fold-0").glob("checkpoint-*"))) == 2
    assert args.output_dir == str(tmp_path)


def save_encoder(kind: str, folder):
    """Saves a random encoder without a relevance head, and a tokenizer such as its architecture has."""
    roberta = kind == "xlm-roberta"
    special = {
        "xlm-roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        "modernbert": ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"],
        "mmbert": ["<bos>", "<pad>", "<eos>", "<unk>", "<mask>"],
    }[kind]
    words = special + [f"{letter}{i}" for letter in "qd" for i in range(20)]
    if kind == "mmbert":  # the tokenizer of Gemma: spaces belong to tokens, and nothing splits words
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
    checkpoint, history, _ = finetune(reranker, fold_of(one), [one], arguments(tmp_path / "out", num_train_epochs=2))
    assert len(history) == 2
    again = Reranker.from_pretrained(checkpoint, max_query_length=6)
    inputs = again.encoder.tokenizer("q1 q2", DOCUMENTS["d3"], return_tensors="pt")
    assert "token_type_ids" not in inputs
    expected = again.model(**inputs).logits.item()
    assert again.score([("q1 q2", DOCUMENTS["d3"])], progress=False) == [pytest.approx(expected, abs=1e-5)]
    assert caplog.text.count("has no token types") == caplog.text.count("has no head to rank") == 1
    long = " ".join(["d1"] * 60)  # all positions are used, and not one more
    assert again.score([("q1", long)], progress=False) and again.counts["documents_cut"] == 1
    with pytest.raises(ValueError, match=r"max_length \(33\) is more than the model's 32 positions"):
        Reranker.from_pretrained(tmp_path / "model", max_length=33, new_head=True)


def test_an_encoder_without_a_mask_token(tokenizer, tmp_path):
    tokenizer = deepcopy(tokenizer)
    tokenizer.mask_token = None
    one = collection("en-de", 10)
    assign_folds([one], 0)
    _, history, _ = finetune(tiny_reranker(tokenizer), fold_of(one), [one], arguments(tmp_path, num_train_epochs=1))
    assert len(history) == 1


def with_first_stage(one):
    """Gives the relevant document of each query the best score, and a document that is not judged the second."""
    one.first_stage = {
        query: {d: 0.5 * (relevance > 0) for d, relevance in judged.items()} | {"d11": 0.25}
        for query, judged in one.qrels.items()
    }
    one.candidates = {query: list(scores) for query, scores in one.first_stage.items()}
    return one


@pytest.mark.parametrize("kind", ["pairwise", "margin", "listwise"])
def test_the_loss_of_a_correction_is_that_of_the_sum(kind, tokenizer, tmp_path):
    one, reranker = with_first_stage(collection("en-de", 10)), tiny_reranker(tokenizer)
    dataset = QueryDataset([one], {"en-de": list(one.qrels)}, num_negatives=3, seed=0)
    examples = [dataset[ExampleKey("rr", "en-de", index)] for index in range(4)]
    losses = []
    for weight in (None, 3.0):
        args = arguments(tmp_path, rr_loss=kind)
        trainer = ranking.RankingTrainer(reranker, {"en-de": one}, {}, first_stage_weight=weight, args=args)
        inputs = trainer.data_collator(examples)
        assert inputs["first_stage_scores"].shape == (4, 4)
        facts = BatchFacts.take(inputs)
        loss, outputs, items = trainer.task_loss(reranker.model.eval(), inputs, facts)
        losses.append(loss.item())
        assert items == 4
    scores = [score for example in examples for score in example.first_stage_scores]
    expected = [ranking_loss(outputs["logits"] + w * torch.tensor(scores)[:, None], 4, kind).item() for w in (0, 3)]
    assert losses == pytest.approx(expected) and losses[0] != pytest.approx(losses[1])


@pytest.mark.parametrize("weight", [None, 1e6])
def test_development_of_a_correction_is_that_of_the_sum(weight, tokenizer, tmp_path):
    one = with_first_stage(collection("en-de", 10))
    assign_folds([one], 0)
    args = arguments(tmp_path, num_train_epochs=1, learning_rate=1e-9)
    reranker = tiny_reranker(tokenizer)
    _, history, _ = finetune(reranker, fold_of(one), [one], args, first_stage_weight=weight)
    assert history == [1.0] if weight else history[0] < 1  # the first stage is perfect, random weights are not


@pytest.mark.parametrize(("lengths", "calls"), [((20, 19, 20), 1), ((20, 5, 12), 3)])
def test_padding_is_not_computed_on_a_cpu(lengths, calls):
    """Pairs that are read one by one have the logits and gradients of the padded batch."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 2}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = BertForSequenceClassification(BertConfig(vocab_size=100, num_labels=1, **sizes, **dropout))
    mask = (torch.arange(20) < torch.tensor(lengths)[:, None]).long()
    inputs = {"input_ids": torch.randint(1, 100, (3, 20)) * mask, "attention_mask": mask, "token_type_ids": mask}
    seen, found = [], []
    model.bert.register_forward_hook(lambda *_: seen.append(1))
    for logits in (ranking.pair_logits(model, inputs), model(**inputs).logits):
        model.zero_grad()
        ranking_loss(logits, 3, "listwise").backward()
        found.append([logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(seen) == calls + 1
    torch.testing.assert_close(*found)


def test_saving_without_a_tokenizer(tokenizer, tmp_path):
    one, reranker = collection("en-de", 10), tiny_reranker(tokenizer)
    trainer = ranking.RankingTrainer(reranker, {"en-de": one}, {}, args=arguments(tmp_path))
    trainer.processing_class = None
    trainer.save_model(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} >= {"model.safetensors", "config.json"}


def test_passages(tokenizer):
    """The score is the maximum over all windows of 11 tokens; each shares 5 tokens with the next."""
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
