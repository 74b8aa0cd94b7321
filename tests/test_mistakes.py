"""Wrong commands: each prints one line that says what to do, with exit code 2, before a model is loaded."""

import json
import logging

import pytest

from .helpers import QUIET, SHORT, run_here, write


@pytest.fixture
def here(tmp_path, monkeypatch, sample_collection, sample_corpus, tiny_bert):
    """Makes a folder with `model`, `corpus`, `collection`, `questions.json`, `notes.txt` and wrong files."""
    for name, target in {
        "model": tiny_bert,
        "corpus": sample_corpus,
        "collection": sample_collection / "en-de",
    }.items():
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).symlink_to(target)
    question = {"id": "1", "question": "a?", "answers": [{"text": "b", "answer_start": 2}]}
    squad = {"data": [{"title": "t", "paragraphs": [{"context": "a b", "qas": [question]}]}]}
    write(tmp_path / "data/questions.json", json.dumps(squad))
    write(tmp_path / "data/layout.json", json.dumps({"data": [{"paragraphs": [{"qas": []}]}]}))
    write(tmp_path / "data/notes.txt", "some text")
    write(tmp_path / "data/broken.yaml", "a: b: c")
    write(tmp_path / "data/recipe.yaml", "config: data/typo.yaml")
    write(tmp_path / "data/typo.yaml", "collectoins: data/collection")
    write(tmp_path / "data/en.txt", "one", "two")
    write(tmp_path / "data/de.txt", "eins")
    write(tmp_path / "data/a.run", "q1 Q0 d1 1 1.0 x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


CLIR = ["run_clir.py", *QUIET, *SHORT, "--output_dir", "out"]
MLQA = ["run_mlqa.py", *QUIET, "--output_dir", "out", "--model_name_or_path", "data/model"]
ANSWER = ["--max_question_length", "20", "--doc_stride", "20"]
PRETRAIN = ["run_pretraining.py", *QUIET, *SHORT, "--output_dir", "out", "--do_train", "--qlm_pairs", "en-de"]
PRETRAIN_HERE = [*PRETRAIN, "--model_name_or_path", "data/model", "--corpus", "data/corpus"]
CLIR_HERE = [*CLIR, "--model_name_or_path", "data/model", "--collections", "data/collection"]
ALIGN = ["run_alignment.py", "--output_dir", "out", "--model_name_or_path", "data/model", "--use_cpu"]
BUILD = ["scripts/build_corpus.py", "out", "--languages", "en,de"]
WIKIPEDIA = ["scripts/build_wikipedia.py", "out", "--languages", "en,de"]
COLLECT = ["scripts/build_collections.py", "out"]

WRONG = {
    # Flags
    "clir: flag": ([*CLIR_HERE, "--max_lenght", "9"], "there is no option --max_lenght; did you mean --max_length?"),
    "clir: flag of transformers": ([*CLIR_HERE, "--learning_rtae", "9"], "did you mean --learning_rate?"),
    "clir: misspelt required flag": ([*CLIR, "--colections", "x"], "did you mean --collections?"),
    "clir: no value": ([*CLIR_HERE, "--fold"], "argument --fold: expected one argument"),
    "clir: not a number": ([*CLIR_HERE, "--fold", "one"], "argument --fold: invalid int value: 'one'"),
    "clir: not a choice": ([*CLIR_HERE, "--dtype", "int4"], "invalid choice: 'int4' (choose from"),
    "clir: no output": (["run_clir.py", *QUIET, "--model_name_or_path", "data/model", "--collections",
                        "data/collection"],
                        "the following arguments are required: --output_dir"),
    "clir: batch": ([*CLIR_HERE, "--per_device_train_batch_size", "0"],
                    "--per_device_train_batch_size must be at least 1"),
    "clir: accumulation": ([*CLIR_HERE, "--gradient_accumulation_steps", "0"],
                           "accumulation_steps must be at least 1, got 0"),
    "clir: epochs": ([*CLIR_HERE, "--do_train", "--num_train_epochs", "0"],
                     "--num_train_epochs must be more than 0, got 0"),
    "clir: rate of the head": ([*CLIR_HERE, "--head_learning_rate", "-1"],
                               "--head_learning_rate must not be negative"),
    "clir: no JSON": ([*CLIR_HERE, "--lr_scheduler_kwargs", "{"], "'{' is not JSON: Expecting property name"),
    "clir: nothing": (["run_clir.py"], "the following arguments are required: --model_name_or_path, --collections"),
    "clir: a word too many": ([*CLIR_HERE, "--fold", "1", "2"], "'2' belongs to no option"),
    "clir: of transformers": ([*CLIR_HERE, "--eval_strategy", "often"], "--eval_strategy: invalid choice: 'often'"),
    "mlqa: nothing": (["run_mlqa.py"], "required: --model_name_or_path"),
    "pretraining: nothing": (["run_pretraining.py"], "required: --corpus"),
    "alignment: nothing": (["run_alignment.py"], "required: --model_name_or_path, --output_dir"),
    "alignment: flag": ([*ALIGN, "--sorce", "x"], "there is no option --sorce; did you mean --source?"),
    "pretraining: mask": ([*PRETRAIN_HERE, "--mask_mode", "queries"], "--mask_mode: invalid choice: 'queries'"),
    "build: flag": ([*BUILD, "--document", "x", "--squadd", "y"],
                    "there is no option --squadd; did you mean --squad?"),
    "build: required": (["scripts/build_corpus.py", "out"], "the following arguments are required: --languages"),
    "collect: both": ([*COLLECT, "--pairs", "a-b", "--squad", "x", "--documents", "y"], "not allowed with argument"),
    "compare: one run": (["scripts/compare_runs.py", "data/collection", "data/a.run"], "name two runs or more"),
    "depths: one run": (["scripts/compare_depths.py", "data/collection", "data/a.run"], "required: run"),
    "depths: none": (["scripts/compare_depths.py", "data/collection", "data/a.run", "data/b.run", "--depths", "0"],
                     "a depth must be at least 1, got 0"),
    # Names of models and corpora
    "clir: model": ([*CLIR, "--model_name_or_path", "data/modle", "--collections", "data/collection"],
                    "there is no data/modle; did you mean data/model? (for a model of the Hub"),
    "clir: file as a model": ([*CLIR, "--model_name_or_path", "data/model/config.json",
                               "--collections", "data/collection"],
                              "data/model/config.json is a file: name the folder of a model"),
    "mlqa: model": (["run_mlqa.py", "--model_name_or_path", "data/modell", "--test_data", "data/questions.json"],
                    "there is no data/modell; did you mean data/model?"),
    "pretraining: corpus": ([*PRETRAIN, "--model_name_or_path", "data/model", "--corpus", "data/corpuss"],
                            "there is no data/corpuss; did you mean data/corpus?"),
    "pretraining: model": ([*PRETRAIN, "--model_name_or_path", "/nowhere", "--corpus", "data/corpus"],
                           "there is no /nowhere"),
    "pretraining: not a corpus": ([*PRETRAIN, "--model_name_or_path", "data/model", "--corpus", "data/collection"],
                                  "data/collection"),
    "alignment: model": (["run_alignment.py", "--output_dir", "o", "--model_name_or_path", "data/mod",
                          "--folder", "data", "--pairs", "en-de"], "there is no data/mod"),
    "first stage: model": (["scripts/first_stage.py", "data/collection", "--model", "data/modl"],
                           "there is no data/modl; did you mean data/model?"),
    "hub: data set": (["scripts/prepare_collection.py", "o", "--source", "hub", "--queries", "data/colection"],
                      "there is no data/colection; did you mean data/collection?"),
    # Files
    "clir: collection": ([*CLIR, "--model_name_or_path", "data/model", "--collections", "data/colection"],
                         "there is no data/colection; did you mean data/collection?"),
    "clir: a file": ([*CLIR, "--model_name_or_path", "data/model", "--collections", "data/notes.txt"],
                     "data/notes.txt is a file, not a folder"),
    "clir: not a collection": ([*CLIR, "--model_name_or_path", "data/model", "--collections", "data/corpus"],
                               "data/corpus has no documents.jsonl"),
    "clir: candidates": ([*CLIR_HERE, "--candidates", "data/b.run"],
                         "there is no data/b.run; did you mean data/a.run?"),
    "clir: candidates of others": ([*CLIR_HERE, "--candidates", "data/a.run"],
                                   "data/a.run:1: no query has the id 'q1'"),
    "clir: recipe": ([*CLIR_HERE, "--config", "data/brokn.yaml"],
                     "no data/brokn.yaml; did you mean data/broken.yaml?"),
    "clir: no YAML": ([*CLIR_HERE, "--config", "data/broken.yaml"], "data/broken.yaml is no recipe"),
    "clir: no mapping": ([*CLIR_HERE, "--config=data/notes.txt"], "data/notes.txt is no recipe: expected lines"),
    "clir: recipe in a recipe": ([*CLIR_HERE, "--config", "data/recipe.yaml"],
                                 "data/recipe.yaml: 'config' is not an option"),
    "clir: name in a recipe": ([*CLIR_HERE, "--config", "data/typo.yaml"],
                               "data/typo.yaml: 'collectoins' is not an option; did you mean --collections?"),
    "mlqa: training file": ([*MLQA, "--do_train", "--train_data", "data/question.json"],
                            "there is no data/question.json; did you mean data/questions.json?"),
    "mlqa: layout": ([*MLQA, "--do_train", "--train_data", "data/layout.json"], "data/layout.json"),
    "mlqa: not JSON": ([*MLQA, "--test_data", "data/notes.txt"], "data/notes.txt is not a file of questions"),
    "alignment: lines": ([*ALIGN, "--source", "data/en.txt", "--target", "data/de.txt"], "data/de.txt"),
    "alignment: file": ([*ALIGN, "--source", "data/en.txt", "--target", "data/d.txt"], "there is no data/d.txt"),
    "compare: run": (["scripts/compare_runs.py", "data/collection", "data/a.run", "data/aa.run"], "data/a"),
    "compare: qrels": (["scripts/compare_runs.py", "data/qrels", "data/a.run", "data/b.run"],
                       "there is no data/qrels"),
    "build: folder": ([*BUILD, "--documents", "data/corpuss"], "there is no data/corpuss; did you mean data/corpus?"),
    "build: a file": ([*BUILD, "--documents", "data/notes.txt"], "data/notes.txt is a file, not a folder"),
    "collect: folder": ([*COLLECT, "--pairs", "en-de", "--documents", "data/corpuss"], "did you mean data/corpus?"),
    "hub: a file": (["scripts/prepare_collection.py", "o", "--source", "hub", "--queries", "data/notes.txt"],
                    "data/notes.txt is a file: name the folder of a data set"),
    "clef: no path": (["scripts/prepare_clef.py", "o", "--pairs", "en-en", "--documents", "", "--topics",
                      "data/notes.txt",
                       "--qrels", "en=data/notes.txt"], "a path or an encoding is missing in ''"),
    "build: nothing to read": (BUILD, "nothing to read: pass --documents or --squad"),
    "collect: pair": ([*COLLECT, "--pairs", "ende", "--squad", "data"], "joined by a hyphen, got 'ende'"),
    "first stage: collection": (["scripts/first_stage.py", "data/colection"], "did you mean data/collection?"),
    "base: corpus": (["scripts/initialize_base.py", "data/collection", "out"], "data/collection is no corpus"),
    # Output
    "wikipedia: nothing": (["scripts/build_wikipedia.py", "out"], "required: --languages, --source"),
    "wikipedia: flag": ([*WIKIPEDIA, "--sorce", "dumps"], "there is no option --sorce; did you mean --source?"),
    "wikipedia: not a number": ([*WIKIPEDIA, "--source", "dumps", "--tasks", "all"], "--tasks: invalid int value: 'all'"),
    "import: folder": (["scripts/import_2021.py", "data/corpuss", "out"], "there is no data/corpuss; did you mean"),
    "import: no pairs": (["scripts/import_2021.py", "data/collection", "out"], "has no folders of language pairs"),
    "import: output": (["scripts/import_2021.py", "data/corpus", "data"], "data exists; remove it"),
    "import: flag": (["scripts/import_2021.py", "data/corpus", "out", "--sed", "3"], "did you mean --seed?"),
    "clir: output": ([*CLIR_HERE, "--output_dir", "data/notes.txt"],
                     "--output_dir data/notes.txt must be a folder, but"),
    "pretraining: output": ([*PRETRAIN_HERE, "--output_dir", "data/notes.txt/x"], "data/notes.txt is a file"),
    "alignment: output": ([*ALIGN, "--folder", "data", "--pairs", "en-de", "--output_dir", "data/notes.txt"],
                          "--output_dir data/notes.txt must be a folder"),
    # Options that do not go together
    "clir: training": ([*CLIR_HERE, "--train_collections", "data/collection"], "--train_collections needs --do_train"),
    "mlqa: training": ([*MLQA, "--do_train"], "--do_train and --train_data need each other"),
    "mlqa: nothing to do": (MLQA, "nothing to do: pass --test_data"),
    "pretraining: pairs": ([*PRETRAIN_HERE, "--qlm_pairs", "ende"], "joined by a hyphen, as en-de; got 'ende'"),
    "pretraining: evaluation": ([*PRETRAIN_HERE, "--load_best_model_at_end"], "strategy to match"),
    "alignment: no pair": ([*ALIGN, "--folder", "data", "--pairs", ","], "--folder and --pairs go together"),
    "alignment: sources": ([*ALIGN, "--source", "data/en.txt"], "--source and --target go together"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_commands(name, here, mistake, monkeypatch):
    monkeypatch.setattr(
        "transformers.PreTrainedModel.from_pretrained", lambda *a, **k: pytest.fail("a model was loaded")
    )
    command, message = WRONG[name]
    line = mistake(*command)
    assert message in line and len(line) < 400
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([*CLIR_HERE, "--max_query_length", "0"], "max_query_length must be at least 1, got 0"),
        ([*MLQA, "--test_data", "data/questions.json", *ANSWER, "--n_best", "0"], "n_best must be at least 1, got 0"),
        (
            [*MLQA, "--test_data", "data/questions.json", *ANSWER, "--max_tokens_per_batch", "0"],
            "max_tokens_per_batch must be at least 1, got 0",
        ),
    ],
)
def test_values_that_are_checked_with_the_model(command, message, here, mistake):
    assert message in mistake(*command)


def test_the_traceback_with_a_debug_level(here, monkeypatch, capsys, request):
    package = logging.getLogger("modeling_clir")
    request.addfinalizer(lambda: package.setLevel(logging.NOTSET))
    with pytest.raises(SystemExit):
        options = ("--collections", "data/corpus", "--log_level", "debug")
        run_here(monkeypatch, *CLIR, "--model_name_or_path", "data/model", *options)
    printed = capsys.readouterr().err
    assert "Traceback" in printed and printed.strip().splitlines()[-1].startswith("error: ")
