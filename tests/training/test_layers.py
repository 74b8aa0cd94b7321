"""Layers that are frozen, and layers that are reinitialized."""

import pytest
import torch

from modeling_clir import BertLongForSequenceClassification
from modeling_clir.data.collections import assign_folds
from modeling_clir.training.layers import finetune_last_layers, reinitialize_layers
from modeling_clir.training.ranking import finetune

from ..tiny import tiny_config
from .helpers import arguments, collection, fold_of, tiny_reranker


@pytest.mark.parametrize("number", [0, 1, 3])
def test_only_the_last_layers_are_trained(number, tokenizer, tmp_path):
    reranker, one = tiny_reranker(tokenizer), collection("en-de", 10)
    assign_folds([one], 0)
    finetune_last_layers(reranker.model, number)
    before = {name: tensor.clone() for name, tensor in reranker.model.state_dict().items()}
    options = {"num_train_epochs": 1, "learning_rate": 1e-2, "weight_decay": 0.1}
    finetune(reranker, fold_of(one), [one], arguments(tmp_path, **options))
    changed = {name for name, tensor in reranker.model.state_dict().items() if not tensor.equal(before[name])}
    layers = {name.split(".")[3] for name in changed if ".layer." in name}
    assert layers == {str(layer) for layer in range(3 - number, 3)}
    assert not any("embeddings" in name for name in changed)
    # The bias of the head cancels out in the pairwise loss.
    assert {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight"} <= changed


def test_too_many_layers(tokenizer):
    model = tiny_reranker(tokenizer).model
    with pytest.raises(ValueError, match="--num_finetuned_layers must be between 0 and the model's 3 layers, got 4"):
        finetune_last_layers(model, 4)
    with pytest.raises(ValueError, match="--reinit_layers must be between 0 and the model's 3 layers, got -1"):
        reinitialize_layers(model, -1, 0)


def test_layers_drawn_anew(tmp_path):
    torch.manual_seed(0)
    BertLongForSequenceClassification(tiny_config(num_labels=1)).save_pretrained(tmp_path)
    models = [BertLongForSequenceClassification.from_pretrained(tmp_path) for _ in range(2)]
    before = {name: tensor.clone() for name, tensor in models[0].state_dict().items()}
    for model in models:
        torch.rand(3)  # the seed decides, not earlier draws
        reinitialize_layers(model, 1, seed=5)
    for name, tensor in models[0].state_dict().items():
        assert tensor.equal(models[1].state_dict()[name])
        if ".layer.1." in name and name.endswith("weight") and "LayerNorm" not in name:
            assert not tensor.equal(before[name])
            assert tensor.std() == pytest.approx(0.4, rel=0.2)  # the configuration's initializer_range
        elif ".layer.1." not in name:
            assert tensor.equal(before[name])
