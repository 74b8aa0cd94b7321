"""Reranking: batches and their order do not change scores."""

import pickle
import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pandas as pd
import pytest
import torch
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from modeling_clir.convert import bert_to_bertlong, load_bert
from modeling_clir.data.pairs import PairEncoder, tokens_at_once
from modeling_clir.reranker import EncodedPairs, Reranker
from tests.conftest import REPOSITORY


QUERY = "Wann wurde der Leuchtturm Skarvholm gebaut?"
DOCUMENTS = [
    "The harbour of Norrvik froze in the winter of 1911.",
    "",
    "Skarvholm Lighthouse was built between 1861 and 1866 on a granite reef off the coast of Norrvik. " * 3,
    "灯塔建于1861年。",
    "[SEP] lighthouse [MASK]",
    "The harbour of Norrvik froze in the winter of 1911.",
]
WORDS = [
    "q1",
    "granite",
    "reefs",
    " ",
    "\n",
    "長城",
    "的",
    "。",
    "각",
    "é",
    "[SEP]",
    "</s>",
    "[MASK]",
    "<mask>",
    "...",
    "🙂",
    "I'm",
]
SAMPLE = [str(path) for path in sorted((REPOSITORY / "sample/train").glob("*.jsonl"))]


def random_text(rng: random.Random) -> str:
    return "".join(rng.choice(WORDS) + rng.choice(["", " "]) for _ in range(rng.choice([0, 1, 3, 10, 60])))


@pytest.fixture(scope="module")
def folders(tiny_bert, tmp_path_factory):
    """Saves the same weights as a BERT and as a BertLong, with scores that are far apart."""
    folder = tmp_path_factory.mktemp("rerankers")
    model = load_bert(tiny_bert)
    model.classifier.weight.data *= 30
    for name, saved in {"bert": model, "bertlong": bert_to_bertlong(model, 128, 8)}.items():
        saved.save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder / name)
    return folder


@pytest.fixture(params=["bert", "bertlong"])
def folder(request, folders):
    return folders / request.param


def random_pairs(seed: int, number: int = 60) -> list[tuple[str, str]]:
    """Draws queries and documents that occur more than once, whole pairs too."""
    rng = random.Random(seed)
    queries, documents = ([random_text(rng) for _ in range(count)] for count in (8, 15))
    return [(rng.choice(queries), rng.choice(documents)) for _ in range(number)]


# ---------------------------------------------------------------------------------------------------------------------
# Rows
# ---------------------------------------------------------------------------------------------------------------------


def trained(model, trainer, normalizer, pre_tokenizer, processor, **options) -> PreTrainedTokenizerFast:
    backend = Tokenizer(model)
    backend.normalizer, backend.pre_tokenizer = normalizer, pre_tokenizer
    backend.train(SAMPLE, trainer)
    backend.post_processor = processor(backend.token_to_id)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **options)


ROBERTA = {"bos_token": "<s>", "cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "eos_token": "</s>"}
ROBERTA |= {"unk_token": "<unk>", "mask_token": "<mask>", "model_input_names": ["input_ids", "attention_mask"]}
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def template(pair: str):
    def processor(token_to_id):
        return processors.TemplateProcessing("<s> $A </s>", pair, [(t, token_to_id(t)) for t in ("<s>", "</s>")])

    return processor


def unigram(pair: str, **options) -> PreTrainedTokenizerFast:
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    return trained(
        models.Unigram(),
        trainer,
        normalizers.NFKC(),
        pre_tokenizers.Metaspace(),
        template(pair),
        **(ROBERTA | options),
    )


def byte_level() -> PreTrainedTokenizerFast:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    return trained(
        models.BPE(),
        trainer,
        normalizers.NFC(),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        lambda token_to_id: processors.RobertaProcessing(("</s>", token_to_id("</s>")), ("<s>", token_to_id("<s>"))),
        **ROBERTA,
    )


def gemma() -> PreTrainedTokenizerFast:
    """Makes a tokenizer like Gemma's: spaces belong to tokens, and nothing splits words."""
    special = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, limit_alphabet=60, max_token_length=12, show_progress=False
    )
    return trained(
        models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True),
        trainer,
        normalizers.Replace(" ", "\u2581"),
        pre_tokenizers.Split(" ", "merged_with_previous"),
        template("<s> $A </s> $B </s>"),
        **ROBERTA,
    )


TOKENIZERS = {
    "XLM-R": lambda: unigram("<s> $A </s> </s> $B </s>"),
    "RoBERTa": byte_level,
    "Gemma": gemma,
    "XLNet": lambda: unigram(
        "$A:0 </s>:0 $B:1 </s>:1 <s>:2", padding_side="left", model_input_names=["input_ids", "token_type_ids"]
    ),
    "cut on the left": lambda: unigram("<s> $A </s> $B:1 </s>:1", truncation_side="left"),
    "document first": lambda: unigram("<s> $B </s> $A </s>"),
    "nothing between": lambda: unigram("$A $B"),
}


def as_transformers(tokenizer, encoder, pairs):
    """Returns the rows of pairs that the tokenizer makes and cuts itself, for queries that fit."""
    queries, _ = encoder.encode_queries([query for query, _ in pairs])
    texts = [
        query[: max((end for _, end in encoded.offsets), default=0)] for (query, _), encoded in zip(pairs, queries)
    ]
    options = {"truncation": "only_second", "max_length": encoder.max_length, "split_special_tokens": True}
    return tokenizer(texts, [document for _, document in pairs], **options).encodings


def check_rows(tokenizer):
    for max_length, max_query_length in ((24, 8), (60, 10), (400, 128)):
        encoder = PairEncoder(tokenizer, max_length, max_query_length)
        for seed in range(5):
            pairs = random_pairs(seed)
            encoded, expected = EncodedPairs(encoder, pairs), encoder(*map(list, zip(*pairs)))
            assert encoded.lengths.tolist() == [len(ids) for ids in expected["input_ids"]]
            for i, row in enumerate(as_transformers(tokenizer, encoder, pairs)):
                ids, types = encoded.rows([i])[0]
                assert ids.tolist() == row.ids == expected["input_ids"][i]
                assert types.tolist() == row.type_ids == expected["token_type_ids"][i]
            cut = {"queries_cut": sum(expected["query_cut"]), "documents_cut": sum(expected["document_cut"])}
            assert encoded.counts == {"pairs": len(pairs)} | cut
            inputs = {name: expected[name] for name in tokenizer.model_input_names}
            padded = tokenizer.pad(inputs, return_tensors="pt")
            found = encoded.batch(range(len(pairs)))
            assert set(found) == set(padded)
            for name, tensor in padded.items():
                assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_rows_of_bert(tiny_bert, tokenizer):
    check_rows(AutoTokenizer.from_pretrained(tiny_bert))
    check_rows(tokenizer)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_rows_of_other_tokenizers(name):
    check_rows(TOKENIZERS[name]())


def test_every_text_is_tokenized_once(tokenizer, monkeypatch):
    encoder = PairEncoder(tokenizer, 20, 4)
    pairs = [(f"q{i} q1 q1 q1 q1", f"d{j}") for i in range(7) for j in range(9)]
    seen = []
    encode = PairEncoder.encode
    monkeypatch.setattr(PairEncoder, "encode", lambda self, texts: seen.extend(texts) or encode(self, texts))
    encoded = EncodedPairs(encoder, pairs)
    for start in range(0, len(pairs), 10):
        encoded.batch(range(start, min(start + 10, len(pairs))))
    counts = Counter(seen)
    assert all(counts[f"d{j}"] == 1 for j in range(9))
    assert all(counts[f"q{i} q1 q1 q1 q1"] == counts[f"q{i} q1 q1 q1"] == 1 for i in range(7))  # as it came, and cut


# ---------------------------------------------------------------------------------------------------------------------
# Scores
# ---------------------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_model_by_itself(folder):
    reranker = Reranker.from_pretrained(str(folder), max_query_length=20, max_tokens_per_batch=500)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    pairs = random_pairs(0)
    expected = []
    for query, document in pairs:
        encoded = reranker.encoder([query], [document])
        inputs = {name: torch.tensor(encoded[name]) for name in ("input_ids", "token_type_ids", "attention_mask")}
        with torch.no_grad():
            expected.append(model(**inputs).logits.item())
    assert reranker.score(pairs, progress=False) == pytest.approx(expected, abs=1e-5)
    assert len(set(expected)) > 20


def test_batches_and_order_change_nothing(folder):
    pairs = random_pairs(1)
    expected = None
    for budget in (1, 100, 1000, 100_000):
        reranker = Reranker.from_pretrained(str(folder), max_query_length=20, max_tokens_per_batch=budget)
        sizes = []
        reranker.model.register_forward_pre_hook(
            lambda _, args, kwargs, sizes=sizes: sizes.append(kwargs["input_ids"].shape), with_kwargs=True
        )
        scores = reranker.score(pairs, progress=False)
        limit = tokens_at_once(reranker.model, budget)
        assert all(rows == 1 or rows * tokens <= limit for rows, tokens in sizes)
        assert sum(rows for rows, _ in sizes) == len(pairs) and (len(sizes) == 1) == (limit == 100_000)
        assert (len(sizes) == len(pairs)) == (budget == 1)
        expected = expected or scores
        assert scores == pytest.approx(expected, abs=1e-5)
        order = random.Random(0).sample(range(len(pairs)), len(pairs))
        scores = reranker.score((pairs[i] for i in order), progress=False)
        assert scores == pytest.approx([expected[i] for i in order], abs=1e-5)


def test_ranking_is_that_of_sentence_transformers(folder):
    reranker = Reranker.from_pretrained(str(folder), max_query_length=100)
    other = CrossEncoder(str(folder), activation_fn=torch.nn.Identity(), device="cpu", max_length=128)
    documents = [text for text in DOCUMENTS if "[" not in text]  # which CrossEncoder takes for special tokens
    expected = other.predict([(QUERY, document) for document in documents]).tolist()
    assert reranker.score([(QUERY, document) for document in documents], False) == pytest.approx(expected, abs=1e-5)
    found, expected = reranker.rank(QUERY, documents), other.rank(QUERY, documents, return_documents=True)
    assert [hit.keys() for hit in found] == [hit.keys() for hit in expected]
    assert [(hit["corpus_id"], hit["text"]) for hit in found] == [(hit["corpus_id"], hit["text"]) for hit in expected]
    assert [hit["score"] for hit in found] == pytest.approx([hit["score"] for hit in expected], abs=1e-5)


CONTAINERS = {
    "tuple": tuple,
    "generator": lambda texts: (text for text in texts),
    "array": np.array,
    "array of objects": lambda texts: np.array(texts, dtype=object),
    "series with gaps": lambda texts: pd.Series(["other", *texts]).iloc[1:],
    "series in another order": lambda texts: pd.Series(texts, index=range(len(texts))[::-1]),
    "series with names": lambda texts: pd.Series(texts, index=[f"d{i}" for i in range(len(texts))]),
    "values of a dictionary": lambda texts: dict(enumerate(texts)).values(),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers(name, folders):
    reranker = Reranker.from_pretrained(folders / "bert", max_query_length=100)
    expected = reranker.rank(QUERY, DOCUMENTS)
    assert reranker.rank(QUERY, CONTAINERS[name](DOCUMENTS)) == expected
    scores = {hit["corpus_id"]: hit["score"] for hit in expected}
    pairs = zip([QUERY] * len(DOCUMENTS), CONTAINERS[name](DOCUMENTS))
    assert reranker.score(pairs, progress=False) == [scores[i] for i in range(len(DOCUMENTS))]
    assert reranker.score(np.array([[QUERY, text] for text in DOCUMENTS]), progress=False)[0] == scores[0]


BAD_DOCUMENTS = {
    "a text": ("a text", "documents must be a list of texts, in an order, got str"),
    "a set": ({"a", "b"}, "documents must be .* got set"),
    "a dictionary": ({"d1": "a"}, "documents must be .* got dict"),
    "a table": (pd.DataFrame({"text": ["a"]}), "documents must be .* got DataFrame"),
    "nothing": (None, "documents must be .* got NoneType"),
    "a number inside": (["a", 7], r"documents\[1\] must be a text, got int: 7"),
    "None inside": (["a", "b", None], r"documents\[2\] must be a text, got NoneType"),
    "a mapping without text": (["a", {"id": "d1"}], r"documents\[1\]\['text'\] must be a text, got NoneType"),
    "a number for a text": ([{"text": 7}], r"documents\[0\]\['text'\] must be a text, got int: 7"),
    "a title that is no text": ([{"text": "a", "title": 7}], r"documents\[0\]\['title'\] must be a text, got int"),
    "a missing value": (pd.Series(["a", float("nan")]), r"documents\[1\] must be a text, got float: nan"),
    "rows": (np.array([["a", "b"]]), r"documents\[0\] must be a text, got ndarray"),
}


@pytest.mark.parametrize("name", BAD_DOCUMENTS)
def test_what_is_no_list_of_texts(name, folders):
    reranker = Reranker.from_pretrained(folders / "bert", max_query_length=100)
    documents, message = BAD_DOCUMENTS[name]
    with pytest.raises(TypeError, match=message):
        reranker.rank(QUERY, documents)


def test_what_is_no_list_of_pairs(folders):
    reranker = Reranker.from_pretrained(folders / "bert", max_query_length=100)
    for query in (None, 7, ["q"]):
        with pytest.raises(TypeError, match="query must be a text, got"):
            reranker.rank(query, DOCUMENTS)
    for pairs, message in (
        ("ab", "pairs must be a list of .query, document., in an order, got str"),
        (["ab"], r"pairs\[0\] must be a query and a document, got str: 'ab'"),
        ([("q", "d"), ("q", None)], r"pairs\[1\] must be a query and a document, both texts, got str, NoneType"),
        ([("q", "d", "e")], r"pairs\[0\] must be a query and a document"),
        ([7], r"pairs\[0\] must be a query and a document, got int: 7"),
        ({"q": "d"}, "got dict"),
    ):
        with pytest.raises(TypeError, match=message):
            reranker.score(pairs, progress=False)


def test_documents_with_ids(folders):
    reranker = Reranker.from_pretrained(folders / "bert", max_query_length=100)
    expected = reranker.rank(QUERY, DOCUMENTS)
    records = [{"id": f"d{i}", "text": text} for i, text in enumerate(DOCUMENTS)]
    frame = pd.DataFrame(records)
    for documents in (records, tuple(records), np.array(records), pd.Series(records), frame.to_dict("records")):
        assert reranker.rank(QUERY, documents) == [hit | {"id": f"d{hit['corpus_id']}"} for hit in expected]
    assert reranker.rank(QUERY, [{"text": text} for text in DOCUMENTS]) == expected
    assert reranker.rank(QUERY, [DOCUMENTS[0], *records[1:]])[0].keys() >= {"corpus_id", "score", "text"}
    titled = reranker.rank(QUERY, [{"id": 7, "title": "Skarvholm", "text": "A tower."}])
    whole = reranker.rank(QUERY, ["Skarvholm A tower."])
    assert titled == [whole[0] | {"id": 7}]


def test_top_k(folders):
    reranker = Reranker.from_pretrained(folders / "bert", max_query_length=100)
    hits = reranker.rank(QUERY, DOCUMENTS)
    for top_k in (1, np.int64(4), 6, 100, None):
        assert reranker.rank(QUERY, DOCUMENTS, top_k=top_k) == hits[:top_k]
    assert reranker.rank(QUERY, [], top_k=3) == []
    for top_k, error in ((2.0, TypeError), ("2", TypeError), (True, TypeError), (0, ValueError), (-1, ValueError)):
        with pytest.raises(error, match=f"top_k must be .*, got .*{top_k}"):
            reranker.rank(QUERY, DOCUMENTS, top_k=top_k)


def test_every_thread_has_its_own_counts(folders):
    reranker = Reranker.from_pretrained(folders / "bert", max_length=12, max_query_length=6)
    barrier = Barrier(8)

    def counts(cut: int) -> dict:
        barrier.wait()
        reranker.score([("a", "b " * 20)] * cut + [("a", "b")], progress=False)
        barrier.wait()  # all have scored
        return reranker.counts

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(counts, range(8)))
    assert found == [{"pairs": cut + 1, "queries_cut": 0, "documents_cut": cut} for cut in range(8)]
    again = pickle.loads(pickle.dumps(reranker))
    assert again.score([("a", "b")], False) == reranker.score([("a", "b")], False)


def test_documents_are_cut_to_a_length_of_their_own(folders):
    reranker = Reranker.from_pretrained(folders / "bert", max_length=20, max_query_length=6)
    pairs = [("a", "b " * 30), ("a", "b " * 30), ("a", "b " * 8), ("a", "b")]
    encoded = EncodedPairs(reranker.encoder, pairs, max_document_length=5)
    assert [len(ids) for ids, _ in encoded.rows([0, 1, 2, 3])] == encoded.lengths.tolist() == [9, 9, 9, 5]
    assert encoded.counts == {"pairs": 4, "queries_cut": 0, "documents_cut": 3}
    short = EncodedPairs(reranker.encoder, [("a", "b " * 5)])
    assert all(map(np.array_equal, encoded.rows([0])[0], short.rows([0])[0]))
    passages = EncodedPairs(reranker.encoder, pairs, True, max_document_length=14)
    assert passages.counts == {"pairs": 4, "queries_cut": 0, "documents_cut": 2, "passages": 6}


@pytest.mark.parametrize("container", ["tuple", "generator", "array", "series with gaps"])
def test_first_stage(container, folders):
    reranker = Reranker.from_pretrained(folders / "bert", max_query_length=100)
    alone = {hit["corpus_id"]: hit["score"] for hit in reranker.rank(QUERY, DOCUMENTS)}
    first = [0.5, 0.25, 0.0, 1.0, 0.75, 0.5]
    scores = pd.Series([9.0, *first]).iloc[1:] if "series" in container else CONTAINERS[container](first)
    hits = reranker.rank(QUERY, DOCUMENTS, first_stage_scores=scores, first_stage_weight=40)
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    for hit in hits:
        i = hit["corpus_id"]
        parts = {"reranker_score": alone[i], "first_stage_score": first[i]}
        assert hit == {"corpus_id": i, "score": alone[i] + 40 * first[i], "text": DOCUMENTS[i]} | parts
    first = reranker.rank(QUERY, DOCUMENTS, first_stage_scores=first, first_stage_weight=1e6)
    assert [hit["corpus_id"] for hit in first] == [3, 4, 0, 5, 1, 2]


BAD_SCORES = {
    "too few": ([1.0], 1.0, "first_stage_scores has 1 scores for 2 documents"),
    "not a number": ([1.0, float("nan")], 1.0, r"first_stage_scores\[1\] must be a finite number, got nan"),
    "infinite": (np.array([-np.inf, 0]), 1.0, r"first_stage_scores\[0\] must be a finite number, got .*-inf"),
    "a text": (["0.5", 1.0], 1.0, r"first_stage_scores\[0\] must be a finite number, got '0.5'"),
    "nothing": ([0.5, None], 1.0, r"first_stage_scores\[1\] must be a finite number, got None"),
    "no order": ({0.5, 1.0}, 1.0, "first_stage_scores must be a list of numbers, in an order, got set"),
    "no weight": ([0.5, 1.0], None, "first_stage_scores and first_stage_weight are needed together"),
    "no scores": (None, 1.0, "first_stage_scores and first_stage_weight are needed together"),
    "bad weight": ([0.5, 1.0], float("inf"), "first_stage_weight must be a finite number, got inf"),
}


@pytest.mark.parametrize("name", BAD_SCORES)
def test_bad_scores_of_a_first_stage(name, folders):
    reranker = Reranker.from_pretrained(folders / "bert", max_query_length=100)
    scores, weight, message = BAD_SCORES[name]
    with pytest.raises((TypeError, ValueError), match=message):
        reranker.rank(QUERY, DOCUMENTS[:2], first_stage_scores=scores, first_stage_weight=weight)


def test_ties_stay_in_the_order_of_the_documents(folder):
    reranker = Reranker.from_pretrained(str(folder), max_query_length=100)
    reranker.model.classifier.weight.data.zero_()
    hits = reranker.rank(QUERY, DOCUMENTS)
    assert len({hit["score"] for hit in hits}) == 1 and [hit["corpus_id"] for hit in hits] == [0, 1, 2, 3, 4, 5]


def test_half_precision(folder):
    exact = Reranker.from_pretrained(str(folder), max_query_length=100)
    half = Reranker.from_pretrained(str(folder), max_query_length=100, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.bfloat16}
    pairs = random_pairs(2)
    expected = exact.score(pairs, False)
    errors = [abs(one - other) for one, other in zip(half.score(pairs, False), expected)]
    spread = max(expected) - min(expected)
    assert max(errors) < 0.2 * spread and sum(errors) / len(errors) < 0.05 * spread


def test_imports():
    """A service that only ranks does not wait for other modules."""
    names = ("transformers.pipelines.base", "datasets")
    code = f"import sys, modeling_clir.reranker; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


def test_nothing_to_score(folder, capsys):
    reranker = Reranker.from_pretrained(str(folder), max_query_length=100)
    assert reranker.score([]) == [] and reranker.rank(QUERY, []) == []
    assert reranker.counts == {"pairs": 0, "queries_cut": 0, "documents_cut": 0}
    capsys.readouterr()
    reranker.rank(QUERY, DOCUMENTS)
    assert capsys.readouterr() == ("", "")
    reranker.score([(QUERY, document) for document in DOCUMENTS], name="lighthouses")
    output = capsys.readouterr()
    assert output.out == "" and "lighthouses: 100%" in output.err and "6/6" in output.err and "pair/s" in output.err


def test_what_is_cut_is_counted(folder, caplog):
    reranker = Reranker.from_pretrained(str(folder), max_length=12, max_query_length=6)
    reranker.score([("a", "b"), ("a", "b " * 20), ("a " * 9, "b"), ("a " * 9, "b " * 20)], False, "letters")
    assert reranker.counts == {"pairs": 4, "queries_cut": 2, "documents_cut": 2}
    assert "letters: in 2 of 4 pairs the document was cut to fit 12 tokens, in 2 the query to 6" in caplog.text


def test_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"max_length \(129\) is more than the model's 128 positions"):
        Reranker.from_pretrained(str(folder), max_length=129)
    with pytest.raises(ValueError, match=r"max_length \(128\) leaves no room"):
        Reranker.from_pretrained(str(folder))
    with pytest.raises(ValueError, match="max_tokens_per_batch must be at least 1, got 0"):
        Reranker.from_pretrained(str(folder), max_query_length=20, max_tokens_per_batch=0)
    reranker = Reranker.from_pretrained(str(folder), max_query_length=20)
    for value in (torch.nan, torch.inf):
        reranker.model.classifier.bias.data[:] = value
        with pytest.raises(ValueError, match=f"reranking: the score of document 'd' for query 'q' is {value};"):
            reranker.score([("q", "d")], False)
    reranker.model.base_model.save_pretrained(tmp_path)
    reranker.encoder.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"cannot rank, it lacks classifier\.bias, classifier\.weight: finetune"):
        Reranker.from_pretrained(str(tmp_path))
