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
    CanineTokenizer,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
    RobertaModel,
    RobertaTokenizerFast,
    XLMRobertaForMaskedLM,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
    XLMRobertaTokenizerFast,
)

from modeling_clir import BertForXLRetrieval, BertLongConfig, BertLongForXLRetrieval
from modeling_clir.convert import (
    bert_to_bertlong,
    bertlong_to_longformer,
    load_2021,
    load_bert,
    load_roberta,
    main,
    mark_queries,
)
from tests.helpers import train_tokenizer
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


def unigram_tokenizer() -> XLMRobertaTokenizerFast:
    """Makes XLM-R's tokenizer, with a piece per word and per letter. The last piece is the mask, as in XLM-R's."""
    pieces = [f"▁{word}" for word in WORDS[5:]] + ["▁", *"abcdefghijklmnopqrstuvwxyzWEMC"]
    special = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")]
    return XLMRobertaTokenizerFast(vocab=[*special, *((piece, -5.0) for piece in pieces), ("<mask>", 0.0)])


def bpe_tokenizer() -> RobertaTokenizerFast:
    """Makes RoBERTa's tokenizer of bytes. Its special tokens come last."""
    model = json.loads(train_tokenizer("byte_level").backend_tokenizer.to_str())["model"]
    words = [word for word in model["vocab"] if word not in ("<s>", "</s>", "<pad>", "<unk>")]
    vocabulary = {word: i for i, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *words, "<mask>"])}
    return RobertaTokenizerFast(vocab=vocabulary, merges=[tuple(pair) for pair in model["merges"]])


def save_roberta(folder, model_class=XLMRobertaForMaskedLM, tokenizer=None, **options):
    """Saves a RoBERTa or XLM-R with 24 positions after the padding's."""
    tokenizer = tokenizer or unigram_tokenizer()
    sizes = bert_config().to_diff_dict() | {"vocab_size": len(tokenizer), "max_position_embeddings": 26}
    sizes |= {"type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "layer_norm_eps": 1e-5}
    sizes = {name: value for name, value in sizes.items() if name not in ("model_type", "transformers_version")}
    torch.manual_seed(3)
    model = model_class(model_class.config_class(**sizes | options)).eval()
    for name, parameter in model.named_parameters():  # zeros would hide a tensor that is lost
        if name.endswith("bias") or "position_embeddings" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
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


def roberta_batch(vocab_size, length=21) -> dict[str, torch.Tensor]:
    inputs = batch(vocab_size, length)
    padding = inputs["attention_mask"] == 0
    return {"input_ids": inputs["input_ids"].masked_fill(padding, 1), "attention_mask": inputs["attention_mask"]}


ROBERTAS = [
    (XLMRobertaForMaskedLM, True),
    (XLMRobertaForMaskedLM, False),
    (XLMRobertaForSequenceClassification, True),
    (XLMRobertaModel, True),
    (RobertaForMaskedLM, True),
    (RobertaForMaskedLM, False),
    (RobertaForSequenceClassification, True),
    (RobertaModel, False),
]


@pytest.mark.parametrize(("model_class", "tied"), ROBERTAS)
@pytest.mark.parametrize("types", [1, 2])
def test_bertlong_and_longformer_equal_xlm_r(tmp_path, model_class, tied, types):
    """There and on: the BERT, the BertLong and the Longformer compute what the source computes."""
    options = {"tie_word_embeddings": tied, "type_vocab_size": types, "num_labels": 3}
    source = save_roberta(tmp_path / "source", model_class, **options)
    bert = load_roberta(tmp_path / "source")
    long = bert_to_bertlong(bert, attention_window=48)
    assert bert.config.max_position_embeddings == 24 and long.config.max_position_embeddings == 1024
    for model in (bert, long):
        found = {name: getattr(model.config, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        assert found == {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
        assert model.config.layer_norm_eps == 1e-5 and model.bert.embeddings.word_embeddings.padding_idx == 1
        assert not model.training
    head = "mlm" if "MaskedLM" in model_class.__name__ else "classification"
    longformer = bertlong_to_longformer(long, head)
    assert longformer.config.bos_token_id == 0 and longformer.config.eos_token_id == 2
    inputs = roberta_batch(source.config.vocab_size)
    nothing_global = {"global_attention_mask": torch.zeros_like(inputs["input_ids"])}
    with torch.no_grad():
        expected = source(**inputs)
        outputs = [bert(**inputs), long(**inputs, **nothing_global)]
        states = [longformer.longformer, long.bert, bert.bert]
        states = [encoder(**inputs, **(nothing_global if encoder is not bert.bert else {})) for encoder in states]
        last = longformer(**inputs, **nothing_global).logits
        hidden = getattr(source, "roberta", source)(**inputs).last_hidden_state
    real = inputs["attention_mask"] == 1
    for state in states:
        torch.testing.assert_close(state.last_hidden_state[real], hidden[real], atol=1e-5, rtol=0)
    if "MaskedLM" in model_class.__name__:
        for logits in (last, *(output.prediction_logits for output in outputs)):
            torch.testing.assert_close(logits[real], expected.logits[real], atol=1e-5, rtol=0)
        same = long.cls.predictions.decoder.weight is long.bert.embeddings.word_embeddings.weight
        assert same == tied == long.config.tie_word_embeddings
    elif "Classification" in model_class.__name__:
        assert expected.logits.std() > 0.1
        for logits in (last, *(output.relevance_logits for output in outputs)):
            torch.testing.assert_close(logits, expected.logits, atol=1e-5, rtol=0)
    else:  # its pooler is kept
        for state in states[1:]:
            torch.testing.assert_close(state.pooler_output, expected.pooler_output, atol=1e-5, rtol=0)


@pytest.mark.parametrize("lacking", ["lm_head.bias", "lm_head.decoder.bias"])
def test_an_untied_xlm_r_has_one_bias_under_either_name(tmp_path, lacking):
    save_roberta(tmp_path, tie_word_embeddings=False)
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    bias = state["lm_head.decoder.bias"]
    state |= {"lm_head.bias": bias.clone(), "roberta.embeddings.position_ids": torch.arange(26)[None]}
    del state[lacking]
    save_file(state, path, metadata={"format": "pt"})
    assert torch.equal(load_roberta(tmp_path).cls.predictions.decoder.bias, bias)
    assert torch.equal(bert_to_bertlong(load_roberta(tmp_path)).cls.predictions.bias, bias)


def test_heads_that_an_xlm_r_lacks(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("modeling_clir.convert.logger.warning", said.append)
    for model_class, number in (
        (XLMRobertaForSequenceClassification, 1),
        (XLMRobertaModel, 1),
        (XLMRobertaForMaskedLM, 1),
        (RobertaForTokenClassification, 2),
    ):
        save_roberta(tmp_path / "source", model_class, num_labels=2, tie_word_embeddings=False)
        said.clear()
        model = load_roberta(tmp_path / "source")
        heads = ("no masked language model head", "no pooler")
        found = [sum(head in line for line in said) for head in heads]
        assert sum(found) == len(said) == number and all(str(tmp_path) in line for line in said)
        assert found == {
            1: [int("MaskedLM" not in model_class.__name__), int("MaskedLM" in model_class.__name__)]
        }.get(number, [1, 1])
        if model_class is XLMRobertaForSequenceClassification:
            kept = load_file(tmp_path / "source" / "model.safetensors")["classifier.out_proj.weight"]
            assert torch.equal(model.classifier.weight, kept)
            assert torch.equal(load_roberta(tmp_path / "source", 1).classifier.weight, kept[1:])
        else:
            assert model.classifier.weight.shape == (1, 16) and model.config.num_labels == 1
            assert torch.equal(model.classifier.weight, load_roberta(tmp_path / "source").classifier.weight)
        same = model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
        assert same == (model_class is not XLMRobertaForMaskedLM)


def test_no_position_is_lost_unasked(tmp_path, capsys):
    save_roberta(tmp_path / "source", XLMRobertaModel, max_position_embeddings=1102)
    for output, flags, positions in (("all", [], 1100), ("some", ["--max_position_embeddings", "200"], 200)):
        assert main([str(tmp_path / "source"), str(tmp_path / output), *flags]) == 0
        assert f"XLM-R -> BertLongForXLRetrieval: positions 1100 -> {positions}," in capsys.readouterr().out
        assert AutoTokenizer.from_pretrained(tmp_path / output).model_max_length == positions


def test_xlm_r_that_is_refused(tmp_path, capsys):
    save_roberta(tmp_path / "source")
    path = tmp_path / "source" / "config.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    for change, message in (
        (
            {"model_type": "deberta-v2"},
            "none of BERT, XLM-R, RoBERTa, BertLong and a checkpoint of 2021: its model_ty",
        ),
        ({"is_decoder": True}, "is a RoBERTa decoder"),
        ({"position_embedding_type": "relative_key"}, "relative_key position embeddings: choose a RoBERTa with"),
        ({"pad_token_id": None}, "no pad_token_id, after which its positions begin"),
        ({"hidden_act": "relu"}, "has hidden_act 'relu', but its masked language model head has gelu built in"),
        ({"max_position_embeddings": 30}, "roberta.embeddings.position_embeddings.weight has shape (26, 16)"),
        ({"num_hidden_layers": 3}, "missing"),
        ({"num_hidden_layers": 1}, "unexpected"),
    ):
        path.write_text(json.dumps({**stored, **change}), encoding="utf-8")
        assert message in refused(capsys, tmp_path / "source", tmp_path / "new"), change
    save_roberta(tmp_path / "encoder", XLMRobertaModel, hidden_act="relu")
    assert bert_to_bertlong(load_roberta(tmp_path / "encoder")).config.hidden_act == "relu"
    model = BertLongForXLRetrieval(BertLongConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    with pytest.raises(ValueError, match=r"a CanineTokenizer gives no token types, .* and is written in Python"):
        mark_queries(model, CanineTokenizer())


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
import json, sys
sys.modules["modeling_clir"] = None
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer
for folder in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    inputs = tokenizer("Wer entdeckte Radium", "Marie Curie . marie curie", return_tensors="pt")
    if longformer := folder.endswith("longformer"):
        inputs["global_attention_mask"] = (inputs["token_type_ids"] == 0).long()
    remote = {} if longformer else {"trust_remote_code": True}
    load = {"output_loading_info": True, **remote}
    model, report = AutoModelForSequenceClassification.from_pretrained(folder, **load)
    encoder = AutoModel.from_pretrained(folder, **remote)
    with torch.no_grad():
        score, vector = model(**inputs).logits.item(), encoder(**inputs).last_hidden_state[0, 1].tolist()
    lists = {name: values[0].tolist() for name, values in inputs.items()}
    print(json.dumps([type(model).__name__, sorted(report["missing_keys"]), lists, score, vector]))
"""


def test_conversions_open_in_plain_transformers(tmp_path):
    """From BERT, from E5 (a BERT with XLM-R's tokenizer), XLM-R and RoBERTa; to BertLong, and on to Longformer."""
    save_bert(tmp_path / "bert", BertForSequenceClassification)
    tokenizers = {"e5": unigram_tokenizer(), "xlm_r": unigram_tokenizer(), "roberta": bpe_tokenizer()}
    tokenizers["e5"].model_input_names = ["input_ids", "attention_mask"]
    save_bert(
        tmp_path / "e5",
        BertForSequenceClassification,
        vocab_size=len(tokenizers["e5"]),
        pad_token_id=1,
        bos_token_id=0,
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (tmp_path / "e5" / name).unlink(missing_ok=True)
    tokenizers["e5"].save_pretrained(tmp_path / "e5")
    save_roberta(tmp_path / "xlm_r", XLMRobertaForSequenceClassification, tokenizers["xlm_r"])
    save_roberta(
        tmp_path / "roberta", RobertaForSequenceClassification, tokenizers["roberta"], max_position_embeddings=99
    )
    folders, window = [], ["--attention_window", "4"]
    for name in ("bert", "e5", "xlm_r", "roberta"):
        folders += [tmp_path / f"{name}-bertlong", tmp_path / f"{name}-longformer"]
        assert main([str(tmp_path / name), str(folders[-2]), *window]) == 0
        assert main([str(folders[-2]), str(folders[-1]), "--to", "longformer"]) == 0
        assert not list(folders[-1].glob("*.py"))
        assert "auto_map" not in (folders[-1] / "config.json").read_text(encoding="utf-8")
    command = [sys.executable, "-c", PLAIN, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(found) == len(folders)
    for folder, (class_name, missing, lists, score, vector) in zip(folders, found):
        name, _, kind = folder.name.partition("-")
        assert class_name.lower() == f"{kind}forsequenceclassification" and not missing
        text = "Wer entdeckte Radium", "Marie Curie . marie curie"
        plain = AutoTokenizer.from_pretrained(tmp_path / name)(*text)["input_ids"]
        assert lists["input_ids"] == plain
        query = plain.index(3 if name == "bert" else 2) + 1  # [CLS] query [SEP]
        assert lists["token_type_ids"] == [0] * query + [1] * (len(plain) - query)
        model = BertLongForXLRetrieval.from_pretrained(tmp_path / f"{name}-bertlong")
        inputs = {key: torch.tensor([values]) for key, values in lists.items()}
        is_global = (torch.arange(len(plain)) < query)[None].long()
        with torch.no_grad():
            expected = model(**inputs | {"global_attention_mask": is_global}).relevance_logits.item()
            others = model(**inputs | {"global_attention_mask": 1 - is_global}).relevance_logits.item()
            hidden = model.bert(**inputs | {"global_attention_mask": is_global}).last_hidden_state[0, 1]
        assert score == pytest.approx(expected, abs=1e-5) and abs(others - expected) > 1e-4
        torch.testing.assert_close(torch.tensor(vector), hidden, atol=1e-5, rtol=0)


def test_a_pair_without_token_types_is_said(tmp_path, monkeypatch):
    """XLM-R's own tokenizer gives none; the one that is saved with the BertLong does."""
    said = []
    monkeypatch.setattr("modeling_clir.modeling_bertlong.logger.warning_once", said.append)
    save_roberta(tmp_path / "source")
    assert main([str(tmp_path / "source"), str(tmp_path / "long")]) == 0
    model = BertLongForXLRetrieval.from_pretrained(tmp_path / "long")
    for name, single, pair in (("source", 0, 1), ("long", 0, 0)):
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / name)
        said.clear()
        model(**tokenizer("wer entdeckte", return_tensors="pt"))
        assert len(said) == single
        model(**tokenizer(["wer", "wer entdeckte"], ["marie curie", "radium"], padding=True, return_tensors="pt"))
        assert len(said) == pair and all("nothing marks the query" in line for line in said)


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
        ({"model_type": "electra"}, "'electra'"),
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
