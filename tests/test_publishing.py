"""--push_to_hub of every runner: final model, results and a card whose examples print what it says."""

import json
import re
import shutil

import datasets
import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard
from huggingface_hub import parse_eval_result_entries as parse_entries

import run_clir
import run_mlqa
import run_pretraining
from modeling_clir.data.collections import read_collection
from modeling_clir.data.corpus_card import corpus_card
from modeling_clir.model_card import write_question_answering_card
from modeling_clir.push import push
from modeling_clir.training.publishing import RunFacts, read_energy, write_recipe
from modeling_clir.training.training_arguments import XLRetrievalTrainingArguments

from .conftest import REPOSITORY
from .helpers import QUIET, SHORT, blocks, clir_command, run_examples, squad, write


PRETRAIN = ("--do_train", "--do_eval", "--rr_pairs", "en-de", "--max_steps", "2", "--max_eval_pairs", "4",
            "--per_device_train_batch_size", "4", "--max_position_embeddings", "128", "--attention_window", "16")  # fmt: skip
FINETUNE = ("--do_train", "--num_train_epochs", "2", "--per_device_train_batch_size", "8", "--learning_rate", "1e-3")


def check_card(name: str, kind=ModelCard, capsys=None) -> ModelCard:
    """Validates a card that was pushed, runs its examples in order, and compares what they print."""
    card = kind.load(name)
    card.validate()
    assert all(f'"{name}", revision="files-' in text for language, text in blocks(card.text) if language == "python")
    assert len(run_examples(card.text, name, capsys)) == 1
    assert re.search(r"^\w.*\{[{%]|[%}]\}", card.text, re.MULTILINE) is None and "\n\n\n" not in card.text
    return card


@pytest.fixture
def base(tiny_bert, tmp_path):
    """The tiny BERT with a card."""
    folder = shutil.copytree(tiny_bert, tmp_path / "tiny")
    write(folder / "README.md", "---", "license: mit", "language: [en, de]", "---", "# tiny")
    return folder


def test_pretraining(base, sample_corpus, at_hub, call, capsys, tmp_path):
    output = tmp_path / "clir-bertlong"
    command = ["run_pretraining.py", "--model_name_or_path", base, "--corpus", sample_corpus, "--output_dir", output]
    command = [str(part) for part in (*command, *QUIET, *SHORT, *PRETRAIN, "--push_to_hub")]
    call(run_pretraining, [*command, "--hub_private_repo", "true"])
    repository = at_hub.repositories["model", "someone/clir-bertlong"]
    assert repository.private and len(repository.commits) == 2
    files = at_hub.files("someone/clir-bertlong")
    assert {"model.safetensors", "learning_curve.png", "trainer_state.json", "eval_results.json"} <= files.keys()
    assert not [name for name in files if name.startswith(("checkpoint", "training_args", "settings"))]
    card = check_card("someone/clir-bertlong", capsys=capsys)
    assert (card.data.license, card.data.language, card.data.pipeline_tag) == ("mit", ["de", "en"], "text-ranking")
    assert {"sentence-transformers", "bertlong"} <= set(card.data.tags) and card.data.library_name == "transformers"
    assert {result.metric_type for result in card.data.eval_results} == {"rr_accuracy", "rr_mrr"}
    assert "RR en-de 4 sections" in card.text and "| seed | 42 |" in card.text and "- Time: " in card.text
    assert "Hardware: CPU" in card.text and str(tmp_path) not in card.content
    # The same command again finds the finished run: the same commit, no training.
    call(run_pretraining, command)
    assert len(repository.commits) == 2 and "/commit/" in capsys.readouterr().out


def test_checkpoints_are_uploaded_only_if_asked_for(base, sample_corpus, at_hub, call, tmp_path):
    command = [
        "run_pretraining.py",
        "--model_name_or_path",
        base,
        "--corpus",
        sample_corpus,
        *QUIET,
        *SHORT,
        *PRETRAIN,
    ]
    command += [
        "--output_dir",
        tmp_path / "model",
        "--save_steps",
        "1",
        "--push_to_hub",
        "--hub_strategy",
        "every_save",
    ]
    call(run_pretraining, [str(part) for part in command])
    repository = at_hub.repositories["model", "someone/model"]
    assert len(repository.commits) > 2
    card = at_hub.files("someone/model")["README.md"].decode()
    assert "- Hardware: " in card and 'revision="files-' in card


def test_ranking(base, sample_collection, at_hub, call, capsys, tmp_path):
    output = tmp_path / "clir-en-de"
    command = clir_command(base, [sample_collection / "en-de"], output, *FINETUNE, "--final_model", "--push_to_hub")
    command += ["--fold", "0", "--hub_model_id", "someone/reranker", "--license", "apache-2.0"]
    at_hub.fail("commit", status=500)
    with pytest.raises(
        ValueError, match=r"status 500 .* whole in .*python -m modeling_clir.push \S+ someone/reranker"
    ):
        call(run_clir, command)
    measured = json.loads((output / "metrics.json").read_text(encoding="utf-8"))["en-de"]
    call(run_clir, command)  # nothing is trained again
    assert json.loads((output / "metrics.json").read_text(encoding="utf-8"))["en-de"] == measured
    files = at_hub.files("someone/reranker")
    assert {"model.safetensors", "en-de.run", "en-de.csv", "metrics.json", "development.png"} <= files.keys()
    assert not [name for name in files if name.startswith(("fold-", "final", "checkpoint"))]
    assert (output / "fold-0/model.safetensors").read_bytes() != files["model.safetensors"]
    card = check_card("someone/reranker", capsys=capsys)
    assert card.data.license == "apache-2.0" and "apache-2.0.\n" in card.text
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found["map"] == round(measured["MAP"], 4) and "ndcg_at_20" in found
    assert f"| en-de | {measured['queries']} | {measured['MAP']:.4f} |" in card.text
    number = len(read_collection(sample_collection / "en-de").qrels)
    training, development = map(
        int, re.search(r"trained on (\d+) queries.*?on (\d+) other", card.text, re.DOTALL).groups()
    )
    assert training + development == number and 0 < development < training
    recipe = yaml.safe_load(next(text for language, text in blocks(card.text) if language == "yaml"))
    assert recipe["num_train_epochs"] == 2.0 and recipe["collections"] == ["en-de"] and recipe["final_model"] is True
    assert not {"output_dir", "hub_model_id", "push_to_hub"} & recipe.keys()


def test_ranking_without_a_final_model_has_a_card_without_examples(base, sample_collection, call, tmp_path):
    output = tmp_path / "folds"
    collections = [sample_collection / "en-de"]
    call(run_clir, clir_command(base, collections, output, *FINETUNE, "--num_train_epochs", "1", "--fold", "0"))
    card = ModelCard.load(output / "README.md")
    assert "each folder `fold-N`" in card.text and not [1 for language, _ in blocks(card.text) if language == "python"]
    assert not (output / "model.safetensors").exists() and "sentence-transformers" not in card.data.tags
    # Asked for later, the model of all queries is added; the folds stay.
    before = (output / "fold-0/model.safetensors").stat().st_mtime_ns
    call(
        run_clir,
        clir_command(base, collections, output, *FINETUNE, "--num_train_epochs", "1", "--fold", "0", "--final_model"),
    )
    assert (output / "model.safetensors").is_file() and (
        output / "fold-0/model.safetensors"
    ).stat().st_mtime_ns == before


def test_questions(base, at_hub, call, capsys, tmp_path):
    data = tmp_path / "data"
    for language in ("de", "en"):
        write(data / f"sets/test.{language}.json", squad(language))
    for path in data.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                for qa in paragraph["qas"]:
                    qa["answers"] = [{"text": paragraph["context"], "answer_start": 0}]
        write(path, content)
    output = tmp_path / "reader"
    command = ["run_mlqa.py", "--model_name_or_path", base, "--do_train", "--train_data", data / "sets/test.en.json"]
    command += ["--test_data", data / "sets", "--output_dir", output, "--num_train_epochs", "1", "--max_length", "64"]
    command += ["--doc_stride", "16", "--max_question_length", "24", "--push_to_hub"]
    call(run_mlqa, [str(part) for part in (*command, *QUIET)])
    files = at_hub.files("someone/reader")
    assert {"model.safetensors", "pipeline_bertlong.py", "test.md", "results.csv", "metrics.json"} <= files.keys()
    assert (
        "test/context-de.question-en.json" in files
        and len(at_hub.repositories["model", "someone/reader"].commits) == 2
    )
    card = check_card("someone/reader", capsys=capsys)
    assert card.data.pipeline_tag == "question-answering" and len(card.data.eval_results) == 8
    assert "test de-en 4" in card.text


def test_corpus(sample_corpus, at_hub, capsys, tmp_path, monkeypatch):
    corpus = shutil.copytree(sample_corpus, tmp_path / "corpus")
    (corpus / "README.md").write_text(corpus_card(corpus, "cc-by-sa-4.0", ["the sample"]), encoding="utf-8")
    push(corpus, "someone/corpus", dataset=True)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", at_hub.endpoint)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    card = check_card("someone/corpus", DatasetCard, capsys)
    assert card.data.license == "cc-by-sa-4.0"


def test_results_on_data_of_the_hub_have_the_hubs_form(tmp_path):
    results = {"xquad": [{"context": "de", "question": "en", "F1": 61.234, "EM": 50.0, "questions": 9}]}
    write_question_answering_card(
        tmp_path, "model", None, [], results, {"xquad": "|"}, "", {}, "", 64, [],
        datasets=["rajpurkar/squad", str(tmp_path)], test_data=["google/xquad", "sets/xquad.json"],
    )  # fmt: skip
    [entry] = parse_entries(yaml.safe_load((tmp_path / ".eval_results/results.yaml").read_text(encoding="utf-8")))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("google/xquad", "context-de.question-en", 61.23)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.datasets == ["rajpurkar/squad"] and card.data.eval_results[0].dataset_type == "google/xquad"


MISTAKES = {
    "a language": (("--rr_pairs", "en-simple"), "no card with the language simple"),
    "a license": (("--license", "cc-by-sa-4"), "did you mean cc-by-sa-4.0?"),
    "an owner": (("--hub_model_id", "other/model"), "does not belong to other"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_before_training(name, base, sample_corpus, at_hub, mistake, tmp_path):
    flags, message = MISTAKES[name]
    command = ("--model_name_or_path", base, "--corpus", sample_corpus, "--output_dir", tmp_path / "out")
    options = (*command, *QUIET, *SHORT, *PRETRAIN, "--push_to_hub", *flags)
    assert message in mistake("run_pretraining.py", *options)
    assert not (tmp_path / "out").exists() and not at_hub.repositories


def test_a_token_is_asked_for_before_training(
    base, sample_corpus, sample_collection, at_hub, mistake, monkeypatch, tmp_path
):
    monkeypatch.setenv("HF_TOKEN", "")
    command = ("--model_name_or_path", base, "--corpus", sample_corpus, "--output_dir", tmp_path / "out")
    assert "no token" in mistake("run_pretraining.py", *command, *QUIET, *SHORT, *PRETRAIN, "--push_to_hub")
    clir = clir_command(base, [sample_collection / "en-de"], tmp_path / "out", *FINETUNE, "--push_to_hub")
    assert "add --do_train and --final_model" in mistake(*clir)
    assert "no token" in mistake(*clir, "--final_model")
    assert not (tmp_path / "out").exists()


def test_energy_is_on_the_card_if_codecarbon_has_measured_it(tmp_path):
    assert read_energy(tmp_path) is None
    write(tmp_path / "emissions.csv", "emissions,energy_consumed", "0.25,1.5", "0.25,0.5")
    facts = RunFacts("run_mlqa.py", "seed: 3", "2 x A GPU", 3700, read_energy(tmp_path), {"torch": "2"}, "mit")
    write_question_answering_card(tmp_path, "model", None, [], {}, {}, "", {}, "", 64, [], facts=facts)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.co2_eq_emissions == {"emissions": 500.0, "source": "codecarbon"}
    assert "2 kWh, 0.5 kg CO2" in card.text and "- Time: 1 h 2 min" in card.text and "2 x A GPU" in card.text


def test_a_recipe_has_what_differs_and_no_local_path(tmp_path):
    args = XLRetrievalTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert write_recipe([args]) == "{}"
    args = XLRetrievalTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, seed=3, hub_token="hf_secret", rr_loss="kl", do_train=True,
        lr_scheduler_type="linear",
    )  # fmt: skip
    found = yaml.safe_load(write_recipe([args]))
    assert found == {"do_train": True, "seed": 3, "rr_loss": "kl", "lr_scheduler_type": "linear"}
    options = run_clir.Arguments(str(REPOSITORY / "base"), [])
    assert yaml.safe_load(write_recipe([options])) == {"model_name_or_path": "base", "collections": []}
