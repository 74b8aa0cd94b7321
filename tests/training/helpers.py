"""Makes collections, arguments and rerankers for the tests of training."""

import torch
from transformers import BertConfig, BertForSequenceClassification

from modeling_clir.data.collections import Collection
from modeling_clir.reranker import Reranker
from modeling_clir.training.folds import Fold, plan_folds
from modeling_clir.training.trainer import XLRetrievalTrainingArguments

from ..data.test_sections import raw_corpus


DOCUMENTS = {f"d{i}": " ".join(f"d{j}" for j in range(i, i + 4)) for i in range(12)}


def collection(name: str, number: int, folds=None, documents=DOCUMENTS) -> Collection:
    """Makes a collection: for query i, document i is relevant and the next is not."""
    queries = {f"q{i}": f"q{i} q{i + 1}" for i in range(number)}
    qrels = {f"q{i}": {f"d{i}": 1, f"d{(i + 1) % 12}": 0} for i in range(number)}
    return Collection(name, documents, queries, qrels, {query: list(documents) for query in queries}, folds)


def arguments(folder, **options) -> XLRetrievalTrainingArguments:
    common = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "per_device_train_batch_size": 4}
    return XLRetrievalTrainingArguments(output_dir=str(folder), **(common | options))


def tiny_reranker(tokenizer, **options) -> Reranker:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    config = BertConfig(vocab_size=len(tokenizer), initializer_range=0.3, num_labels=1, **sizes)
    return Reranker(BertForSequenceClassification(config), tokenizer, 20, 6, **options)


def fold_of(one: Collection, k: int = 0) -> Fold:
    return plan_folds([one], fold=k)[0]


def corpus_of_words(folder, number: int) -> str:
    """Writes a corpus of the words of the fixture `tokenizer`: sections i of en and de are aligned."""
    texts = {
        language: {f"{language}{i}": f"d{i} d{i + shift}. q{i} d{2 * i} d{i + 2}." for i in range(number)}
        for language, shift in (("en", 1), ("de", 30))
    }
    after = [[(i + 1) % number, (i + 2) % number] for i in range(number)]
    rows = [(f"en{i}", f"de{i}", [f"en{j}" for j in after[i]], [f"de{j}" for j in after[i]]) for i in range(number)]
    return raw_corpus(folder, texts, {"en-de": rows})
