"""Data sets of the Hub, and local folders in the Hub's layout, as `datasets` reads them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .files import list_files, local_dataset, read_jsonl


if TYPE_CHECKING:  # the functions import datasets: readers of files need none
    from datasets import Dataset


def read_configs(name: str) -> list[str]:
    """
    Names of a data set's configs. Offline these are the configs in the cache of `datasets`, which itself then names
    only `default`. Raises as [`open_data_set`].
    """
    from datasets import get_dataset_config_names

    with open_data_set(name) as (path, _):
        configs = get_dataset_config_names(path)
    if configs == ["default"] and not Path(name).is_dir():
        return cached_configs(name) or configs
    return configs


def cached_configs(name: str) -> list[str]:
    """Names of the configs that the cache of `datasets` holds, as `{owner}___{name}/{config}/{version}/{hash}`."""
    import datasets
    from datasets.naming import camelcase_to_snakecase

    *owner, last = name.split("/")
    folder = Path(datasets.config.HF_DATASETS_CACHE, "___".join([*owner, camelcase_to_snakecase(last)]))
    found = {path: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/*/*/dataset_info.json")}
    return sorted({info["config_name"] for path, info in found.items() if info["config_name"] == path.parts[-4]})


def read_splits(name: str, config: str | None = None) -> list[str]:
    """Names of a config's splits. Raises as [`open_data_set`]."""
    from datasets import get_dataset_split_names

    with open_data_set(name) as (path, options):
        return get_dataset_split_names(path, config, cache_dir=options.get("cache_dir"))


def read_split(name: str, config: str | None, split: str) -> "Dataset":
    """The rows of a split; those of a local folder are in memory. Raises as [`open_data_set`]."""
    from datasets import load_dataset

    with open_data_set(name) as (path, options):
        return load_dataset(path, config, split=split, **options)


@contextmanager
def open_data_set(name: str) -> Iterator[tuple[str, dict]]:
    """
    Yields the path and the options of [`local_dataset`], and makes the errors of `datasets` name `name`.

    Raises `FileNotFoundError` for a folder without data and for a name that the Hub lacks; `ValueError` for rows that
    cannot be read (with file and line if it is a JSON line) and for a data set that is a script.
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
                f"{name}: {error}; take a copy of it as Parquet (google/xtreme has MLQA's), or its files"
            ) from error
        except (DatasetGenerationError, ValueError) as error:
            for file in list_files(folder) if folder.is_dir() else ():
                if file.name.endswith((".jsonl", ".jsonl.gz")):
                    for _ in read_jsonl(file, required=()):
                        pass
            message = str(error.__cause__ or error)
            raise ValueError(f"{name}: {message.replace(path, name)}") from error


__all__ = ["read_configs", "read_split", "read_splits"]
