#!/usr/bin/env python
"""
Aligns sentences or documents across languages by the vectors of an encoder, in every layer: P@1 by cosine similarity.

    python run_alignment.py --model_name_or_path MODEL --source FILE --target FILE --output_dir results/alignment
    python run_alignment.py --model_name_or_path MODEL --folder FOLDER --pairs en-de,en-fr --output_dir ...
    python run_alignment.py --model_name_or_path MODEL --dataset NAME --columns en de --output_dir ...

Prints the tables. Writes the tables (alignment.md), alignment.csv, alignment.json and a plot (alignment.png).
"""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modeling_clir.names import check_name, check_output_dir, check_path, parse_pairs
from modeling_clir.program import run_program, share_cores
from modeling_clir.training.arguments import LoadingArguments, parse_arguments, start_logging


logger = logging.getLogger("run_alignment")


@dataclass
class Arguments:
    model_name_or_path: str = field(metadata={"help": "any encoder of text, a folder or Hub name"})
    output_dir: str = field(metadata={"help": "folder of the results"})
    source: str | None = field(
        default=None, metadata={"help": "text file with a sentence or document per line, or .jsonl; plain or .gz"}
    )
    target: str | None = field(
        default=None, metadata={"help": "the translations: a file with as many lines, or a .jsonl with the same ids"}
    )
    folder: str | None = field(
        default=None,
        metadata={
            "help": "replaces --source and --target: a folder with en.jsonl, en.txt, *.en.txt or *.en-de.en, or .gz"
        },
    )
    pairs: str = field(default="", metadata={"help": "language pairs in --folder, such as en-de,en-fr"})
    document_ids: str | None = field(
        default=None,
        metadata={"help": "file with a document id for each line of the text files; joins the lines of a document"},
    )
    dataset: str | None = field(
        default=None, metadata={"help": "replaces files: a dataset of the Hub, or a folder that `datasets` reads"}
    )
    columns: list[str] = field(
        default_factory=list,
        metadata={"help": "two columns of --dataset, such as en de, or translation.en translation.de"},
    )
    dataset_config: str | None = field(default=None, metadata={"help": "config of --dataset, if it has several"})
    dataset_split: str = field(default="test", metadata={"help": "split of --dataset"})
    max_length: int | None = field(
        default=None, metadata={"help": "cut texts to this many tokens; defaults to the model's longest input"}
    )
    max_tokens_per_batch: int = field(default=8192, metadata={"help": "tokens per batch of texts"})
    dtype: Literal["float32", "bfloat16"] = field(default="float32", metadata={"help": "precision of the model"})
    use_cpu: bool = field(default=False, metadata={"help": "use the CPU even if there is a GPU"})

    def __post_init__(self):
        files = self.source is not None or self.target is not None
        if files + (self.folder is not None) + (self.dataset is not None) != 1:
            raise ValueError("pass either --source and --target, or --folder and --pairs, or --dataset and --columns")
        if files and (self.source is None or self.target is None):
            raise ValueError("--source and --target go together")
        if (self.folder is None) != (not parse_pairs(self.pairs)):
            raise ValueError("--folder and --pairs go together")
        if len(self.columns) != (2 if self.dataset else 0):
            raise ValueError(f"--dataset and two --columns go together, got {len(self.columns)} columns")
        if self.dataset and self.document_ids:
            raise ValueError("--document_ids is for text files, not for a --dataset")
        check_output_dir(self.output_dir)
        check_name(self.model_name_or_path, "model")
        for path in (self.source, self.target, self.folder, self.document_ids):
            if path is not None:
                check_path(path)
        if self.dataset is not None:
            check_name(self.dataset, "data set")


def main():
    # 1. Arguments and texts, checked before the model is loaded
    share_cores()
    args, loading = parse_arguments((Arguments, LoadingArguments), sys.argv[1:], __doc__, training=False)

    # Imported here, so that help and mistakes in the arguments are answered at once
    import torch
    from transformers import AutoModel

    from modeling_clir.data.parallel import read_parallel_dataset, read_parallel_files, read_parallel_folder
    from modeling_clir.evaluation.alignment import measure_alignment, to_markdown, write_alignment
    from modeling_clir.loading import check_checkpoint, load_pretrained, longest_input

    start_logging(logger)
    check_checkpoint(args.model_name_or_path, **loading.options)
    document_ids = Path(args.document_ids) if args.document_ids else None
    if args.folder:
        pairs = [read_parallel_folder(Path(args.folder), pair, document_ids) for pair in parse_pairs(args.pairs)]
    elif args.dataset:
        pairs = [read_parallel_dataset(args.dataset, tuple(args.columns), args.dataset_config, args.dataset_split)]
    else:
        pairs = [read_parallel_files(Path(args.source), Path(args.target), document_ids=document_ids)]

    # 2. Model and tokenizer
    model, tokenizer = load_pretrained(
        AutoModel, args.model_name_or_path, dtype=getattr(torch, args.dtype), **loading.options
    )
    model.to("cuda" if torch.cuda.is_available() and not args.use_cpu else "cpu")

    # 3. Vectors of every layer, and P@1
    output = Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    max_length = longest_input(model, tokenizer, args.max_length)
    alignments = measure_alignment(model, tokenizer, pairs, max_length, args.max_tokens_per_batch, output)

    # 4. Tables and plot
    print(to_markdown(alignments), end="")
    settings = {"model": args.model_name_or_path, "dtype": args.dtype, "max_length": max_length}
    write_alignment(alignments, settings, output)


if __name__ == "__main__":
    run_program(main)
