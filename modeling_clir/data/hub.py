"""Reads data sets of the Hub, and local folders in the Hub's layout, with `datasets`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .files import list_files, local_dataset, read_jsonl


if TYPE_CHECKING:  # the functions import datasets, because readers of files do not need it
    from datasets import Dataset


def read_configs(name: str) -> list[str]:
    """
    Lists the configs of a data set. Offline it lists the configs in the cache of `datasets`, because `datasets` itself
    then names only `default`. Raises the errors of [`open_data_set`].
    """
    from datasets import get_dataset_config_names

    with open_data_set(name) as (path, _):
        configs = get_dataset_config_names(path)
    if configs == ["default"] and not Path(name).is_dir():
        return cached_configs(name) or configs
    return configs


def cached_configs(name: str) -> list[str]:
    """Lists the configs that the cache of `datasets` holds, as `{owner}___{name}/{config}/{version}/{hash}`."""
    import datasets
    from datasets.naming import camelcase_to_snakecase

    *owner, last = name.split("/")
    folder = Path(datasets.config.HF_DATASETS_CACHE, "___".join([*owner, camelcase_to_snakecase(last)]))
    found = {path: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/*/*/dataset_info.json")}
    return sorted({info["config_name"] for path, info in found.items() if info["config_name"] == path.parts[-4]})


def read_splits(name: str, config: str | None = None) -> list[str]:
    """Lists the splits of a config. Raises the errors of [`open_data_set`]."""
    from datasets import get_dataset_split_names

    with open_data_set(name) as (path, options):
        return get_dataset_split_names(path, config, cache_dir=options.get("cache_dir"))


def read_split(name: str, config: str | None, split: str) -> "Dataset":
    """Reads the rows of a split; a local folder's rows are in memory. Raises the errors of [`open_data_set`]."""
    from datasets import load_dataset

    with open_data_set(name) as (path, options):
        return load_dataset(path, config, split=split, **options)


@contextmanager
def open_data_set(name: str) -> Iterator[tuple[str, dict]]:
    """
    Yields the path and the options of [`local_dataset`], and makes the errors of `datasets` name `name`.

    Raises `FileNotFoundError` for a folder without data and for a name that the Hub lacks. Raises `ValueError` for
    rows that cannot be read (with file and line if they are JSON lines) and for a data set that is a script.
    """
    from datasets.exceptions import DatasetGenerationError

    folder = Path(name)
    with local_dataset(name) as (path, options):
        try:
            yield path, options
        except FileNotFoundError as error:
            message = str(error).split(" with any supported extension")[0]
            raise FileNotFoundError(message.replace(path, name)) from error
        except RuntimeError as error:
            raise ValueError(
                f"{name}: {error}; use a copy as Parquet (google/xtreme has MLQA's), or the data set's files"
            ) from error
        except (DatasetGenerationError, ValueError) as error:
            for file in list_files(folder) if folder.is_dir() else ():
                if file.name.endswith((".jsonl", ".jsonl.gz")):
                    for _ in read_jsonl(file, required=()):
                        pass
            message = str(error.__cause__ or error)
            raise ValueError(f"{name}: {message.replace(path, name)}") from error


__all__ = ["read_configs", "read_split", "read_splits"]
