"""Answers from the windows of a context, and the pipeline that is saved with a checkpoint."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForQuestionAnswering,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    RobertaConfig,
    RobertaForQuestionAnswering,
)

from modeling_clir import BertLongConfig, BertLongForQuestionAnswering
from modeling_clir.data.questions import Question
from modeling_clir.reader import Reader
from modeling_clir.training.answering import save_reader

from .conftest import REPOSITORY
from .helpers import texts, train_tokenizer


LENGTHS = {"max_length": 48, "doc_stride": 12, "max_question_length": 24, "max_answer_length": 9}
KINDS = ["bert", "bertlong", "distilbert", "roberta"]


def build(kind, side="right"):
    """Builds a tiny random model and a tokenizer: base's (without token types for a DistilBERT), or a RoBERTa's."""
    torch.manual_seed(0)
    sizes = {"max_position_embeddings": 48, "initializer_range": 0.3}
    if kind == "distilbert":
        sizes |= {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48}
    else:
        sizes |= {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    if kind == "roberta":
        tokenizer = train_tokenizer("byte_level")
        sizes |= {"max_position_embeddings": 51, "pad_token_id": 2, "type_vocab_size": 1}
        model = RobertaForQuestionAnswering(RobertaConfig(vocab_size=len(tokenizer), **sizes))
    else:
        tokenizer = AutoTokenizer.from_pretrained(REPOSITORY / "base")
        config, model = {
            "bert": (BertConfig, BertForQuestionAnswering),
            "bertlong": (BertLongConfig, BertLongForQuestionAnswering),
            "distilbert": (DistilBertConfig, DistilBertForQuestionAnswering),
        }[kind]
        more = {"attention_window": 8} if kind == "bertlong" else {}
        model = model(config(vocab_size=len(tokenizer), **sizes, **more))
    if kind in ("distilbert", "roberta"):
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.padding_side = side
    return model.eval(), tokenizer


def asked(number=25, longest=40):
    return [
        Question(f"q{i}", question, context, [])
        for i, (question, context) in enumerate(zip(texts(1, number, 4), texts(0, number, longest)))
    ]


def slowly(reader, question):
    """Maps all spans of all windows, without spaces at their ends, to their best scores; also scores no answer."""
    spans, nowhere = {}, []
    for window in reader.encoder([question], progress=False):
        inputs = {"input_ids": window.ids, "token_type_ids": window.types, "attention_mask": np.ones_like(window.ids)}
        names = reader.encoder.tokenizer.model_input_names
        with torch.no_grad():
            outputs = reader.model(**{k: torch.tensor(v)[None].long() for k, v in inputs.items() if k in names})
        start, end = outputs.start_logits[0].tolist(), outputs.end_logits[0].tolist()
        nowhere.append(start[0] + end[0])
        tokens = [(a, b) if question.context[a:b].strip() else None for a, b in window.offsets.tolist()]
        for i, first in enumerate(tokens):
            for j, last in enumerate(tokens[i : i + reader.max_answer_length], i):
                if first and last:
                    a, b = first[0], last[1]
                    text = question.context[a:b]
                    key = a + len(text) - len(text.lstrip()), b - len(text) + len(text.rstrip())
                    score = start[window.first + i] + end[window.first + j]
                    spans[key] = max(score, spans.get(key, score))
    return sorted(spans.items(), key=lambda span: -span[1]), min(nowhere)


def close(x):
    return pytest.approx(x, abs=2e-5)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", KINDS)
def test_reader_equals_all_spans_of_all_windows(kind, side):
    reader = Reader(*build(kind, side), **LENGTHS)
    questions = asked()
    found = reader.answer(questions, n_best=5, progress=False)
    assert list(found) == [question.id for question in questions]
    for question in questions:
        spans, nowhere = slowly(reader, question)
        prediction = found[question.id]
        answers = [answer for answer in prediction.n_best if answer["answer"]]
        assert [(a["start"], a["end"]) for a in answers] == [place for place, _ in spans[:4]]
        assert [a["logit"] for a in answers] == close([score for _, score in spans[:4]])
        assert prediction.answer == answers[0]["answer"] and len(prediction.n_best) == len(answers) + 1
        assert prediction.no_answer_probability == close(1 / (1 + np.exp(spans[0][1] - nowhere)))
        logits = np.array([a["logit"] for a in prediction.n_best])
        assert list(logits) == sorted(logits, reverse=True) and close(nowhere) in list(logits)
        assert [a["score"] for a in prediction.n_best] == close(np.exp(logits) / np.exp(logits).sum())
        assert all(question.context[a["start"] : a["end"]] == a["answer"].strip() == a["answer"] for a in answers)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_change_nothing(kind):
    model, tokenizer = build(kind)
    questions = asked()
    expected = Reader(model, tokenizer, **LENGTHS, max_tokens_per_batch=1).answer(questions, progress=False)
    for budget, n_best in ((100, 20), (100_000, 20), (1000, 1)):
        shuffled = random.Random(budget).sample(questions, len(questions))
        found = Reader(model, tokenizer, **LENGTHS, max_tokens_per_batch=budget).answer(
            shuffled, n_best, progress=False
        )
        assert list(found) == [question.id for question in shuffled]
        for key, prediction in found.items():
            assert prediction.answer == expected[key].answer
            assert prediction.no_answer_probability == close(expected[key].no_answer_probability)


def as_run_qa(reader, question):
    """
    Answers by the rules of Transformers' script run_qa: combines the n best starts and the n best ends, in tokens of
    the context. Also returns the score of no answer minus the score of the answer.
    """
    found, nowhere = [], None
    for window in reader.encoder([question], progress=False):
        offsets = [None] * len(window.ids)
        offsets[window.first : window.first + len(window.offsets)] = window.offsets.tolist()
        with torch.no_grad():
            outputs = reader.model(**reader.encoder.batch([window]))
        start, end = outputs.start_logits[0].numpy(), outputs.end_logits[0].numpy()
        nowhere = start[0] + end[0] if nowhere is None else min(nowhere, start[0] + end[0])
        for first in np.argsort(start)[::-1]:
            for last in np.argsort(end)[::-1]:
                if offsets[first] is None or offsets[last] is None:
                    continue
                if last < first or last - first + 1 > reader.max_answer_length:
                    continue
                found.append((start[first] + end[last], offsets[first][0], offsets[last][1]))
    score, first, last = max(found)
    return question.context[first:last], nowhere - score


def test_reader_equals_run_qa():
    reader = Reader(*build("bert"), **LENGTHS)
    questions = asked()
    for key, prediction in reader.answer(questions, progress=False).items():
        text, difference = as_run_qa(reader, next(question for question in questions if question.id == key))
        assert prediction.answer == text
        odds = prediction.no_answer_probability / (1 - prediction.no_answer_probability)
        assert np.log(odds) == pytest.approx(difference, abs=1e-4)


def test_nothing_to_answer_with():
    reader = Reader(*build("bert"), **LENGTHS)
    assert reader.answer([], progress=False) == {}
    (prediction,) = reader.answer([Question("1", "Wann?", "\u200b", [])], progress=False).values()
    assert (prediction.answer, prediction.no_answer_probability) == ("", 1.0)
    assert [answer["answer"] for answer in prediction.n_best] == [""]


def test_errors():
    model, tokenizer = build("bert")
    with pytest.raises(ValueError, match=r"max_length \(49\) is more than the model's 48 positions"):
        Reader(model, tokenizer, **LENGTHS | {"max_length": 49})
    for name in ("max_answer_length", "max_tokens_per_batch"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            Reader(model, tokenizer, **LENGTHS | {name: 0})
    model.qa_outputs.bias.data[1] = torch.nan
    with pytest.raises(ValueError, match="dev: a score is not a number; the checkpoint has NaN weights"):
        Reader(model, tokenizer, **LENGTHS).answer(asked(2), progress=False, name="dev")


# ---------------------------------------------------------------------------------------------------------------------
# The pipeline
# ---------------------------------------------------------------------------------------------------------------------


ALONE = """
import sys
sys.modules["modeling_clir"] = None
import json, pathlib
from transformers import pipeline
questions, found = json.loads(pathlib.Path(sys.argv[1]).read_text()), {}
for folder in sys.argv[2:]:
    ask = pipeline("question-answering", model=folder, trust_remote_code=True, device="cpu")
    found[folder] = {
        "one by one": [ask(question=q, context=c, max_answer_len=9, handle_impossible_answer=True) for q, c in
        questions], "batches": ask(
            [{"question": q, "context": c} for q, c in questions],
            batch_size=5, top_k=30, doc_stride=5, max_answer_len=9, handle_impossible_answer=True,
        ),
    }
print(json.dumps(found))
"""


def run_pipelines(folders, questions, tmp_path):
    (tmp_path / "questions.json").write_text(json.dumps([(q.text, q.context) for q in questions]))
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", ALONE, tmp_path / "questions.json", *folders]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_pipeline_without_the_package(tmp_path):
    """Loaded from the saved folder only, it gives the same answers as the reader."""
    questions = asked(15)
    questions[3].text = "Wann und von wem wurde " * 20  # longer than half a window
    kinds = {str(tmp_path / f"{kind}-{side}"): (kind, side) for kind in KINDS for side in ("right", "left")}
    for folder, (kind, side) in kinds.items():
        save_reader(Reader(*build(kind, side), **LENGTHS), folder)
    found = run_pipelines(list(kinds), questions, tmp_path)
    for folder in kinds:
        for name, stride, n_best in (("one by one", 12, 20), ("batches", 5, 30)):
            reader = Reader.from_pretrained(folder, **LENGTHS | {"doc_stride": stride})
            expected = reader.answer(questions, n_best, progress=False).values()
            for answers, prediction in zip(found[folder][name], expected):
                answers = answers if name == "batches" else [answers]
                best = prediction.n_best if name == "batches" else prediction.n_best[:1]
                assert [a["answer"] for a in answers] == [b["answer"] for b in best]
                assert [(a["start"], a["end"]) for a in answers] == [(b["start"], b["end"]) for b in best]
                assert [a["score"] for a in answers] == close([b["score"] for b in best])
    assert len({answer["answer"] for answer in found[folder]["one by one"]}) > 5
