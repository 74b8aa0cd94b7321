"""Any encoder: pretrained with both objectives, opened by Transformers alone, taken by every runner, or refused."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    T5Config,
    XLNetConfig,
    pipeline,
)

import run_alignment
import run_clir
import run_pretraining
from modeling_clir import BertForXLRetrieval, Reranker
from modeling_clir.both_heads import retrieval_class
from modeling_clir.data.collators import PretrainingCollator, ordinary_words
from modeling_clir.data.collections import read_collection
from modeling_clir.data.pairs import PairEncoder
from modeling_clir.data.runs import read_run
from modeling_clir.data.sections import Example
from modeling_clir.loading import check_forward, check_pretraining, fit_tokenizer, has_language_model, load_both_heads
from modeling_clir.modeling_bertlong import ScoreLinear

from .backbones import CONFIGS, NATIVE, save_backbone, tokenizer_of
from .conftest import run
from .helpers import QUIET, SHORT, clir_command, run_examples


TRAIN = (*QUIET, *SHORT, "--keep_bert", "true", "--do_train", "--do_eval", "--qlm_pairs", "en-de", "--rr_pairs",
         "en-de,fr-es", "--max_pairs", "16", "--max_eval_pairs", "4", "--learning_rate", "1e-3", "--max_steps", "4",
         "--save_strategy", "steps", "--save_steps", "2", "--logging_steps", "1")  # fmt: skip
TOKENS = ("--max_tokens_per_batch", "1500")


def pretraining(model, corpus, output, *flags) -> list[str]:
    where = ("--model_name_or_path", model, "--corpus", corpus, "--output_dir", output)
    return [str(part) for part in ("run_pretraining.py", *where, *TRAIN, *flags)]


def opened(folder, language_model=True, **options):
    config, tokenizer = check_pretraining(folder, None, language_model)
    model = load_both_heads(folder, config, language_model)
    fit_tokenizer(tokenizer, model)
    check_forward(model, tokenizer, task="rr")
    return model.eval(), tokenizer


def pairs_of(tokenizer) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Two padded pairs, and labels of two and one of their tokens."""
    rows = tokenizer(["Wer war der König", "ein"], ["the king of the city was old", "a small river"])
    inputs = tokenizer.pad(rows, return_tensors="pt")
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[0, 2], labels[0, 3], labels[1, 1] = 7, 8, 9
    return dict(inputs), labels


# ---------------------------------------------------------------------------------------------------------------------
# The model
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONFIGS)
def test_both_heads_are_the_native_ones(kind, tmp_path):
    save_backbone(kind, tmp_path / "given")
    model, tokenizer = opened(tmp_path / "given")
    inputs, labels = pairs_of(tokenizer)
    native = AutoModelForMaskedLM.from_pretrained(tmp_path / "given").eval()
    dense = model(**inputs, task="qlm", labels=labels)
    torch.testing.assert_close(dense.prediction_logits, native(**inputs).logits)
    sparse = model(**inputs, task="qlm", labels=labels, sparse_prediction=True)
    torch.testing.assert_close(sparse.prediction_logits, dense.prediction_logits[labels != -100])
    torch.testing.assert_close(sparse.loss, dense.loss)
    torch.testing.assert_close(dense.loss, native(**inputs, labels=labels).loss)
    both = model(**inputs)
    torch.testing.assert_close(both.prediction_logits, dense.prediction_logits)
    torch.testing.assert_close(both.relevance_logits, model(**inputs, task="rr").relevance_logits)
    assert both.relevance_logits.shape == (2, 1)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight

    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved/config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == [AutoModelForSequenceClassification._model_mapping[type(model.config)].__name__]
    assert "auto_map" not in config
    for auto_class, expected in (
        (AutoModelForMaskedLM, both.prediction_logits),
        (AutoModelForSequenceClassification, both.relevance_logits),
    ):
        loaded, report = auto_class.from_pretrained(tmp_path / "saved", output_loading_info=True)
        assert not report["missing_keys"] and not report["mismatched_keys"]
        torch.testing.assert_close(loaded.eval()(**inputs).logits, expected)
    again = opened(tmp_path / "saved")[0].state_dict()
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", NATIVE)
def test_each_task_trains_its_own_head_and_the_encoder(kind, tmp_path):
    model, tokenizer = opened(save_backbone(kind, tmp_path))
    inputs, labels = pairs_of(tokenizer)
    names = {
        task: set(auto_class.from_config(model.config).state_dict())
        for task, auto_class in (("qlm", AutoModelForMaskedLM), ("rr", AutoModelForSequenceClassification))
    }
    for task, given in (("qlm", labels), ("rr", torch.ones(2))):
        model.zero_grad()
        model(**inputs, task=task, labels=given, sparse_prediction=True).loss.backward()
        for name, parameter in model.named_parameters():
            if "pooler" not in name and parameter is not model.get_output_embeddings().weight:  # tied, of both tasks
                assert (parameter.grad is not None) == (name in names[task]), (task, name)
    shared = {name for name in names["qlm"] & names["rr"] if not name.startswith(f"{model.base_model_prefix}.")}
    assert shared == ({"head.dense.weight", "head.norm.weight"} if kind == "modernbert" else set())


@pytest.mark.parametrize("kind", NATIVE)
def test_scores_are_float32_in_half_precision(kind, tmp_path):
    model, tokenizer = opened(save_backbone(kind, tmp_path))
    inputs, _ = pairs_of(tokenizer)
    assert any(type(module) is ScoreLinear for module in model.modules())
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**inputs)
    assert output.relevance_logits.dtype == torch.float32
    assert not torch.equal(output.relevance_logits.bfloat16().float(), output.relevance_logits)


@pytest.mark.parametrize("kind", NATIVE)
def test_without_a_masked_language_model(kind, tmp_path):
    """RR alone takes the checkpoint, and draws no head that later runs would take for a trained one."""
    for auto_class in (AutoModel, AutoModelForSequenceClassification):
        folder = save_backbone(kind, tmp_path / auto_class.__name__, auto_class, num_labels=1)
        config = AutoConfig.from_pretrained(folder)
        assert not has_language_model(folder, config)
        model, tokenizer = opened(folder, language_model=False)
        assert model.state_dict().keys() == AutoModelForSequenceClassification.from_config(config).state_dict().keys()
        inputs, _ = pairs_of(tokenizer)
        assert model(**inputs, task="rr").relevance_logits.shape == (2, 1)
    assert has_language_model(save_backbone(kind, tmp_path / "masked"), config)


@pytest.mark.parametrize("kind", CONFIGS)
def test_masks_lie_in_their_text(kind):
    """Token types do not matter: most of these tokenizers give none."""
    encoder = PairEncoder(tokenizer_of(kind), 100, 30)
    queries, documents = ["Wer war der König der Stadt", "ein"], ["the king of the city was old", "a small river"]
    examples = [Example("qlm", "de-en", q, [d], str(i), False) for i, (q, d) in enumerate(zip(queries, documents))]
    sides = encoder(queries, documents)["sides"]
    for mode, side in (("query", 0), ("document", 1)):
        labels = PretrainingCollator(encoder, mode, 0.9)(examples)["labels"]
        for row, of_row in zip(labels, sides):
            row = row if encoder.tokenizer.padding_side == "right" else row[-len(of_row) :]
            places = (row != -100).nonzero()[:, 0].tolist()
            assert places and {of_row[place] for place in places} == {side}


def test_unused_words_replace_no_token():
    tokenizer = tokenizer_of("modernbert")
    words = ordinary_words(tokenizer)
    assert not {*tokenizer.all_special_ids} & {*words.tolist()} and len(words) > 500
    vocabulary = {"<unused7>": 900, "[unused1]": 901, "<unk>NOTUSED": 902, "unused": 903}
    tokenizer = SimpleNamespace(all_special_ids=[], added_tokens_decoder={}, get_vocab=lambda: vocabulary)
    assert ordinary_words(tokenizer).tolist() == [903]


def test_names_of_tensors_are_found_in_every_kind_of_file(tmp_path):
    folder = save_backbone("roberta", tmp_path)
    config = AutoConfig.from_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert has_language_model(folder, config)
    (folder / "pytorch_model.bin").unlink()
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder, max_shard_size="50KB")
    assert not (folder / "model.safetensors").exists() and has_language_model(folder, config)
    for path in folder.glob("model*"):
        path.unlink()
    with pytest.raises(ValueError, match="has no weights, that is none of "):
        has_language_model(folder, config)
    lacking = {name: tensor for name, tensor in weights.items() if name != "lm_head.dense.weight"}
    save_file(lacking, folder / "model.safetensors", {"format": "pt"})
    assert not has_language_model(folder, config)


def test_checkpoints_of_bert_name_the_native_ranker(tmp_path):
    model = BertForXLRetrieval.from_pretrained(save_backbone("bert", tmp_path / "bert"))
    model.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved/config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForSequenceClassification"]


# ---------------------------------------------------------------------------------------------------------------------
# Pretraining, and all doors afterwards
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(sample_corpus, tmp_path_factory):
    """A folder for each type, with `model`, what it started from, and `trained`."""
    folders = {}

    def train(kind: str, call) -> Path:
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp(kind)
            save_backbone(kind, folders[kind] / "model")
            command = pretraining(folders[kind] / "model", sample_corpus, folders[kind] / "trained", *TOKENS)
            call(run_pretraining, command)
        return folders[kind] / "trained"

    return train


OPEN = """
import json, sys
sys.modules["modeling_clir"] = None
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer
found = {}
for folder in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer("Wer war der König", "the king of the city was old", return_tensors="pt")
    for auto_class in (AutoModelForMaskedLM, AutoModelForSequenceClassification):
        model, report = auto_class.from_pretrained(folder, output_loading_info=True)
        assert type(model).__module__.startswith("transformers.models."), type(model)
        assert not report["missing_keys"] and not report["mismatched_keys"], report
        with torch.no_grad():
            logits = model.eval()(**inputs).logits
        found[folder + auto_class.__name__] = logits.flatten()[:50].tolist()
print(json.dumps(found))
"""


def test_transformers_alone_opens_them(pretrained, call, tmp_path):
    folders = [pretrained(kind, call) for kind in NATIVE]
    command = [sys.executable, "-c", OPEN, *map(str, folders)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "newly initialized" not in done.stderr and "MISSING" not in done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    for folder in folders:
        model, tokenizer = opened(folder)
        inputs = tokenizer("Wer war der König", "the king of the city was old", return_tensors="pt")
        with torch.no_grad():
            output = model(**inputs)
        for auto_class, logits in (
            (AutoModelForMaskedLM, output.prediction_logits),
            (AutoModelForSequenceClassification, output.relevance_logits),
        ):
            expected = found[str(folder) + auto_class.__name__]
            np.testing.assert_allclose(logits.flatten()[:50].tolist(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", NATIVE)
def test_pretraining(kind, pretrained, call, sample_corpus, monkeypatch, capsys):
    folder = pretrained(kind, call)
    before, after = load_file(folder.parent / "model/model.safetensors"), load_file(folder / "model.safetensors")
    assert before.keys() < after.keys()  # with the head to rank
    assert all(not torch.equal(tensor, after[name]) for name, tensor in before.items())
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    assert {key for record in state["log_history"] for key in record} >= {"qlm_loss", "rr_loss", "tokens_per_batch"}
    results = json.loads((folder / "eval_results.json").read_text(encoding="utf-8"))
    assert {"eval_qlm_loss_en-de", "eval_rr_mrr_es-fr"} <= results.keys()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.padding_side == "right" and tokenizer.model_max_length == 128
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"An encoder of type {kind}, pretrained for cross-lingual retrieval" in card and "up to 128 tokens" in card
    assert "trust_remote_code" not in card and "bertlong" not in card and "separators" in card
    with monkeypatch.context() as patch:
        patch.chdir(folder.parent)
        assert run_examples(card, "trained", capsys)

    # A run that was cut off goes on from its checkpoint, with both heads.
    trained = after
    (folder / "trainer_state.json").unlink()
    (folder / "model.safetensors").unlink()
    (folder / "checkpoint-4/trainer_state.json").write_text("{", encoding="utf-8")
    model = folder.parent / "model"
    call(run_pretraining, pretraining(model, sample_corpus, folder, *TOKENS, "--resume_from_checkpoint", "true"))
    again = load_file(folder / "model.safetensors")
    assert all((tensor - again[name]).abs().max() < 1e-6 for name, tensor in trained.items())


@pytest.mark.parametrize("kind", NATIVE)
def test_pretraining_goes_on_from_its_result(kind, pretrained, call, sample_corpus, tmp_path, caplog):
    folder = pretrained(kind, call)
    caplog.clear()  # of the first training, which draws the ranking head
    call(run_pretraining, pretraining(folder, sample_corpus, tmp_path / "out", "--max_steps", "1", "--bf16",
                                      "--learning_rate", "0", "--do_eval", "false", "--save_strategy", "no"))  # fmt: skip
    assert "newly initialized" not in caplog.text and "a new one is random" not in caplog.text
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("kind", NATIVE)
def test_rerankers_agree(kind, pretrained, call, sample_collection):
    from sentence_transformers import CrossEncoder

    folder = pretrained(kind, call)
    collection = read_collection(sample_collection / "en-de")
    query = next(iter(collection.queries.values()))
    pairs = [(query[:30], text[:60]) for text in list(collection.documents.values())[:12]]  # nothing is cut
    scores = Reranker.from_pretrained(folder, max_query_length=40).score(pairs, progress=False)
    encoder = CrossEncoder(str(folder), activation_fn=torch.nn.Identity(), device="cpu")
    found = encoder.predict(pairs, show_progress_bar=False)
    np.testing.assert_allclose(found, scores, atol=1e-5)
    classify = pipeline("text-classification", model=str(folder), function_to_apply="none", device="cpu")
    found = [one["score"] for one in classify([{"text": query, "text_pair": text} for query, text in pairs])]
    np.testing.assert_allclose(found, scores, atol=1e-5)
    assert len(set(scores)) == len(set(pairs))


@pytest.mark.parametrize("kind", NATIVE)
def test_runners_take_them(kind, pretrained, call, sample_collection, tmp_path):
    folder = pretrained(kind, call)
    flags = ("--do_train", "--fold", "0", "--num_train_epochs", "1", "--learning_rate", "1e-3")
    call(run_clir, clir_command(folder, [sample_collection / "en-de"], tmp_path / "clir", *flags))
    assert read_run(tmp_path / "clir/en-de.run")
    for saved in (folder, tmp_path / "clir/fold-0"):  # what text-embeddings-inference and vLLM look for
        config = json.loads((saved / "config.json").read_text(encoding="utf-8"))
        assert config["architectures"][0].endswith("ForSequenceClassification") and len(config["id2label"]) == 1
    (tmp_path / "en.txt").write_text("Ein Fluss\nDer König\n", encoding="utf-8")
    (tmp_path / "de.txt").write_text("a river\nthe king\n", encoding="utf-8")
    call(run_alignment, ["run_alignment.py", "--model_name_or_path", str(folder), "--source", str(tmp_path / "en.txt"),
                         "--target", str(tmp_path / "de.txt"), "--output_dir", str(tmp_path / "align"), "--use_cpu"])  # fmt: skip
    assert (tmp_path / "align/alignment.json").is_file()


@pytest.mark.slow
def test_two_processes_equal_one(sample_corpus, tmp_path, call):
    model = save_backbone("modernbert", tmp_path / "model")
    once = ("--max_steps", "20", "--save_strategy", "no")
    call(
        run_pretraining,
        pretraining(model, sample_corpus, tmp_path / "one", *once, "--per_device_train_batch_size", "8"),
    )
    command = pretraining(model, sample_corpus, tmp_path / "two", *once, "--per_device_train_batch_size", "4")
    run(*command, processes=2)
    one, two = (
        json.loads((tmp_path / name / "eval_results.json").read_text(encoding="utf-8")) for name in ("one", "two")
    )
    names = {name for name in one if "qlm" in name or "rr" in name}
    assert len(names) > 5
    assert {name: two[name] for name in names} == pytest.approx({name: one[name] for name in names}, abs=1e-3)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys() and all((tensor - two[name]).abs().mean() < 1e-3 for name, tensor in one.items())


@pytest.mark.parametrize("kind", ["xlm-roberta", "modernbert"])
def test_ranking_alone_and_from_scratch(kind, call, sample_corpus, tmp_path):
    """An encoder without heads is taken for RR; a configuration is enough for both tasks."""
    once = ("--max_steps", "1", "--do_eval", "false", "--save_strategy", "no", "--per_device_train_batch_size", "4")
    encoder = save_backbone(kind, tmp_path / "encoder", AutoModel)
    call(run_pretraining, pretraining(encoder, sample_corpus, tmp_path / "rr", *once, "--qlm_pairs", ""))
    config = AutoConfig.from_pretrained(tmp_path / "rr")
    expected = AutoModelForSequenceClassification.from_config(config).state_dict().keys()
    assert load_file(tmp_path / "rr/model.safetensors").keys() == expected
    flags = ("--config_name", encoder, "--tokenizer_name", encoder, *once)
    command = ["run_pretraining.py", "--corpus", sample_corpus, "--output_dir", tmp_path / "new", *TRAIN, *flags]
    call(run_pretraining, [str(part) for part in command])
    assert has_language_model(tmp_path / "new", config) and opened(tmp_path / "new")


@pytest.mark.parametrize("keep", ["true", "false"])
def test_a_bert_without_language_model_for_ranking_alone(keep, call, sample_corpus, tmp_path):
    encoder = save_backbone("bert", tmp_path / "encoder", AutoModel)
    flags = ("--qlm_pairs", "", "--rr_pairs", "en-de", "--max_steps", "1", "--do_eval", "false", "--save_strategy", "no",
             "--max_position_embeddings", "128", "--keep_bert", keep, "--per_device_train_batch_size", "4")  # fmt: skip
    call(run_pretraining, pretraining(encoder, sample_corpus, tmp_path / "rr", *flags))
    names = load_file(tmp_path / "rr/model.safetensors").keys()
    assert "classifier.weight" in names and not any(name.startswith("cls.") for name in names)
    assert Reranker.from_pretrained(tmp_path / "rr", max_query_length=40).rank("ein", ["a river"])


# ---------------------------------------------------------------------------------------------------------------------
# Refusals: one line that says why, before a model or data are loaded
# ---------------------------------------------------------------------------------------------------------------------

IDS = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
SMALL = {"vocab_size": 500, "num_labels": 1}
GPT2 = GPT2Config(**SMALL, **IDS, n_embd=16, n_layer=1, n_head=2, n_positions=66)
LLAMA = LlamaConfig(**SMALL, **IDS, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
T5 = T5Config(vocab_size=500, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
XLNET = XLNetConfig(**SMALL, d_model=16, n_layer=1, n_head=2, d_inner=16)


def other(config):
    return lambda folder: (config.save_pretrained(folder), tokenizer_of("xlm-roberta").save_pretrained(folder))


def changed(name: str, kind="xlm-roberta", **options):
    """A backbone whose tokenizer lacks a token."""

    def save(folder):
        save_backbone(kind, folder, **options)
        for path in (folder / "tokenizer_config.json", folder / "tokenizer.json"):
            stored = json.loads(path.read_text(encoding="utf-8"))
            stored.pop(name, None)
            if path.name == "tokenizer_config.json":
                stored["tokenizer_class"] = "PreTrainedTokenizerFast"
            elif name == "sep_token":
                stored["post_processor"] = None
            path.write_text(json.dumps(stored), encoding="utf-8")

    return save


def added(folder):
    save_backbone("roberta", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["[new]"])
    tokenizer.save_pretrained(folder)


def of_sentence_transformers(folder):
    save_backbone("bert", folder / "0_Transformer")
    (folder / "modules.json").write_text("[]", encoding="utf-8")


REFUSED = {
    "decoder: gpt2": (other(GPT2), "is a decoder (gpt2), whose tokens do not see the tokens after them", "all"),
    "decoder: llama": (other(LLAMA), "is a decoder (llama)", "all"),
    "decoder: bert": (lambda folder: save_backbone("bert", folder, is_decoder=True),
                      "is a decoder (is_decoder in its config.json)", "all"),
    "encoder-decoder": (other(T5), "is an encoder-decoder (t5): an encoder is needed", "all"),
    "no limit": (other(XLNET), "a xlnet has no limit of positions (max_position_embeddings), which pretraining needs",
                 "pretraining"),
    "no head": (lambda folder: save_backbone("xlm-roberta", folder, AutoModel),
                "has no head of a masked language model, which QLM trains further: leave out --qlm_pairs",
                "pretraining"),
    "no head: bert": (lambda folder: save_backbone("bert", folder, AutoModel),
                      "has no head of a masked language model", "pretraining"),
    "no pad": (changed("pad_token"), "the tokenizer of the xlm-roberta has no padding token", "all"),
    "no mask": (changed("mask_token"), "has no mask token (mask_token), which QLM needs", "pretraining"),
    "no separator": (changed("sep_token", "modernbert"), "puts no separator token between the two texts", "pairs"),
    "added": (added, "or has added tokens such as '[new]'", "all"),
    "sentence-transformers": (of_sentence_transformers, "/0_Transformer, which holds the encoder", "all"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name, mistake, monkeypatch, tmp_path, sample_corpus, sample_collection):
    save, message, doors = REFUSED[name]
    save(tmp_path / "model")
    squad = {"data": [{"title": "t", "paragraphs": [{"context": "a b", "qas": [{"id": "1", "question": "a?", "answers":
             [{"text": "b", "answer_start": 2}]}]}]}]}  # fmt: skip
    (tmp_path / "questions.json").write_text(json.dumps(squad), encoding="utf-8")
    (tmp_path / "en.txt").write_text("one\n", encoding="utf-8")
    monkeypatch.setattr(
        "transformers.PreTrainedModel.from_pretrained", lambda *a, **k: pytest.fail("a model was loaded")
    )
    monkeypatch.setattr(
        "modeling_clir.data.sections.PretrainingDataset", lambda *a, **k: pytest.fail("a corpus was loaded")
    )
    text = str(tmp_path / "en.txt")
    model = ("--model_name_or_path", tmp_path / "model", "--output_dir", tmp_path / "out")
    commands = {
        "pretraining": ["run_pretraining.py", *model, "--corpus", sample_corpus, *TRAIN],
        "clir": ["run_clir.py", *model, *QUIET, *SHORT, "--collections", sample_collection / "en-de"],
        "mlqa": ["run_mlqa.py", *model, *QUIET, "--test_data", tmp_path / "questions.json"],
        "alignment": ["run_alignment.py", *model, "--source", text, "--target", text, "--use_cpu"],
    }
    chosen = {"all": list(commands), "pairs": ["pretraining", "clir", "mlqa"], "pretraining": ["pretraining"]}[doors]
    for door in chosen:
        line = mistake(*map(str, commands[door]))
        assert message in line, (door, line)
        assert not (tmp_path / "out").exists()


def test_a_type_without_a_class_of_its_own_is_refused():
    with pytest.raises(ValueError, match="transformers has no masked language model of type xlnet"):
        retrieval_class(XLNET)
