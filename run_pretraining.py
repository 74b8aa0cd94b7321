#!/usr/bin/env python
"""
Pretrains a cross-lingual reranker with query language modelling (QLM) and relevance ranking (RR).

    accelerate launch run_pretraining.py --config recipes/demo.yaml [--flag value ...]

An output folder belongs to one command. If the same command is given again with --resume_from_checkpoint true, it
continues a killed run from its last complete checkpoint, or starts if there is none. It does nothing for a finished
one. Other options are refused. To train longer, or with other options, pass a checkpoint (--resume_from_checkpoint
FOLDER/checkpoint-N) and another --output_dir.
"""

import logging
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from modeling_clir.names import check_name, parse_pairs
from modeling_clir.program import run_program
from modeling_clir.training.arguments import LoadingArguments, parse_arguments, start_logging
from modeling_clir.training.launch import start_all_processes
from modeling_clir.training.options import check_options, choose_metric


logger = logging.getLogger("run_pretraining")


@dataclass
class ModelArguments:
    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "folder or Hub name of any encoder; a BERT is converted to BertLong, unless --keep_bert"},
    )
    config_name: str | None = field(default=None, metadata={"help": "train from scratch with this config"})
    tokenizer_name: str | None = field(default=None, metadata={"help": "defaults to the model's"})
    keep_bert: bool = field(default=False, metadata={"help": "train a BERT as a BERT, without conversion"})
    max_position_embeddings: int = field(default=1024, metadata={"help": "positions of a converted BERT"})
    attention_window: int = field(default=64, metadata={"help": "window of a converted BERT"})

    def __post_init__(self):
        if (self.model_name_or_path is None) == (self.config_name is None):
            raise ValueError("pass either --model_name_or_path, or --config_name and --tokenizer_name (from scratch)")
        if self.config_name is not None and self.tokenizer_name is None:
            raise ValueError("--config_name needs --tokenizer_name")
        for name in (self.model_name_or_path, self.config_name, self.tokenizer_name):
            if name is not None:
                check_name(name, "model")


@dataclass
class DataArguments:
    corpus: str = field(metadata={"help": "folder or Hub dataset; scripts/build_corpus.py writes one"})
    qlm_pairs: str = field(
        default="", metadata={"help": "language pairs of QLM, such as en-de,en-fr; each stands for both directions"}
    )
    rr_pairs: str = field(default="", metadata={"help": "language pairs of RR"})
    max_pairs: int | None = field(default=None, metadata={"help": "sample this many aligned pairs per language pair"})
    max_eval_pairs: int | None = field(default=200, metadata={"help": "held-out pairs per language pair"})
    num_negatives: int = field(default=1, metadata={"help": "negatives of an RR example"})
    num_eval_negatives: int = field(default=3, metadata={"help": "negatives of a held-out RR example"})
    mask_mode: Literal["query", "document", "mixed"] = field(default="query", metadata={"help": "what QLM masks"})
    mask_probability: float = field(default=0.3, metadata={"help": "share of tokens that QLM masks"})
    max_length: int | None = field(default=None, metadata={"help": "longest pair in tokens; defaults to the model's"})
    max_query_length: int = field(default=128, metadata={"help": "longest query in tokens"})
    max_tokens_per_batch: int | None = field(
        default=None,
        metadata={"help": "training: tokens per batch, negatives included (replaces --per_device_train_batch_size)"},
    )

    def __post_init__(self):
        self.pairs = {"qlm": parse_pairs(self.qlm_pairs), "rr": parse_pairs(self.rr_pairs)}
        if not any(self.pairs.values()):
            raise ValueError("nothing to train: pass --qlm_pairs, --rr_pairs or both")
        if self.pairs["rr"] and self.num_negatives < 1:
            raise ValueError(f"--num_negatives must be at least 1 for RR, got {self.num_negatives}")
        if self.pairs["rr"] and self.num_eval_negatives < 1:
            raise ValueError(f"--num_eval_negatives must be at least 1 for RR, got {self.num_eval_negatives}")
        check_name(self.corpus, "corpus")


def main():
    # 1. Processes; arguments, checked before anything is loaded
    start_all_processes()
    types = (ModelArguments, DataArguments, LoadingArguments)
    model_args, data_args, loading, training_args = parse_arguments(types, sys.argv[1:], __doc__)
    check_options(training_args, "run_pretraining.py")
    choose_metric(training_args, data_args.pairs)

    # Imported here, so that help and mistakes in the arguments are answered at once
    from transformers import set_seed

    from modeling_clir.both_heads import retrieval_class, without_language_model
    from modeling_clir.convert import bert_to_bertlong, load_model, mark_queries
    from modeling_clir.data.collators import PretrainingCollator
    from modeling_clir.data.pairs import PairEncoder
    from modeling_clir.data.sections import PretrainingDataset
    from modeling_clir.loading import (
        check_forward,
        check_labels,
        check_pretraining,
        fit_tokenizer,
        has_language_model,
        load_both_heads,
        longest_input,
    )
    from modeling_clir.precision import scores_in_float32
    from modeling_clir.spans_bertlong import max_positions
    from modeling_clir.training.plots import plot_learning_curve
    from modeling_clir.training.pretraining import PretrainingTrainer
    from modeling_clir.training.publishing import Publication
    from modeling_clir.training.resuming import (
        check_output,
        checkpoint_to_resume,
        claim_output,
        is_finished,
        train_to_the_end,
    )

    start_logging(logger, training_args)
    if not training_args.do_train and not training_args.do_eval:
        raise ValueError("nothing to do: pass --do_train, --do_eval or both")
    set_seed(training_args.seed)
    languages = [one for pairs in data_args.pairs.values() for pair in pairs for one in pair.split("-")]
    publication = Publication("run_pretraining.py", (model_args, data_args, loading), training_args, languages)

    # 2. The output folder belongs to this command; configuration and tokenizer; data
    output = Path(training_args.output_dir)
    options = {name: value for part in (model_args, data_args) for name, value in asdict(part).items()}
    options |= loading.settings
    files = check_output(output, "run_pretraining.py", options, training_args)
    finished = training_args.do_train and is_finished(training_args)
    checkpoint = checkpoint_to_resume(training_args) if training_args.do_train else None
    evaluated = finished and (output / "eval_results.json").is_file()
    if finished:
        logger.info(f"{output} is finished")
        if (evaluated or not training_args.do_eval) and (output / "README.md").is_file():
            publication.push()
            return
        training_args.lora_rank = None  # the saved model has the adapters merged
    source, qlm = model_args.model_name_or_path or model_args.config_name, bool(data_args.pairs["qlm"])
    config, tokenizer = check_pretraining(source, model_args.tokenizer_name, qlm, **loading.options)
    if training_args.lora_rank is not None and model_args.config_name is not None:
        raise ValueError("--lora_rank trains a model further: pass --model_name_or_path, not --config_name")
    if training_args.lora_save == "adapter" and config.model_type == "bert" and not model_args.keep_bert:
        raise ValueError(
            f"--lora_save adapter needs the model that it adapts on the disk: convert {source} first with python -m "
            "modeling_clir.convert"
        )
    language_model = model_args.model_name_or_path is None or has_language_model(source, config, **loading.options)
    if qlm and not language_model:
        raise ValueError(
            f"{source} has no head of a masked language model, which QLM trains further: leave out --qlm_pairs, or "
            "choose a checkpoint with that head"
        )
    common = {"corpus": data_args.corpus, "pairs": data_args.pairs, "seed": training_args.seed}
    train, held_out = None, None
    if training_args.do_train:
        train = PretrainingDataset(
            num_negatives=data_args.num_negatives,
            max_pairs=data_args.max_pairs,
            teacher_scores=training_args.needs_teacher,
            **common,
        )
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

    # 3. Model
    if model_args.model_name_or_path is None:
        config.num_labels = 1
        config.name_or_path = ""  # a new model has no base
        model = scores_in_float32(retrieval_class(config, qlm)(config))
    elif config.model_type == "bert":
        model = load_model(source, **loading.options)
    else:
        model = load_both_heads(source, config, language_model, **loading.options)
    if config.model_type == "bert" and not model_args.keep_bert:
        model = bert_to_bertlong(model, model_args.max_position_embeddings, model_args.attention_window)
        tokenizer = mark_queries(model, tokenizer)
    if not language_model:
        model = without_language_model(model)
    check_labels(model)
    fit_tokenizer(tokenizer, model)
    check_forward(model.eval(), tokenizer, task="rr")
    tokenizer.model_max_length = max_positions(model)
    max_length = longest_input(model, tokenizer, data_args.max_length)

    # 4. Train
    claim_output(output, files, training_args)
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
        state = train_to_the_end(trainer, checkpoint)
        if not finished:
            trainer.save_model()
            last = state.log_history[-1] if state.log_history else {}
            if "train_runtime" in last:  # not if the run was killed after the last step
                trainer.save_metrics("train", last)
            trainer.save_state()  # last: from now on the training is finished

    # 5. Evaluate
    if training_args.do_eval and not evaluated:
        metrics = trainer.evaluate()
        if training_args.do_train:
            trainer.save_state()  # with the evaluation
        trainer.save_metrics("eval", metrics)
        if trainer.is_world_process_zero():
            for name in ("eval_qlm_loss", "eval_qlm_accuracy", "eval_rr_accuracy", "eval_rr_mrr"):
                if name in metrics:
                    print(f"{name} {metrics[name]:.4f}")

    # 6. Learning curve, model card, Hub
    if training_args.do_train and trainer.is_world_process_zero():
        plot_learning_curve(trainer.state.log_history, output / "learning_curve.png")
        trainer.create_model_card(publication.facts(), model_args.model_name_or_path, data_args.corpus)
    publication.push()


if __name__ == "__main__":
    run_program(main)
