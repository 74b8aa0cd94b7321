#!/usr/bin/env python
"""
Pretrains a cross-lingual reranker with query language modelling (QLM) and relevance ranking (RR).

    accelerate launch run_pretraining.py --config recipes/demo.yaml [--flag value ...]
"""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoConfig, set_seed
from transformers.trainer_utils import get_last_checkpoint

from modeling_clir import BertForXLRetrieval, BertLongConfig, BertLongForXLRetrieval
from modeling_clir.convert import bert_to_bertlong, load_model, mark_queries
from modeling_clir.data.collators import MASK_MODES, PretrainingCollator
from modeling_clir.data.pairs import PairEncoder
from modeling_clir.data.sections import PretrainingDataset, parse_pairs
from modeling_clir.loading import check_labels, fit_tokenizer, load_tokenizer, longest_input, read_config
from modeling_clir.training.arguments import parse_arguments, start_logging
from modeling_clir.training.launch import start_all_processes
from modeling_clir.training.plots import plot_learning_curve
from modeling_clir.training.pretraining import PretrainingTrainer
from modeling_clir.training.trainer import XLRetrievalTrainingArguments


logger = logging.getLogger("run_pretraining")


@dataclass
class ModelArguments:
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "a BertLong checkpoint, or a BERT, which is converted to BertLong on the fly"}
    )
    config_name: str | None = field(default=None, metadata={"help": "train from scratch with this config"})
    tokenizer_name: str | None = field(default=None, metadata={"help": "defaults to the model's"})
    keep_bert: bool = field(default=False, metadata={"help": "train a BERT as a BERT, without conversion"})
    max_position_embeddings: int = field(default=1024, metadata={"help": "of a BERT that is converted"})
    attention_window: int = field(default=64, metadata={"help": "of a BERT that is converted"})

    def __post_init__(self):
        if (self.model_name_or_path is None) == (self.config_name is None):
            raise ValueError("pass either --model_name_or_path, or --config_name and --tokenizer_name (from scratch)")
        if self.config_name is not None and self.tokenizer_name is None:
            raise ValueError("--config_name needs --tokenizer_name")


@dataclass
class DataArguments:
    corpus: str = field(metadata={"help": "folder or Hub dataset; scripts/build_corpus.py writes one"})
    qlm_pairs: str = field(
        default="", metadata={"help": "language pairs of QLM, as en-de,en-fr; both directions of each"}
    )
    rr_pairs: str = field(default="", metadata={"help": "language pairs of RR"})
    max_pairs: int | None = field(default=None, metadata={"help": "sample so many aligned pairs per language pair"})
    max_eval_pairs: int | None = field(default=200, metadata={"help": "held-out pairs per language pair"})
    num_negatives: int = field(default=1, metadata={"help": "negatives of an RR example"})
    num_eval_negatives: int = field(default=3, metadata={"help": "negatives of a held-out RR example"})
    mask_mode: str = field(default="query", metadata={"help": "what QLM masks: query, document or mixed"})
    mask_probability: float = field(default=0.3, metadata={"help": "share of tokens that QLM masks"})
    max_length: int | None = field(default=None, metadata={"help": "longest pair in tokens; defaults to the model's"})
    max_query_length: int = field(default=128, metadata={"help": "longest query in tokens"})
    max_tokens_per_batch: int | None = field(
        default=None, metadata={"help": "tokens of a batch, in place of --per_device_train_batch_size examples"}
    )

    def __post_init__(self):
        if self.mask_mode not in MASK_MODES:
            raise ValueError(f"--mask_mode must be one of {', '.join(MASK_MODES)}, got {self.mask_mode!r}")
        self.pairs = {"qlm": parse_pairs(self.qlm_pairs), "rr": parse_pairs(self.rr_pairs)}
        if not any(self.pairs.values()):
            raise ValueError("nothing to train: pass --qlm_pairs, --rr_pairs or both")
        if self.pairs["rr"] and self.num_negatives < 1:
            raise ValueError(f"--num_negatives must be at least 1 for RR, got {self.num_negatives}")
        if self.pairs["rr"] and self.num_eval_negatives < 1:
            raise ValueError(f"--num_eval_negatives must be at least 1 for RR, got {self.num_eval_negatives}")


def main():
    # 1. Processes; arguments, checked before anything is loaded
    start_all_processes()
    dataclass_types = (ModelArguments, DataArguments, XLRetrievalTrainingArguments)
    model_args, data_args, training_args = parse_arguments(dataclass_types, sys.argv[1:])
    start_logging(logger, training_args.should_log)
    checkpoint = training_args.resume_from_checkpoint
    if checkpoint is not None and checkpoint.lower() == "true":
        checkpoint = get_last_checkpoint(training_args.output_dir) if Path(training_args.output_dir).is_dir() else None
        if checkpoint is None:
            raise ValueError(f"--resume_from_checkpoint: {training_args.output_dir} holds no checkpoint")
    if checkpoint is not None and not Path(checkpoint).is_dir():
        raise ValueError(f"--resume_from_checkpoint: there is no folder {checkpoint}")
    if not training_args.do_train and not training_args.do_eval:
        raise ValueError("nothing to do: pass --do_train, --do_eval or both")
    output = Path(training_args.output_dir)
    if training_args.do_train and checkpoint is None and list(output.glob("checkpoint-*")):
        raise ValueError(
            f"{output} holds checkpoints of an earlier run: pass --resume_from_checkpoint true, or another --output_dir"
        )
    set_seed(training_args.seed)

    # 2. Data
    common = {"corpus": data_args.corpus, "pairs": data_args.pairs, "seed": training_args.seed}
    train = PretrainingDataset(num_negatives=data_args.num_negatives, max_pairs=data_args.max_pairs, **common)
    held_out = None
    if training_args.do_eval:
        held_out = PretrainingDataset(
            split="validation",
            num_negatives=data_args.num_eval_negatives,
            max_pairs=data_args.max_eval_pairs,
            **common,
        )
    for split, dataset in {"training": train, "held out": held_out}.items():
        if dataset is not None:
            sizes = ", ".join(f"{task} {pair} {size}" for (task, pair), size in dataset.sizes.items())
            logger.info(f"aligned sections, {split}: {sizes}")

    # 3. Model and tokenizer
    source = model_args.model_name_or_path or model_args.config_name
    read_config(source)  # says clearly where there is none
    tokenizer = load_tokenizer(model_args.tokenizer_name or source)
    if model_args.model_name_or_path is None:
        config = AutoConfig.from_pretrained(source)
        classes = {"bert": BertForXLRetrieval, BertLongConfig.model_type: BertLongForXLRetrieval}
        if config.model_type not in classes:
            raise ValueError(f"--config_name must be of type {' or '.join(classes)}, got {config.model_type}")
        config.num_labels = 1
        config.name_or_path = ""  # a new model has no base
        model = classes[config.model_type](config)
    else:
        model = load_model(source)
    if isinstance(model, BertForXLRetrieval) and not model_args.keep_bert:
        model = bert_to_bertlong(model, model_args.max_position_embeddings, model_args.attention_window)
        tokenizer = mark_queries(model, tokenizer)
    check_labels(model)
    fit_tokenizer(tokenizer, model)
    tokenizer.model_max_length = model.config.max_position_embeddings
    max_length = longest_input(model, tokenizer, data_args.max_length)

    # 4. Train
    trainer = PretrainingTrainer(
        model=model,
        args=training_args,
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=tokenizer,
        data_collator=PretrainingCollator(
            PairEncoder(tokenizer, max_length, data_args.max_query_length),
            data_args.mask_mode if data_args.pairs["qlm"] else None,
            data_args.mask_probability,
        ),
        max_tokens_per_batch=data_args.max_tokens_per_batch,
    )
    if training_args.do_train:
        result = trainer.train(resume_from_checkpoint=checkpoint)
        trainer.save_model()
        trainer.save_metrics("train", result.metrics)

    # 5. Evaluate
    if training_args.do_eval:
        metrics = trainer.evaluate()
        trainer.save_metrics("eval", metrics)
        if trainer.is_world_process_zero():
            for name in ("eval_qlm_loss", "eval_qlm_accuracy", "eval_rr_accuracy", "eval_rr_mrr"):
                if name in metrics:
                    print(f"{name} {metrics[name]:.4f}")

    # 6. Log history, learning curve, model card, Hub
    if training_args.do_train:
        trainer.save_state()
    if training_args.do_train and trainer.is_world_process_zero():
        plot_learning_curve(trainer.state.log_history, output / "learning_curve.png")
        trainer.create_model_card()
    if training_args.push_to_hub:
        trainer.push_to_hub()


if __name__ == "__main__":
    main()
