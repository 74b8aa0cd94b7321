"""BertLong's heads: losses equal BERT's on the same logits, for each head, and errors say what to do."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
)

from modeling_clir import (
    BertLongForMaskedLM,
    BertLongForQuestionAnswering,
    BertLongForSequenceClassification,
    BertLongForXLRetrieval,
    BertLongModel,
)
from tests.tiny import build, pair_batch


HEADS = [
    BertLongForXLRetrieval,
    BertLongForMaskedLM,
    BertLongForSequenceClassification,
    BertLongForQuestionAnswering,
]


class Given(nn.Module):
    """A last layer that returns these logits for any input."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, hidden_states):
        return self.logits


def bert_loss(model_class, head: str, logits: torch.Tensor, **labels):
    """The loss of BERT's own class on these logits."""
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    num_labels = {"num_labels": logits.shape[-1]} if head == "classifier" else {}
    bert = model_class(BertConfig(**sizes, **num_labels, intermediate_size=8)).eval()
    setattr(bert, head, Given(logits))
    return bert(torch.ones(len(logits), 40, dtype=torch.long), **labels).loss


def word_labels(inputs, share=0.3, seed=1):
    chosen = torch.rand(inputs["input_ids"].shape, generator=torch.Generator().manual_seed(seed)) < share
    return inputs["input_ids"].masked_fill(~chosen | (inputs["attention_mask"] == 0), -100)


@pytest.mark.parametrize("num_labels, labels, problem_type", [
    (1, [0.5, -1.0, 2.0], None),
    (1, [0, 1, 1], None),
    (2, [0, 1, 1], None),
    (3, [2, 0, 1], None),
    (3, [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], None),
    (3, [[0.0, 1.0, 1.5], [1.0, 0.0, 0.0], [-3.0, 0.0, 0.0]], "regression"),
])  # fmt: skip
def test_classification_loss_is_berts(num_labels, labels, problem_type):
    model = build(BertLongForSequenceClassification, num_labels=num_labels, problem_type=problem_type)
    labels = torch.tensor(labels, dtype=torch.double) if isinstance(labels[0], (float, list)) else torch.tensor(labels)
    output = model(**pair_batch(), labels=labels)
    assert output.logits.shape == (3, num_labels) and output.logits.std() > 1e-3
    for_bert = labels.double() if num_labels == 1 else labels
    if problem_type == "regression":
        expected = F.mse_loss(output.logits, labels)
    else:
        expected = bert_loss(BertForSequenceClassification, "classifier", output.logits, labels=for_bert)
    torch.testing.assert_close(output.loss, expected)
    assert model.config.problem_type == problem_type


def test_question_answering_loss_is_berts():
    model, inputs = build(BertLongForQuestionAnswering), pair_batch()
    positions = {"start_positions": torch.tensor([3, 22, 99]), "end_positions": torch.tensor([5, 40, 8])}
    output = model(**inputs, **positions)
    logits = torch.stack([output.start_logits, output.end_logits], dim=-1)
    torch.testing.assert_close(output.loss, bert_loss(BertForQuestionAnswering, "qa_outputs", logits, **positions))
    assert model(**inputs).loss is None and model(**inputs, start_positions=positions["start_positions"]).loss is None


def test_masked_lm_loss_is_berts_dense_or_sparse():
    model, inputs = build(BertLongForMaskedLM), pair_batch()
    labels = word_labels(inputs)
    dense = model(**inputs, labels=labels)
    assert dense.logits.shape == (3, 40, 50)
    expected = bert_loss(
        BertForMaskedLM, "cls", dense.logits.float(), labels=labels
    )  # our loss is computed in float32
    torch.testing.assert_close(dense.loss, expected)
    dense.loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    sparse = model(**inputs, labels=labels, sparse_prediction=True)
    torch.testing.assert_close(sparse.logits, dense.logits[labels != -100])
    torch.testing.assert_close(sparse.loss, dense.loss)
    sparse.loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], msg=name)
    model.train()
    assert model(**inputs, labels=labels).logits.shape == sparse.logits.shape
    assert model(**inputs, labels=labels, sparse_prediction=False).logits.shape == dense.logits.shape
    assert model(**inputs).logits.shape == dense.logits.shape


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("model_class", [BertLongForMaskedLM, BertLongForXLRetrieval])
def test_a_batch_without_labelled_words_has_loss_zero(model_class, sparse):
    model, inputs = build(model_class), pair_batch()
    labels = torch.full_like(inputs["input_ids"], -100)
    task = {"task": "qlm"} if model_class is BertLongForXLRetrieval else {}
    loss = model(**inputs, **task, labels=labels, sparse_prediction=sparse).loss
    loss.backward()
    assert loss == 0
    assert all(parameter.grad.abs().max() == 0 for parameter in model.parameters() if parameter.grad is not None)


def test_both_tasks_equal_the_heads_of_their_own_classes():
    both, inputs = build(BertLongForXLRetrieval), pair_batch()
    words, pairs = build(BertLongForMaskedLM), build(BertLongForSequenceClassification)
    words.load_state_dict(both.state_dict(), strict=False)
    pairs.load_state_dict(both.state_dict(), strict=False)
    labels, relevance = word_labels(inputs), torch.tensor([1, 0, 1])
    output = both(**inputs)
    assert output.loss is None
    expected = words(**inputs, labels=labels)
    found = both(**inputs, task="qlm", labels=labels)
    for logits in (found.prediction_logits, output.prediction_logits):
        torch.testing.assert_close(logits, expected.logits)
    torch.testing.assert_close(found.loss, expected.loss)
    found = both(**inputs, task="rr", labels=relevance)
    for logits in (found.relevance_logits, output.relevance_logits):
        torch.testing.assert_close(logits, pairs(**inputs).logits)
    scores = found.relevance_logits[:, 0]
    expected = -torch.stack([F.logsigmoid(scores[0]), F.logsigmoid(-scores[1]), F.logsigmoid(scores[2])]).mean()
    torch.testing.assert_close(found.loss.double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_two_relevance_logits_as_in_2021(shape):
    model, inputs = build(BertLongForXLRetrieval, num_labels=2), pair_batch()
    relevance = torch.tensor([1, 0, 1])
    output = model(**inputs, task="rr", labels=relevance.view(shape).float())
    torch.testing.assert_close(output.loss, F.cross_entropy(output.relevance_logits.float(), relevance))


@pytest.mark.parametrize("model_class", [BertLongForXLRetrieval, BertLongForSequenceClassification])
@pytest.mark.parametrize("options, scale", [
    ({"classifier_dropout": 0.5}, 2),
    ({"classifier_dropout": 0.0, "hidden_dropout_prob": 0.5}, 1),
    ({"hidden_dropout_prob": 0.5}, 2),
])  # fmt: skip
def test_dropout_before_the_classifier(model_class, options, scale):
    model, seen = build(model_class, **options).train(), []
    for module in (model.dropout, model.classifier):
        module.register_forward_hook(lambda module, arguments, output: seen.append(arguments[0]))
    model(**pair_batch())
    before, after = seen
    kept = after != 0
    assert kept.any() and kept.all() == (scale == 1)
    torch.testing.assert_close(after[kept], before[kept] * scale)


@pytest.mark.parametrize("task, other", [("qlm", ("classifier.", "bert.pooler.")), ("rr", ("cls.",))])
def test_only_the_head_that_is_asked_is_computed(task, other):
    model, inputs = build(BertLongForXLRetrieval, tie_word_embeddings=False), pair_batch()
    labels = word_labels(inputs) if task == "qlm" else torch.tensor([1.0, 0.0, 1.0])
    head = model.classifier if task == "qlm" else model.cls
    head.register_forward_hook(lambda *arguments: pytest.fail("the other head was computed"))
    output = model(**inputs, task=task, labels=labels)
    output.loss.backward()
    assert (output.relevance_logits is None) == (task == "qlm")
    assert (output.prediction_logits is None) == (task == "rr")
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith(other), name


@pytest.mark.parametrize("model_class", [BertLongModel, *HEADS])
def test_tuples(model_class):
    model, inputs = build(model_class), pair_batch()
    expected = tuple(value for value in model(**inputs).values() if value is not None)
    given = model(**inputs, return_dict=False)
    model.config.return_dict = False
    for found in (given, model(**inputs)):
        assert isinstance(found, tuple) and len(found) == len(expected)
        for one, other in zip(found, expected):
            assert torch.equal(one, other)


@pytest.mark.parametrize("model_class", [BertLongModel, *HEADS])
def test_embeddings_and_positions_instead_of_ids(model_class):
    model, inputs = build(model_class), pair_batch()
    expected = model(**inputs)[0]
    embeddings = model.get_input_embeddings()(inputs.pop("input_ids"))
    positions = torch.arange(embeddings.shape[1])[None]
    for position_ids in (None, positions, positions.expand(3, -1)):
        found = model(**inputs, inputs_embeds=embeddings, position_ids=position_ids)[0]
        torch.testing.assert_close(found, expected)
    assert (model(**inputs, inputs_embeds=embeddings, position_ids=positions + 7)[0] - expected).abs().max() > 1e-3


LONG = "has 321 tokens, the model's max_position_embeddings is 320: truncate"
BAD = {
    "both": ({"inputs_embeds": torch.zeros(3, 40, 16)}, "either input_ids or inputs_embeds"),
    "nothing": ({"input_ids": None}, "either input_ids or inputs_embeds"),
    "one row": ({"input_ids": torch.ones(40, dtype=torch.long)}, r"\(batch_size, sequence_length\).*got \(40,\)"),
    "flat embeddings": ({"input_ids": None, "inputs_embeds": torch.zeros(3, 40)}, r"hidden_size\), got \(3, 40\)"),
    "shorter mask": ({"attention_mask": torch.ones(3, 39)}, r"attention_mask has shape \(3, 39\).*\(3, 40\)"),
    "4D mask": ({"attention_mask": torch.ones(3, 1, 40, 40)}, r"attention_mask has shape \(3, 1, 40, 40\).*\(3, 40\)"),
    "3D mask": ({"attention_mask": torch.ones(3, 40, 40)}, r"attention_mask has shape \(3, 40, 40\).*\(3, 40\)"),
    "one mask": ({"attention_mask": torch.ones(1, 40)}, r"attention_mask has shape \(1, 40\).*\(3, 40\)"),
    "segments": ({"token_type_ids": torch.ones(3, 2)}, r"token_type_ids has shape \(3, 2\).*\(3, 40\)"),
    "global": ({"global_attention_mask": torch.ones(40)}, r"global_attention_mask has shape \(40,\).*\(3, 40\)"),
    "positions": ({"position_ids": torch.arange(41)[None]}, r"position_ids has shape \(1, 41\).*\(3, 40\)"),
    "far position": ({"position_ids": torch.full((1, 40), 320)}, LONG),
    "labels": ({"task": "qlm", "labels": torch.zeros(3, 39).long()}, r"labels has shape \(3, 39\).*\(3, 40\)"),
    "task": ({"task": "mlm"}, "task must be 'qlm', 'rr' or None .* got 'mlm'"),
    "labels of no task": ({"labels": torch.zeros(3)}, "pass task='qlm' or task='rr'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    change, message = BAD[case]
    model = build(BertLongForXLRetrieval)
    with pytest.raises(ValueError, match=message):
        model(**(pair_batch() | change))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_too_long(implementation):
    model = build(BertLongModel, attn_implementation=implementation)
    with pytest.raises(ValueError, match=LONG):
        model(torch.ones(1, 321, dtype=torch.long))
    ids, mask = torch.ones(1, 500, dtype=torch.long), torch.ones(1, 500, dtype=torch.long)
    mask[:, 100:280] = 0
    assert model(ids, attention_mask=mask).last_hidden_state.isfinite().all()  # 320 tokens and padding
    mask[:, 100] = 1
    with pytest.raises(ValueError, match=LONG):
        model(ids, attention_mask=mask)


class Pairs(Dataset):
    def __init__(self, labels):
        batch = pair_batch(lengths=(12, 30, 7, 22), width=30)
        self.rows = [
            {name: tensor[row] for name, tensor in batch.items()} | {"labels": labels(batch)[row]} for row in range(4)
        ]

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.rows[index]


@pytest.mark.parametrize("model_class, labels", [
    (BertLongForSequenceClassification, lambda batch: torch.tensor([1, 0, 2, 1])),
    (BertLongForMaskedLM,
     lambda batch: batch["input_ids"].masked_fill(batch["token_type_ids"] == 0, -100)[:, 1:7].repeat(1, 5)),
])  # fmt: skip
def test_accumulated_gradients_equal_one_batch_in_the_stock_trainer(model_class, labels, tmp_path):
    found = []
    for size, steps in ((4, 1), (2, 2)):
        model = build(model_class, num_labels=3).float()
        arguments = TrainingArguments(
            output_dir=str(tmp_path), per_device_train_batch_size=size, gradient_accumulation_steps=steps,
            max_steps=1, learning_rate=0.1, optim="sgd", lr_scheduler_type="constant", max_grad_norm=0.0,
            use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no",
        )  # fmt: skip
        Trainer(model=model, args=arguments, train_dataset=Pairs(labels)).train()
        found.append(model.state_dict())
    start = build(model_class, num_labels=3).float().state_dict()
    assert max((found[0][name] - start[name]).abs().max() for name in start) > 1e-2
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, atol=1e-5, rtol=0, msg=name)
