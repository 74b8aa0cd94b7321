"""Questions with their contexts, in the layouts of SQuAD, MLQA and XQuAD."""

import json
import shutil

import pytest

from modeling_clir.data import questions as module
from modeling_clir.data.questions import (
    describe,
    language_key,
    parse_key,
    read_question_sets,
    read_squad_file,
    read_training_questions,
)

from ..helpers import write


CONTEXT = "Der Turm wurde 1866 gebaut."
ANSWER = {"text": "1866", "answer_start": 15}


def qa(key="q1", question="Wann?", answers=(ANSWER,), **rest):
    return {"id": key, "question": question, "answers": list(answers)} | rest


def squad(*qas, context=CONTEXT):
    return {"version": "1.1", "data": [{"title": "Turm", "paragraphs": [{"context": context, "qas": list(qas)}]}]}


def file(path, *qas, **changes):
    return write(path, squad(*(qas or [qa()]), **changes))


def hub(folder, configs):
    """Writes a folder like a data set of the Hub. `configs` maps config name to split to rows."""
    head = ["---", "configs:"]
    for config, splits in configs.items():
        head += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            write(folder / f"{config}-{split}.jsonl", *rows)
            head += [f"  - split: {split}", f"    path: {config}-{split}.jsonl"]
    write(folder / "README.md", *head, "---")
    return str(folder)


def row(key="q1", text="Wann?", context=CONTEXT, answers=(ANSWER,), **rest):
    columns = {name: [answer[name] for answer in answers] for name in ("text", "answer_start")}
    return {"id": key, "title": "Turm", "context": context, "question": text, "answers": columns} | rest


def listed(sets):
    return {one.key: [(q.id, q.text, q.context, q.answers) for q in one.questions] for one in sets}


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(module.logger, "warning", said.append)
    return said


def test_keys():
    assert parse_key(language_key("zh", "en")) == ("zh", "en")
    for key in ("deen", "context-de", "context-de.question-en.json", ""):
        with pytest.raises(ValueError, match=r"like context-de.question-en, got"):
            parse_key(key)


def test_squad_files(tmp_path):
    v1, v2 = tmp_path / "train-v1.1.json", tmp_path / "dev-v2.0.json"
    second = {"text": "wurde 1866", "answer_start": 9}
    file(v1, qa(answers=[ANSWER, second]), qa(7))
    file(v2, qa(is_impossible=False), qa("q2", answers=[], is_impossible=True, plausible_answers=[ANSWER]))
    (one,) = read_question_sets(str(v1), "test")
    assert (one.name, one.key, one.answered_like) == ("train-v1.1", "context-en.question-en", "squad")
    assert listed([one])[one.key] == [
        ("q1", "Wann?", CONTEXT, [("1866", 15), ("wurde 1866", 9)]),
        ("7", "Wann?", CONTEXT, [("1866", 15)]),
    ]
    (two,) = read_question_sets(str(v2), "test", languages=["en"])
    assert two.answers == {"q1": ["1866"], "q2": []} and two.unanswerable == 1 and one.unanswerable == 0
    assert (
        describe([one, two])
        == "train-v1.1: 1 pairs of languages, 2 questions, dev-v2.0: 1 pairs of languages, 2 questions"
    )
    file(tmp_path / "other.json", qa("q3"))
    together = read_training_questions([str(v1), str(tmp_path / "other.json")])
    assert [q.id for q in together] == ["q1", "7", "q3"]


def test_training_files_with_the_same_ids(tmp_path, warnings):
    """Translations of a data set have its ids. All are trained on, and errors name the file of a fault."""
    german, english = (tmp_path / f"squad.{language}.json" for language in ("de", "en"))
    built = "It was built in 1866."
    file(german, qa("a"), qa("b"))
    file(english, qa("a", "When?", [{"text": "1866", "answer_start": 16}]), qa("b", answers=[ANSWER]), context=built)
    with pytest.raises(ValueError, match=r"squad.en.json: 1 questions with an answer that is not where"):
        read_training_questions([str(german), str(english)])
    found = read_training_questions([str(german), str(english)], bad_data="skip")
    assert [(q.id, q.context) for q in found] == [("a", CONTEXT), ("b", CONTEXT), ("a", built)]
    assert len(warnings) == 1 and "squad.en.json" in warnings.pop()
    copy = file(tmp_path / "copy.json", qa("other"), qa("new", "Wo?"))
    assert len(read_training_questions([str(german), str(copy)])) == 4
    assert (
        "1 questions are the same in two of these sources and are trained on twice" in warnings.pop() and not warnings
    )
    with pytest.raises(ValueError, match=r"--train_data names .*copy.json more than once"):
        read_training_questions([str(copy), str(german), str(copy)])
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none.json"):
        read_training_questions([str(german), str(tmp_path / "none.json")])


@pytest.mark.parametrize("training", [False, True])
def test_an_empty_list_of_answers_is_no_mark(training, tmp_path, warnings):
    path = write(tmp_path / "a.json", squad(qa("a"), qa("b", answers=[]), qa("c", answers=[], is_impossible=False)))
    fault = r"a.json: 2 questions without an answer that are not marked is_impossible, b the first"
    with pytest.raises(ValueError, match=fault):
        read_squad_file(path, training)
    assert [q.id for q in read_squad_file(path, training, bad_data="skip")] == ["a"]
    assert "2 questions without an answer" in warnings.pop() and not warnings
    write(path, squad(qa("a"), qa("b", answers=[])) | {"version": "v2.0"})
    assert [q.answers for q in read_squad_file(path, training)] == [[("1866", 15)], []]
    write(path, squad(qa("a"), qa("b", answers=[], is_impossible=False)) | {"version": "v2.0"})
    with pytest.raises(ValueError, match=r"1 questions without an answer .*, b the first"):
        read_squad_file(path, training)
    question = qa("b", is_impossible=True)
    del question["answers"]
    assert [q.answers for q in read_squad_file(write(path, squad(qa(), question)), training)] == [[("1866", 15)], []]


@pytest.mark.parametrize("version", ["1.1", "v2.0"])
@pytest.mark.parametrize("answers", ["absent", "null", "empty"])
def test_a_test_file_without_answers(version, answers, tmp_path, warnings):
    """Leaderboards publish such files."""
    questions = [qa("a"), qa("b")]
    for question in questions:
        if answers == "absent":
            del question["answers"]
        else:
            question["answers"] = [] if answers == "empty" else None
    path = write(tmp_path / "hidden.json", squad(*questions) | {"version": version})
    (one,) = read_question_sets(str(path), "test")
    assert listed([one])[one.key] == [("a", "Wann?", CONTEXT, None), ("b", "Wann?", CONTEXT, None)]
    assert not one.has_answers and one.unanswerable == 0 and one.may_lack_answers == (version == "v2.0")
    assert warnings == [f"{path}: no question has an answer; predictions are written, nothing is measured"]
    with pytest.raises(ValueError, match=r"context-en.question-en have no answers; development needs answers"):
        read_question_sets(str(path), "dev")
    if version == "1.1":
        with pytest.raises(ValueError, match="2 questions without an answer that are not marked is_impossible"):
            read_training_questions([str(path)])


def test_hub_sets_without_answers(tmp_path, warnings):
    rows = [row("a"), row("b")]
    for one in rows:
        del one["answers"]
    (found,) = read_question_sets(hub(tmp_path / "absent", {"default": {"test": rows, "validation": rows}}), "test")
    assert [q.answers for q in found.questions] == [None, None] and len(warnings) == 1
    with pytest.raises(ValueError, match="it lacks answers and has"):
        read_question_sets(str(tmp_path / "absent"), "dev")
    rows = [row("a", is_impossible=False), row("b", answers=(), is_impossible=True)]
    name = hub(
        tmp_path / "marked", {"default": {"test": rows, "train": [*rows, row("c", answers=(), is_impossible=False)]}}
    )
    assert [q.answers for q in read_question_sets(name, "test")[0].questions] == [[("1866", 15)], []]
    with pytest.raises(
        ValueError, match="1 questions without an answer that are not marked is_impossible, c the first"
    ):
        read_training_questions([name])


@pytest.mark.parametrize("inside", ["", "MLQA_V1"])
def test_mlqa(inside, tmp_path):
    for role in ("dev", "test"):
        for context, question in (("de", "de"), ("de", "en"), ("zh", "de")):
            name = f"{role}-context-{context}-question-{question}.json"
            file(tmp_path / inside / role / name, qa(f"{role} {context} {question}"))
    write(tmp_path / inside / "README.json", "{}")
    for source in (tmp_path, tmp_path / inside, tmp_path / inside / "dev"):
        sets = read_question_sets(str(source), "dev")
        assert [(one.name, one.answered_like) for one in sets] == [("mlqa", "mlqa")] * 3
        assert {one.key: one.questions[0].id for one in sets} == {
            "context-de.question-de": "dev de de",
            "context-de.question-en": "dev de en",
            "context-zh.question-de": "dev zh de",
        }
    wanted = ["context-zh.question-de", "context-de.question-de"]
    assert list(listed(read_question_sets(str(tmp_path), "test", pairs=wanted))) == wanted
    (one,) = read_question_sets(str(tmp_path / inside / "test/test-context-zh-question-de.json"), "test")
    assert (one.name, one.answered_like, one.context_language, one.question_language) == ("mlqa", "mlqa", "zh", "de")
    with pytest.raises(
        ValueError, match=r"has no test questions of context-en.question-de, .*; it has context-de.question-de"
    ):
        read_question_sets(str(tmp_path), "test", languages=["de", "en"])
    assert read_question_sets(str(tmp_path / inside / "dev"), "test")[0].questions[0].id == "dev de de"
    shutil.rmtree(tmp_path / inside / "test")
    with pytest.raises(ValueError, match=r"has no file test-context-LANGUAGE-question-LANGUAGE.json"):
        read_question_sets(str(tmp_path), "test")
    with pytest.raises(ValueError, match="--languages or --pairs, not both"):
        read_question_sets(str(tmp_path), "test", languages=["de"], pairs=wanted)


def test_xquad(tmp_path, warnings):
    file(tmp_path / "xquad.de.json", qa("a", "Wann?"), qa("b", "Was?"))
    english = "It was built in 1866."
    answer = {"text": "1866", "answer_start": 16}
    file(tmp_path / "xquad.en.json", qa("b", "What?", [answer]), qa("a", "When?", [answer]), context=english)
    found = listed(read_question_sets(str(tmp_path), "dev"))
    assert found["context-de.question-en"] == [
        ("a", "When?", CONTEXT, [("1866", 15)]),
        ("b", "What?", CONTEXT, [("1866", 15)]),
    ]
    assert found["context-en.question-de"][0] == ("b", "Was?", english, [("1866", 16)])
    assert [one[1] for one in found["context-de.question-de"]] == ["Wann?", "Was?"] and len(found) == 4
    (one,) = read_question_sets(str(tmp_path / "xquad.de.json"), "test")
    assert (one.name, one.key, one.answered_like) == ("xquad", "context-de.question-de", "squad")
    file(tmp_path / "xquad.es.json", qa("a"), qa("c"))
    with pytest.raises(
        ValueError, match=r"xquad.de.json and .*xquad.es.json are not parallel: 2 questions .*, b the first"
    ):
        read_question_sets(str(tmp_path), "test", languages=["de", "es"])
    sets = read_question_sets(str(tmp_path), "test", languages=["de", "es"], bad_data="skip")
    assert [[q.id for q in one.questions] for one in sets] == [["a", "b"], ["a"], ["a"], ["a", "c"]]
    assert "2 questions are in one only, b the first; left out" in warnings[0]
    file(tmp_path / "dev-v2.0.json")
    with pytest.raises(ValueError, match=r"files of several data sets: dev-v2.0.json, xquad.de.json"):
        read_question_sets(str(tmp_path), "test")


def test_gzipped_files_with_a_byte_order_mark(tmp_path):
    data = "\ufeff" + json.dumps(squad(qa("a")))
    for name in ("x.json.gz", "xquad/xquad.de.json.gz", "mlqa/test-context-de-question-de.json.gz"):
        write(tmp_path / name, data)
    keys = {
        "x.json.gz": ("x", "context-en.question-en"),
        "xquad": ("xquad", "context-de.question-de"),
        "xquad/xquad.de.json.gz": ("xquad", "context-de.question-de"),
        "mlqa": ("mlqa", "context-de.question-de"),
    }
    for source, expected in keys.items():
        (one,) = read_question_sets(str(tmp_path / source), "test")
        assert (one.name, one.key) == expected and one.questions[0].context == CONTEXT
    assert [q.id for q in read_training_questions([str(tmp_path / "x.json.gz")])] == ["a"]
    write(tmp_path / "xquad/xquad.de.json", data)
    with pytest.raises(ValueError, match=r"xquad has both xquad.de.json and xquad.de.json.gz; remove one"):
        read_question_sets(str(tmp_path / "xquad"), "test")
    write(tmp_path / "mlqa/copy/test-context-de-question-de.json", data)
    with pytest.raises(ValueError, match=r"mlqa has several test files of context-de.question-de, .*/copy/test-"):
        read_question_sets(str(tmp_path / "mlqa"), "test")


@pytest.mark.parametrize(
    ("configs", "style", "keys"),
    [
        (["plain_text"], "squad", ["context-en.question-en"]),
        (
            ["mlqa.de.en", "mlqa.zh.zh", "mlqa-translate-test.de"],
            "mlqa",
            ["context-de.question-en", "context-zh.question-zh"],
        ),
        (["MLQA.de.en", "XQuAD.de", "SQuAD"], "mlqa", ["context-de.question-en"]),
        (["xquad.de"], "squad", ["context-de.question-de"]),
    ],
)
def test_hub(configs, style, keys, tmp_path):
    splits = {"validation": [row("dev")], "test": [row("test"), row("none", answers=())]}
    name = hub(tmp_path / "set", dict.fromkeys(configs, splits))
    sets = read_question_sets(name, "test")
    assert [(one.name, one.answered_like, one.key) for one in sets] == [("set", style, key) for key in keys]
    for one in sets:
        assert listed([one])[one.key] == [("test", "Wann?", CONTEXT, [("1866", 15)]), ("none", "Wann?", CONTEXT, [])]
    assert [q.id for q in read_question_sets(name, "dev")[0].questions] == ["dev"]


def test_a_folder_with_brackets_in_its_path(tmp_path):
    name = hub(tmp_path / "data[v2]/{set}*", {"default": {"train": [row("1")], "validation": [row("2")]}})
    assert [q.id for q in read_training_questions([name])] == ["1"]
    (one,) = read_question_sets(name, "dev")
    assert one.name == "{set}*" and [q.id for q in one.questions] == ["2"]
    file(tmp_path / "data[v2]/xquad/xquad.de.json")
    assert len(read_question_sets(str(tmp_path / "data[v2]/xquad"), "test")) == 1
    (tmp_path / "data[v2]/empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"Couldn't find any data file at .*/data\[v2\]/empty"):
        read_question_sets(str(tmp_path / "data[v2]/empty"), "dev")


def test_hub_splits_and_pairs(tmp_path):
    name = hub(tmp_path / "squad", {"default": {"train": [row("1")], "validation": [row("2")]}})
    assert [q.id for q in read_training_questions([name])] == ["1"]
    hub(tmp_path / "squad", {"default": {"train": [row("mended")], "validation": [row("2")]}})
    assert [q.id for q in read_training_questions([name])] == ["mended"]
    for role in ("dev", "test"):  # SQuAD and XQuAD have no test split
        assert [q.id for q in read_question_sets(name, role)[0].questions] == ["2"]
    both = {f"xquad.{x}": {"validation": [row("1", f"{x}?", f"{x} 1866", [])]} for x in ("de", "en")}
    found = listed(read_question_sets(hub(tmp_path / "xquad", both), "test"))
    assert found["context-en.question-de"] == [("1", "de?", "en 1866", None)] and len(found) == 4


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"validation": [row()]}, "has no split train of default; it has validation"),
        ({"train": [{"id": "1", "text": "x"}]}, "lacks answers, context, question and has id, text"),
        (
            {"train": [row(answers=()), row(key=None)]},
            r"default, train: not in SQuAD's layout in row 1 \(TypeError\('id is None",
        ),
        ({"train": [row() | {"answers": [ANSWER]}]}, "not in SQuAD's layout in row 0"),
        (
            {"train": [row(answers=[ANSWER | {"answer_start": 3}])]},
            r"set, default, train: 1 .*offset says, q1 \('1866', there: ' Tur'\)",
        ),
    ],
)
def test_hub_errors(splits, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_training_questions([hub(tmp_path / "set", {"default": splits})])


def test_what_is_no_data_set(tmp_path):
    with pytest.raises(ValueError, match="two has the configs a, b: name a file, or a data set with one"):
        read_question_sets(hub(tmp_path / "two", {name: {"test": [row()]} for name in "ab"}), "test")
    write(tmp_path / "script/script.py", "")  # as facebook/mlqa was
    with pytest.raises(FileNotFoundError, match=rf"No \(supported\) data files found in {tmp_path}/script$"):
        read_question_sets(str(tmp_path / "script"), "test")
    file(tmp_path / "one/dev-v2.0.json")
    with pytest.raises(ValueError, match=r"one: neither MLQA_V1 .* nor parallel files .* name one of its files"):
        read_question_sets(str(tmp_path / "one"), "test")
    for source in ("missing.json", "missing"):
        with pytest.raises(FileNotFoundError, match=source):
            read_question_sets(str(tmp_path / source), "test")


@pytest.mark.parametrize("character", ["\ud83d", "\x00"])
@pytest.mark.parametrize("part", ["id", "question", "context", "answer"])
def test_characters_that_no_text_can_hold(part, character, tmp_path, warnings):
    bad = f"a{character}b"
    context = CONTEXT + (bad if part in ("context", "answer") else "")
    question = qa(bad if part == "id" else "q1", bad if part == "question" else "Wann?")
    if part == "answer":
        question["answers"] = [{"text": bad, "answer_start": len(CONTEXT)}]
    first = squad(qa("good"))["data"]
    (article,) = squad(question, context=context)["data"]
    data = {"data": [*first, {"title": "x", "paragraphs": [*first[0]["paragraphs"], *article["paragraphs"]]}]}
    data["data"][1]["paragraphs"][0] = {"context": CONTEXT, "qas": [qa("also good")]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    fault = r"1 questions with a NUL character or a lone surrogate, data\[1\].paragraphs\[1\].qas\[0\] \(id '"
    for training in (False, True):
        with pytest.raises(ValueError, match=f"a.json: {fault}") as error:
            read_squad_file(path, training)
        assert str(error.value).isascii()
        assert [q.id for q in read_squad_file(path, training, bad_data="skip")] == ["good", "also good"]
    if character == "\x00" and part != "answer":
        columns = dict(zip(("key", "text", "context"), (question["id"], question["question"], context)))
        name = hub(tmp_path / "set", {"default": {"train": [row("good"), row(**columns)]}})
        with pytest.raises(ValueError, match=r"1 questions with a NUL character or a lone surrogate, row 1 \(id '"):
            read_training_questions([name])


def test_hub_files_that_do_not_parse(tmp_path):
    name = hub(tmp_path / "set", {"default": {"train": [row("a")]}})
    write(tmp_path / "set/default-train.jsonl", '{"id": "a", "context"')
    with pytest.raises(ValueError, match=r"set/default-train\.jsonl:1: not JSON"):
        read_training_questions([name])


@pytest.mark.parametrize("start", [14, -1, 400])
def test_wrong_offsets(start, tmp_path, warnings):
    wrong = {"text": "1866", "answer_start": start}
    path = file(tmp_path / "a.json", qa("bad", answers=[wrong]), qa("good"), qa("worse", answers=[wrong]))
    with pytest.raises(
        ValueError,
        match=r"a.json: 2 questions with an answer that is not where its offset says, bad \('1866', there: '",
    ):
        read_squad_file(path, training=True)
    assert [q.id for q in read_squad_file(path, training=True, bad_data="skip")] == ["good"]
    assert "2 questions" in warnings.pop() and not warnings
    for bad_data in ("stop", "skip"):  # a test compares texts only
        assert [q.answers for q in read_squad_file(path, bad_data=bad_data)] == [
            [("1866", start)],
            [("1866", 15)],
            [("1866", start)],
        ]
        assert "2 questions with an answer that is not where its offset says, bad" in warnings.pop()
    file(path, qa("both", answers=[wrong, ANSWER]))
    with pytest.raises(ValueError, match="1 questions with an answer"):
        read_squad_file(path, training=True)
    assert read_squad_file(path, training=True, bad_data="skip")[0].answers == [("1866", 15)]


@pytest.mark.parametrize(
    ("data", "fault", "kept"),
    [
        (
            squad(qa("a", "first"), qa("a", "second"), qa("b")),
            "1 question ids that occur more than once, a the first",
            ["a", "b"],
        ),
        (squad(qa("a", "\n"), qa("b")), "1 questions that are empty or have an empty context, a the first", ["b"]),
        (
            squad(qa("a"), qa("b", answers=[{"text": "", "answer_start": 1}])),
            r"1 questions with an answer .*, b \(''",
            ["a"],
        ),
        (squad(qa("a"), context=""), "1 questions that are empty or have an empty context, a the first", []),
        (
            {"data": squad(qa("a"))["data"] + squad()["data"]},
            r"1 contexts without a question, data\[1\].paragraphs\[0\] the first",
            ["a"],
        ),
        (squad(), "1 contexts without a question", []),
    ],
)
def test_bad_data(data, fault, kept, tmp_path, warnings):
    path = write(tmp_path / "a.json", data)
    with pytest.raises(ValueError, match=f"a.json: {fault}.*--bad_data skip"):
        read_squad_file(path, training=True)
    if kept:
        found = read_squad_file(path, training=True, bad_data="skip")
        assert [q.id for q in found] == kept and found[0].text != "second"
    else:
        with pytest.raises(ValueError, match=r"a.json has no question"):
            read_squad_file(path, training=True, bad_data="skip")
    assert len(warnings) == 1 and "left out" in warnings[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "a.json: not JSON"),
        ("[]", "a.json: not in SQuAD's layout at data "),
        ('{"data": [{"title": "x"}]}', r"layout at data\[0\].paragraphs \(KeyError\('paragraphs'\)\)"),
        (
            json.dumps(squad(qa(), {"id": "q2"})),
            r"layout at data\[0\].paragraphs\[0\].qas\[1\] \(KeyError\('question'\)\)",
        ),
        (
            json.dumps(squad(qa(answers=[{"text": "1866", "answer_start": "15"}]))),
            r"qas\[0\] \(TypeError\(.answer_start is '15'",
        ),
        (json.dumps(squad(qa(is_impossible="false"))), r"qas\[0\] \(TypeError\(.is_impossible is 'false'"),
        (json.dumps(squad(qa(question=None))), r"qas\[0\] \(TypeError\('question is None'\)\)"),
        (json.dumps(squad(qa(), context=None)), "layout at .*context is None"),
        ('{"data": []}', "a.json has no question"),
    ],
)
def test_other_layouts(text, message, tmp_path):
    path = write(tmp_path / "a.json", text)
    with pytest.raises(ValueError, match=message):
        read_squad_file(path)


def test_not_utf8(tmp_path):
    (tmp_path / "a.json").write_bytes(json.dumps(squad(qa(question="für")), ensure_ascii=False).encode("latin-1"))
    with pytest.raises(ValueError, match=r"a.json:1: not UTF-8"):
        read_squad_file(tmp_path / "a.json")
