"""Parses the command lines and recipes of the runners, and sets up their logging. Imports nothing heavy."""

import argparse
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import yaml
from transformers.hf_argparser import HfArgumentParser
from transformers.utils.logging import enable_default_handler

from ..names import nearest
from ..program import Parser


@dataclass
class LoadingArguments:
    """Where `--model_name_or_path` is read from. Configuration, weights and tokenizer all get them."""

    revision: str | None = field(
        default=None, metadata={"help": "branch, tag or commit of the model; for its code and tokenizer too"}
    )
    subfolder: str | None = field(default=None, metadata={"help": "folder of the model in its repository or folder"})
    token: str | None = field(default=None, metadata={"help": "token of the Hub; defaults to HF_TOKEN"})
    cache_dir: str | None = field(default=None, metadata={"help": "folder of downloads; defaults to HF_HOME's"})
    local_files_only: bool = field(default=False, metadata={"help": "use the downloads; ask no server"})

    @property
    def options(self) -> dict:
        """The options that were given, for `from_pretrained`."""
        return {name: value for name, value in asdict(self).items() if value}

    @property
    def settings(self) -> dict:
        """The options that say what is read, not from where."""
        return {"revision": self.revision, "subfolder": self.subfolder}


class DefaultsFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of an option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help if action.default is None else super()._get_help_string(action)


class RunnerParser(Parser, HfArgumentParser):
    """
    A parser of dataclasses. The help shows the runner's options first, then those of transformers'
    `TrainingArguments`.

    Args:
        dataclass_types (`Sequence[type]`): dataclasses of the options.
        description (`str`, *optional*): description of the runner.
    """

    def __init__(self, dataclass_types: Sequence[type], description: str | None = None):
        usage = "%(prog)s [--config RECIPE.yaml] --option value ..."
        super().__init__(dataclass_types, description=description, usage=usage, formatter_class=DefaultsFormatter)
        help_of_config = "options from a file, lines of the form 'name: value'; options given here override it"
        self.add_argument("--config", metavar="RECIPE.yaml", default=argparse.SUPPRESS, help=help_of_config)

    def error(self, message: str):
        super().error(re.sub(r"(--\w+)/--[\w-]+", r"\1", message))  # one spelling of a flag is enough

    def format_help(self) -> str:
        bases = {base for one in self.dataclass_types for base in one.__mro__ if base.__module__ != one.__module__}
        inherited = {option.name for base in bases - {object} for option in fields(base)}
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for title, theirs in (("options", False), ("options of transformers.TrainingArguments", True)):
            if actions := [action for action in self._actions if (action.dest in inherited) == theirs]:
                formatter.start_section(title)
                formatter.add_arguments(actions)
                formatter.end_section()
        return formatter.format_help()


def parse_arguments(
    dataclass_types: Sequence[type], argv: list[str], description: str | None = None, training: bool = True
) -> tuple:
    """
    Parses `--flag value` and, with `--config recipe.yaml`, the recipe: a flat mapping of the same names. Flags
    override the recipe.

    Args:
        dataclass_types (`Sequence[type]`): the runner's own options.
        argv (`list[str]`): the command line, without the program.
        description (`str`, *optional*): description of the runner, for `--help`.
        training (`bool`, defaults to `True`): adds [`XLRetrievalTrainingArguments`], whose import loads torch. Errors
            in the runner's own options are raised before that import.

    Returns one instance of each dataclass, the training arguments last. Raises `ValueError` for an unknown or
    impossible flag, value or name in the recipe.
    """
    parser = RunnerParser(dataclass_types, description)
    argv, recipe = take_recipe(argv)
    if training:
        known = [flag for flag in parser._option_string_actions if flag.startswith("--")]
        unknown = parser.unknown_flags(argv)
        if recipe is None and not {"-h", "--help"} & {*argv} and not any(nearest(flag, known) for flag in unknown):
            argparse_only = super(Parser, parser).parse_known_args  # other flags may be TrainingArguments'
            own, _ = argparse_only(argv)
            for one in dataclass_types:
                one(**{option.name: getattr(own, option.name) for option in fields(one) if option.init})
        from .training_arguments import XLRetrievalTrainingArguments

        parser = RunnerParser((*dataclass_types, XLRetrievalTrainingArguments), description)
    argv = recipe_flags(parser, recipe) + argv
    if rest := parser.parse_known_args(argv)[1]:
        raise ValueError(f"{rest[0]!r} belongs to no option; see --help")
    return parser.parse_args_into_dataclasses(argv, look_for_args_file=False)


def take_recipe(argv: list[str]) -> tuple[list[str], tuple[str, dict] | None]:
    """
    Returns `argv` without `--config PATH`, and the path and content of that file (`None` without `--config`). Raises
    `ValueError` if the file is not a mapping in YAML.
    """
    argv = [part for one in argv for part in (one.split("=", 1) if one.startswith("--config=") else [one])]
    if "--config" not in argv:
        return argv, None
    at = argv.index("--config")
    if at + 1 == len(argv):
        raise ValueError("argument --config: expected a file")
    path = argv[at + 1]
    try:
        recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no recipe, lines of the form 'name: value': {error}") from None
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} is no recipe: expected lines of the form 'name: value'")
    return argv[:at] + argv[at + 2 :], (path, recipe)


def recipe_flags(parser: RunnerParser, recipe: tuple[str, dict] | None) -> list[str]:
    flags = []
    path, options = recipe or ("", {})
    for name, value in options.items():
        if f"--{name}" not in parser._option_string_actions or name == "config":
            raise ValueError(f"{path}: {name!r} is not an option{parser.nearest_flag(f'--{name}') or '; see --help'}")
        values = value if isinstance(value, list) else [value]
        if value is not None:
            flags += [f"--{name}"] + [json.dumps(one) if isinstance(one, dict) else str(one) for one in values]
    return flags


def start_logging(logger: logging.Logger, training_args=None):
    """
    Logs to stderr with times: all warnings, and INFO of the runner's `logger` on the main process. With `--log_level
    debug` it also logs all messages of the package.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    logger.setLevel(logging.INFO if training_args is None or training_args.should_log else logging.WARNING)
    if training_args is not None and training_args.log_level in ("debug", "detail"):
        logging.getLogger("modeling_clir").setLevel(logging.DEBUG)
    enable_default_handler()


__all__ = ["LoadingArguments", "RunnerParser", "parse_arguments", "start_logging"]
