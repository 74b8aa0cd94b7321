"""run_mlqa.py by its command line: training, resuming after a kill, several processes, results, bad input."""

import json

import pytest
from huggingface_hub import ModelCard
from transformers import BertConfig, BertJapaneseTokenizer

import run_mlqa
from modeling_clir.training.answering import chosen_epochs

from .conftest import kill_when, run
from .helpers import write


FLAGS = ("--use_cpu", "--report_to", "none", "--disable_tqdm", "true", "--max_length", "64")
FLAGS += ("--doc_stride", "16", "--max_question_length", "16")
TRAIN = ("--do_train", "--num_train_epochs", "3", "--per_device_train_batch_size", "4", "--learning_rate", "3e-3")
TRAIN += ("--no_freeze_embeddings",)
PAIRS = [f"context-{context}.question-{question}" for context in ("de", "en") for question in ("de", "en")]


def squad(language: str, number: int, unanswerable: bool = False) -> dict:
    """Makes contexts of several windows, each with one word of its own, which is the answer."""
    words = {
        "en": ("the bridge was built in", "when was bridge"),
        "de": ("die brücke entstand im jahr", "wann entstand"),
    }
    context, question = words[language]
    paragraphs = []
    for i in range(number):
        text = f"{'x ' * (7 * i % 90)}{i}: {context} {1800 + i}, {'y ' * 20}."
        answers = [{"text": str(1800 + i), "answer_start": text.index(str(1800 + i))}]
        qa = {"id": f"q{i}", "question": f"{question} {i}?", "answers": answers}
        if unanswerable and i % 3 == 0:
            qa |= {"answers": [], "is_impossible": True}
        paragraphs.append({"context": text, "qas": [qa]})
    return {"version": "1.1", "data": [{"title": "bridges", "paragraphs": paragraphs}]}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Writes a file to train on, the folders of MLQA and XQuAD, and a file with unanswerable questions."""
    folder = tmp_path_factory.mktemp("questions")
    write(folder / "train.json", squad("en", 24))
    write(folder / "v2.json", squad("en", 9, unanswerable=True))
    for language in ("en", "de"):
        write(folder / f"xquad/xquad.{language}.json", squad(language, 6))
        for split in ("dev", "test"):
            name = f"MLQA_V1/{split}/{split}-context-{language}-question-{language}.json"
            write(folder / name, squad(language, 5))
    return folder


def command(model, output, *flags) -> list[str]:
    return ["run_mlqa.py", "--model_name_or_path", str(model), "--output_dir", str(output), *FLAGS, *map(str, flags)]


@pytest.fixture
def mlqa(call):
    return lambda *arguments: call(run_mlqa, command(*arguments))


def sources(data) -> tuple:
    return (*TRAIN, "--train_data", data / "train.json", "--dev_data", data, data / "v2.json", "--test_data")


def files(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("context-*.json")}


@pytest.mark.slow
def test_a_killed_training_goes_on_and_gives_the_same(mlqa, tiny_bert, data, tmp_path, capsys):
    flags = (*sources(data), data / "xquad", data / "MLQA_V1", data / "v2.json")
    mlqa(tiny_bert, tmp_path / "whole", *flags)
    printed = [line for line in capsys.readouterr().out.splitlines() if " F1 " in line]
    assert len(printed) == 7

    killed = tmp_path / "killed"
    kill_when(command(tiny_bert, killed, *flags), killed, "checkpoint-12/trainer_state.json")
    assert not (killed / "metrics.json").exists()
    mlqa(tiny_bert, killed, *flags)
    assert [line for line in capsys.readouterr().out.splitlines() if " F1 " in line] == printed
    assert files(killed) == files(tmp_path / "whole") and len(files(killed)) == 15
    for name in ("metrics.json", "results.csv", "xquad.md", "model.safetensors"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list(killed.glob("checkpoint-*")) and not list(killed.glob("epoch-*"))
    assert (killed / "results.png").is_file() and (killed / "development.png").is_file()

    # Learned, chosen by development F1, and the same again from the checkpoint
    metrics = json.loads((killed / "metrics.json").read_text(encoding="utf-8"))
    history = metrics["development"]
    assert len(history) == 3 and max(found["F1"] for found in history) > 50  # at random about 5
    chosen = chosen_epochs(history)
    for result in metrics["results"]["xquad"]:
        key = f"context-{result['context']}.question-{result['question']}"
        assert result["epoch"] == chosen.get(key, chosen[None]) and result["questions"] == 6
    assert 0 < history[chosen[None] - 1]["threshold"] < 1
    card = ModelCard.load(killed / "README.md")
    assert card.data.pipeline_tag == "question-answering" and len(card.data.eval_results) == 14
    assert "| F1: question, context | de | en | mean |" in card.content

    mlqa(killed, tmp_path / "again", "--test_data", data / "xquad", "--pairs", PAIRS[2])
    (again,) = json.loads((tmp_path / "again/metrics.json").read_text(encoding="utf-8"))["results"]["xquad"]
    (before,) = [one for one in metrics["results"]["xquad"] if (one["context"], one["question"]) == ("en", "de")]
    assert before["epoch"] == chosen[None]  # there are no development questions of this pair
    assert again["F1"] == before["F1"]

    mlqa(tiny_bert, killed, *flags)  # finished
    with pytest.raises(ValueError, match=r"holds results of --learning_rate 0\.003"):
        mlqa(tiny_bert, killed, *flags, "--learning_rate", "1e-3")


def test_a_folder_of_results_is_no_training(mlqa, tiny_bert, data, tmp_path):
    test = ("--test_data", data / "xquad")
    mlqa(tiny_bert, tmp_path, *test)
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    mlqa(tiny_bert, tmp_path, *test)  # the same again
    for command in ("run_mlqa.py without training", "a command of an older version, without training"):
        with pytest.raises(ValueError, match=f"holds results of {command}: pass another --output_dir"):
            mlqa(tiny_bert, tmp_path, *TRAIN, "--train_data", data / "train.json", *test)
        assert {path: path.read_bytes() for path in written if path.is_file()} | written == written
        (tmp_path / "settings.json").unlink(missing_ok=True)  # a folder that an older version left


def test_the_numbers_are_those_of_the_predictions(mlqa, tiny_bert, data, tmp_path):
    mlqa(tiny_bert, tmp_path, "--test_data", data / "xquad", data / "v2.json", "--dev_data", data / "v2.json")
    results = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["results"]
    assert [f"context-{one['context']}.question-{one['question']}" for one in results["xquad"]] == PAIRS
    for key in PAIRS:
        answers = json.loads((tmp_path / f"xquad/{key}.json").read_text(encoding="utf-8"))
        assert set(answers) == {f"q{i}" for i in range(6)}
        best = json.loads((tmp_path / f"xquad/{key}.nbest.json").read_text(encoding="utf-8"))
        for question, answer in answers.items():
            assert next(one["answer"] for one in best[question] if one["answer"]) == answer
            assert sum(one["score"] for one in best[question]) == pytest.approx(1)
    (result,) = results["v2"]
    assert result["HasAns_questions"] == 6 and result["NoAns_questions"] == 3
    answers = json.loads((tmp_path / "v2/context-en.question-en.json").read_text(encoding="utf-8"))
    chances = json.loads((tmp_path / "v2/context-en.question-en.no_answer.json").read_text(encoding="utf-8"))
    assert {q for q, answer in answers.items() if not answer} == {
        q for q, chance in chances.items() if chance > result["threshold"]
    }


def test_a_test_file_without_answers(mlqa, tiny_bert, data, tmp_path, capsys):
    """The results of a test file with answers do not change beside it."""
    hidden = squad("en", 4)
    for paragraph in hidden["data"][0]["paragraphs"]:
        del paragraph["qas"][0]["answers"]
    write(tmp_path / "hidden.json", hidden)
    mlqa(tiny_bert, tmp_path / "out", "--test_data", data / "xquad/xquad.de.json", tmp_path / "hidden.json")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if " F1 " in line] == ["xquad"]
    found = json.loads((tmp_path / "out/metrics.json").read_text(encoding="utf-8"))["results"]
    assert list(found) == ["xquad"] and found["xquad"][0]["questions"] == 6
    answers = json.loads((tmp_path / "out/hidden/context-en.question-en.json").read_text(encoding="utf-8"))
    assert list(answers) == ["q0", "q1", "q2", "q3"] and all(answers.values())
    mlqa(tiny_bert, tmp_path / "alone", "--test_data", tmp_path / "hidden.json")
    assert json.loads((tmp_path / "alone/hidden/context-en.question-en.json").read_text(encoding="utf-8")) == answers
    assert " F1 " not in capsys.readouterr().out and not (tmp_path / "alone/results.csv").exists()


@pytest.mark.slow
def test_two_processes_answer_as_one(tiny_bert, data, tmp_path):
    for number in (1, 2):
        flags = ("--test_data", data / "xquad", "--max_tokens_per_batch", "200")
        run(*command(tiny_bert, tmp_path / str(number), *flags), processes=number)
    one, two = files(tmp_path / "1"), files(tmp_path / "2")
    assert one == two and len(one) == 8


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [(), ("--max_tokens_per_batch", "256")])
def test_two_processes_train_as_one(tokens, tiny_bert, data, tmp_path):
    for number in (1, 2):
        size = ("--per_device_train_batch_size", str(4 // number))
        if tokens:
            size = (tokens[0], str(int(tokens[1]) // number))
        flags = (*sources(data), data / "xquad", *size, "--num_train_epochs", "1")
        run(*command(tiny_bert, tmp_path / str(number), *flags), processes=number)
    one, two = (json.loads((tmp_path / number / "metrics.json").read_text("utf-8")) for number in ("1", "2"))
    assert one["results"] == two["results"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--do_train",), "--do_train and --train_data need each other"),
        ((), "nothing to do: pass --test_data"),
        (("--do_train", "--train_data", "xquad/xquad.en.json", "--select", "last", "--load_best_model_at_end",
          "--eval_strategy", "epoch", "--save_strategy", "epoch"), "--select last tests the last epoch: leave out"),
        (("--test_data", "xquad", "--languages", "en", "fr"),
         "xquad has no test questions of context-en.question-fr, "),
        (("--test_data", "xquad", "--pairs", "deen"),
         "a pair of languages must be like context-de.question-en, got 'deen'"),
        (("--test_data", "xquad", "--languages", "en", "--pairs", PAIRS[0]), "--languages or --pairs, not both"),
        (("--test_data", "xquad", "xquad/xquad.en.json"), "two of --test_data have the same name and languages"),
        (("--test_data", "xquad", "--max_length", "4000"), "max_length .4000. is more than the model's 128 positions"),
        (("--test_data", "xquad", "--doc_stride", "60"),
         "doc_stride .60. must be at least 0 and less than the 45 tokens"),
        (("--test_data", "nothing.json"), "there is no .*nothing.json"),
    ],
)  # fmt: skip
def test_bad_input(flags, message, mlqa, tiny_bert, data, tmp_path):
    flags = [data / flag if flag.startswith(("xquad", "nothing")) else flag for flag in flags]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        mlqa(tiny_bert, tmp_path / "out", *flags)


def test_chosen_epochs():
    history = [
        {"F1_a": 1.0, "F1_b": 5.0, "F1": 3.0, "EM_a": 9.0, "threshold": 0.5},
        {"F1_a": 4.0, "F1_b": 3.0, "F1": 3.5, "EM_a": 0.0, "threshold": 0.5},
        {"F1_a": 4.0, "F1_b": 2.0, "F1": 3.0, "EM_a": 0.0, "threshold": 0.5},
    ]
    assert chosen_epochs(history) == {"a": 2, "b": 1, None: 2}
    assert chosen_epochs(history, "last") == {"a": 3, "b": 3, None: 3}
    assert chosen_epochs([{"threshold": 0.5}] * 2) == {None: 2}


def test_tokenizer_without_offsets_is_refused_before_the_weights(mlqa, data, tmp_path):
    write(tmp_path / "vocab.txt", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abc")
    options = {"word_tokenizer_type": "basic", "subword_tokenizer_type": "character"}
    tokenizer = BertJapaneseTokenizer(str(tmp_path / "vocab.txt"), **options)
    for part in (tokenizer, BertConfig(vocab_size=len(tokenizer))):
        part.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="gives no offsets"):
        mlqa(tmp_path / "model", tmp_path / "results", "--test_data", data / "v2.json")
