"""First stages equal the formula of BM25 and the search of sentence-transformers."""

import json
import math
import unicodedata
from collections import Counter
from itertools import permutations
from shutil import copytree

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import semantic_search
from transformers import AutoModel, AutoTokenizer

from modeling_clir.data.collections import read_collection
from modeling_clir.data.corpus import Section, hard_negatives, judge_nearest
from modeling_clir.data.first_stage import rank_bm25, rank_dense, tokenize

from ..conftest import REPOSITORY
from ..helpers import run_here, write


def texts(language: str) -> tuple[dict[str, str], dict[str, str]]:
    """The sample's test documents and queries."""
    lines = (REPOSITORY / f"sample/test/{language}.jsonl").read_text(encoding="utf-8").splitlines()
    documents = {line["id"]: " ".join(line["sentences"]) for line in map(json.loads, lines)}
    queries = (REPOSITORY / f"sample/test/queries.{language}.tsv").read_text(encoding="utf-8").splitlines()
    return documents, dict(line.split("\t") for line in queries)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Öl, l'eau don’t x_y 1861.", "the öl l eau don t x_y 1861"),
        ("ＡＢＣ ﬁn", "abc fin"),
        ("हिन्दी की", "हिन्दी की"),  # vowel signs do not split words
        ("می\u200cخواهم", "میخواهم"),
        ("長城は12年、中ABC", "長城 城は 12 年 中 abc"),
        ("サーバー", "サー ーバ バー"),
        ("한국어를 배", "한국 국어 어를 배"),
        ("การ", "กา าร"),
        ("ที่นี่ดี", "ที่นี่ นี่ดี"),  # a letter with its vowel sign and tone mark is one character
        ("ភាសាខ្មែរ", "ភាសា សាខ្មែ ខ្មែរ"),
        ("ພາສາ", "ພາ າສ ສາ"),
        ("မြန်မာ", "မြန် န်မာ"),
        ("Straße İstanbul ΣΟΦΟΣ", "strasse istanbul σοφοσ"),
        (" .,? ", ""),
    ],
)
def test_tokenize(text, expected):
    assert tokenize(text) == expected.split()
    assert tokenize(text.replace("A", "a")) == tokenize(text)


@pytest.mark.parametrize(
    "mark", ["\u00ad", "\u200b", "\u2060", "\u200c", "\u200d", "\u200e", "\u202b", "\u061c", "\ufeff"]
)
@pytest.mark.parametrize("word", ["Wertpapier", "ไทยแลนด์", "ភាសាខ្មែរ", "می خواهم", "हिन्दी", "長城は長い", "한국어"])
def test_invisible_characters_change_no_word(word, mark):
    plain = tokenize(word)
    assert plain and all(tokenize(word[:i] + mark + word[i:]) == plain for i in range(len(word) + 1))


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("Cafe\u0301", "café"),  # NFD and NFC
        ("か\u3099", "が"),
        (unicodedata.normalize("NFD", "한국어"), "한국 국어"),
        ("क\u093c", "\u0958"),
        ("за\u0301мок", "замок"),  # a stress mark
        ("s\u0331eder g\u0303a", "seder ga"),  # these marks are of Thai script too
        ("دَرْس ـــ كتـــاب", "درس كتاب"),
        ("שָׁלוֹם", "שלום"),
    ],
)
def test_accents_part_no_word(written, plain):
    assert tokenize(written) == tokenize(plain) and len(tokenize(plain)) == len(plain.split())


def test_bm25_by_its_formula():
    documents, queries = texts("de")
    queries |= {"twice": "Leuchtturm Leuchtturm Hafen"}
    tokens = {document: Counter(tokenize(text)) for document, text in documents.items()}
    average = sum(sum(counts.values()) for counts in tokens.values()) / len(tokens)
    frequency = Counter(token for counts in tokens.values() for token in counts)
    run = rank_bm25(documents, queries)
    assert list(run) == list(queries)
    for query, text in queries.items():
        expected = {}
        for document, counts in tokens.items():
            norm = 0.9 * (1 - 0.4 + 0.4 * sum(counts.values()) / average)
            for token in tokenize(text):
                if token in counts:
                    idf = math.log(1 + (len(tokens) - frequency[token] + 0.5) / (frequency[token] + 0.5))
                    gain = idf * counts[token] / (counts[token] + norm)
                    expected[document] = expected.get(document, 0) + gain
        assert run[query] == pytest.approx(expected or dict.fromkeys(documents, 0), rel=1e-5)
        assert list(run[query].values()) == sorted(run[query].values(), reverse=True)
    best = rank_bm25(documents, queries, k=3)
    assert best == {query: dict(list(scores.items())[:3]) for query, scores in run.items()}


def test_bm25_ties_and_queries_without_a_match(caplog):
    documents = {"d1": "one", "d3": "one", "d2": "one", "d10": "two", "empty": "!"}
    queries = {"tie": "one", "none": "elsewhere", "mark": "?"}
    run = rank_bm25(documents, queries, k=2)
    assert {query: list(scores) for query, scores in run.items()} == {
        "tie": ["d3", "d2"],  # as trec_eval orders equal scores
        "none": ["empty", "d3"],
        "mark": ["empty", "d3"],
    }
    assert "2 of 3 queries have no word of any document" in caplog.text
    assert run["tie"]["d3"] == run["tie"]["d2"] > 0 and set(run["none"].values()) == {0}
    assert list(rank_bm25(documents, {"two": "two one"})["two"]) == ["d10", "d3", "d2", "d1"]
    for bad, message in ((0, "k must be at least 1"), (-1, "k must be at least 1")):
        with pytest.raises(ValueError, match=message):
            rank_bm25(documents, queries, k=bad)
    with pytest.raises(ValueError, match="no document has a word"):
        rank_bm25({"d": "!"}, queries)
    with pytest.raises(ValueError, match="there are no documents"):
        rank_bm25({}, queries)


# Four texts without punctuation or spaces between words. The first two are about the same topic.
NEIGHBOURS = {
    "zh": ["灯塔建在花岗岩礁石上", "守塔人数着花岗岩礁石", "面包用面粉和酵母烤成", "火车开往北方的城市"],
    "ja": ["灯台は花崗岩の岩礁に立つ", "灯台守は花崗岩の岩礁を数えた", "パンを焼く小麦粉", "列車が北へ向かう"],
    "th": ["ราคาอาหารทะเลสด", "เราทานอาหารทะเลสด", "โรงแรมหรูบนเขา", "นกบนยอดไผ่"],
    "km": ["ប្រាសាទអង្គរវត្តនៅសៀមរាប", "គេទៅលេងអង្គរវត្តនៅសៀមរាប", "នំប៉័ងដុតដោយម្សៅ", "រថភ្លើងទៅទិសខាងជើង"],
    "hi": ["दीपस्तंभ ग्रेनाइट की चट्टान पर", "रखवाले ने ग्रेनाइट चट्टान गिनी", "आटे से रोटी बनती", "उत्तर को रेलगाड़ी जाती"],
    "ko": ["등대는화강암암초에서있다", "등대지기는화강암암초를셌다", "빵은밀가루로굽는다", "기차가북쪽으로간다"],
}


@pytest.mark.parametrize("language", NEIGHBOURS)
def test_the_obvious_neighbour_is_found_in_every_order(language):
    """The first stage, hard negatives and documents to judge all find the neighbour."""
    one, other, *_ = texts = NEIGHBOURS[language]
    for order in permutations(texts):
        sections = [Section(text, text, text={language: text}) for text in order]
        negatives = hard_negatives(sections, language, 1, seed=0)
        assert negatives[one] == [other] and negatives[other] == [one]
        documents = {text: text for text in order}
        assert judge_nearest(documents, {"q": one}, {"q": {one: 1}}, 1) == {"q": {one: 1, other: 0}}
        assert list(rank_bm25(documents, {"q": one}, k=2)["q"]) == [one, other]


def test_hard_negatives_without_words():
    sections = [Section(text, text, text={"en": text}) for text in ("?", "!", "...")]
    assert hard_negatives(sections, "en", 2, seed=0) == {"?": ["!", "..."], "!": ["?", "..."], "...": ["?", "!"]}
    assert hard_negatives(sections[:1], "en", 2, seed=0) == {"?": []}


def mean_vectors(folder, batch: list[str]) -> torch.Tensor:
    """Computes the mean of the last hidden states of each text, `(texts, width)`, one by one and without padding."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        rows = [tokenizer(text, truncation=True, max_length=128, return_tensors="pt") for text in batch]
        return torch.stack([model(**row).last_hidden_state[0].mean(0) for row in rows])


def test_dense_search_is_that_of_sentence_transformers(tiny_bert, monkeypatch):
    documents, queries = texts("de")[0], texts("en")[1]
    ids = list(documents)
    hits = semantic_search(
        mean_vectors(tiny_bert, list(queries.values())), mean_vectors(tiny_bert, list(documents.values())), top_k=7
    )
    expected = {query: {ids[hit["corpus_id"]]: hit["score"] for hit in found} for query, found in zip(queries, hits)}
    monkeypatch.setattr("modeling_clir.data.first_stage.SCORES_AT_ONCE", 5 * len(ids))
    run = rank_dense(documents, queries, str(tiny_bert), k=7)
    assert list(run) == list(queries)
    for query, scores in expected.items():
        assert run[query] == pytest.approx(scores, abs=1e-5)
        assert list(run[query].values()) == sorted(run[query].values(), reverse=True)
    assert run == rank_dense(documents, queries, str(tiny_bert), k=7)
    assert len(rank_dense(documents, {"q": "one"}, str(tiny_bert))["q"]) == len(documents)


def test_dense_search_with_prompts(tiny_bert, mistake, sample_collection, tmp_path):
    """What stands in front of the texts is that of the caller, else that of the model's own configuration."""
    documents, queries = texts("de")[0], texts("en")[1]
    written = {f"passage: {text}": key for key, text in documents.items()}
    assert len(written) == len(documents)
    expected = rank_dense(
        {key: text for text, key in written.items()},
        {query: f"query: {text}" for query, text in queries.items()},
        str(tiny_bert),
    )
    run = rank_dense(documents, queries, str(tiny_bert), prompts=("query: ", "passage: "))
    assert {query: pytest.approx(scores, abs=1e-5) for query, scores in expected.items()} == run
    assert run != rank_dense(documents, queries, str(tiny_bert))
    own = SentenceTransformer(str(tiny_bert), prompts={"query": "query: ", "document": "passage: "})
    own.save_pretrained(str(tmp_path / "own"))
    assert rank_dense(documents, queries, str(tmp_path / "own")) == run
    collection = str(sample_collection / "en-de")
    assert "--prompts needs --model" in mistake("scripts/first_stage.py", collection, "--prompts", "q: ", "p: ")


def test_dense_search_needs_the_tokenizer_and_the_weights(tiny_bert, tmp_path):
    """What transformers makes up for a model without a tokenizer knows no word: every text would be unknown tokens."""
    documents, queries = texts("de")[0], texts("en")[1]
    copytree(tiny_bert, tmp_path / "model")
    for path in (*(tmp_path / "model").glob("token*"), tmp_path / "model/vocab.txt"):
        path.unlink()
    with pytest.raises(ValueError, match="model has no tokenizer"):
        rank_dense(documents, queries, str(tmp_path / "model"))
    (tmp_path / "model/model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"the weights of .*model cannot be read, a file may be cut"):
        rank_dense(documents, queries, str(tmp_path / "model"))


def collection(folder):
    write(folder / "documents.jsonl", *({"id": f"d{i}", "text": f"wort{i % 3} haus"} for i in range(6)))
    write(folder / "queries.tsv", "a\tword1", "b\tword2", "unjudged\tx")
    write(folder / "qrels.txt", "a 0 d1 1", "b 0 d2 1")
    return folder


def test_first_stage(tmp_path, monkeypatch, capsys):
    folder = collection(tmp_path / "en-de")
    write(tmp_path / "translated.tsv", "b\twort2", "a\tWort1", "x\ty")
    options = ("--queries", tmp_path / "translated.tsv", "--k", 2)
    run_here(monkeypatch, "scripts/first_stage.py", folder, *options)
    assert capsys.readouterr().out.startswith(f"{folder / 'candidates.run'} MAP 0.5000")
    assert read_collection(folder).candidates == {"a": ["d4", "d1"], "b": ["d5", "d2"]}
    with pytest.raises(SystemExit, match=r"^error: .*en-de/candidates.run exists"):
        run_here(monkeypatch, "scripts/first_stage.py", folder, *options)
    write(folder / "candidates.run.gz", (folder / "candidates.run").read_text(encoding="utf-8"), end="")
    (folder / "candidates.run").unlink()
    with pytest.raises(SystemExit, match=r"^error: .*en-de/candidates.run.gz exists"):
        run_here(monkeypatch, "scripts/first_stage.py", folder, *options)
    write(tmp_path / "translated.tsv", "b\twort2")
    with pytest.raises(SystemExit, match=r"translated.tsv lacks the judged query 'a' \(1 such\)"):
        run_here(monkeypatch, "scripts/first_stage.py", folder, *options, "--output", tmp_path / "x.run")
    assert not (tmp_path / "x.run").exists()


def test_first_stage_with_a_model(tiny_bert, tmp_path, monkeypatch):
    folder, options = collection(tmp_path / "en-de"), ("--k", 4, "--output", tmp_path / "dense.run")
    run_here(monkeypatch, "scripts/first_stage.py", folder, "--model", tiny_bert, *options)
    lines = [line.split() for line in (tmp_path / "dense.run").read_text(encoding="utf-8").splitlines()]
    expected = rank_dense(read_collection(folder).documents, {"a": "word1", "b": "word2"}, str(tiny_bert), k=4)
    assert [(line[0], line[2], line[5]) for line in lines] == [(q, d, "dense") for q in expected for d in expected[q]]
