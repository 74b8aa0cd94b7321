#!/usr/bin/env python
"""
Reranks collections for cross-lingual retrieval. With --do_train it first finetunes the model on folds of the queries
and tests each fold once (Yu, Fei, Li 2021).

    python run_clir.py --model_name_or_path MODEL --collections data/en-de data/de-en --output_dir results/clir
    accelerate launch run_clir.py --do_train --model_name_or_path MODEL --collections data/en-de --output_dir
    results/de

Writes {collection}.run (TREC) and {collection}.csv (measures of each query) for each collection, and metrics.json.
With --do_train it also writes a card, and with --final_model one model of all queries.
With --first_stage_weight the runs are of the sum of both scores; {collection}.reranker.run has the reranker's alone.

An output folder belongs to one command. If the same command with --do_train is given again, it continues a killed run.
Other options are refused, except --fold: the results are those of all folds that are finished in the folder.
"""

import json
import logging
import math
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from modeling_clir.data.collections import check_folder, check_teacher
from modeling_clir.names import check_name, check_path
from modeling_clir.program import fix_rounding, run_program
from modeling_clir.training.arguments import LoadingArguments, parse_arguments, start_logging
from modeling_clir.training.launch import start_all_processes
from modeling_clir.training.options import check_options


logger = logging.getLogger("run_clir")


@dataclass
class Arguments:
    model_name_or_path: str = field(
        metadata={"help": "folder or Hub name of any encoder; without --do_train it needs a relevance head"}
    )
    collections: list[str] = field(metadata={"help": "folders with documents.jsonl, queries.tsv, qrels.txt"})
    candidates: list[str] | None = field(
        default=None,
        metadata={
            "help": "TREC runs to rerank, one for each of --collections; they replace the folders' candidates.run"
        },
    )
    train_collections: list[str] | None = field(
        default=None, metadata={"help": "folders to train on; tests all queries of --collections"}
    )
    fold: int | None = field(default=None, metadata={"help": "run this test fold only; all folds by default"})
    final_model: bool = field(
        default=False,
        metadata={
            "help": "also train the model to use on all queries but one fold, which chooses the epoch, and save it in "
            "--output_dir; with --train_collections save the one model there"
        },
    )
    num_negatives: int = field(default=1, metadata={"help": "negatives per training query, judged ones first"})
    num_finetuned_layers: int | None = field(
        default=None,
        metadata={"help": "train only this many last layers, the pooler and the head; all layers by default"},
    )
    reinit_layers: int = field(default=0, metadata={"help": "reinitialize this many last layers before training"})
    head_learning_rate: float | None = field(default=None, metadata={"help": "defaults to --learning_rate"})
    max_length: int | None = field(default=None, metadata={"help": "longest pair in tokens; defaults to the model's"})
    max_query_length: int = field(default=128, metadata={"help": "longest query in tokens"})
    first_stage_weight: str | None = field(
        default=None,
        metadata={
            "help": "add this number times the score of candidates.run to the reranker's score; tune chooses the "
            "number by MAP on the development fold; defaults to --train_first_stage_weight"
        },
    )
    train_first_stage_weight: float | None = field(
        default=None,
        metadata={
            "help": "train as a correction of the first stage: the loss is of the sum with this number times the score "
            "of candidates.run"
        },
    )
    long_documents: Literal["truncate", "maxp"] = field(
        default="truncate",
        metadata={"help": "truncate cuts a long document; maxp takes the best score of its passages"},
    )
    max_tokens_per_batch: int = field(
        default=8192, metadata={"help": "ranking: tokens per batch of pairs; does not change training"}
    )
    dtype: Literal["float32", "bfloat16", "int8"] = field(
        default="float32", metadata={"help": "precision of ranking; int8 needs a CPU"}
    )

    def __post_init__(self):
        check_name(self.model_name_or_path, "model")
        if self.head_learning_rate is not None and self.head_learning_rate < 0:
            raise ValueError(f"--head_learning_rate must not be negative, got {self.head_learning_rate}")
        if self.first_stage_weight is None and self.train_first_stage_weight is not None:
            self.first_stage_weight = str(self.train_first_stage_weight)
        if self.train_first_stage_weight is not None and not is_weight(self.train_first_stage_weight):
            raise ValueError(f"--train_first_stage_weight must be 0 or more, got {self.train_first_stage_weight}")
        if self.first_stage_weight not in (None, "tune") and not is_weight(self.first_stage_weight):
            raise ValueError(
                f"--first_stage_weight must be a number of 0 or more, or tune, got {self.first_stage_weight}"
            )
        for folder in self.collections:
            check_folder(Path(folder))
        for path in self.candidates or []:
            check_path(path)


def is_weight(value: str | float) -> bool:
    try:
        return 0 <= float(value) < math.inf
    except ValueError:
        return False


def main():
    # 1. Processes; arguments and data, checked before a model is loaded
    fix_rounding()
    start_all_processes()
    args, loading, training_args = parse_arguments((Arguments, LoadingArguments), sys.argv[1:], __doc__)
    check_options(training_args, "run_clir.py")
    if training_args.do_train and training_args.needs_teacher:
        for folder in args.train_collections or args.collections:
            check_teacher(Path(folder))

    # Imported here, so that help and mistakes in the arguments are answered at once
    import torch
    from transformers import set_seed

    from modeling_clir.data.collections import assign_folds, count_pairs, read_collection
    from modeling_clir.data.files import new_file
    from modeling_clir.data.runs import write_run
    from modeling_clir.evaluation.ranking import MEASURES, write_queries
    from modeling_clir.loading import check_checkpoint
    from modeling_clir.quantization import quantize_int8
    from modeling_clir.reranker import Reranker
    from modeling_clir.training.folds import (
        Fold,
        FoldResult,
        join_runs,
        measure_folds,
        plan_final,
        plan_folds,
        rank_fold,
        read_result,
        with_finished,
        write_result,
    )
    from modeling_clir.training.layers import finetune_last_layers, reinitialize_layers
    from modeling_clir.training.plots import plot_development
    from modeling_clir.training.publishing import Publication
    from modeling_clir.training.ranking import collection_languages, finetune, save_reranker, write_card
    from modeling_clir.training.resuming import check_output, claim_output

    start_logging(logger, training_args)
    set_seed(training_args.seed)
    if training_args.do_train and args.num_negatives < 1:
        raise ValueError(f"--num_negatives must be at least 1, got {args.num_negatives}")
    if training_args.lora_rank is not None and args.num_finetuned_layers is not None:
        raise ValueError("--lora_rank trains adapters of all layers: leave out --num_finetuned_layers")
    if args.final_model and not training_args.do_train:
        raise ValueError("--final_model needs --do_train")
    if training_args.push_to_hub and not args.final_model:
        raise ValueError("--push_to_hub uploads one model: add --do_train and --final_model")
    if args.train_collections and not training_args.do_train:
        raise ValueError("--train_collections needs --do_train")
    if args.train_first_stage_weight is not None and not training_args.do_train:
        raise ValueError("--train_first_stage_weight needs --do_train")
    if args.train_first_stage_weight is not None and training_args.rr_loss == "pointwise":
        raise ValueError("--train_first_stage_weight needs a loss that compares documents: --rr_loss is pointwise")
    if args.first_stage_weight == "tune" and not training_args.do_train:
        raise ValueError(
            "--first_stage_weight tune chooses by the development fold, which only --do_train has: pass a number"
        )
    if args.dtype == "int8" and training_args.device.type != "cpu":
        raise ValueError("--dtype int8 is for CPUs: add --use_cpu")
    check_checkpoint(args.model_name_or_path, "rank", **loading.options)
    runs = args.candidates or [None] * len(args.collections)
    if len(runs) != len(args.collections):
        raise ValueError(
            f"--candidates takes a run of each of --collections, got {len(runs)} of {len(args.collections)}"
        )
    collections = [read_collection(Path(folder), run and Path(run)) for folder, run in zip(args.collections, runs)]
    sources = [read_collection(Path(folder)) for folder in args.train_collections or []]
    everything = collections + sources
    if len({collection.name for collection in everything}) < len(everything):
        raise ValueError("two of the collections' folders have the same name, which would name the same results")
    developed = args.train_first_stage_weight is not None or args.first_stage_weight == "tune"
    for collection in (everything if developed else collections) if args.first_stage_weight is not None else ():
        if collection.first_stage is None:
            raise ValueError(
                f"--first_stage_weight adds the scores of candidates.run, which {collection.name} lacks: write it "
                "with scripts/first_stage.py, or pass --candidates"
            )
    count_pairs(everything)

    # 2. Folds; the output folder belongs to this command, whichever fold it runs
    assign_folds(everything, training_args.seed)
    output = Path(training_args.output_dir)
    if training_args.do_train:
        folds = plan_folds(collections, sources, args.fold)
    else:
        queries = {c.name: list(c.qrels) if args.fold is None else c.split(args.fold)[2] for c in collections}
        folds = [Fold("zero-shot", {}, {}, queries)]
    transfer = folds[0].name == "transfer"
    final = plan_final(sources or collections) if args.final_model and not transfer else None
    options = asdict(args) | loading.settings
    del options["final_model"]  # it adds a model and changes no result
    if training_args.do_train:
        options["fold"] = "transfer" if transfer else "any"
    files = check_output(output, "run_clir.py", options, training_args, everything if training_args.do_train else [])
    publication = Publication("run_clir.py", (args, loading), training_args, collection_languages(everything))
    claim_output(output, files, training_args)

    # 3. Finetune and rank each fold that is not finished
    lengths = (args.max_length, args.max_query_length, args.max_tokens_per_batch, args.long_documents)
    keep_adapter = training_args.lora_save == "adapter"

    def open_base() -> Reranker:
        return Reranker.from_pretrained(args.model_name_or_path, *lengths, new_head=True, **loading.options)

    def train(fold: Fold) -> tuple[Path, list[float], float | None]:
        if training_args.should_save:
            (output / "README.md").unlink(missing_ok=True)  # a card of fewer models
        reranker = open_base()
        reinitialize_layers(reranker.model, args.reinit_layers, training_args.seed)
        if args.num_finetuned_layers is not None:
            finetune_last_layers(reranker.model, args.num_finetuned_layers)
        return finetune(
            reranker,
            fold,
            sources or collections,
            training_args,
            args.num_negatives,
            args.head_learning_rate,
            args.train_first_stage_weight,
            args.first_stage_weight == "tune",
        )

    results = []
    for fold in folds:
        folder = output / fold.name
        if training_args.do_train and (finished := read_result(folder, collections)):
            logger.info(f"{fold.name} is finished")
            results.append(finished)
            continue
        development, tuned = [], None
        if training_args.do_train:
            source, development, tuned = train(fold)
            reranker = Reranker.from_pretrained(source, *lengths)
            if training_args.should_save:
                save_reranker(reranker, folder, source if keep_adapter else None)
        else:
            reranker = open_base()
        if args.dtype == "int8":
            quantize_int8(reranker.model)
        else:
            reranker.model.to(training_args.device, getattr(torch, args.dtype))
        weight = args.first_stage_weight
        if weight is not None:
            weight = tuned if weight == "tune" else float(weight)
        results.append(rank_fold(reranker, fold, collections, development, weight))
        if training_args.do_train and training_args.should_save:
            write_result(results[-1], folder)

    # 4. The model of all queries
    of_final = None
    if final is not None:
        of_final = read_result(output / final.name, [])
        if of_final is None:
            source, development, _ = train(final)
            of_final = FoldResult({}, {}, development)
            if training_args.should_save:
                save_reranker(Reranker.from_pretrained(source, *lengths), output, source if keep_adapter else None)
                write_result(of_final, output / final.name)

    # 5. Measure all queries together, and each fold
    if not training_args.should_save:
        return
    if training_args.do_train:
        folds, results = with_finished(folds, results, collections, output)
    metrics = {}
    for collection in collections:
        name = collection.name
        run, measured, metrics[name] = measure_folds(collection, folds, results)
        write_run(run, output / f"{name}.run", tag="modeling_clir")
        write_queries(measured, output / f"{name}.csv")
        if args.first_stage_weight is not None:
            alone = join_runs(collection, [result.reranker_runs[name] for result in results])
            write_run(alone, output / f"{name}.reranker.run", tag="modeling_clir")
        for fold, values in metrics[name].get("folds", {}).items():
            print(f"{name} {fold} MAP {values['MAP']:.4f}, epoch {values['best_epoch']} ({values['queries']} queries)")
        rows = {f"{name} {row}:": metrics[name][row] for row in ("first_stage", "reranker") if row in metrics[name]}
        for title, means in (rows | {name: metrics[name]}).items():
            print(title, *(f"{key} {means[key]:.4f}" for key in MEASURES), f"({len(measured)} queries)")
    with new_file(output / "metrics.json") as file:
        json.dump(metrics, file, indent=2)
    if training_args.do_train:
        curves = {fold.name: result.development for fold, result in zip(folds, results)}
        plot_development(curves, output / "development.png")

    # 6. Card, which stays if all was finished; Hub
    if args.final_model and transfer:
        final, of_final = folds[0], results[0]
        if not (output / "README.md").is_file() or not list(output.glob("model*.safetensors")):
            (output / "README.md").unlink(missing_ok=True)
            source = output / final.name
            save_reranker(Reranker.from_pretrained(source, *lengths), output, source if keep_adapter else None)
    if training_args.do_train and not (output / "README.md").is_file():
        reranker = Reranker.from_pretrained(output if final else output / folds[-1].name, *lengths)
        write_card(
            output,
            reranker,
            collections,
            sources,
            metrics,
            args,
            training_args,
            publication.facts(),
            (final, of_final) if final else None,
        )
    publication.push()


if __name__ == "__main__":
    run_program(main)
