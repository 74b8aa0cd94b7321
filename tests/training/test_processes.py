"""Several processes give the numbers of one."""

import pytest
import torch

from ..data.test_sections import raw_corpus
from ..helpers import WORDS, write
from .in_processes import CASES, main, start


def corpus_of_words(folder, number: int) -> str:
    texts = {
        language: {f"{language}{i}": f"d{i} d{i + shift}. q{i} d{2 * i} d{i + 2}." for i in range(number)}
        for language, shift in (("en", 1), ("de", 30))
    }
    after = [[(i + 1) % number, (i + 2) % number] for i in range(number)]
    rows = [(f"en{i}", f"de{i}", [f"en{j}" for j in after[i]], [f"de{j}" for j in after[i]]) for i in range(number)]
    return raw_corpus(folder, texts, {"en-de": rows})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Words and corpus, and what one process finds."""
    folder = tmp_path_factory.mktemp("processes")
    words = write(folder / "vocab.txt", "\n".join(WORDS) + "\n")
    corpus = corpus_of_words(folder / "corpus", 19)
    threads = torch.get_num_threads()
    (folder / "one").mkdir()
    main(str(words), corpus, str(folder / "one"))
    torch.set_num_threads(threads)
    return words, corpus, torch.load(folder / "one/found.pt")


@pytest.mark.parametrize("processes", [2, 4])
def test_training_and_evaluation_equal_one_process(processes, data, tmp_path):
    words, corpus, expected = data
    start(processes, words, corpus, tmp_path)
    found = torch.load(tmp_path / "found.pt")
    for case in CASES:
        torch.testing.assert_close(found[case]["weights"], expected[case]["weights"], atol=1e-5, rtol=0, msg=case)
        assert found[case]["measures"] == pytest.approx(expected[case]["measures"], abs=1e-5), case
    moved = (expected["plain"]["weights"] - expected["tokens"]["weights"]).abs().max()
    assert moved > 1e-3  # the cases train
