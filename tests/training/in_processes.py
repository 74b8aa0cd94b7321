"""Trains and evaluates tiny models on several processes, and saves weights and measures."""

import multiprocessing
import os
import socket
from pathlib import Path

import torch
from accelerate import DistributedType, PartialState
from torch.distributed.fsdp import FSDPModule
from transformers import BertConfig, BertTokenizerFast

from modeling_clir import BertForXLRetrieval, BertLongForXLRetrieval
from modeling_clir.convert import bert_to_bertlong
from modeling_clir.data.collators import PretrainingCollator
from modeling_clir.data.collections import assign_folds
from modeling_clir.data.pairs import PairEncoder
from modeling_clir.data.sections import PretrainingDataset
from modeling_clir.training.pretraining import PretrainingTrainer
from modeling_clir.training.ranking import finetune

from .helpers import arguments, collection, fold_of, tiny_reranker


# Case to options; the batch is of all processes together. The corpus has 19 pairs of sections: the last batch of an
# epoch is incomplete.
CASES = {
    "plain": {},
    "accumulated": {"gradient_accumulation_steps": 2},
    "not averaged": {"average_tokens_across_devices": False, "gradient_accumulation_steps": 2},
    "tokens": {"max_tokens_per_batch": 320},
    "ranking": {},
}
ADAM = {"optim": "adamw_torch", "learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 2}
MORE = {"adam": ADAM, "resumed": ADAM}
BATCH = 8


def pretrain(
    tokenizer,
    corpus: Path,
    folder: Path,
    max_tokens_per_batch: int | None = None,
    resume_from_checkpoint=None,
    **options,
):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(vocab_size=len(tokenizer), initializer_range=0.3, num_labels=1, **sizes, **no_dropout)
    dataset = PretrainingDataset(str(corpus), {"qlm": ["en-de"], "rr": ["en-de"]}, num_negatives=2)
    trainer = PretrainingTrainer(
        model=bert_to_bertlong(BertForXLRetrieval(config), 64, 4),
        args=arguments(
            folder, **({"num_train_epochs": 1, "optim": "sgd", "learning_rate": 0.1, "save_strategy": "no"} | options)
        ),
        train_dataset=dataset,
        eval_dataset=dataset,
        processing_class=tokenizer,
        data_collator=PretrainingCollator(PairEncoder(tokenizer, 20, 6)),
        max_tokens_per_batch=max_tokens_per_batch,
    )
    trainer.train(resume_from_checkpoint)
    return trainer


def run_case(name: str, tokenizer, corpus: Path, folder: Path) -> dict:
    """Returns the `weights`, one vector, and the `measures`."""
    processes, options = int(os.environ.get("WORLD_SIZE", 1)), dict((CASES | MORE)[name])
    parts = processes * options.get("gradient_accumulation_steps", 1)
    options["per_device_train_batch_size"] = BATCH // parts
    if name == "ranking":
        one = collection("en-de", 10)
        assign_folds([one], 0)
        reranker = tiny_reranker(tokenizer)
        for module in reranker.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        options |= {"num_train_epochs": 2, "optim": "sgd", "learning_rate": 0.1}
        _, history, _ = finetune(reranker, fold_of(one), [one], arguments(folder, **options))
        model, measures = reranker.model, {str(epoch): value for epoch, value in enumerate(history)}
    else:
        if "max_tokens_per_batch" in options:
            options["max_tokens_per_batch"] //= processes
        trainer = pretrain(tokenizer, corpus, folder, **options)
        if name == "resumed":
            trainer = pretrain(
                tokenizer, corpus, folder, resume_from_checkpoint=str(folder / "checkpoint-2"), **options
            )
        model = trainer.model
        measures = {name: value for name, value in trainer.evaluate().items() if "qlm" in name or "rr" in name}
    if isinstance(model, FSDPModule):
        trainer.save_model()
        trainer.accelerator.wait_for_everyone()
        model = BertLongForXLRetrieval.from_pretrained(folder)
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    return {"weights": weights, "measures": measures}


def main(words: str, corpus: str, output: str, names: list[str] = tuple(CASES)):
    torch.set_num_threads(1)
    tokenizer = BertTokenizerFast(words, do_lower_case=True)
    found = {name: run_case(name, tokenizer, Path(corpus), Path(output) / name) for name in names}
    if os.environ.get("RANK", "0") == "0":
        torch.save(found, Path(output) / "found.pt")


def let_cpus_shard():
    """Makes accelerate shard on CPUs: it does so on GPUs only, but torch can."""
    init = PartialState.__init__

    def init_as_gpus(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = init_as_gpus


def main_of_process(environment: dict[str, str], errors: Path, *arguments):
    os.environ.update(environment)
    if "ACCELERATE_USE_FSDP" in environment:
        let_cpus_shard()
    with errors.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 2)
        main(*arguments)


def start(processes: int, words: Path, corpus: str, output: Path, names: list[str] = tuple(CASES), **environment):
    """Runs `main` on several processes of gloo. Their common parent imports everything once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1"}
    started = []
    for rank in range(processes):
        own = environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        arguments = (own, output / f"errors-{rank}", str(words), corpus, str(output), names)
        started.append(context.Process(target=main_of_process, args=arguments))
        started[-1].start()
    for process in started:
        process.join(200)
        process.kill()
    errors = [path.read_text(encoding="utf-8")[-2000:] for path in sorted(output.glob("errors-*"))]
    assert [process.exitcode for process in started] == [0] * processes, errors
