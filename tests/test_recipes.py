"""Every recipe starts a run of its runner, and every option on a page belongs to the program of its command."""

import argparse
import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser

import run_alignment
import run_clir
import run_mlqa
import run_pretraining
from modeling_clir.training.arguments import RunnerParser
from modeling_clir.training.training_arguments import XLRetrievalTrainingArguments

from .conftest import REPOSITORY
from .helpers import QUIET, clir_command
from .test_documentation import PAGES, blocks, program_of


RECIPES = sorted(
    path for folder in (".", "paper", "modern") for path in (REPOSITORY / "recipes" / folder).glob("*.yaml")
)
RUNNERS = {
    "base": run_pretraining,
    "demo": run_pretraining,
    "xquad": run_pretraining,
    "e5": run_pretraining,
    "short": run_pretraining,
    "long": run_pretraining,
    "clir": run_clir,
    "clef": run_clir,
    "mlqa": run_mlqa,
}


def recipes(runner) -> pytest.MarkDecorator:
    """Parametrizes over the recipes of a runner. Of those in subfolders only `short_both` is not slow."""
    chosen = [
        pytest.param(
            path,
            id=f"{path.parent.name}-{path.stem}",
            marks=[pytest.mark.slow] * (path.parent.name != "recipes" and path.stem != "short_both"),
        )
        for path in RECIPES
        if RUNNERS[path.stem.split("_")[0]] is runner
    ]
    return pytest.mark.parametrize("recipe", chosen)


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@recipes(run_pretraining)
def test_recipe_of_pretraining(recipe, call, tiny_bert, sample_corpus, tmp_path):
    where = ("--corpus", sample_corpus, "--model_name_or_path", tiny_bert, "--output_dir", tmp_path / "out")
    small = ("--max_length", "100", "--max_query_length", "30", "--max_steps", "2", "--max_eval_pairs", "4")
    small += ("--max_pairs", "16", "--per_device_train_batch_size", "2", "--save_strategy", "no")
    small += ("--fp16", "false", "--dataloader_num_workers", "0", "--max_position_embeddings", "128")
    flags = map(str, (*where, *small, *QUIET))
    call(run_pretraining, ["run_pretraining.py", "--config", str(recipe), *flags])
    assert read(tmp_path / "out/trainer_state.json")["global_step"] == 2
    header = recipe.read_text(encoding="utf-8").split("corpus:")[0]
    assert "MAP" in header or "Expected" in header


@pytest.mark.parametrize("tasks", ["qlm", "rr", "both"])
@pytest.mark.parametrize(("kind", "batch", "epochs"), [("short", 16 * 4, 20), ("long", 16 * 2, 16)])
def test_arithmetic_of_the_paper(kind, batch, epochs, tasks):
    """An epoch is 64,000 pairs of each of six language pairs and each task; 16 GPUs share a batch."""
    options = yaml.safe_load((REPOSITORY / f"recipes/paper/{kind}_{tasks}.yaml").read_text(encoding="utf-8"))
    assert options["per_device_train_batch_size"] * 16 == batch
    pairs = sum(
        len(options.get(f"{task}_pairs", "").split(",")) for task in ("qlm", "rr") if f"{task}_pairs" in options
    )
    assert pairs == (12 if tasks == "both" else 6)
    assert options["max_steps"] == epochs * pairs * 64_000 // batch


@recipes(run_clir)
def test_recipe_of_ranking(recipe, call, tiny_bert, sample_collection, tmp_path):
    flags = ["--config", recipe, "--fold", "0", "--max_steps", "2"]
    if "num_finetuned_layers" in recipe.read_text(encoding="utf-8"):
        flags += ["--num_finetuned_layers", "1"]  # the tiny model has two
    call(run_clir, clir_command(tiny_bert, [sample_collection / "en-de"], tmp_path, *flags))
    assert read(tmp_path / "metrics.json")["en-de"]["queries"] == 5


@recipes(run_mlqa)
def test_recipe_of_answering(recipe, call, tiny_bert, tmp_path):
    questions = REPOSITORY / "sample/questions"
    where = (
        "--model_name_or_path",
        tiny_bert,
        "--output_dir",
        tmp_path / "out",
        "--train_data",
        questions / "train.en.json",
    )
    where += ("--dev_data", questions / "dev", "--test_data", questions / "test")
    small = ("--max_length", "100", "--doc_stride", "20", "--num_train_epochs", "1", *QUIET)
    call(run_mlqa, ["run_mlqa.py", "--config", str(recipe), *map(str, (*where, *small))])
    metrics = read(tmp_path / "out/metrics.json")
    assert len(metrics["results"]["sample"]) == (8 if "pairs:" in recipe.read_text(encoding="utf-8") else 16)
    assert len(metrics["development"]) == 1


def test_every_recipe_is_of_a_runner():
    assert {path.stem.split("_")[0] for path in RECIPES} == set(RUNNERS)


class ParserError(Exception):
    """Stops a program when it parses its arguments, and holds its parser."""


def parser_of(program: str, monkeypatch) -> argparse.ArgumentParser:
    """Returns the parser of one of the project's programs: a runner, a script, or a module after `-m `."""
    runners = {f"{module.__name__}.py": module for module in (run_alignment, *RUNNERS.values())}
    if program in runners:
        own = [vars(runners[program])[name] for name in ("ModelArguments", "DataArguments", "Arguments")
               if hasattr(runners[program], name)]  # fmt: skip
        return RunnerParser((*own, *([XLRetrievalTrainingArguments] if program != "run_alignment.py" else [])))

    def stop(parser, *arguments):
        raise ParserError(parser)

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        patch.setattr("modeling_clir.program.Parser.parse_known_args", stop)
        patch.setattr(sys, "argv", [program])
        patch.syspath_prepend(str(REPOSITORY / Path(program).parent))
        with pytest.raises(ParserError) as parsed:
            if program.startswith("-m "):
                runpy.run_module(program[3:], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(REPOSITORY / program), run_name="__main__")
    return parsed.value.args[0]


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    return {flag for action in parser._actions for flag in action.option_strings}


def commands() -> list[tuple[str, list[str], str]]:
    """Collects the commands of the pages, of the recipe scripts and of the programs' descriptions."""
    found = []
    for page in PAGES:
        found += [
            (f"{page}:{one.line}", [part for part in command if part != "&"])
            for one in blocks(page)
            if one.language == "bash"
            for command in one.commands
        ]
    return [(*program_of(command), where) for where, command in found]


def test_commands_of_pages_parse(monkeypatch):
    """The program of a command accepts each option and its value."""
    parsers, seen = {}, 0
    for program, options, where in commands():
        if program.endswith(".py") or program.startswith("-m modeling_clir"):
            parsers[program] = parsers.get(program) or parser_of(program, monkeypatch)
            for flag in (option.split("=")[0] for option in options if option.startswith("--")):
                assert flag in flags_of(parsers[program]), f"{where}: {program} has no {flag}"
            if "--config" not in options:
                parsers[program].parse_args(options)
            seen += 1
    assert seen > 20 and {"run_clir.py", "scripts/build_corpus.py", "-m modeling_clir.convert"} <= set(parsers)


def test_options_in_the_text_of_pages_are_some_programs(monkeypatch):
    programs = {
        program for program, _, _ in commands() if program.endswith(".py") or program.startswith("-m modeling_clir")
    }
    known = {flag for program in programs for flag in flags_of(parser_of(program, monkeypatch))}
    known |= flags_of(launch_command_parser()) | {"--extra-index-url", "--index-url", "--signal", "--time"}
    for page in PAGES:
        text = re.sub(
            r"^```.*?^```$", "", (REPOSITORY / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
        )
        for flag in re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", text):
            assert flag in known, f"{page}: {flag}"
