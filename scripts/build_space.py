#!/usr/bin/env python
"""
Makes a folder for a Gradio Space of the Hub: the page of space/app.py with this package, the sample and the models.

    python scripts/build_space.py OUTPUT --models output/demo/clir-bertlong

A model in a folder is copied; a model of the Hub is named, and the Space downloads it. `python OUTPUT/app.py` runs the
folder here; `hf upload NAME OUTPUT --repo-type space` pushes it.
"""

import json
import shutil
from pathlib import Path

from modeling_clir.data.files import new_folder, refuse_existing
from modeling_clir.names import check_name
from modeling_clir.program import PROJECT, Parser, run_program
from modeling_clir.push import LEFT_OUT


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("output", type=Path, help="a new folder")
    parser.add_argument("--models", nargs="+", required=True, help="folders or Hub names of rerankers")
    args = parser.parse_args()
    refuse_existing(args.output)
    for model in args.models:
        check_name(model, "model")
        if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
            raise ValueError(f"{model} has no config.json: give the folder of a checkpoint")
    names = {model: f"models/{Path(model).resolve().name}" if Path(model).is_dir() else model for model in args.models}
    if len(set(names.values())) < len(args.models):
        raise ValueError("two of --models have the same name")
    left_out = shutil.ignore_patterns(*LEFT_OUT, ".*")
    with new_folder(args.output) as folder:
        shutil.copytree(PROJECT / "space", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(
            PROJECT / "modeling_clir", folder / "modeling_clir", ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copytree(PROJECT / "sample/test", folder / "sample")
        for model, name in names.items():
            if Path(model).is_dir():
                shutil.copytree(model, folder / name, ignore=left_out)
        (folder / "models.json").write_text(json.dumps(list(names.values())), encoding="utf-8")
    print(f"{args.output}: a Space with {', '.join(names.values())}")


if __name__ == "__main__":
    run_program(main)
