"""Model cards state precision, languages, license and kind of model."""

from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForSequenceClassification, BertConfig, LongformerConfig

from modeling_clir.data import languages
from modeling_clir.model_card import (
    ranking_example,
    write_conversion_card,
    write_model_card,
    write_question_answering_card,
)
from modeling_clir.reranker import Reranker
from modeling_clir.training.answering import write_card
from modeling_clir.training.trainer import XLRetrievalTrainingArguments

from .backbones import save_backbone
from .conftest import REPOSITORY
from .helpers import run_examples, write
from .tiny import tiny_config


def pretraining_card(folder, base, pair="en-de", model_type="bertlong"):
    path = write_model_card(folder, "model", base, {("qlm", pair): 3}, {"seed": 0}, {}, 128, model_type)
    return ModelCard.load(path)


def answering_card(folder, base, config, history=(), results=None, **training):
    options = SimpleNamespace(
        max_tokens_per_batch=None,
        freeze_embeddings=True,
        num_finetuned_layers=None,
        model_name_or_path=str(base),
        train_data=["a/train.json"],
        dev_data=None,
        test_data=None,
        select="best",
    )
    reader = SimpleNamespace(
        encoder=SimpleNamespace(max_length=64, doc_stride=16), model=SimpleNamespace(config=config)
    )
    args = XLRetrievalTrainingArguments(output_dir=str(folder), use_cpu=True)
    for name, value in training.items():  # as a launcher sets it; --fp16 is refused without a GPU
        setattr(args, name, value)
    write_card(folder, reader, results or {}, list(history) or [{"threshold": 0.5}], 1, 24, options, args)
    return ModelCard.load(folder / "README.md")


def test_the_license_is_that_of_the_base_model(tmp_path, caplog):
    card = pretraining_card(tmp_path, str(REPOSITORY / "base"))
    assert card.data.license == "cc-by-sa-4.0" and "cc-by-sa-4.0, the license of the base model." in card.text
    write(tmp_path / "other/README.md", "---", "license: other", "license_name: ours", "license_link: LICENSE", "---")
    card = pretraining_card(tmp_path, str(tmp_path / "other"))
    assert (card.data.license, card.data.license_name, card.data.license_link) == ("other", "ours", "LICENSE")
    assert "ours, the license of the base model." in card.text
    again = answering_card(tmp_path / "qa", tmp_path, tiny_config())  # from the card that was just written
    assert (again.data.license, again.data.license_name) == ("other", "ours")


@pytest.mark.parametrize("text", [None, "no metadata", "---\nlicense: [\n---"])
def test_a_license_that_is_unknown_is_left_out(text, tmp_path, caplog):
    base = tmp_path / "base"
    base.mkdir()
    if text is not None:
        write(base / "README.md", text)
    card = pretraining_card(tmp_path, str(base))
    assert card.data.license is None and "Unknown: the card of the base model, base, states none." in card.text
    assert text == "no metadata" or f"the card of the base model {base} cannot be read" in caplog.text
    card = pretraining_card(tmp_path, None)
    assert card.data.license is None and "## License\n\nNot stated." in card.text


def test_languages(tmp_path, caplog):
    languages.warn_once.cache_clear()
    card = pretraining_card(tmp_path, None, "en-simple")
    assert card.data.language == ["en"] and "simple" in caplog.text
    assert pretraining_card(tmp_path, None, "de-zh_classical").data.language == ["de"]
    assert pretraining_card(tmp_path, None, "qq-qq").data.language is None
    base = str(REPOSITORY / "base")
    results = {"xquad": [{"context": "fr", "question": "en", "F1": 1.0, "EM": 1.0}]}
    history = [{"F1_context-de.question-de": 1.0, "F1": 1.0, "threshold": 0.5}]
    assert answering_card(tmp_path, base, tiny_config(), history, results).data.language == ["de", "en", "fr"]
    assert answering_card(tmp_path, base, tiny_config(), history).data.language == ["de"]
    assert answering_card(tmp_path, base, tiny_config()).data.language == ["de", "en", "es", "fr"]  # the base model's
    card = answering_card(tmp_path, tmp_path / "nowhere", tiny_config())
    assert card.data.language is None


@pytest.mark.parametrize("language", ["[no, en]", "[en, 'no', null]", "no"])
def test_norwegian_is_a_language(language, tmp_path):
    """YAML reads `no` as false."""
    write(tmp_path / "base/README.md", "---", f"language: {language}", "---")
    (tmp_path / "out").mkdir()
    write_conversion_card(tmp_path / "out", "out", str(tmp_path / "base"), "BertLong")
    found = set(ModelCard.load(tmp_path / "out/README.md").data.language)
    assert found == ({"no"} if language == "no" else {"no", "en"})


@pytest.mark.parametrize("num_labels", [1, 2])
def test_examples_of_a_reranker_run(num_labels, tmp_path, monkeypatch, capsys):
    """A `CrossEncoder` refuses to rank with two labels."""
    folder = save_backbone("bert", tmp_path / "reranker", AutoModelForSequenceClassification, num_labels=num_labels)
    printed = ranking_example(Reranker.from_pretrained(folder, max_query_length=32))
    sizes = {("rr", "en-de"): 3}
    path = write_model_card(folder, "reranker", None, sizes, {}, {}, 128, "bert", num_labels, printed=printed)
    card = ModelCard.load(path)
    assert ("sentence-transformers" in card.data.tags) == ("CrossEncoder" in card.text) == (num_labels == 1)
    monkeypatch.chdir(tmp_path)
    assert run_examples(card.text, "reranker", capsys) == ["".join(f"{line}\n" for line in printed)]


def test_measures_of_an_earlier_run_go(tmp_path):
    def write_it(test_data):
        results = {"xquad": [{"context": "de", "question": "en", "F1": 61.2, "EM": 50.0}]}
        write_question_answering_card(tmp_path, "m", None, [], results, {}, "", {}, "", 64, [], test_data=test_data)
        return (tmp_path / ".eval_results/results.yaml").exists()

    assert write_it(["google/xquad"]) and not write_it(["sets/xquad.json"])


@pytest.mark.parametrize(
    ("training", "precision"),
    [({}, "fp32"), ({"mixed_precision": "bf16"}, "bf16"), ({"mixed_precision": "fp16"}, "fp16")],
)
def test_precision(training, precision, tmp_path):
    card = answering_card(tmp_path, REPOSITORY / "base", tiny_config(), **training)
    assert f"| precision | {precision} |" in card.text


def test_only_a_bertlong_is_tagged_as_one(tmp_path):
    tags = [answering_card(tmp_path, REPOSITORY / "base", config).data.tags
            for config in (tiny_config(), LongformerConfig(), BertConfig())]  # fmt: skip
    assert tags == [["cross-lingual", "bertlong"], ["cross-lingual"], ["cross-lingual"]]


def test_results_are_metadata(tmp_path):
    results = {"xquad": [{"context": "de", "question": "en", "F1": 61.234, "EM": 50.0}]}
    tables, settings = {"xquad": "| table |"}, {"seed": 0}
    write_question_answering_card(
        tmp_path, "model", None, ["de", "en"], results, tables, "24 questions.", settings, "The last.", 64, []
    )
    card = ModelCard.load(tmp_path / "README.md")
    assert [(r.dataset_config, r.metric_type, r.metric_value) for r in card.data.eval_results] == [
        ("context-de.question-en", "f1", 61.23), ("context-de.question-en", "exact_match", 50.0),
    ]  # fmt: skip
    assert "| table |" in card.text and "Trained on 24 questions." in card.text


def test_what_is_trained_from_a_converted_model_has_the_license_of_its_source(tmp_path):
    write(tmp_path / "mbert/README.md", "---", "language: [de, en]", "license: mit", "base_model: someone/bert", "---")
    (tmp_path / "long").mkdir()
    write_conversion_card(tmp_path / "long", "long", str(tmp_path / "mbert"), "BertLong")
    (tmp_path / "out").mkdir()
    for card in (ModelCard.load(tmp_path / "long/README.md"), pretraining_card(tmp_path / "out", tmp_path / "long")):
        assert (card.data.license, card.data.base_model) == ("mit", "someone/bert")
