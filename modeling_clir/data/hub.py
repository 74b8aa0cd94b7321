"""Data sets of the Hub, and local folders in the Hub's layout, as `datasets` reads them."""

import glob
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import datasets
from datasets import Dataset, get_dataset_config_names, get_dataset_split_names, load_dataset
from datasets.exceptions import DatasetGenerationError
from datasets.naming import camelcase_to_snakecase

from .files import read_jsonl


def read_configs(name: str) -> list[str]:
    """
    Names of a data set's configs. Offline these are the configs in the cache of `datasets`, which itself then names
    only `default`. Raises as [`open_data_set`].
    """
    with open_data_set(name) as (path, _):
        configs = get_dataset_config_names(path)
    if configs == ["default"] and not Path(name).is_dir():
        return cached_configs(name) or configs
    return configs


def cached_configs(name: str) -> list[str]:
    """Names of the configs that the cache of `datasets` holds: `{owner}___{name}/{config}/{version}/{hash}`."""
    *owner, last = name.split("/")
    folder = Path(datasets.config.HF_DATASETS_CACHE, "___".join([*owner, camelcase_to_snakecase(last)]))
    found = {path: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/*/*/dataset_info.json")}
    return sorted({info["config_name"] for path, info in found.items() if info["config_name"] == path.parts[-4]})


def read_splits(name: str, config: str | None = None) -> list[str]:
    """Names of a config's splits. Raises as [`open_data_set`]."""
    with open_data_set(name) as (path, options):
        return get_dataset_split_names(path, config, **options)


def read_split(name: str, config: str | None, split: str) -> Dataset:
    """The rows of a split; those of a local folder are in memory. Raises as [`open_data_set`]."""
    with open_data_set(name) as (path, options):
        return load_dataset(path, config, split=split, keep_in_memory=Path(name).is_dir(), **options)


@contextmanager
def open_data_set(name: str) -> Iterator[tuple[str, dict]]:
    """
    Yields the path and the options to pass to `datasets` for a Hub name or a local folder.

    A local folder gets a cache of its own, as `datasets` knows a folder by its name and README.md and returns old rows
    after an edit. If its path has one of `*?[`, which `datasets` takes for a pattern, the path is a temporary folder of
    links to its files.

    Raises `FileNotFoundError` for a folder without data and for a name that the Hub lacks; `ValueError` for rows that
    cannot be read and for a data set that is a script.
    """
    folder, links = Path(name), None
    with TemporaryDirectory() as temporary:
        path, options = name, {}
        if folder.is_dir():
            options = {"cache_dir": f"{temporary}/cache"}
            if glob.has_magic(str(folder.resolve())):
                path = links = f"{temporary}/data"
                link_files(folder, Path(links))
        try:
            yield path, options
        except FileNotFoundError as error:
            message = str(error).split(" with any supported extension")[0]
            raise FileNotFoundError(message.replace(links or name, name)) from error
        except RuntimeError as error:
            raise ValueError(f"{name}: {error}; take a copy of it as Parquet, or the files themselves") from error
        except (DatasetGenerationError, ValueError) as error:
            for file in sorted(folder.rglob("*.jsonl")) if folder.is_dir() else ():
                for _ in read_jsonl(file, required=()):  # names file and line of what is no JSON
                    pass
            message = str(error.__cause__ or error)
            raise ValueError(f"{name}: {message.replace(links or name, name)}") from error


def link_files(folder: Path, target: Path):
    """Makes a folder `target` of links to the files of `folder`, in the same subfolders."""
    for here, _, files in os.walk(folder, followlinks=True):
        there = target / Path(here).relative_to(folder)
        there.mkdir(parents=True)
        for file in files:
            (there / file).symlink_to(Path(here, file).resolve())


__all__ = ["read_configs", "read_split", "read_splits"]
