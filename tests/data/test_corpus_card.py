"""The dataset card of a corpus, and what `datasets` reads by it."""

import pyarrow.parquet as pq
import pytest
from datasets import get_dataset_config_names, load_dataset
from huggingface_hub import DatasetCard

from modeling_clir.data.corpus_card import corpus_card
from modeling_clir.data.corpus_files import write_pairs, write_sections


def write_corpus_folder(folder, shards: bool):
    texts = ["a" * 99, "b" * 100, "c" * 4999, "ü" * 5000, "d" * 150]
    rows = {
        language: [(f"{language}:{i}", language, f"x{i // 2}", "T", "", text) for i, text in enumerate(texts)]
        for language in ("en", "de")
    }
    pairs = [(f"en:{i}", f"de:{i}", [f"en:{i - 1}"], []) for i in range(5)]
    write_sections(folder / "sections/en.parquet", rows["en"])
    if not shards:
        write_sections(folder / "sections/de.parquet", rows["de"])
        write_pairs(folder / "pairs/en-de/train.parquet", pairs[:4])
        write_pairs(folder / "pairs/en-de/validation.parquet", pairs[4:])
        return
    for number, part in enumerate((rows["de"][:2], rows["de"][2:])):
        write_sections(folder / f"sections/de/{number}.parquet", part)
    for number, part in enumerate((pairs[:1], [], pairs[1:4])):
        write_pairs(folder / f"pairs/en-de/train/{number}.parquet", part)
    write_pairs(folder / "pairs/en-de/validation/0.parquet", pairs[4:])


@pytest.mark.parametrize("shards", [False, True])
def test_datasets_reads_the_configs_of_the_card(shards, tmp_path):
    folder = tmp_path / "corpus"
    write_corpus_folder(folder, shards)
    card = corpus_card(folder, "cc-by-sa-4.0", ["Wikipedia, 2026-01-01"], {"stubs": 1200, "lists": 0})
    (folder / "README.md").write_text(card, encoding="utf-8")
    assert set(get_dataset_config_names(str(folder))) == {"sections-en", "sections-de", "en-de"}
    for language in ("en", "de"):
        sections = load_dataset(str(folder), f"sections-{language}", split="train")
        assert sections["id"][:] == [f"{language}:{i}" for i in range(5)] and len(sections[3]["text"]) == 5000
    pairs = load_dataset(str(folder), "en-de")
    assert {split: len(rows) for split, rows in pairs.items()} == {"train": 4, "validation": 1}
    assert pairs["train"]["source_id"][:] == [f"en:{i}" for i in range(4)]
    data = DatasetCard(card).data
    assert data.license == "cc-by-sa-4.0" and data.language == ["de", "en"]
    # sections, articles, characters; then by length
    assert "| de | 5 | 3 | 10,348 | 1 | 2 | 0 | 0 | 0 | 1 | 1 |" in card
    assert "| en-de | train | 4 |" in card and "| en-de | validation | 1 |" in card
    assert "- Wikipedia, 2026-01-01" in card and "- stubs: 1,200" in card and "lists" not in card


def test_card_without_license_says_so(tmp_path):
    write_corpus_folder(tmp_path, False)
    write_pairs(tmp_path / "pairs/en-de/validation.parquet", [])
    card = corpus_card(tmp_path)
    assert DatasetCard(card).data.license is None and "License: not stated" in card
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert list(load_dataset(str(tmp_path), "en-de")) == ["train"]  # datasets cannot read an empty split
    (tmp_path / "pairs/en-de/train.parquet").unlink()
    (tmp_path / "pairs/en-de/validation.parquet").unlink()
    with pytest.raises(ValueError, match="it has no pairs"):
        corpus_card(tmp_path)


def test_card_of_a_built_corpus(sample_corpus):
    card = (sample_corpus / "README.md").read_text(encoding="utf-8")
    for language in ("en", "de"):
        number = pq.read_metadata(sample_corpus / f"sections/{language}.parquet").num_rows
        assert f"| {language} | {number} |" in card
        assert len(load_dataset(str(sample_corpus), f"sections-{language}", split="train")) == number
