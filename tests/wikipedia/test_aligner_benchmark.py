"""The benchmark of the aligner counts right, leaks no order, and says what it cannot read."""

import csv
import gzip
import importlib
from pathlib import Path

import numpy as np
import pytest

from ..shared import shared_path


BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def aligner(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("aligner")


def write_tsv(path: Path, pages: int = 4) -> Path:
    """Writes pages of a lead and three sections of two sentences. Years in both languages tell which ones match."""
    lines = []
    for page in range(pages):
        for part, headings in enumerate(
            ["Introduction\tIntroduction", "生平\tLife", "事業|早年\tCareer|Early", "逝世\tDeath"]
        ):
            for sentence in range(2):
                year = 1000 + 100 * page + 10 * part + sentence
                lines.append(f"页{page}\t{headings}\t他在{year}年。\tHe was there in {year}.\n")
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(lines)
    return path


def run(aligner, folder: Path, *options) -> dict[tuple[str, str], dict]:
    aligner.main([*map(str, options), "--output", str(folder)])
    with open(folder / "aligner.csv", encoding="utf-8", newline="") as file:
        return {(row["setting"], row["features"]): row for row in csv.DictReader(file)}


def test_rows_of_a_file_of_sentences(aligner, tmp_path, monkeypatch):
    monkeypatch.setattr(
        aligner, "SETS", {name: aligner.SETS[name] for name in ("numbers", "all but position", "vectors")}
    )
    path = write_tsv(tmp_path / "test.tsv.gz")
    rows = run(aligner, tmp_path, path, "--tune", path)
    f1 = {key: float(row["F1"]) for key, row in rows.items()}
    assert f1["in order", "same place"] == 1 and f1["shuffled", "same place"] < 0.7
    assert f1["shuffled", "random"] < 0.7
    assert f1["shuffled", "all but position"] == f1["shuffled", "numbers"] == 1
    assert f1["shuffled", "shipped"] > 0.8 and f1["third removed", "shipped"] > 0.7
    assert not any("vectors" in features for _, features in rows)
    assert {key: row for key, row in rows.items() if key[1] == "shipped"}.items() <= run(
        aligner, tmp_path, path
    ).items()


def test_without_a_file_to_tune_on_there_are_no_rows_per_feature(aligner, tmp_path):
    rows = run(aligner, tmp_path, write_tsv(tmp_path / "test.tsv.gz"))
    assert {features for _, features in rows} == {"random", "same place", "shipped"}


def test_settings_keep_what_they_say(aligner, tmp_path):
    pairs = aligner.read_tsv(write_tsv(tmp_path / "test.tsv.gz"))
    for case in aligner.make_cases(pairs, 0):
        assert (case.matches == np.eye(4)).all()
        assert [s.heading for s in case.source.sections] == ["", "生平", "早年", "逝世"]
        assert [s.level for s in case.target.sections] == [1, 2, 3, 2]
    shuffled = aligner.make_cases(pairs, 0, shuffle=True)
    assert any((case.matches != np.eye(4)).any() for case in shuffled)
    for case in shuffled:
        assert (case.matches.sum(0) == 1).all() and (case.matches.sum(1) == 1).all()
        for i, j in np.argwhere(case.matches):
            year = case.source.sections[i].text[2:6]
            assert year in case.target.sections[j].text
    for case in aligner.make_cases(pairs, 0, shuffle=True, removed=1 / 3, halves=True):
        assert case.matches.shape == (3, 3)
        source, target = (" ".join(s.text for s in a.sections) for a in (case.source, case.target))
        assert source.count("年。") == target.count("He was") == 3
        assert not set(target.replace(".", "").split()) & {source[i : i + 4] for i in range(len(source))}


def test_measures_count_matches(aligner):
    cases = [aligner.Case(None, None, np.eye(2, dtype=bool)), aligner.Case(None, None, np.ones((1, 1), dtype=bool))]
    measured = aligner.measure([[(0, 0, 0.9), (1, 0, 0.5)], []], cases)
    assert measured == pytest.approx({"precision": 1 / 2, "recall": 1 / 3, "F1": 2 / 5})
    assert aligner.measure([[], []], cases)["F1"] == 0


def test_markdown_folders(aligner, tmp_path, capsys):
    folder = tmp_path / "guides"
    (folder / "de").mkdir(parents=True)
    english = "---\ntitle: T\n---\nLead [a](https://a.org).\n\n## One\n\n```\n# no heading\n```\nText\n\n### Two [x](/y)\n\nB\n\nC\n"
    (folder / "a.md").write_text(english, encoding="utf-8")
    (folder / "de/a.md").write_text(english.replace("One", "Eins"), encoding="utf-8")
    (folder / "b.md").write_text(english, encoding="utf-8")
    (folder / "de/b.md").write_text("## Nur eine\n\nText\n", encoding="utf-8")
    (name, pairs), *rest = aligner.read_data(folder).items()
    assert name == "guides/de" and not rest and [pair.key for pair in pairs] == ["a"]
    assert "b.md" in capsys.readouterr().out
    assert pairs[0].source == [
        ("", 1, ["Lead a."], ["https://a.org"]),
        ("One", 2, ["# no heading", "Text"], []),
        ("Two x", 3, ["B", "C"], []),
    ]
    assert [section[0] for section in pairs[0].target] == ["", "Eins", "Two x"]
    halves = aligner.make_cases(pairs, 0, halves=True)[0]
    assert [(s.text, s.links) for s in halves.source.sections] == [("# no heading", []), ("B", [])]
    assert [s.text for s in halves.target.sections] == ["Text", "C"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.tsv has no rows"),
        ("a\tb\tc\td\n", r"x.tsv:1: expected 5 columns, got 4"),
        ("a\t\tc\td\te\n", r"x.tsv:1: page and headings"),
    ],
)
def test_files_of_another_form_are_refused(aligner, tmp_path, text, message):
    (tmp_path / "x.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        aligner.main([str(tmp_path / "x.tsv"), "--output", str(tmp_path)])
    assert not (tmp_path / "aligner.csv").exists()


def test_incomplete_commands_are_refused(aligner, tmp_path):
    for options, message in ([], "name the data"), (["--fit"], "--fit needs --tune"):
        with pytest.raises(ValueError, match=message):
            aligner.main(options)
    with pytest.raises(ValueError, match="no file"):
        aligner.main([str(tmp_path), "--output", str(tmp_path)])


def test_fit_prints_the_weights(aligner, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(aligner, "SETS", {"all": aligner.SETS["all"]})
    aligner.main(["--fit", "--tune", str(write_tsv(tmp_path / "dev.tsv.gz"))])
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("WEIGHTS = (") and line.count(",") == len(aligner.FEATURES)


@pytest.mark.slow
def test_wikipedia_sections(aligner, tmp_path):
    rows = run(aligner, tmp_path, shared_path("data/wiki_sections_zh_en/dev.zh-en.tsv.gz"))
    assert float(rows["shuffled", "shipped"]["F1"]) > 0.85 > 0.5 > float(rows["shuffled", "random"]["F1"])
