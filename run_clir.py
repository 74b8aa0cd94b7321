#!/usr/bin/env python
"""
Reranks collections for cross-lingual retrieval, after finetuning on their training queries with --do_train.

    python run_clir.py --model_name_or_path MODEL --collections data/en-de data/de-en --output_dir results/clir

Writes {collection}.run (TREC) for each collection and metrics.json.
"""

import json
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification, set_seed

from modeling_clir.convert import load_model, load_with_report, read_config
from modeling_clir.data.collators import PretrainingCollator
from modeling_clir.data.collections import read_collection
from modeling_clir.data.pairs import PairEncoder, load_tokenizer
from modeling_clir.data.queries import QueryDataset
from modeling_clir.evaluation.ranking import evaluate_run, rank_collection, write_run
from modeling_clir.quantization import quantize_int8
from modeling_clir.reranker import Reranker
from modeling_clir.training.arguments import parse_arguments
from modeling_clir.training.launch import start_all_processes
from modeling_clir.training.trainer import XLRetrievalTrainer, XLRetrievalTrainingArguments


logger = logging.getLogger("run_clir")


@dataclass
class Arguments:
    model_name_or_path: str = field(metadata={"help": "a checkpoint with a relevance head"})
    collections: list[str] = field(metadata={"help": "folders: documents.jsonl, queries.tsv, qrels.txt"})
    fold: int | None = field(
        default=None, metadata={"help": "test on this fold of the queries; --do_train takes others"}
    )
    num_negatives: int = field(default=1, metadata={"help": "negatives of a training query"})
    max_length: int | None = field(default=None, metadata={"help": "longest pair in tokens; defaults to the model's"})
    max_query_length: int = field(default=128, metadata={"help": "longest query in tokens"})
    max_tokens_per_batch: int = field(default=8192, metadata={"help": "tokens that are ranked together"})
    dtype: Literal["float32", "bfloat16", "int8"] = field(
        default="float32", metadata={"help": "precision of ranking; int8 on a CPU only"}
    )


def main():
    # 1. Processes; arguments and data, checked before the model is loaded
    start_all_processes()
    args, training_args = parse_arguments((Arguments, XLRetrievalTrainingArguments), sys.argv[1:])
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    logger.setLevel(logging.INFO)
    transformers.utils.logging.enable_default_handler()
    set_seed(training_args.seed)
    if training_args.do_train and args.fold is None:
        raise ValueError("--do_train needs --fold, or it would test on the queries it trains on")
    if training_args.do_train and args.num_negatives < 1:
        raise ValueError(f"--num_negatives must be at least 1, got {args.num_negatives}")
    if args.dtype == "int8" and training_args.device.type != "cpu":
        raise ValueError("--dtype int8 is for CPUs: add --use_cpu")
    collections = [read_collection(Path(folder)) for folder in args.collections]
    if len({collection.name for collection in collections}) < len(collections):
        raise ValueError("two of the collections' folders have the same name, which names their results")
    splits = {c.name: c.split(args.fold, training_args.seed) for c in collections} if args.fold is not None else {}

    # 2. Model and tokenizer
    read_config(args.model_name_or_path)  # says clearly where there is none
    tokenizer = load_tokenizer(args.model_name_or_path)
    limit = AutoConfig.from_pretrained(args.model_name_or_path).max_position_embeddings
    if (args.max_length or limit) > limit:
        raise ValueError(f"--max_length {args.max_length} is more than the model's {limit} positions")
    encoder = PairEncoder(tokenizer, args.max_length or limit, args.max_query_length)
    output = Path(training_args.output_dir)

    # 3. Finetune with a ranking loss
    if training_args.do_train:
        trainer = XLRetrievalTrainer(
            model=load_model(args.model_name_or_path),
            args=training_args,
            train_dataset=QueryDataset(
                collections,
                {name: train for name, (train, _, _) in splits.items()},
                args.num_negatives,
                training_args.seed,
            ),
            processing_class=tokenizer,
            data_collator=PretrainingCollator(encoder),
        )
        trainer.train()
        trainer.save_model()
    source = training_args.output_dir if training_args.do_train else args.model_name_or_path
    model, missing = load_with_report(AutoModelForSequenceClassification, source, AutoConfig.from_pretrained(source))
    if "classifier.weight" in missing:
        logger.warning(f"{source} has no relevance head: a new one ranks at random")
    if args.dtype == "int8":
        quantize_int8(model)
    else:
        model.to(training_args.device, getattr(torch, args.dtype))
    reranker = Reranker(model, tokenizer, encoder.max_length, encoder.max_query_length, args.max_tokens_per_batch)

    # 4. Rank and measure, on one process
    if training_args.process_index > 0:
        return
    output.mkdir(parents=True, exist_ok=True)
    metrics = {}
    for collection in collections:
        queries = splits[collection.name][2] if splits else list(collection.qrels)
        run, counts = rank_collection(reranker, collection, queries)
        write_run(run, output / f"{collection.name}.run", tag="modeling_clir")
        measured = evaluate_run(run, {query: collection.qrels[query] for query in queries})
        metrics[collection.name] = measured | {"queries": len(queries)} | counts
        print(
            collection.name, *(f"{name} {value:.4f}" for name, value in measured.items()), f"({len(queries)} queries)"
        )
    with open(output / "metrics.json", "w", encoding="utf-8") as file:
        json.dump(metrics, file, indent=2)


if __name__ == "__main__":
    main()
