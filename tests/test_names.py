"""Names that exist here, names that may be on the Hub, and the messages for other names."""

import pytest

from modeling_clir.names import check_name, check_output_dir, check_path, missing_path, parse_pairs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "output/clir-bertlong/fold-0").mkdir(parents=True)
    (tmp_path / "output/corpus").mkdir()
    (tmp_path / "questions.json").write_text("{}", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["output/corpus", "google-bert/bert-base-multilingual-uncased", "bert-base-uncased", "questions.json"]
)
def test_names_that_are_here_or_may_be_on_the_hub(folder, name):
    check_name(name, "data set", file=True)


def test_a_model_is_a_folder(folder):
    with pytest.raises(NotADirectoryError, match=r"questions\.json is a file: name the folder of a model"):
        check_name("questions.json", "model")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "output/corpuss",
            r"^there is no output/corpuss; did you mean output/corpus\? \(for a model of the Hub start ",
        ),
        ("output/clir-bertlon", "did you mean output/clir-bertlong?"),
        ("output/clir-bertlon/fold-0", "did you mean output/clir-bertlong/fold-0?"),
        ("output/xyz", "there is no output/xyz "),
        ("outptu/corpus/x", "there is no outptu/corpus/x; did you mean output/corpus/x"),
        ("a/b/c", "there is no a/b/c: no folder a"),
        ("./corpus", "there is no corpus"),
        ("/nowhere/model", "there is no /nowhere/model: no folder /nowhere"),
        ("question.json", r"there is no question.json; did you mean questions.json\?"),
        ("questions.json/x", "there is no questions.json/x: .*questions.json is a file"),
        ("name with spaces", "there is no name with spaces"),
    ],
)
def test_names_that_are_nowhere(folder, name, message):
    with pytest.raises(FileNotFoundError, match=message):
        check_name(name, "model")


def test_paths_and_output(folder):
    check_path("questions.json")
    with pytest.raises(NotADirectoryError, match=r"questions\.json is a file: name the folder of a data set"):
        check_name("questions.json", "data set")
    assert missing_path("questions.json") == "questions.json is a file, not a folder"
    with pytest.raises(FileNotFoundError, match=r"did you mean questions.json\?"):
        check_path("questions.jso")
    assert (
        missing_path(folder / "output/corpuss")
        == f"there is no {folder}/output/corpuss; did you mean {folder}/output/corpus?"
    )
    check_output_dir("output")
    check_output_dir("output/new/folder")
    for path in ("questions.json", "questions.json/x"):
        with pytest.raises(
            NotADirectoryError, match=f"--output_dir {path} must be a folder, but .*questions.json is a file"
        ):
            check_output_dir(path)


def test_parse_pairs():
    assert parse_pairs("en-de, de-fr ,") == ["en-de", "de-fr"]
    assert parse_pairs("en-en") == ["en-en"] and parse_pairs("") == []
    for bad in ("en", "en-", "-de", "en-de-fr", "en-de,de-en", "en-de,en-de", "en-en,en-en"):
        with pytest.raises(ValueError, match="pair"):
            parse_pairs(bad)
