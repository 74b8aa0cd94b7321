"""The logic of the page: uploads, the sentences that carry a score, and what is shown."""

import pytest

from modeling_clir import Reranker, page
from modeling_clir.convert import main as convert
from tests.conftest import REPOSITORY
from tests.helpers import write


@pytest.fixture(scope="module")
def model(tiny_bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "clir-bertlong"
    assert convert([str(tiny_bert), str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def reranker(model):
    return Reranker.from_pretrained(model)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "One.\nStill one.\n\n \nTwo.\n", ["One.\nStill one.", "Two."]),
        ("a.TXT", "One.\nTwo.\n", ["One.", "Two."]),
        ("a.txt", "\ufeffÜber\r\n\r\nTwo\r\n", ["Über", "Two"]),
        (
            "a.jsonl",
            '{"text": "One."}\n{"text": "Two.", "title": "T", "id": "3"}\n{"text": " "}\n',
            ["One.", "T Two.", " "],
        ),
        ("a.csv", 'id,Text\n1,"One, and\nmore."\n2,Two.\n', ["One, and\nmore.", "Two."]),
        ("a.csv", "title;document\nT;One.\n;Two.\n", ["T One.", "Two."]),
        ("a.csv", "One.\nTwo.\n", ["One.", "Two."]),
        ("a.csv", "text\nOne.\n", ["One."]),
        ("a.csv", "id,text\r1,One.\r2,Two.\r", ["One.", "Two."]),
        ("a.csv", f"id,text\n1,{'a' * 200_000}\n", ["a" * 200_000]),
        ("a.csv", "", []),
    ],
)
def test_uploads(name, text, expected, tmp_path):
    (tmp_path / name).write_bytes(text.encode())
    assert page.read_upload(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pdf", b"%PDF", "a.pdf: only files that end in .txt, .jsonl, .csv are read"),
        ("a.txt", "Käse".encode("latin-1"), "a.txt:1: not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 3}\n', "a.jsonl:2: 'text' must be a string, got 3"),
        ("a.jsonl", b'{"id": "a"}\n', "a.jsonl:1: the key 'text' is missing"),
        ("a.csv", b"id,body\n1,a\n", "a.csv: no column has the name text or document, but there are id, body"),
        ("a.csv", b"id,text\n\n1,'a\n2\n", "a.csv:4: 1 columns, the first row has 2"),
        ("a.csv", b"id,text\n1," + b"a" * 1_000_001, "a.csv:2: not CSV (field larger than field limit"),
    ],
)
def test_a_bad_upload_is_named_without_its_place_on_the_server(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as error:
        page.read_upload(tmp_path / name)
    assert str(error.value).startswith(message) and str(tmp_path) not in str(error.value)


def test_the_sample_has_the_same_documents_in_every_language():
    sample = page.read_sample(REPOSITORY / "sample/test")
    assert set(sample) == {"en", "de", "fr", "es"} and {len(texts) for texts in sample.values()} == {37}


@pytest.mark.parametrize(
    ("query", "documents", "message"),
    [
        (" \n", ["a"], "Type a query first"),
        ("a", [], "There are no documents"),
        ("a", [" "], "There are no documents"),
        ("a", ["b"] * 201, "These are 201 documents; this page ranks at most 200"),
        ("a", ["b" * 600_000] * 2, "1,200,000 characters"),
    ],
)
def test_what_cannot_be_ranked_is_said(query, documents, message):
    with pytest.raises(ValueError, match=message):
        page.check_input(query, documents)


@pytest.mark.parametrize(
    ("text", "language"),
    [("Dr. Smith came. He left!\n\nThen what?  Nothing", "en"), ("Am 3. Mai kam er. Er ging.", "de"), ("  a  ", "fr")],
)
def test_sentences_make_up_their_text(text, language):
    assert "".join(page.split_sentences(text, language)) == text


def test_a_drop_is_the_score_minus_the_score_of_the_text_without_the_sentence(reranker):
    documents = ["The tower is old. It was built in 1866. The sea is near.", "A harbour.", "Ships came. They left."]
    hits, notes = page.rank(reranker, "Wann wurde der Turm gebaut?", documents)
    expected = reranker.rank("Wann wurde der Turm gebaut?", documents)
    assert [(hit.number - 1, hit.score, hit.text) for hit in hits] == [
        (hit["corpus_id"], hit["score"], hit["text"]) for hit in expected
    ]
    assert not notes
    hits = {hit.number: hit for hit in hits}
    without = ["It was built in 1866. The sea is near.", "The tower is old. The sea is near."]
    scores = reranker.score([("Wann wurde der Turm gebaut?", text) for text in without], progress=False)
    drops = [drop for _, drop in hits[1].sentences]
    assert drops[:2] == pytest.approx([hits[1].score - score for score in scores], abs=1e-5)
    assert len(drops) == 3 and max(map(abs, drops)) > 1e-4
    assert hits[2].sentences == [("A harbour.", 0.0)] and len(hits[3].sentences) == 2


def test_highlighting_is_off_for_long_lists_and_when_it_is_not_wanted(reranker):
    hits, notes = page.rank(reranker, "a", ["One. Two. Three."] * 67)
    assert notes == ["Nothing is highlighted: the documents have 201 sentences, more than 200."]
    assert all(hit.sentences is None for hit in hits)
    hits, notes = page.rank(reranker, "a", ["One. Two."], highlight=False)
    assert hits[0].sentences is None and not notes


def test_documents_without_text_are_counted_and_keep_their_number(reranker):
    hits, notes = page.rank(reranker, "a", ["One.", "", "Two."], highlight=False)
    assert sorted(hit.number for hit in hits) == [1, 3]
    assert notes == ["1 of 3 documents have no text and were left out."]


def test_what_is_cut_is_said(model):
    short = Reranker.from_pretrained(model, max_length=40, max_query_length=8)
    _, notes = page.rank(short, "tower and sea " * 9, ["a", "the tower of the harbour " * 30], highlight=False)
    assert notes == [
        "1 of 2 documents were cut: the model reads 40 tokens at a time.",
        "The query was cut to 8 tokens.",
    ]


def test_texts_are_escaped_and_the_strongest_sentence_is_darkest():
    hits = [page.Hit(2, 1.234, "<b>x</b> y", [("<b>x</b> ", 2.0), ("y", 1.0)]), page.Hit(1, -1.0, "<script>", None)]
    shown = page.show_hits(hits, ["1 < 2"])
    assert "<script>" not in shown and "<b>x</b>" not in shown and "&lt;script&gt;" in shown and "1 &lt; 2" in shown
    assert shown.index("1.23") < shown.index("-1.00") and "document 2" in shown
    assert "0.60)" in shown and "0.30)" in shown
    assert "<img" not in page.show_problem("<img src=x>")
    assert "<mark" not in page.show_hits([page.Hit(1, 0.0, "a", [("a", -0.5)])], [])


def test_a_model_is_described_from_its_card(model, reranker):
    (model / "README.md").unlink()
    assert "no card" in page.describe_model(str(model), reranker)
    write(
        model / "README.md",
        "---\nlanguage: [de, en]\nlicense: mit\nmodel-index:\n- name: m\n  results:\n  - task: {type: text-ranking}",
        "    dataset: {type: x, name: held-out sections}\n    metrics: [{type: rr_mrr, value: 0.978}]\n---\n# m",
    )
    said = page.describe_model(str(model), reranker)
    assert "**clir-bertlong** is a bertlong-xlr of 0.1M parameters" in said and "de, en" in said
    assert "rr_mrr 0.978 (held-out sections)" in said and "License: mit" in said
