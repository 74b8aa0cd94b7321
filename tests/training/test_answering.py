"""Training for question answering: resuming after a kill, and development."""

import json

import pytest
import torch
from transformers import BertConfig, BertForQuestionAnswering

from modeling_clir.data.questions import Question, QuestionSet
from modeling_clir.data.windows import TrainingWindows
from modeling_clir.evaluation.answering import answer_set, evaluate_development, markdown, measure_answers
from modeling_clir.reader import Prediction, Reader
from modeling_clir.training import answering
from modeling_clir.training.answering import answer_by_epochs, freeze, train_reader
from modeling_clir.training.trainer import XLRetrievalTrainer, XLRetrievalTrainingArguments


def question(i, answered=True) -> Question:
    context = " ".join(f"d{(i + j) % 60}" for j in range(8 + i))
    return Question(
        str(i), f"q{i} q{i + 1}", context, [(f"d{(i + 3) % 60}", context.index(f" d{(i + 3) % 60}") + 1)][:answered]
    )


QUESTIONS = [question(i) for i in range(10)]
PAIRS = [QuestionSet("set", context, "en", QUESTIONS[:2]) for context in ("de", "en")]


@pytest.fixture
def train(tokenizer, tmp_path, monkeypatch):
    """Trains a tiny BERT in a folder. The list gives the development F1 of the pairs after each epoch."""

    def call(folder, scores=((5, 1), (3, 2), (4, 3), (1, 1)), development=PAIRS, **options):
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
        no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        model = BertForQuestionAnswering(
            BertConfig(vocab_size=len(tokenizer), initializer_range=0.3, **sizes, **no_dropout)
        )
        reader = Reader(model, tokenizer, 20, 4, 4)
        select, budget = options.pop("select", "best"), options.pop("max_tokens_per_batch", None)
        common = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "learning_rate": 1e-3}
        common |= {"per_device_train_batch_size": 4, "num_train_epochs": 3, "lr_scheduler_type": "constant"}
        args = XLRetrievalTrainingArguments(output_dir=str(tmp_path / folder), **common | options)

        def evaluate(reader, sets):
            epoch = len(list((tmp_path / folder).glob("evaluated-*")))
            (tmp_path / folder / f"evaluated-{epoch}").touch()
            found = {f"F1_{one.key}": float(value) for one, value in zip(sets, scores[epoch])}
            return found | ({"F1": sum(found.values()) / len(found)} if sets else {}) | {"threshold": 0.5}

        monkeypatch.setattr(answering, "evaluate_development", evaluate)
        data = TrainingWindows(QUESTIONS, reader.encoder, progress=False)
        return train_reader(reader, data, development, args, select, budget), reader.model, tmp_path / folder

    return call


def epochs(folder):
    return sorted(path.name for path in folder.glob("epoch-*"))


@pytest.mark.parametrize(("select", "kept"), [("best", ["epoch-1", "epoch-3"]), ("last", ["epoch-3"])])
def test_models_of_the_chosen_epochs_stay(select, kept, train):
    history, _, folder = train("out", select=select)
    assert [found["F1"] for found in history] == [3, 2.5, 3.5] and epochs(folder) == kept
    history, _, folder = train("alone", development=[], select=select)
    assert history == [{"threshold": 0.5}] * 3 and epochs(folder) == ["epoch-3"]


def test_killed_between_development_and_checkpoint(train, monkeypatch):
    """The epoch is trained again. If it is worse this time, the model of the epoch before still exists."""
    save = XLRetrievalTrainer._save_checkpoint

    def killed(self, *args):
        if self.state.epoch > 1:
            raise KeyboardInterrupt
        save(self, *args)

    monkeypatch.setattr(XLRetrievalTrainer, "_save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        train("out", [(1, 1), (2, 2)])
    monkeypatch.undo()
    history, model, folder = train("out", [(1, 1), (2, 2), (0, 0), (0, 0)])
    assert [found["F1"] for found in history] == [1, 0, 0] and epochs(folder) == ["epoch-1"]
    _, whole, _ = train("whole")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), whole.state_dict().values()))


@pytest.mark.parametrize("options", [{"max_steps": 5}, {"num_train_epochs": 2}])
def test_a_finished_training_is_not_trained_on(options, train):
    """Killed after the last checkpoint, before the results; 5 steps end within an epoch."""
    history, _, folder = train("out", **options)
    state = json.loads(next(folder.glob("checkpoint-*/trainer_state.json")).read_text(encoding="utf-8"))
    before = epochs(folder)
    again, _, _ = train("out", **options)
    assert again == history and len(history) == 2 and epochs(folder) == before
    assert json.loads(next(folder.glob("checkpoint-*/trainer_state.json")).read_text(encoding="utf-8")) == state


@pytest.mark.parametrize("options", [{}, {"max_tokens_per_batch": 40}])
def test_accumulated_batches_are_one_batch(options, train):
    """Batches may have different numbers of windows: the loss is the mean over all windows."""
    whole = {name: value * 2 for name, value in options.items()} or {"per_device_train_batch_size": 4}
    parts = options or {"per_device_train_batch_size": 2}
    states = [
        train(
            str(number),
            num_train_epochs=1,
            optim="sgd",
            learning_rate=0.1,
            gradient_accumulation_steps=number,
            **sizes,
        )[1].state_dict()
        for number, sizes in ((1, whole), (2, parts))
    ]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, atol=2e-5, rtol=0, msg=name)


class Numbered:
    """A reader that is right on questions with some numbers. Its probability of "no answer" follows from the epoch."""

    def __init__(self, epoch: int):
        self.epoch, self.sets = epoch, []

    def answer(self, questions, n_best, name, distributed):
        self.sets.append(name)
        return {q.id: Prediction(q.answers[0][0] if q.answers else "d1", self.epoch / 10, []) for q in questions}


def test_each_pair_is_answered_by_its_epoch(tmp_path):
    """Each model is opened once, and its threshold decides."""
    unanswered = QuestionSet("v2", "en", "en", [question(1), question(2, answered=False)])
    tests = [QuestionSet("xquad", "de", "en", QUESTIONS[:2]), unanswered, QuestionSet("xquad", "fr", "fr", QUESTIONS)]
    history = [
        {"F1_context-de.question-en": 9.0, "F1_context-en.question-en": 1.0, "F1": 5.0, "threshold": 0.05},
        {"F1_context-de.question-en": 8.0, "F1_context-en.question-en": 2.0, "F1": 5.0, "threshold": 0.1},
        {"F1_context-de.question-en": 2.0, "F1_context-en.question-en": 9.0, "F1": 5.5, "threshold": 0.2},
    ]
    opened = []

    def open_reader(epoch):
        opened.append(Numbered(epoch))
        return opened[-1]

    results, found = answer_by_epochs(open_reader, tests, [], history, n_best=1, output=tmp_path)
    assert found == history and list(results) == ["xquad", "v2"]
    assert [(reader.epoch, reader.sets) for reader in opened] == [
        (1, ["xquad context-de.question-en"]), (3, ["v2 context-en.question-en", "xquad context-fr.question-fr"]),
    ]  # fmt: skip
    assert [(one["context"], one["epoch"], one["F1"]) for one in results["xquad"]] == [("de", 1, 100), ("fr", 3, 100)]
    (v2,) = results["v2"]
    assert v2["threshold"] == 0.2 and v2["epoch"] == 3
    assert (v2["HasAns_F1"], v2["NoAns_F1"]) == (0, 100)  # 0.3 is above the threshold: no question is answered
    given = json.loads((tmp_path / "v2/context-en.question-en.json").read_text(encoding="utf-8"))
    assert given == {"1": "", "2": ""}
    last, _ = answer_by_epochs(open_reader, tests, [], history, select="last")
    assert {one["epoch"] for of_set in last.values() for one in of_set} == {3}


def test_without_training_the_development_sets_give_the_threshold():
    tests, opened = [QuestionSet("v2", "en", "en", [question(1), question(2, False)])], []
    development = [QuestionSet("dev", "en", "en", [question(3), question(4, False)])]

    def open_reader(epoch):
        opened.append(epoch)
        return Numbered(epoch)

    results, history = answer_by_epochs(open_reader, tests, development, [])
    assert opened == [0] and len(history) == 1 and history[0].keys() >= {"F1_context-en.question-en", "threshold"}
    assert results["v2"][0]["threshold"] == history[0]["threshold"] and results["v2"][0]["epoch"] == 0
    assert answer_by_epochs(open_reader, [], [], []) == ({}, [])


def test_freeze(tokenizer):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    for layers, embeddings, expected in (
        (None, True, {"encoder", "qa_outputs"}),
        (None, False, {"embeddings", "encoder", "qa_outputs"}),
        (1, False, {"encoder", "qa_outputs"}),
        (0, True, {"qa_outputs"}),
    ):
        model = BertForQuestionAnswering(BertConfig(vocab_size=len(tokenizer), **sizes))
        freeze(model, layers, embeddings)
        trained = [name.removeprefix("bert.") for name, p in model.named_parameters() if p.requires_grad]
        assert {name.split(".")[0] for name in trained} == expected
        assert layers is None or any("layer.1." in name for name in trained) == bool(layers)
        assert layers is None or not any("layer.0." in name for name in trained)


# ---------------------------------------------------------------------------------------------------------------------
# Development
# ---------------------------------------------------------------------------------------------------------------------


class Sure:
    """Answers each question with the first words of its context. Its probability follows from the number."""

    def answer(self, questions, n_best, name, distributed):
        return {q.id: Prediction(" ".join(q.context.split()[3:4]), int(q.id) / 10, []) for q in questions}


def test_development_over_several_sets():
    """All sets share a threshold, from sets with unanswerable questions. A pair in two sets is their mean."""
    answered = QuestionSet("v1", "en", "en", [question(9), Question("8", "q", "d1 d2 d3 d4", [("d1", 0)])])
    some = QuestionSet("v2", "en", "en", [question(1), question(3), question(6, False), question(8, False)])
    others = QuestionSet("mlqa", "de", "de", [question(2), question(5), question(7, False)], "mlqa")
    found = evaluate_development(Sure(), [answered, some, others])
    assert found == {
        "threshold": 0.5,  # 1, 2, 3 and 5 are right, above are none
        "F1_context-en.question-en": (50 + 100) / 2,  # no threshold where all have answers
        "EM_context-en.question-en": (50 + 100) / 2,
        "F1_context-de.question-de": 100.0,
        "EM_context-de.question-de": 100.0,
        "F1": 87.5,
        "EM": 87.5,
    }
    assert evaluate_development(Sure(), [answered])["threshold"] == 0.5
    assert evaluate_development(Sure(), []) == {"threshold": 0.5}


@pytest.mark.parametrize("version_2", [False, True])
def test_questions_without_known_answers_are_answered_and_not_measured(version_2, tmp_path):
    hidden = [Question(str(i), "q", question(i).context, None, version_2) for i in (2, 8)]
    found = answer_set(Sure(), QuestionSet("hidden", "en", "en", hidden), 0.5, folder=tmp_path)
    assert found == {"context": "en", "question": "en"} | ({"threshold": 0.5} if version_2 else {})
    answers = json.loads((tmp_path / "context-en.question-en.json").read_text(encoding="utf-8"))
    assert answers == {"2": "d5", "8": "" if version_2 else "d11"}
    assert (tmp_path / "context-en.question-en.no_answer.json").exists() == version_2


def test_measures_by_both_rules():
    one = QuestionSet("mlqa", "de", "en", [Question("1", "?", "die Brücke", [("Brücke", 4)])], "mlqa")
    found = measure_answers(one, {"1": "die Brücke"})
    assert found["EM"] == found["F1"] == 100 and found["squad_EM"] == 0 and 0 < found["squad_F1"] < 100
    one.answered_like = "squad"
    found = measure_answers(one, {"1": "die Brücke"})
    assert found["EM"] == 0 and found["mlqa_EM"] == 100 and found["questions"] == 1
    one.context_language = "ru"  # in XQuAD, not in MLQA
    assert set(measure_answers(one, {"1": ""})) == {"F1", "EM", "questions"}
    one.answered_like = "mlqa"
    with pytest.raises(ValueError, match="no rules for answers in 'ru'"):
        measure_answers(one, {"1": ""})


def test_a_matrix_with_holes():
    results = [
        {"context": context, "question": question, "F1": value, "EM": 10}
        for context, question, value in (("de", "en", 40), ("de", "de", 60), ("zh", "en", 20))
    ]
    assert markdown(results).split("\n\n")[0].splitlines() == [
        "| F1: question, context | de | zh | mean |",
        "| --- | ---: | ---: | ---: |",
        "| en | 40.0 | 20.0 | 30.0 |",
        "| de | 60.0 | - | 60.0 |",
        "| mean | 50.0 | 20.0 | 40.0 |",
    ]
