"""Queries and documents as the model's input."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import BertConfig, CanineTokenizer

from modeling_clir.data import pairs as module
from modeling_clir.data.pairs import PairEncoder, batches_by_length
from modeling_clir.loading import load_tokenizer

from ..helpers import tokens


def test_encoder_lets_fit_what_fits(tokenizer):
    encoded = PairEncoder(tokenizer, 12, 4)(["q1 q2 q3 q4", "q1s"], ["d1 d2 d3 d4 d5", "d1"])
    assert tokens(tokenizer, encoded["input_ids"][0]) == "[CLS] q1 q2 q3 q4 [SEP] d1 d2 d3 d4 d5 [SEP]"
    assert tokens(tokenizer, encoded["input_ids"][1]) == "[CLS] q1 ##s [SEP] d1 [SEP]"  # not padded
    assert encoded["token_type_ids"][0] == [0] * 6 + [1] * 6
    assert encoded["query_cut"] == encoded["document_cut"] == [False, False]


@pytest.mark.parametrize(
    ("query", "kept", "cut"),
    [
        ("q1 q2 q3 q4 q5", "q1 q2 q3 q4", True),
        ("q1 q2 q3sings", "q1 q2", True),  # a word is not split
        ("q1 q2 q3s q4", "q1 q2 q3 ##s", True),
        ("q1 q2 q3sing", "q1 q2", True),
        ("q1s q2s", "q1 ##s q2 ##s", False),
        ("q1sssss", "q1 ##s ##s ##s", True),  # but for one that fills the query
        ("q1 q2sssss", "q1", True),
        ("  q1 \t q2\u2028q3.. q5", "q1 q2 q3 .", True),
        ("长城是的。长城", "长 城 是 的", True),
        ("Q1ä Q2Ä", "[UNK] [UNK]", False),  # accents are taken off: q1a is not in the vocabulary
        ("", "", False),
        ("\u200b", "", False),
    ],
)
def test_encoder_cuts_queries(query, kept, cut, tokenizer):
    encoded = PairEncoder(tokenizer, 9, 4)([query], ["d1"])
    assert tokens(tokenizer, encoded["input_ids"][0]) == " ".join(f"[CLS] {kept} [SEP] d1 [SEP]".split())
    assert encoded["query_cut"] == [cut] and encoded["document_cut"] == [False]


def test_encoder_cuts_documents(tokenizer):
    document = " ".join(f"d{i}" for i in range(30))
    for length in (9, 10, 20, 33, 34, 35):
        encoded = PairEncoder(tokenizer, length, 4)(["q1", "q1 q2 q3 q4 q5"], [document, document])
        for row, query in enumerate((1, 4)):
            room = length - query - 3
            ids = encoded["input_ids"][row]
            assert len(ids) == min(length, query + 33)
            assert tokens(tokenizer, ids).endswith(" ".join(f"d{i}" for i in range(min(room, 30))) + " [SEP]")
            assert encoded["document_cut"][row] == (room < 30)


def test_encoder_properties(tokenizer):
    rng = random.Random(0)
    alphabet = [
        "q1",
        "d2",
        "s",
        "ing",
        " ",
        " ",
        "长",
        "。",
        "[SEP]",
        "[MASK]",
        "[PAD]",
        "ä",
        "\u2028",
        "\u0301",
        "\t",
    ]
    queries, texts = (["".join(rng.choices(alphabet, k=rng.randint(0, 40))) for _ in range(300)] for _ in range(2))
    encoder = PairEncoder(tokenizer, 30, 10)
    encoded = encoder(queries, texts)
    for row, query in enumerate(queries):
        ids, sides = encoded["input_ids"][row], encoded["sides"][row]
        assert len(ids) <= 30 and sides.count(0) <= 10
        special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        assert sum(i in special for i in ids) == 3  # [CLS] and two [SEP], whatever the texts say
        whole = tokenizer(query, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert encoded["query_cut"][row] == (len(whole) > 10)
        assert whole[: sides.count(0)] == ids[1 : 1 + sides.count(0)]
        document = tokenizer(texts[row], add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert encoded["document_cut"][row] == (len(document) > 30 - 3 - sides.count(0))
        # A row does not depend on the other rows.
        assert encoder([query], [texts[row]])["input_ids"] == [ids]


def test_text_is_text(tokenizer):
    encoded = PairEncoder(tokenizer, 30, 10)(["q1 [SEP] [mask]"], ["[MASK] d1 [CLS]"])
    words = "[CLS] q1 [ sep ] [ mask ] [SEP] [ mask ] d1 [ cls ] [SEP]"
    assert tokens(tokenizer, encoded["input_ids"][0]) == words
    # The tokenizer's own behaviour does not change.
    assert tokenizer("[SEP]", add_special_tokens=False)["input_ids"] == [tokenizer.sep_token_id]


def test_encoder_refuses(tokenizer, tmp_path):
    PairEncoder(tokenizer, 14, 10)
    with pytest.raises(ValueError, match=r"max_length \(13\) leaves no room"):
        PairEncoder(tokenizer, 13, 10)
    with pytest.raises(ValueError, match="CanineTokenizer is not a fast tokenizer, which is needed for offsets"):
        PairEncoder(CanineTokenizer(), 14, 10)
    with pytest.raises(ValueError, match=r"the tokenizer of .* does not load .*: first save the tokenizer"):
        load_tokenizer(str(tmp_path))
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no tokenizer: first save the tokenizer"):
        load_tokenizer(str(tmp_path))
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize(("limit", "kept"), [(2, 0), (3, 3), (4, 3), (5, 3), (8, 6), (9, 9)])
def test_encoder_does_not_cut_inside_a_letter(limit, kept, tokenizer):
    """A syllable of Hangul is one letter and three tokens."""
    encoded = PairEncoder(tokenizer, 20, limit)(["각각각"], ["d1 d2"])
    assert encoded["sides"][0].count(0) == kept and encoded["query_cut"] == [kept < 9]


def test_batches_by_length(monkeypatch, capsys):
    lengths = np.random.default_rng(0).integers(1, 50, size=90)
    for budget in (1, 49, 200, 100_000):
        batches = list(batches_by_length(lengths, budget, "rows", "row", progress=False))
        places = [place for batch in batches for place in batch]
        assert sorted(places) == list(range(90))
        # Longest first; rows of equal length stay in order.
        assert places == sorted(range(90), key=lambda i: (-lengths[i], i))
        assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= budget for batch in batches)
        # No batch could take the next row.
        assert all((len(one) + 1) * lengths[one].max() > budget for one in batches[:-1])
        shares = []
        for process in range(3):
            state = SimpleNamespace(num_processes=3, process_index=process)
            monkeypatch.setattr(module, "PartialState", lambda state=state: state)
            shares.append(list(batches_by_length(lengths, budget, "rows", "row", False, distributed=True)))
        assert sorted(batch for share in shares for batch in share) == sorted(batches)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert list(batches_by_length(lengths[:0], 1, "rows", "row", False)) == [] and not capsys.readouterr().err
    list(batches_by_length(lengths, 100, "many rows", "row"))
    assert "many rows: 100%" in (shown := capsys.readouterr().err) and "90/90" in shown
    with pytest.raises(ValueError, match="max_tokens_per_batch must be at least 1, got 0"):
        next(batches_by_length(lengths, 0, "rows", "row"))
