"""Batches of worker processes. The start method spawn pickles dataset and collator."""

import multiprocessing
import os
import pickle

import pytest
import torch
from transformers import BertConfig, BertForQuestionAnswering

from modeling_clir import BertForXLRetrieval
from modeling_clir.data.collators import PretrainingCollator
from modeling_clir.data.pairs import PairEncoder
from modeling_clir.data.queries import QueryDataset
from modeling_clir.data.sections import PretrainingDataset
from modeling_clir.data.windows import TrainingWindows
from modeling_clir.reader import Reader
from modeling_clir.training.answering import AnsweringTrainer
from modeling_clir.training.pretraining import PretrainingTrainer
from modeling_clir.training.ranking import RankingTrainer

from ..data.test_sections import numbered_corpus
from .test_answering import QUESTIONS
from .test_ranking import arguments, collection, tiny_reranker


def make_trainer(kind, tokenizer, folder, **options):
    args = arguments(folder, **options)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = BertConfig(vocab_size=len(tokenizer), **sizes)
    if kind == "pretraining":
        dataset = PretrainingDataset(numbered_corpus(folder / "corpus", 9), {"qlm": ["en-de"], "rr": ["en-de"]})
        collator = PretrainingCollator(PairEncoder(tokenizer, 20, 6))
        model = BertForXLRetrieval(config)
        return PretrainingTrainer(model=model, args=args, train_dataset=dataset, data_collator=collator)
    if kind == "ranking":
        one = collection("en-de", 9)
        dataset = QueryDataset([one], {"en-de": list(one.qrels)}, num_negatives=2, seed=0)
        return RankingTrainer(tiny_reranker(tokenizer), {"en-de": one}, {}, args=args, train_dataset=dataset)
    reader = Reader(BertForQuestionAnswering(config), tokenizer, 20, 4, 4)
    return AnsweringTrainer(reader, [], TrainingWindows(QUESTIONS, reader.encoder, progress=False), args=args)


@pytest.mark.parametrize(
    "kind", ["pretraining", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("ranking", "answering"))]
)
def test_batches_of_workers_are_those_of_the_process(kind, tokenizer, tmp_path):
    options = {"dataloader_num_workers": 1, "dataloader_multiprocessing_context": "spawn"}
    alone = make_trainer(kind, tokenizer, tmp_path / "alone").get_train_dataloader()
    trainer = make_trainer(kind, tokenizer, tmp_path / "workers", **options)
    workers = trainer.get_train_dataloader()
    assert workers.multiprocessing_context.get_start_method() == "spawn" and workers.num_workers == 1
    pickle.loads(pickle.dumps(workers.batch_sampler))
    batches = list(alone)
    assert len(batches) > 2
    for expected, found in zip(batches, workers, strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            same = torch.equal(found[name], value) if isinstance(value, torch.Tensor) else found[name] == value
            assert same, name


def first_batch_of_a_worker(tokenizer, folder):
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    tokenizer(["a b"] * 1000)  # starts the threads, which the worker will not have
    options = {"dataloader_num_workers": 1, "dataloader_multiprocessing_context": "fork"}
    trainer = make_trainer("pretraining", tokenizer, folder, **options)
    next(iter(trainer.get_train_dataloader()))


def test_workers_do_not_wait_for_threads_of_the_tokenizer(tokenizer, tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=first_batch_of_a_worker, args=(tokenizer, tmp_path))
    process.start()
    process.join(200)
    if process.is_alive():
        process.kill()
        pytest.fail("the worker never gave a batch")
    assert process.exitcode == 0
