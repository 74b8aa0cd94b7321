"""Queries and documents as the model's input."""

import json
import pickle
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertJapaneseTokenizer,
    CanineTokenizer,
    XLMConfig,
    XLMTokenizer,
)

from modeling_clir.data import pairs as module
from modeling_clir.data.collators import PretrainingCollator
from modeling_clir.data.pairs import PairEncoder, batches_by_length, tokens_at_once
from modeling_clir.data.sections import Example
from modeling_clir.evaluation.alignment import encode_layers
from modeling_clir.loading import load_pretrained, load_tokenizer
from modeling_clir.reader import Reader
from modeling_clir.reranker import Reranker

from ..helpers import WORDS, tokens


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


# ---------------------------------------------------------------------------------------------------------------------
# Tokenizers that are written in Python
# ---------------------------------------------------------------------------------------------------------------------


class Moses:
    """Stands for sacremoses, which XLM's tokenizer imports: it splits a text at spaces and around punctuation."""

    def __init__(self, lang):
        pass

    def normalize(self, text):
        return text

    def tokenize(self, text, return_str, escape):
        return "".join(c if c.isalnum() else f" {c} " for c in text).split()


@pytest.fixture(params=["xlm", "japanese"])
def python_folder(request, tmp_path, monkeypatch):
    """Saves a tiny XLM or a BERT with a Japanese BERT's tokenizer, both as their authors would."""
    sizes = {"initializer_range": 0.3, "num_labels": 1}
    if request.param == "xlm":
        monkeypatch.setitem(
            sys.modules, "sacremoses", SimpleNamespace(MosesPunctNormalizer=Moses, MosesTokenizer=Moses)
        )
        special = ["<s>", "</s>", "<pad>", "<unk>", *(f"<special{i}>" for i in range(10))]
        letters = [*"qd0123456789<>/s[]", *(f"{c}</w>" for c in "qd0123456789<>/s[]")]
        pieces = [*special, *letters, "q1</w>", "d1</w>"]
        (tmp_path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(pieces)}), encoding="utf-8")
        (tmp_path / "merges.txt").write_text("q 1</w>\nd 1</w>\n", encoding="utf-8")
        tokenizer = XLMTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
        config = XLMConfig(
            vocab_size=len(tokenizer),
            emb_dim=16,
            n_layers=2,
            n_heads=2,
            max_position_embeddings=64,
            init_std=0.3,
            **sizes,
        )
    else:
        (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
        tokenizer = BertJapaneseTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=True)
        config = BertConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=64,
            **sizes,
        )
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


LITERAL = "q1 [SEP] </s> <special1>[MASK] q2"


def test_python_tokenizers_make_the_same_rows(python_folder):
    tokenizer = load_tokenizer(str(python_folder))
    assert not tokenizer.is_fast
    encoder = PairEncoder(tokenizer, 40, 12)
    queries, documents = ["q1 q2", "", "q12", LITERAL[:14]], ["d1 d2 d3", "d1", "", "d1 </s> [SEP] d12"]
    encoded = encoder(queries, documents)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for row, (query, document) in enumerate(zip(queries, documents)):
        plain = tokenizer(query, document, split_special_tokens=True, return_token_type_ids=True)
        ids, sides = encoded["input_ids"][row], encoded["sides"][row]
        assert ids == plain["input_ids"] and encoded["token_type_ids"][row] == plain["token_type_ids"]
        assert all(i in special for i, side in zip(ids, sides) if side == -1)
        if "vocab.json" in tokenizer.vocab_files_names.values():  # the Japanese class never splits a literal [SEP]
            assert [side == -1 for side in sides] == [i in special for i in ids]
        length = len(tokenizer.tokenize(query, split_special_tokens=True))
        assert sides.count(0) == length and sides[1 : 1 + length] == [0] * length
    assert not any(encoded["query_cut"]) and not any(encoded["document_cut"])

    # A query is cut by tokens, and then the document.
    cut = encoder(["q1 " * 20], ["d12 " * 30])
    assert cut["query_cut"] == cut["document_cut"] == [True]
    assert len(cut["input_ids"][0]) == 40 and cut["sides"][0].count(0) == 12
    whole = tokenizer("q1 " * 20, add_special_tokens=False)["input_ids"]
    assert cut["input_ids"][0][1:13] == whole[:12]

    # Threads share an encoder, workers get one by pickling; the tokenizer does as before.
    with ThreadPoolExecutor(4) as pool:
        assert all(rows == encoded for rows in pool.map(lambda _: encoder(queries, documents), range(8)))
    assert pickle.loads(pickle.dumps(encoder))(queries, documents) == encoded
    assert tokenizer(tokenizer.sep_token, add_special_tokens=False)["input_ids"] == [tokenizer.sep_token_id]


def test_python_tokenizers_at_the_doors(python_folder):
    """Ranking, finetuning's batches and alignment take them; answering questions needs offsets."""
    reranker = Reranker.from_pretrained(python_folder, max_length=40, max_query_length=12)
    pairs = [("q1 q2", "d1 d2 d3"), (LITERAL[:8], "d1"), ("q1", "d1 " * 60)]
    tokenizer, model = reranker.encoder.tokenizer, reranker.model
    assert "token_type_ids" not in tokenizer.model_input_names  # neither class gives them unasked
    scores = reranker.score(pairs, progress=False)
    assert reranker.counts == {"pairs": 3, "queries_cut": 0, "documents_cut": 1}
    with torch.no_grad():
        alone = model(**tokenizer(*pairs[0], return_tensors="pt")).logits.item()
    assert scores[0] == pytest.approx(alone, abs=1e-5) and len(set(scores)) == 3

    example = Example("rr", "en-de", "q1 q2", ["d1 d2 d3", "d1"], "seed", False)
    batch = PretrainingCollator(reranker.encoder, mask_mode=None)([example])
    with torch.no_grad():
        inputs = {name: batch[name] for name in tokenizer.model_input_names}
        assert model(**inputs).logits[0].item() == pytest.approx(alone, abs=1e-5)

    encoder, tokenizer = load_pretrained(AutoModel, python_folder)
    texts = ["d1 d2 d3", "</s> d1 [SEP]", "d1 " * 60]
    vectors = encode_layers(encoder, tokenizer, texts, max_length=20, progress=False)
    assert vectors.cut.tolist() == [False, False, True]
    for row, text in enumerate(texts):
        ids = tokenizer(text, split_special_tokens=True, truncation=True, max_length=20, return_tensors="pt")[
            "input_ids"
        ]
        with torch.no_grad():
            states = encoder(input_ids=ids, output_hidden_states=True).hidden_states
        for layer, state in enumerate(states):
            np.testing.assert_allclose(vectors.vectors[0, layer, row], state[0].mean(0), atol=2e-5)

    with pytest.raises(
        ValueError, match=r"Tokenizer is written in Python and gives no offsets, by which an answer is"
    ):
        Reader.from_pretrained(python_folder, max_length=40, doc_stride=4, max_question_length=10, new_head=True)


def test_a_package_that_a_tokenizer_needs_is_named(python_folder, monkeypatch):
    if "xlm" not in (python_folder / "config.json").read_text(encoding="utf-8"):
        pytest.skip("needs no package")
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(
        ValueError, match=r"does not load \(You need to install sacremoses .*: install the package that"
    ):
        load_tokenizer(str(python_folder))


def test_literal_tokens_that_a_python_tokenizer_keeps_whole():
    """Canine's tokens are single characters, which a text may hold: these are special in a text too."""
    encoder = PairEncoder(CanineTokenizer(), 40, 12)
    encoded = encoder(["ab"], ["c\ue001"])
    assert encoded["input_ids"] == [[0xE000, 97, 98, 0xE001, 99, 0xE001, 0xE001]]
    assert encoded["sides"] == [[-1, 0, 0, -1, 1, 1, -1]]  # but it stands in the document


@pytest.mark.parametrize(
    ("device", "kind", "expected"),
    [("cpu", "bert", 2048), ("cpu", "bertlong-xlr", 8192), ("cuda", "bert", 8192), ("cuda", "bertlong-xlr", 8192)],
)
def test_batches_of_a_cpu_are_small(device, kind, expected):
    model = SimpleNamespace(device=torch.device(device), config=SimpleNamespace(model_type=kind))
    assert tokens_at_once(model, 8192) == expected
    assert tokens_at_once(model, 100) == 100
