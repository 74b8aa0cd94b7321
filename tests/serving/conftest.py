"""A tiny reranker that is saved in a folder."""

import pytest
from transformers import AutoTokenizer

from modeling_clir.convert import bert_to_bertlong, load_bert, mark_queries
from modeling_clir.reranker import Reranker


@pytest.fixture(scope="session")
def tiny_reranker(tiny_bert, tmp_path_factory):
    """Saves a BertLong whose scores are far apart."""
    folder = tmp_path_factory.mktemp("serving") / "tiny-reranker"
    model = load_bert(tiny_bert)
    model.classifier.weight.data *= 30
    model = bert_to_bertlong(model, 128, 8)
    model.save_pretrained(folder)
    mark_queries(model, AutoTokenizer.from_pretrained(tiny_bert)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reranker(tiny_reranker):
    return Reranker.from_pretrained(tiny_reranker, max_query_length=30, max_tokens_per_batch=400)
