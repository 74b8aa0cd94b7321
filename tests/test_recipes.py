"""Every recipe is one that its runner takes, and what the README says of options and files is there."""

import re
from dataclasses import fields

import pytest

import run_clir
import run_mlqa
import run_pretraining
from modeling_clir.data.questions import parse_key
from modeling_clir.training.arguments import parse_arguments
from modeling_clir.training.trainer import XLRetrievalTrainingArguments

from .conftest import REPOSITORY


RECIPES = sorted((REPOSITORY / "recipes").glob("*.yaml"))


def recipes(*runners: str) -> pytest.MarkDecorator:
    chosen = [path for path in RECIPES if path.stem.split("_")[0] in runners]
    return pytest.mark.parametrize("recipe", chosen, ids=lambda path: path.stem)


@recipes("base", "demo", "xquad")
def test_recipe_of_pretraining(recipe, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    kinds = (run_pretraining.ModelArguments, run_pretraining.DataArguments, XLRetrievalTrainingArguments)
    model, data, training = parse_arguments(kinds, ["--config", str(recipe), "--seed", "5"])
    assert training.seed == 5 and training.do_train and data.pairs["qlm"]
    assert data.corpus.startswith("output/") and model.model_name_or_path.startswith("output/")
    header = recipe.read_text(encoding="utf-8").split("corpus:")[0]
    assert "MAP" in header or "Expected" in header


@recipes("clir", "mlqa")
def test_recipe_of_finetuning(recipe):
    runner = run_clir if "clir" in recipe.stem else run_mlqa
    flags = ["--config", str(recipe), "--model_name_or_path", "x", "--output_dir", "y", "--use_cpu"]
    flags += ["--collections", "z"] if runner is run_clir else ["--dev_data", "z"]
    args, training = parse_arguments((runner.Arguments, XLRetrievalTrainingArguments), flags)
    assert training.do_train and training.output_dir == "y"
    for key in getattr(args, "pairs", None) or []:
        parse_key(key)


def test_every_recipe_is_of_a_runner():
    assert {path.stem.split("_")[0] for path in RECIPES} == {"base", "demo", "xquad", "clir", "mlqa"}


def test_readme_names_what_is_there():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"\b(?:scripts|recipes|results|base|sample)/[\w./-]*[\w/]", readme):
        assert (REPOSITORY / path).exists(), path
    modules = ["modeling_clir/convert.py", "modeling_clir/training/trainer.py"]
    programs = [*REPOSITORY.glob("run_*.py"), *REPOSITORY.glob("scripts/*.py"), *map(REPOSITORY.joinpath, modules)]
    programs = "".join(path.read_text(encoding="utf-8") for path in programs)
    known = {field.name for field in fields(XLRetrievalTrainingArguments)} | {"config", "help", "index-url"}
    for option in set(re.findall(r"--([\w-]+)", readme)) - known:
        assert re.search(rf"\b{option.removeprefix('no_')}\b", programs), option
