"""Command lines that start from a recipe, and what a runner logs."""

import json
import logging
from collections.abc import Sequence

import yaml
from transformers import HfArgumentParser
from transformers.utils.logging import enable_default_handler


def parse_arguments(dataclass_types: Sequence[type], argv: list[str]) -> tuple:
    """
    One instance of each dataclass from `--flag value` and, where there is `--config recipe.yaml`, from the recipe: a
    flat mapping of the same names. Flags override the recipe. Raises `ValueError` for a name in the recipe that is no
    flag.
    """
    parser = HfArgumentParser(dataclass_types, epilog="--config RECIPE.yaml: options from a file; flags override it")
    argv = [part for one in argv for part in (one.split("=", 1) if one.startswith("--config=") else [one])]
    if "--config" in argv:
        at = argv.index("--config")
        if at + 1 == len(argv):
            parser.error("argument --config: expected a file")
        path = argv[at + 1]
        del argv[at : at + 2]
        with open(path, encoding="utf-8") as file:
            recipe = yaml.safe_load(file)
        if not isinstance(recipe, dict):
            raise ValueError(f"{path}: expected lines of the form 'name: value'")
        known = {option for action in parser._actions for option in action.option_strings}
        from_recipe = []
        for name, value in recipe.items():
            if f"--{name}" not in known:
                raise ValueError(f"{path}: {name!r} is not an option; see --help")
            if value is None:
                continue
            values = value if isinstance(value, list) else [value]
            from_recipe += [f"--{name}"] + [json.dumps(v) if isinstance(v, dict) else str(v) for v in values]
        argv = from_recipe + argv
    return parser.parse_args_into_dataclasses(argv)


def start_logging(logger: logging.Logger, should_log: bool = True):
    """Warnings of all, and what `logger`, the runner's, says where the process `should_log`, with the time, on stderr."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    logger.setLevel(logging.INFO if should_log else logging.WARNING)
    enable_default_handler()


__all__ = ["parse_arguments", "start_logging"]
