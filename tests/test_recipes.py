"""Every recipe is one that its runner takes, and what the README says of options and files is there."""

import re
from dataclasses import fields

import pytest

import run_clir
import run_pretraining
from modeling_clir.training.arguments import parse_arguments
from modeling_clir.training.trainer import XLRetrievalTrainingArguments

from .conftest import REPOSITORY


RECIPES = sorted((REPOSITORY / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("recipe", [r for r in RECIPES if "clir" not in r.stem], ids=lambda path: path.stem)
def test_recipe(recipe, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    kinds = (run_pretraining.ModelArguments, run_pretraining.DataArguments, XLRetrievalTrainingArguments)
    model, data, training = parse_arguments(kinds, ["--config", str(recipe), "--seed", "5"])
    assert training.seed == 5 and training.do_train and data.pairs["qlm"]
    assert data.corpus.startswith("output/") and model.model_name_or_path.startswith("output/")
    header = recipe.read_text(encoding="utf-8").split("corpus:")[0]
    assert "MAP" in header or "Expected" in header


@pytest.mark.parametrize("recipe", [r for r in RECIPES if "clir" in r.stem], ids=lambda path: path.stem)
def test_recipe_of_clir(recipe):
    flags = ["--config", str(recipe), "--collections", "x", "--output_dir", "y"]
    args, training = parse_arguments((run_clir.Arguments, XLRetrievalTrainingArguments), flags)
    assert training.do_train and args.model_name_or_path.startswith("output/")


def test_readme_names_what_is_there():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"\b(?:scripts|recipes|results|base|sample)/[\w./-]*[\w/]", readme):
        assert (REPOSITORY / path).exists(), path
    modules = ["modeling_clir/convert.py", "modeling_clir/training/trainer.py"]
    programs = [*REPOSITORY.glob("run_*.py"), *REPOSITORY.glob("scripts/*.py"), *map(REPOSITORY.joinpath, modules)]
    programs = "".join(path.read_text(encoding="utf-8") for path in programs)
    known = {field.name for field in fields(XLRetrievalTrainingArguments)} | {"config", "help", "index-url"}
    for option in set(re.findall(r"--([\w-]+)", readme)) - known:
        assert re.search(rf"\b{option}\b", programs), option
