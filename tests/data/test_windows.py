"""Windows of long contexts, and the places of answers in windows."""

import random
import re

import numpy as np
import pytest
from transformers import AutoTokenizer

from modeling_clir.data import windows as module
from modeling_clir.data.questions import Question, read_question_sets
from modeling_clir.data.sections import ExampleKey
from modeling_clir.data.windows import TrainingWindows, WindowEncoder
from modeling_clir.evaluation.answer_measures import evaluate_answers, exact_match, mean_answers

from ..conftest import REPOSITORY
from ..helpers import texts, tokens, train_tokenizer
from ..shared import shared_path


@pytest.fixture(scope="module", params=["wordpiece", "byte_level", "unigram", "no_cls"])
def each_tokenizer(request):
    if request.param == "wordpiece":
        return AutoTokenizer.from_pretrained(REPOSITORY / "base")
    return train_tokenizer(request.param)


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(module.logger, "warning", said.append)
    return said


def asked(seed=0, number=40, longest=60):
    contexts = texts(seed, number, longest)
    return [Question(str(i), q, c, []) for i, (q, c) in enumerate(zip(texts(seed + 1, number, 4), contexts))]


def whole(tokenizer, text):
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True).encodings[0]


@pytest.mark.parametrize(("max_length", "stride"), [(40, 8), (40, 0), (33, 17), (2000, 128)])
def test_windows_cover_the_context(max_length, stride, each_tokenizer, monkeypatch):
    monkeypatch.setattr(module, "QUESTIONS_AT_ONCE", 7)
    questions = asked()
    encoder = WindowEncoder(each_tokenizer, max_length, stride, max_question_length=10)
    windows = encoder(questions, progress=False)
    assert [w.question for w in windows] == sorted(w.question for w in windows)
    for number, question in enumerate(questions):
        own = [window for window in windows if window.question == number]
        context = whole(each_tokenizer, question.context)
        assert [w.is_first for w in own] == [True] + [False] * (len(own) - 1)
        assert [w.is_last for w in own] == [False] * (len(own) - 1) + [True]
        ids, spans = [], []
        for window in own:
            part = window.ids[window.first : window.first + len(window.offsets)].tolist()
            new = 0 if window.is_first else stride
            assert new == 0 or ids[-new:] == part[:new]
            ids += part[new:]
            spans += window.offsets.tolist()[new:]
            assert len(window.ids) == max_length or (window.is_last and len(window.ids) < max_length)
            assert window.ids.tolist()[: window.first] == own[0].ids.tolist()[: window.first]
        assert ids == context.ids
        assert [a for a, _ in spans] == [a for a, _ in context.offsets]
        assert all(end >= before for (_, end), (_, before) in zip(spans, context.offsets))  # marks may be added
    assert max_length < 2000 or len(windows) == len(questions)


def test_what_a_window_looks_like(tokenizer):
    question = Question("1", "q1 [SEP] q2", " ".join(f"d{i}" for i in range(9)), [])
    windows = WindowEncoder(tokenizer, 14, 2, 5)([question], progress=False)
    assert [tokens(tokenizer, window.ids) for window in windows] == [
        "[CLS] q1 [ sep ] q2 [SEP] d0 d1 d2 d3 d4 d5 [SEP]",
        "[CLS] q1 [ sep ] q2 [SEP] d4 d5 d6 d7 d8 [SEP]",
    ]
    assert windows[1].types.tolist() == [0] * 7 + [1] * 6 and windows[1].first == 7
    assert [question.context[a:b] for a, b in windows[1].offsets] == ["d4", "d5", "d6", "d7", "d8"]
    batch = WindowEncoder(tokenizer, 14, 2, 5).batch(windows)
    assert batch["attention_mask"].sum(1).tolist() == [14, 13] and batch["token_type_ids"][1].tolist() == [0] * 7 + [
        1
    ] * 6 + [0]


@pytest.mark.parametrize("context", ["\u200b", "\x00\ufffd"])
def test_no_tokens(context, tokenizer):
    """BERT's normalization leaves nothing of such texts."""
    (window,) = WindowEncoder(tokenizer, 14, 2, 5)([Question("1", "q1", context, [(context, 0)])], progress=False)
    assert tokens(tokenizer, window.ids) == "[CLS] q1 [SEP] [SEP]" and window.offsets.shape == (0, 2)
    assert window.span(context, 0) is None


def test_cut_questions_are_counted(tokenizer, warnings):
    long = " ".join(f"q{i}" for i in range(9))
    questions = [Question(str(i), text, "d1 d2", []) for i, text in enumerate(["q1 q2", long, "q1 q2 q3ing"])]
    windows = WindowEncoder(tokenizer, 20, 2, 3)(questions, progress=True, name="test")
    assert [tokens(tokenizer, w.ids[1 : w.first - 1]) for w in windows] == ["q1 q2", "q0 q1 q2", "q1 q2"]
    assert warnings == ["test: 2 of 3 questions were cut to 3 tokens"]


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (
            (23, 10, 10),
            r"doc_stride \(10\) must be at least 0 and less than the 10 tokens that max_length \(23\) leaves",
        ),
        ((23, -1, 10), r"doc_stride \(-1\)"),
        ((13, 0, 10), r"max_length \(13\) leaves no room"),
    ],
)
def test_lengths_that_do_not_fit(lengths, message, tokenizer):
    with pytest.raises(ValueError, match=message):
        WindowEncoder(tokenizer, *lengths)


@pytest.mark.parametrize("side", ["right", "left"])
def test_labels_decode_to_the_answer(side, each_tokenizer, warnings, monkeypatch):
    monkeypatch.setattr(each_tokenizer, "padding_side", side)
    rng, stride = random.Random(3), 2
    questions = asked(seed=4)
    for question in questions[1:]:
        words = [match.span() for match in re.finditer(r"[^\s\u200b]+", question.context)]
        first = rng.randrange(len(words))
        start, end = words[first][0], words[min(first + rng.randint(0, 9), len(words) - 1)][1]
        question.answers = [(question.context[start:end], start), ("not looked at", 0)]
    data = TrainingWindows(questions, WindowEncoder(each_tokenizer, 40, stride, 10), progress=False)
    windows = [data[ExampleKey("qa", "train", i)] for i in range(len(data))]
    assert data.sizes == {("qa", "train"): len(windows)}
    assert data.lengths["qa", "train"].tolist() == [len(window.ids) for window in windows]
    found, before = set(), 0
    for window, following in zip(windows, [*windows[1:], None]):
        question, number = questions[window.question], len(window.offsets)
        batch = data([window, max(windows, key=lambda one: len(one.ids))])
        assert batch["input_ids"][0, : len(window.ids)].tolist() == window.ids.tolist()
        expected = [0, 0]
        if question.answers:
            text, start = question.answers[0]
            offsets = whole(each_tokenizer, question.context).offsets
            held = [i - before for i, (a, b) in enumerate(offsets) if a < start + len(text) and b > start]
            if held and held[0] >= 0 and held[-1] < number:
                expected = [window.first + held[0], window.first + held[-1]]
                a, b = window.offsets[held[0], 0], window.offsets[held[-1], 1]
                assert question.context[a:b].strip().strip("\u200b") == text
                found.add(window.question)
        assert [int(batch[f"{name}_positions"][0]) for name in ("start", "end")] == expected
        before = 0 if following is None or following.is_first else before + number - stride
    lost = len(questions) - 1 - len(found)
    assert len(found) > 25 and lost > 0
    assert f"{lost} of {len(questions) - 1} training answers fit into no window of 40 tokens" in warnings[0]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("सत्र में था", "में"),
        ("im Cafe\u0301.", "Cafe\u0301"),
        ("الدَّرسُ الأوّلُ.", "الدَّرسُ"),
        ("là hê\u0323 thống", "hê\u0323"),
        ("im Café.", "Café"),
    ],
)
def test_marks_belong_to_the_token_before(text, answer):
    encoder = WindowEncoder(AutoTokenizer.from_pretrained(REPOSITORY / "base"), 60, 4, 10)
    (window,) = encoder([Question("1", "Was?", text, [])], progress=False)
    start = text.index(answer)
    first, last = window.span(answer, start)
    assert text[window.offsets[first, 0] : window.offsets[last, 1]] == answer
    assert window.span(" " + answer + " ", start - 1) == (first, last)


# ---------------------------------------------------------------------------------------------------------------------
# Nothing is lost between text, tokens and text
# ---------------------------------------------------------------------------------------------------------------------


def oracle(sets, tokenizer):
    """
    Computes over all sets F1 and EM of the gold answers, EM of the best spans of the windows, and the number of
    answers that no span reaches. Each answer that no span reaches begins or ends inside a token.
    """
    gold, reached, inside = [], [], 0
    for one in sets:
        language = one.context_language if one.answered_like == "mlqa" else None
        given = {q.id: q.answers[-1][0] if q.answers else "" for q in one.questions}
        gold.append(mean_answers(evaluate_answers(given, one.answers, language)))
        windows = {}
        for window in WindowEncoder(tokenizer, 384)(one.questions, progress=False):
            windows.setdefault(window.question, []).append(window)
        for number, question in enumerate(one.questions):
            spans = [""] * (not question.answers)
            for text, at in question.answers:
                held = [(window, window.span(text, at)) for window in windows[number]]
                of_answer = {
                    question.context[w.offsets[span[0], 0] : w.offsets[span[1], 1]].strip() for w, span in held if span
                }
                spans += of_answer
                if text.strip() not in of_answer:
                    ends = {at + len(text) - len(text.lstrip()), at + len(text.rstrip())}
                    offsets = whole(tokenizer, question.context).offsets
                    assert any(a < end < b for a, b in offsets for end in ends), (one.key, question.id, text)
                    inside += 1
            unanswerable = one.unanswerable > 0
            reached.append(any(exact_match(span, one.answers[question.id], language, unanswerable) for span in spans))
    assert {(measured["F1"], measured["EM"]) for measured in gold} == {(100.0, 100.0)}
    return 100 * np.mean(reached), inside, len(reached)


@pytest.mark.parametrize(
    ("name", "languages", "questions"),
    [
        ("squad/train-v1.1.json", None, 3807),
        ("squad/dev-v2.0.json", None, 1407),
        ("xquad", ["en"], 925),
        ("xquad", ["de"], 925),
        ("xquad", ["es"], 925),
    ],
)
def test_answers_are_reached(name, languages, questions):
    sets = read_question_sets(str(shared_path(f"data/{name}")), "test", languages)
    exact, _, number = oracle(sets, AutoTokenizer.from_pretrained(REPOSITORY / "base"))
    assert exact >= 99.5 and number == questions


@pytest.mark.parametrize("role", ["dev", "test"])
def test_answers_of_mlqa_are_reached(role):
    """The sample is too small for a rate. The only lost answers are parts of words that annotators marked."""
    sets = read_question_sets(str(shared_path("data/mlqa")), role)
    exact, inside, number = oracle(sets, AutoTokenizer.from_pretrained(REPOSITORY / "base"))
    assert {one.context_language for one in sets} == {"ar", "de", "en", "es", "hi", "vi", "zh"}
    assert inside <= 4 and exact >= 100 * (1 - inside / number)
