"""BertLong's configuration: options that it refuses, and options that it saves."""

import json

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from modeling_clir import BertLongConfig, BertLongForSequenceClassification
from modeling_clir.configuration_bertlong import AUTO_MAP
from tests.tiny import build, tiny_config


BAD = {
    "odd window": ({"attention_window": 7}, "must be even and at least 2, got 7"),
    "no window": ({"attention_window": 0}, "must be even and at least 2, got 0"),
    "negative window": ({"attention_window": -2}, "must be even and at least 2, got -2"),
    "odd window in a list": ({"attention_window": [4, 5]}, "must be even and at least 2, got 5"),
    "windows of other layers": ({"attention_window": [4, 4, 4]}, "3 entries but num_hidden_layers is 2"),
    "no windows": ({"attention_window": []}, "0 entries but num_hidden_layers is 2"),
    "text": ({"attention_window": "64"}, "attention_window"),
    "fraction": ({"attention_window": 64.5}, "attention_window"),
    "list of text": ({"attention_window": ["4", "4"]}, "attention_window"),
    "type": ({"hidden_size": "16"}, "hidden_size"),
    "heads": ({"num_attention_heads": 3}, r"hidden_size \(16\) must be a multiple of num_attention_heads \(3\)"),
    "no heads": ({"num_attention_heads": 0}, r"hidden_size \(16\) must be a multiple of num_attention_heads \(0\)"),
    "misspelt": ({"attention_windows": 64}, "no option 'attention_windows'; did you mean 'attention_window'"),
    "misspelt heads": ({"num_attention_head": 2}, "did you mean 'num_attention_heads'"),
    "misspelt length": ({"max_position_embedding": 2}, "did you mean 'max_position_embeddings'"),
    "misspelt labels": ({"num_label": 2}, "did you mean 'num_labels'"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(case):
    options, message = BAD[case]
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        tiny_config(**options)


def test_defaults_are_the_published_model():
    config = BertLongConfig()
    assert config.attention_window == 64 and config.window_per_layer == [64] * 12
    assert config.max_position_embeddings == 1024 and config.num_labels == 1
    assert config.auto_map == AUTO_MAP and config.model_type == "bertlong-xlr"


LABELS = {0: "bad", 1: "fair", 2: "good"}
KEPT = [
    ({}, 1, None),
    ({"num_labels": 1}, 1, None),
    ({"num_labels": 2}, 2, None),
    ({"num_labels": 3}, 3, None),
    ({"id2label": {0: "relevance"}, "label2id": {"relevance": 0}}, 1, {0: "relevance"}),
    ({"id2label": LABELS, "label2id": {name: number for number, name in LABELS.items()}}, 3, LABELS),
]


@pytest.mark.parametrize("options, num_labels, id2label", KEPT)
@pytest.mark.parametrize("window", [16, [4, 16]])
def test_kept_on_disk(options, num_labels, id2label, window, tmp_path):
    config = tiny_config(attention_window=window, problem_type="regression", tie_word_embeddings=False, **options)
    for loaded_class in (BertLongConfig, AutoConfig, BertLongConfig):  # and saved again
        config.save_pretrained(tmp_path)
        config = loaded_class.from_pretrained(tmp_path)
        assert type(config) is BertLongConfig
        assert config.num_labels == num_labels and len(config.id2label) == len(config.label2id) == num_labels
        assert id2label is None or config.id2label == id2label
        assert config.attention_window == window and config.window_per_layer == ([16] * 2 if window == 16 else window)
        assert config.hidden_size == 16 and config.problem_type == "regression" and not config.tie_word_embeddings
        stored = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
        assert config.auto_map == stored["auto_map"] == AUTO_MAP
    assert build(BertLongForSequenceClassification, **options).classifier.out_features == num_labels


def test_another_number_of_labels_at_loading(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    for number in (1, 2, 3):
        config = AutoConfig.from_pretrained(tmp_path, num_labels=number)
        assert config.num_labels == number == len(config.label2id)
    tiny_config(num_labels=2).save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path, num_labels=1).num_labels == 1


@pytest.mark.parametrize("case", ["odd window", "windows of other layers", "heads"])
def test_refused_at_loading_and_saving(case, tmp_path):
    options, message = BAD[case]
    build(BertLongForSequenceClassification).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        BertLongForSequenceClassification.from_pretrained(tmp_path, **options)
    config = AutoConfig.from_pretrained(tmp_path, **options)
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        config.save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="attention_windows"):
        BertLongForSequenceClassification.from_pretrained(tmp_path, attention_windows=8)


def test_one_table_per_configuration():
    one, other = BertLongConfig(), BertLongConfig()
    one.auto_map["AutoModel"] = "changed"
    assert other.auto_map == AUTO_MAP and AUTO_MAP["AutoModel"] != "changed"
