"""Command lines that start from a recipe."""

import json
from collections.abc import Sequence

import yaml
from transformers import HfArgumentParser


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


__all__ = ["parse_arguments"]
