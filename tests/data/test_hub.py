"""Data sets of the Hub and local folders in its layout."""

import os

import datasets
import pytest

from modeling_clir.data.hub import read_configs, read_split, read_splits

from ..helpers import write
from .test_sources import hub_layout


ROWS = {
    "corpus": {"test": [{"text": "a"}, {"text": "b"}]},
    "queries": {"dev": [{"text": "c"}], "en.test": [{"text": "d"}]},
}


@pytest.mark.parametrize("name", ["data", "data[v2]", "new [1]/d*ta?"])
def test_a_folder_is_read_anew(name, tmp_path):
    """Any name works, and an edit that keeps README and number of rows is seen."""
    folder = hub_layout(tmp_path / name, ROWS)
    os.symlink(folder / "corpus", folder / "linked")
    assert read_configs(str(folder)) == ["corpus", "queries"]
    assert read_splits(str(folder), "queries") == ["dev", "en.test"]
    assert list(read_split(str(folder), "queries", "en.test")) == [{"text": "d"}]
    write(folder / "queries/en.test.jsonl", {"text": "e"})
    assert list(read_split(str(folder), "queries", "en.test")) == [{"text": "e"}]
    write(folder / "queries/en.test.jsonl", {"text": "e"}, {"text": "f"})
    assert list(read_split(str(folder), "queries", "en.test"))[1:] == [{"text": "f"}]


@pytest.mark.parametrize("name", ["data", "data[v2]"])
def test_a_folder_without_a_readme(name, tmp_path):
    write(tmp_path / name / "train.jsonl", {"text": "a"})
    write(tmp_path / name / "test.jsonl", {"text": "b"})
    folder = str(tmp_path / name)
    assert read_configs(folder) == ["default"] and sorted(read_splits(folder)) == ["test", "train"]
    assert list(read_split(folder, None, "test")) == [{"text": "b"}]


@pytest.mark.parametrize("name", ["data", "data[v2]"])
def test_errors_name_the_folder(name, tmp_path):
    folder = hub_layout(tmp_path / name, ROWS)
    write(folder / "corpus/test.jsonl", {"text": "a"}, '{"text": "b')
    with pytest.raises(ValueError) as error:
        read_split(str(folder), "corpus", "test")
    assert f"{folder}/corpus/test.jsonl:2: not JSON" in str(error.value)
    (folder / "corpus/test.jsonl").unlink()
    with pytest.raises(FileNotFoundError) as error:
        read_split(str(folder), "corpus", "test")
    assert f"{folder}/corpus/test.jsonl" in str(error.value) and len(str(error.value)) < 300
    write(folder / "other/test.parquet", "not a table")
    with pytest.raises(ValueError, match=r"[Pp]arquet") as error:
        read_split(f"{folder}/other", None, "test")
    assert str(error.value).startswith(f"{folder}/other: ")


def test_configs_of_the_cache_offline(tmp_path, monkeypatch):
    """Configs that the cache of `datasets` holds are found without the Hub."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = hub_layout(tmp_path / "ArguAna", ROWS)
    for config in ROWS:
        datasets.load_dataset(str(folder), config)
    (tmp_path / "cache/argu_ana").rename(tmp_path / "cache/mteb___argu_ana")
    assert datasets.get_dataset_config_names("mteb/ArguAna") == ["default"]
    assert read_configs("mteb/ArguAna") == ["corpus", "queries"]
    assert read_splits("mteb/ArguAna", "queries") == ["dev", "en.test"]
    assert list(read_split("mteb/ArguAna", "corpus", "test")) == [{"text": "a"}, {"text": "b"}]
    with pytest.raises(OSError, match="mteb/other"):
        read_configs("mteb/other")
