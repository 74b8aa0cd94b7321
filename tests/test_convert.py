"""Conversions: outputs are equal before and after, and one clear line says why a source is refused."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
    BertTokenizerFast,
)

from modeling_clir import BertForXLRetrieval, BertLongConfig, BertLongForXLRetrieval
from modeling_clir.convert import bert_to_bertlong, bertlong_to_longformer, load_2021, load_bert, main
from tests.shared import GOLDEN


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "wer", "entdeckte", "radium", "marie", "curie", "."]
CASES = {  # case -> inputs
    "model_short": ["pads", "nopads_mixed"],
    "model_long_w16_L128": ["varq", "varq_mixed"],
    "model_long_edge_w16_w32": ["some_rows_noglobal", "no_global_at_all", "query_fills_row"],
}


def bert_config(**options) -> BertConfig:
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 24, "initializer_range": 0.3, "num_labels": 1}
    return BertConfig(**(sizes | {"hidden_dropout_prob": 0.2} | options))


def save_tokenizer(folder, words=WORDS):
    folder.mkdir(exist_ok=True, parents=True)
    vocab_file = folder / "vocab.txt"
    vocab_file.write_text("\n".join(words) + "\n", encoding="utf-8")
    BertTokenizerFast(str(vocab_file), do_lower_case=True).save_pretrained(folder)


def save_bert(folder, model_class=BertForPreTraining, **options):
    torch.manual_seed(3)
    model = model_class(bert_config(**options)).eval()
    if hasattr(model, "cls"):
        torch.nn.init.normal_(model.cls.predictions.decoder.bias)  # zeros would hide a bias that is lost
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model


def save_2021(folder, case, *, decoder_bias=True, position_ids=True, safetensors=False, change=None, config=None):
    meta = json.loads((GOLDEN / f"{case}.json").read_text(encoding="utf-8"))
    arrays = np.load(GOLDEN / f"{case}.weights.npz")
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if decoder_bias:
        state["mlm_cls.predictions.decoder.bias"] = state["mlm_cls.predictions.bias"].clone()
    if position_ids:
        state["bert.embeddings.position_ids"] = torch.arange(meta["config"]["max_position_embeddings"])[None]
    state.update(change or {})
    options = {name: value for name, value in meta["config"].items() if name != "num_labels" and value is not None}
    save_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({**options, **(config or {})}), encoding="utf-8")
    if safetensors:
        save_file(state, folder / "model.safetensors")
    else:
        torch.save(state, folder / "pytorch_model.bin")


def batch(vocab_size=40, length=21, left=False):
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(5, vocab_size, (3, length), generator=generator)
    place = torch.arange(length)[None].expand(3, -1)
    lengths = torch.tensor([[length], [length - 8], [9]])
    place = place - (length - lengths) if left else place
    mask = ((place >= 0) & (place < lengths)).long()
    types = ((place >= 5) & (mask == 1)).long()
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": types}


def refused(capsys, *arguments) -> str:
    """Returns the one line on stderr of a refused conversion. Checks that it leaves nothing behind."""
    output = arguments[1]
    before = sorted(output.parent.iterdir())
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    error = error[error.index("error: ") :]
    assert error.count("\n") == 1
    assert sorted(output.parent.iterdir()) == before
    return error


@pytest.mark.parametrize("model_class", [BertForPreTraining, BertForMaskedLM])
@pytest.mark.parametrize("tied", [True, False])
def test_bertlong_equals_bert_within_the_window(tmp_path, model_class, tied):
    bert = save_bert(tmp_path / "bert", model_class, tie_word_embeddings=tied)
    long = bert_to_bertlong(load_bert(tmp_path / "bert"), max_position_embeddings=50, attention_window=48)
    inputs = batch()
    nothing_global = torch.zeros_like(inputs["input_ids"])
    with torch.no_grad():
        expected = bert(**inputs)
        found = long(**inputs, global_attention_mask=nothing_global)
    real = inputs["attention_mask"] == 1
    expected = expected.logits if model_class is BertForMaskedLM else expected.prediction_logits
    torch.testing.assert_close(found.prediction_logits[real], expected[real], atol=1e-5, rtol=0)
    assert found.relevance_logits.shape == (3, 1)
    same = long.cls.predictions.decoder.weight is long.bert.embeddings.word_embeddings.weight
    assert same == tied and long.config.tie_word_embeddings == tied
    assert long.config.hidden_dropout_prob == 0.2 and not long.training


@pytest.mark.parametrize("length", [10, 24, 25, 60])
def test_positions_are_copied_and_the_last_copy_is_cut(length):
    bert = BertForXLRetrieval(bert_config())
    old = bert.bert.embeddings.position_embeddings.weight
    new = bert_to_bertlong(bert, length, 4).bert.embeddings.position_embeddings.weight
    assert new.shape == (length, 16)
    assert torch.equal(new, old[torch.arange(length) % 24])


def test_global_projections_start_equal_and_are_separate():
    bert = BertForXLRetrieval(bert_config())
    state_before = torch.get_rng_state()
    long = bert_to_bertlong(bert, 30, [4, 8])
    assert torch.equal(torch.get_rng_state(), state_before)
    assert long.config.attention_window == [4, 8]
    for layer in long.bert.encoder.layer:
        for name in ("query", "key", "value"):
            local, other = getattr(layer.attention.self, name), getattr(layer.attention.self, f"{name}_global")
            assert torch.equal(local.weight, other.weight) and torch.equal(local.bias, other.bias)
            assert local.weight.data_ptr() != other.weight.data_ptr()
    words = [model.bert.embeddings.word_embeddings.weight for model in (bert, long)]
    assert torch.equal(*words) and words[0].data_ptr() != words[1].data_ptr()


def test_a_decoder_stored_beside_a_tied_config_is_kept(tmp_path):
    bert = save_bert(tmp_path / "bert", BertForMaskedLM, tie_word_embeddings=False)
    path = tmp_path / "bert" / "config.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**stored, "tie_word_embeddings": True}), encoding="utf-8")
    long = bert_to_bertlong(load_bert(tmp_path / "bert"))
    assert torch.equal(long.cls.predictions.decoder.weight, bert.cls.predictions.decoder.weight)
    assert torch.equal(long.bert.embeddings.word_embeddings.weight, bert.bert.embeddings.word_embeddings.weight)
    assert torch.equal(long.cls.predictions.bias, bert.cls.predictions.decoder.bias)
    assert not long.config.tie_word_embeddings


@pytest.mark.parametrize("lacking", ["cls.predictions.bias", "cls.predictions.decoder.bias"])
def test_an_untied_head_has_one_bias_under_either_name(tmp_path, lacking):
    bias = save_bert(
        tmp_path / "bert", BertForMaskedLM, tie_word_embeddings=False
    ).cls.predictions.decoder.bias.detach()
    path = tmp_path / "bert" / "model.safetensors"
    state = load_file(path)
    state |= {"cls.predictions.bias": bias, "cls.predictions.decoder.bias": bias.clone()}
    del state[lacking]
    save_file(state, path, metadata={"format": "pt"})
    model = load_bert(tmp_path / "bert")
    model.save_pretrained(tmp_path / "saved")
    for head in (model.cls.predictions, BertForMaskedLM.from_pretrained(tmp_path / "saved").cls.predictions):
        assert torch.equal(head.decoder.bias, bias)
    assert torch.equal(load_bert(tmp_path / "saved").cls.predictions.bias, bias)


def test_the_bias_that_bert_computes_with_is_taken():
    bert = BertForXLRetrieval(bert_config(tie_word_embeddings=False))
    bert.cls.predictions.bias = torch.nn.Parameter(torch.zeros(40))  # BERT's forward reads only the decoder's bias
    torch.nn.init.normal_(bert.cls.predictions.decoder.bias)
    assert torch.equal(bert_to_bertlong(bert).cls.predictions.bias, bert.cls.predictions.decoder.bias)


def test_command_line_writes_a_checkpoint_that_opens(tmp_path, capsys):
    save_bert(tmp_path / "bert")
    output = tmp_path / "new" / "long"
    arguments = ["--max_position_embeddings", "60", "--attention_window", "4", "8"]
    assert main([str(tmp_path / "bert"), str(output), *arguments]) == 0
    summary = capsys.readouterr().out
    assert "positions 24 -> 60, window [4, 8], labels 1" in summary and summary.count("\n") == 1
    assert [path.name for path in output.parent.iterdir()] == ["long"]
    assert AutoTokenizer.from_pretrained(output).model_max_length == 60
    want = bert_to_bertlong(load_bert(tmp_path / "bert"), 60, [4, 8])
    inputs = batch(length=50)
    with torch.no_grad():
        expected, found = want(**inputs), BertLongForXLRetrieval.from_pretrained(output)(**inputs)
    # Not exactly equal: the order of summation may depend on the place of a matrix in memory.
    torch.testing.assert_close(found.prediction_logits, expected.prediction_logits, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found.relevance_logits, expected.relevance_logits, atol=1e-6, rtol=1e-6)


def test_classifier_is_kept_or_new_with_a_fixed_seed(tmp_path):
    kept = save_bert(tmp_path / "kept", BertForSequenceClassification, num_labels=2)
    assert torch.equal(load_bert(tmp_path / "kept").classifier.weight, kept.classifier.weight)
    one = load_bert(tmp_path / "kept", num_labels=1)
    assert torch.equal(one.classifier.weight, kept.classifier.weight[1:]) and one.config.num_labels == 1
    save_bert(tmp_path / "encoder", BertModel, num_labels=2, tie_word_embeddings=False)
    torch.manual_seed(1)
    first = load_bert(tmp_path / "encoder")
    torch.manual_seed(2)
    second = load_bert(tmp_path / "encoder")
    assert first.classifier.weight.shape == (1, 16) and first.config.num_labels == 1
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    assert first.cls.predictions.decoder.weight is first.bert.embeddings.word_embeddings.weight
    assert load_bert(tmp_path / "encoder", num_labels=3).classifier.weight.shape == (3, 16)


def test_missing_head_is_said(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("modeling_clir.convert.logger.warning", said.append)
    save_bert(tmp_path / "encoder", BertModel)
    load_bert(tmp_path / "encoder")
    assert len(said) == 1 and "no masked language model head" in said[0]
    save_bert(tmp_path / "full")
    load_bert(tmp_path / "full")
    assert len(said) == 1


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("variant", [0, 1])
def test_2021_equals_golden(tmp_path, case, variant):
    options = {"decoder_bias": variant == 0, "position_ids": variant == 1, "safetensors": variant == 1}
    save_2021(tmp_path / "old", case, **options, config={"model_type": "bert"} if variant else None)
    assert main([str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    model_class = BertForXLRetrieval if case == "model_short" else BertLongForXLRetrieval
    model, loaded = model_class.from_pretrained(tmp_path / "new"), load_2021(tmp_path / "old")
    one = load_2021(tmp_path / "old", num_labels=1)
    assert type(loaded) is model_class
    for name in CASES[case]:
        golden = np.load(GOLDEN / f"{case}.{name}.npz")
        mask = torch.from_numpy(golden["in::attention_mask"])
        inputs = {key: torch.from_numpy(golden[f"in::{key}"]) for key in ("input_ids", "token_type_ids")}
        inputs["attention_mask"] = (mask > 0).long()
        if case != "model_short":
            inputs["global_attention_mask"] = (mask == 2).long()
        real = mask.flatten() > 0
        index = torch.from_numpy(golden["out::mlm_logits_flat_index"])
        keep = real[index]
        with torch.no_grad():
            outputs = [model(**inputs), loaded(**inputs)]
            relevance = one(**inputs).relevance_logits
        for output in outputs:
            scores = torch.from_numpy(golden["out::seqcls_logits"])
            torch.testing.assert_close(output.relevance_logits, scores, atol=2e-5, rtol=0)
            words = output.prediction_logits.flatten(0, 1)[index][keep]
            torch.testing.assert_close(words, torch.from_numpy(golden["out::mlm_logits"])[keep], atol=5e-5, rtol=0)
        torch.testing.assert_close(relevance, scores[:, 1:], atol=2e-5, rtol=0)


def test_short_2021_goes_on_to_bertlong(tmp_path):
    save_2021(tmp_path / "old", "model_short")
    arguments = ["--to", "bertlong", "--max_position_embeddings", "100", "--num_labels", "1"]
    assert main([str(tmp_path / "old"), str(tmp_path / "new"), *arguments]) == 0
    model, short = BertLongForXLRetrieval.from_pretrained(tmp_path / "new"), load_2021(tmp_path / "old")
    assert model.config.max_position_embeddings == 100 and model.config.num_labels == 1
    assert torch.equal(model.cls.predictions.decoder.weight, short.cls.predictions.decoder.weight)
    assert not torch.equal(model.cls.predictions.decoder.weight, model.bert.embeddings.word_embeddings.weight)
    assert torch.equal(model.classifier.weight, short.classifier.weight[1:])


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("pad", [0, 3])
@pytest.mark.parametrize("tied", [True, False])
def test_longformer_equals_bertlong(left, pad, tied):
    options = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    options |= {"vocab_size": 40, "initializer_range": 0.3, "tie_word_embeddings": tied, "pad_token_id": pad}
    torch.manual_seed(4)
    config = BertLongConfig(**options, max_position_embeddings=53, attention_window=[16, 8])
    model = BertLongForXLRetrieval(config).eval()
    torch.nn.init.normal_(model.cls.predictions.bias)
    inputs = batch(length=53, left=left)
    inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, pad)
    inputs["global_attention_mask"] = ((inputs["token_type_ids"] == 0) & (inputs["attention_mask"] == 1)).long()
    real = inputs["attention_mask"] == 1
    with torch.no_grad():
        want = model(**inputs)
        words = bertlong_to_longformer(model, "mlm")(**inputs).logits
        ranker = bertlong_to_longformer(model)
        scores = ranker(**inputs).logits
        hidden = ranker.longformer(**inputs).last_hidden_state
        expected_hidden = model.bert(**inputs).last_hidden_state
    torch.testing.assert_close(words[real], want.prediction_logits[real], atol=5e-5, rtol=0)
    torch.testing.assert_close(hidden[real], expected_hidden[real], atol=5e-5, rtol=0)
    rows = slice(0, 1) if left else slice(None)  # its head reads the first column, which left padding fills
    torch.testing.assert_close(scores[rows], want.relevance_logits[rows], atol=5e-5, rtol=0)


PLAIN = """
import sys
sys.modules["modeling_clir"] = None
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model, report = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], output_loading_info=True)
assert type(model).__name__ == "LongformerForSequenceClassification" and not report["missing_keys"], report
inputs = tokenizer("Wer entdeckte Radium", "Marie Curie . marie curie", return_tensors="pt")
assert inputs["input_ids"].tolist() == [[2, 5, 6, 7, 3, 8, 9, 10, 8, 9, 3]], inputs
inputs["global_attention_mask"] = (inputs["token_type_ids"] == 0).long()
with torch.no_grad():
    print(model(**inputs).logits.item())
"""


def test_longformer_folder_opens_in_plain_transformers(tmp_path):
    save_bert(tmp_path / "bert", BertForSequenceClassification)
    window = ["--attention_window", "4"]
    assert main([str(tmp_path / "bert"), str(tmp_path / "long"), *window]) == 0
    assert main([str(tmp_path / "long"), str(tmp_path / "hf"), "--to", "longformer"]) == 0
    assert not list((tmp_path / "hf").glob("*.py"))
    assert "auto_map" not in (tmp_path / "hf" / "config.json").read_text(encoding="utf-8")
    command = [sys.executable, "-c", PLAIN, str(tmp_path / "hf")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "long")
    inputs = tokenizer("Wer entdeckte Radium", "Marie Curie . marie curie", return_tensors="pt")
    with torch.no_grad():
        score = BertLongForXLRetrieval.from_pretrained(tmp_path / "long")(**inputs).relevance_logits.item()
    assert float(done.stdout.split()[-1]) == pytest.approx(score, abs=1e-5)


def test_longformer_refuses_what_it_cannot_do():
    options = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertLongForXLRetrieval(
        BertLongConfig(**options, vocab_size=40, hidden_act="relu", attention_window=[12, 8])
    )
    with pytest.raises(ValueError, match="divide the widest"):
        bertlong_to_longformer(model)
    model.config.attention_window = 8
    with pytest.raises(ValueError, match="'relu'"):
        bertlong_to_longformer(model, "mlm")


class Anything:
    pass


def test_a_pickle_of_more_than_tensors_is_refused(tmp_path, capsys):
    save_2021(tmp_path / "old", "model_short")
    path = tmp_path / "old" / "pytorch_model.bin"
    for save in (torch.save, lambda state, path: path.write_bytes(pickle.dumps(state, protocol=2))):
        save({"mlm_cls.predictions.bias": Anything()}, path)
        error = refused(capsys, tmp_path / "old", tmp_path / "new")
        assert "more than tensors" in error and "Anything" in error
    torch.save({"state_dict": {"mlm_cls.predictions.bias": torch.zeros(1)}}, path)
    assert "not a state dict" in refused(capsys, tmp_path / "old", tmp_path / "new")
    for name in ("pytorch_model.bin", "model.safetensors"):
        (tmp_path / "old" / name).write_bytes(path.read_bytes()[:100])
        assert f"{name} cannot be read" in refused(capsys, tmp_path / "old", tmp_path / "new")


def test_sources_that_are_refused(tmp_path, capsys):
    output = tmp_path / "new"
    assert "there is no " in refused(capsys, tmp_path / "nowhere", output)
    save_bert(tmp_path / "bert")
    assert "convert it to bertlong first" in refused(capsys, tmp_path / "bert", output, "--to", "longformer")
    assert "3 entries" in refused(capsys, tmp_path / "bert", output, "--attention_window", "4", "4", "4")
    for name in ("tokenizer.json", "vocab.txt"):
        (tmp_path / "bert" / name).unlink(missing_ok=True)
    assert "no tokenizer: first save" in refused(capsys, tmp_path / "bert", output)
    save_tokenizer(tmp_path / "bert", WORDS + [f"word{i}" for i in range(40)])
    assert "has 51 tokens" in refused(capsys, tmp_path / "bert", output)

    path = tmp_path / "bert" / "config.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    for change, message in (
        ({"model_type": "roberta"}, "'roberta'"),
        ({"is_decoder": True}, "decoder"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"max_position_embeddings": 30}, "bert.embeddings.position_embeddings.weight has shape (24, 16)"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"num_hidden_layers": 3}, "missing"),
        ({"num_hidden_layers": 1}, "unexpected"),
    ):
        path.write_text(json.dumps({**stored, **change}), encoding="utf-8")
        assert message in refused(capsys, tmp_path / "bert", output)


def test_2021_sources_that_are_refused(tmp_path, capsys):
    output, folder = tmp_path / "new", tmp_path / "old"
    save_2021(folder, "model_long_w16_L128", config={"max_position_embeddings": 64})
    error = refused(capsys, folder, output)
    assert "position_embeddings.weight has shape (128, 32), the configuration asks for (64, 32)" in error
    save_2021(folder, "model_long_w16_L128", config={"attention_window": None})
    assert "no attention_window" in refused(capsys, folder, output)
    save_2021(folder, "model_long_w16_L128", change={"bert.unknown": torch.zeros(1)})
    assert "bert.unknown is unexpected" in refused(capsys, folder, output)
    save_2021(folder, "model_long_w16_L128", config={"num_hidden_layers": 3, "attention_window": 16})
    assert "bert.encoder.layer.2" in refused(capsys, folder, output)
    save_2021(folder, "model_long_w16_L128")
    assert "leave them out" in refused(capsys, folder, output, "--attention_window", "8")
    assert "2 (as it is) or 1" in refused(capsys, folder, output, "--num_labels", "3")
    with pytest.raises(ValueError, match="2021"):
        save_2021(tmp_path / "short", "model_short", config={"model_type": "bert"})
        load_bert(tmp_path / "short")


def test_labels_and_outputs_that_are_refused(tmp_path, capsys):
    save_bert(tmp_path / "bert", BertForSequenceClassification, num_labels=3)
    error = refused(capsys, tmp_path / "bert", tmp_path / "new", "--num_labels", "1")
    assert "3 labels: num_labels can be 3, got 1" in error
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept", encoding="utf-8")
    assert "not empty" in refused(capsys, tmp_path / "bert", tmp_path / "full")
    for flags, message in {
        ("--attention_window", "7"): "argument --attention_window: a window must be even and at least 2, got 7",
        ("--too", "bert"): "there is no option --too; did you mean --to?",
        ("--to", "bart"): "argument --to: invalid choice: 'bart'",
    }.items():
        assert message in refused(capsys, tmp_path / "bert", tmp_path / "new", *flags)
    assert f"did you mean {tmp_path / 'bert'}?" in refused(capsys, tmp_path / "bertt", tmp_path / "new")
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "bert"), str(tmp_path / "empty")]) == 0
