#!/usr/bin/env python
"""
Answers questions in one language from contexts in another: finetunes on SQuAD, and measures on MLQA, XQuAD and SQuAD
(Yu, Fei, Li 2021).

    accelerate launch run_mlqa.py --do_train --model_name_or_path MODEL --train_data train-v1.1.json \\
        --dev_data MLQA_V1 --test_data MLQA_V1 xquad --languages en de es --output_dir results/mlqa
    python run_mlqa.py --model_name_or_path results/mlqa --test_data MLQA_V1 --output_dir results/again

Writes {set}/context-{language}.question-{language}.json (id to answer) and .nbest.json for each test set and language
pair, a table {set}.md for each test set, and results.csv, results.png and metrics.json for all. With --do_train it
also writes the model, its card and its pipeline.

An output folder belongs to one command. If the same command with --do_train is given again, it continues a killed run
and does nothing for a finished one. Other options are refused.
"""

import json
import logging
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shutil import copytree
from typing import Literal

from modeling_clir.names import check_name
from modeling_clir.program import fix_rounding, run_program
from modeling_clir.training.arguments import LoadingArguments, parse_arguments, start_logging
from modeling_clir.training.launch import start_all_processes
from modeling_clir.training.options import check_options


logger = logging.getLogger("run_mlqa")


@dataclass
class Arguments:
    model_name_or_path: str = field(
        metadata={"help": "folder or Hub name of any encoder; without --do_train it needs a question answering head"}
    )
    train_data: list[str] | None = field(
        default=None, metadata={"help": "files in SQuAD's layout, or Hub names like rajpurkar/squad"}
    )
    dev_data: list[str] | None = field(
        default=None,
        metadata={"help": "data that choose the epoch and the no-answer threshold; the same forms as --test_data"},
    )
    test_data: list[str] | None = field(
        default=None,
        metadata={"help": "MLQA_V1, a folder of *.LANGUAGE.json (XQuAD), SQuAD files, or Hub names like google/xquad"},
    )
    languages: list[str] | None = field(
        default=None, metadata={"help": "use all pairs of these languages; by default all pairs of the data"}
    )
    pairs: list[str] | None = field(
        default=None, metadata={"help": "use these pairs only, written as context-de.question-en"}
    )
    select: Literal["best", "last"] = field(
        default="best",
        metadata={"help": "epoch to test: best takes each pair's best epoch by development F1, last the last epoch"},
    )
    bad_data: Literal["stop", "skip"] = field(
        default="stop",
        metadata={"help": "stop at, or skip, questions with an error, such as an answer that is not at its offset"},
    )
    num_finetuned_layers: int | None = field(
        default=None, metadata={"help": "train only this many last layers and the head; all layers by default"}
    )
    freeze_embeddings: bool = field(default=True, metadata={"help": "do not train the embeddings"})
    max_length: int | None = field(
        default=None, metadata={"help": "longest window in tokens; defaults to the model's"}
    )
    doc_stride: int = field(default=128, metadata={"help": "tokens that a window shares with the next window"})
    max_question_length: int = field(default=64, metadata={"help": "longest question in tokens"})
    max_answer_length: int = field(default=30, metadata={"help": "longest answer in tokens"})
    n_best: int = field(default=20, metadata={"help": "answers to write for each question"})
    max_tokens_per_batch: int | None = field(
        default=None,
        metadata={
            "help": "tokens per batch of windows when answering; also for training, if given, in place of "
            "--per_device_train_batch_size"
        },
    )
    dtype: Literal["float32", "bfloat16", "int8"] = field(
        default="float32", metadata={"help": "precision of the test; int8 needs a CPU"}
    )

    def __post_init__(self):
        check_name(self.model_name_or_path, "model")
        for name in (*(self.train_data or []), *(self.dev_data or []), *(self.test_data or [])):
            check_name(name, "data set", file=True)


def main():
    # 1. Processes; arguments and data, checked before a model is loaded
    fix_rounding()
    start_all_processes()
    args, loading, training_args = parse_arguments((Arguments, LoadingArguments), sys.argv[1:], __doc__)
    check_options(training_args, "run_mlqa.py")
    if training_args.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy") and not args.dev_data:
        raise ValueError(f"--lr_scheduler_type {training_args.lr_scheduler_type.value} needs --dev_data")

    # Imported here, so that help and mistakes in the arguments are answered at once
    import torch
    from transformers import set_seed

    from modeling_clir.data.files import new_file
    from modeling_clir.data.questions import describe, language_key, read_question_sets, read_training_questions
    from modeling_clir.data.windows import TrainingWindows, check_offsets
    from modeling_clir.evaluation.answering import write_results
    from modeling_clir.loading import check_checkpoint
    from modeling_clir.quantization import quantize_int8
    from modeling_clir.reader import Reader
    from modeling_clir.training.answering import (
        answer_by_epochs,
        chosen_epochs,
        epoch_folder,
        freeze,
        keep_epochs,
        train_reader,
        write_card,
    )
    from modeling_clir.training.plots import plot_development
    from modeling_clir.training.publishing import Publication
    from modeling_clir.training.resuming import check_output, claim_output, remove_checkpoints

    start_logging(logger, training_args)
    set_seed(training_args.seed)
    if training_args.lora_rank is not None and args.num_finetuned_layers is not None:
        raise ValueError("--lora_rank trains adapters of all layers: leave out --num_finetuned_layers")
    if training_args.do_train != bool(args.train_data):
        raise ValueError("--do_train and --train_data need each other")
    if training_args.load_best_model_at_end and args.select == "last":
        raise ValueError("--select last tests the last epoch: leave out --load_best_model_at_end")
    if training_args.push_to_hub and not training_args.do_train:
        raise ValueError("--push_to_hub uploads the model that --do_train makes")
    if not args.test_data and not training_args.do_train:
        raise ValueError("nothing to do: pass --test_data, or --do_train with --train_data")
    if args.dtype == "int8" and training_args.device.type != "cpu":
        raise ValueError("--dtype int8 is for CPUs: add --use_cpu")
    check_offsets(check_checkpoint(args.model_name_or_path, "answer questions", **loading.options)[1])
    development, tests = (
        [
            one
            for source in sources or []
            for one in read_question_sets(source, role, args.languages, args.pairs, args.bad_data)
        ]
        for sources, role in ((args.dev_data, "dev"), (args.test_data, "test"))
    )
    if len({(one.name, one.key) for one in tests}) < len(tests):
        raise ValueError("two of --test_data have the same name and languages, which would name the same results")
    tuned = {question.id for one in development for question in one.questions}
    if seen := sum(question.id in tuned for one in tests for question in one.questions):
        logger.warning(f"{seen} test questions are also development questions: their results were tuned on them")
    logger.info(f"development: {describe(development) or 'none'}; test: {describe(tests) or 'none'}")

    # 2. The output folder belongs to this command; a finished one is left as it is
    output = Path(training_args.output_dir)
    files = check_output(output, "run_mlqa.py", asdict(args) | loading.settings, training_args)
    languages = [code for one in development + tests for code in (one.context_language, one.question_language)]
    publication = Publication("run_mlqa.py", (args, loading), training_args, languages)
    if training_args.do_train and (output / "metrics.json").is_file():
        logger.info(f"{output} is finished")
        publication.push()
        return
    questions = read_training_questions(args.train_data, args.bad_data) if training_args.do_train else []
    claim_output(output, files, training_args)

    # 3. Train
    options = {name: getattr(args, name) for name in ("max_length", "doc_stride", "max_question_length")}
    options |= {"max_answer_length": args.max_answer_length}
    if args.max_tokens_per_batch is not None:
        options["max_tokens_per_batch"] = args.max_tokens_per_batch
    history = []
    if training_args.do_train:
        reader = Reader.from_pretrained(args.model_name_or_path, new_head=True, **options, **loading.options)
        freeze(reader.model, args.num_finetuned_layers, args.freeze_embeddings)
        windows = TrainingWindows(questions, reader.encoder, progress=training_args.should_log)
        history = train_reader(reader, windows, development, training_args, args.select, args.max_tokens_per_batch)

    # 4. Answer the questions of each pair of languages with the model of the pair's epoch
    def open_reader(epoch: int) -> Reader:
        if epoch:
            reader = Reader.from_pretrained(epoch_folder(output, epoch), **options)
        else:
            reader = Reader.from_pretrained(args.model_name_or_path, new_head=True, **options, **loading.options)
        if args.dtype == "int8":
            quantize_int8(reader.model.eval())
        else:
            reader.model.to(training_args.device, getattr(torch, args.dtype))
        return reader

    results, history = answer_by_epochs(
        open_reader,
        tests,
        development,
        history,
        args.select,
        args.n_best,
        output if training_args.should_save else None,
    )
    if not training_args.should_save:
        return

    # 5. Tables; the model with the best mean over the development pairs, with its card
    for name, of_set in results.items():
        for result in of_set:
            key = language_key(result["context"], result["question"])
            print(name, key, f"F1 {result['F1']:.2f} EM {result['EM']:.2f} ({result['questions']} questions)")
    if results:
        write_results(results, output)
    if training_args.do_train:
        epoch = chosen_epochs(history, args.select)[None]
        copytree(epoch_folder(output, epoch), output, dirs_exist_ok=True)
        if development:
            curves = {name: [found[name] for found in history] for name in history[0] if name.startswith("F1")}
            plot_development(curves, output / "development.png", "Development F1")
        facts = publication.facts()
        write_card(output, reader, results, history, epoch, len(questions), args, training_args, facts)
    with new_file(output / "metrics.json") as file:
        json.dump({"results": results, "development": history}, file, indent=1)
    if training_args.do_train:
        remove_checkpoints(output)
        keep_epochs(output, set())
    publication.push()


if __name__ == "__main__":
    run_program(main)
