"""Sections find their partners, one to one; features are what they say."""

import itertools
import math

import numpy as np
import pytest

from modeling_clir.wikipedia.aligner import (
    FEATURES,
    WEIGHTS,
    align_sections,
    match_scores,
    mutual_best,
    numbers,
    overlap,
    section_features,
)
from modeling_clir.wikipedia.articles import Article, ArticleSection
from modeling_clir.wikipedia.headings import HeadingTable


def article(language: str, *sections: tuple, lead: str | None = "Intro.") -> Article:
    """Makes an article of (heading, text, *links), with a lead first."""
    parts = [] if lead is None else [ArticleSection("", 1, lead)]
    parts += [ArticleSection(heading, 2, text, list(links)) for heading, text, *links in sections]
    return Article("Q1", language, "1", "Topic", parts)


def pairs(matches) -> list[tuple[int, int]]:
    return [(source, target) for source, target, _ in matches]


GERMAN = article(
    "de",
    ("Geschichte", "Im Jahr 1861 gründete Nilsson die Firma Skarv mit 47 Leuten."),
    ("Sport", "Der FK Skarvholm gewann 1988 gegen Tromsø mit 4 zu 1."),
    ("Klima", "Im Winter fallen 132 Millimeter Regen, es sind 3 Grad."),
)
ENGLISH = article(
    "en",
    ("Weather", "Winter has 132 millimetres of rain and 3 degrees."),
    ("Past", "Nilsson founded the company Skarv in 1861 with 47 people."),
    ("Clubs", "FK Skarvholm beat Tromsø 4-1 in 1988."),
)


def test_sections_in_another_order_find_their_partners():
    matches = align_sections(GERMAN, ENGLISH)
    assert pairs(matches) == [(0, 0), (1, 2), (2, 3), (3, 1)]
    assert matches[0].score == 1 and all(0.3 <= match.score < 1 for match in matches[1:])
    assert matches == align_sections(GERMAN, ENGLISH)


def test_the_two_directions_give_the_same_matches():
    forth, back = align_sections(GERMAN, ENGLISH), align_sections(ENGLISH, GERMAN)
    assert sorted(pairs(forth)) == sorted((source, target) for target, source in pairs(back))
    assert sorted(m.score for m in forth) == pytest.approx(sorted(m.score for m in back))


def test_a_section_without_partner_matches_none():
    extra = article("en", ("Music", "Nobody there plays any instrument, " * 9), lead="Intro.")
    extra.sections += ENGLISH.sections[1:3]
    matches = pairs(align_sections(GERMAN, extra))
    assert matches == [(0, 0), (1, 3), (3, 2)]


def test_matches_are_mutual_best_above_the_threshold_and_one_to_one():
    rng = np.random.default_rng(0)
    for n, m in itertools.product((1, 2, 5), (1, 3, 7)):
        scores = rng.random((n, m))
        matches = mutual_best(scores, 0.6)
        expected = {
            (i, j)
            for i in range(n)
            for j in range(m)
            if scores[i, j] == max(scores[i]) == max(scores[:, j]) and scores[i, j] >= 0.6
        }
        assert set(pairs(matches)) == expected
        assert len({i for i, _ in expected}) == len({j for _, j in expected}) == len(matches)
    assert pairs(mutual_best(np.full((2, 2), 0.5), 0.5)) == [(0, 0)]
    assert mutual_best(np.full((2, 2), 0.5), 0.51) == []


def test_a_higher_threshold_keeps_the_surest_matches():
    matches = align_sections(GERMAN, ENGLISH)
    sure = align_sections(GERMAN, ENGLISH, threshold=sorted(match.score for match in matches)[2])
    assert len(matches) == 4 and sure == [match for match in matches if match in sure] and len(sure) == 2


def test_leads_match_whatever_they_say():
    source = article("de", ("Klima", "132 Millimeter im Jahr 1988"), lead="Kurz.")
    target = article("en", ("Weather", "Nothing."), lead="132 millimetres in 1988. " * 50)
    assert pairs(align_sections(source, target))[0] == (0, 0)
    assert align_sections(source, target)[0].score == 1


def test_a_lead_without_another_lead_is_a_section_like_others():
    source, target = article("de", ("A", "x"), lead=None), article("en", ("B", "y"))
    assert all(match.source == 0 and match.score < 1 for match in align_sections(source, target))


@pytest.mark.parametrize("table", [False, True])
def test_articles_without_sections_match_nothing(table):
    empty, table = article("de", lead=None), HeadingTable() if table else None
    assert align_sections(empty, ENGLISH, table) == align_sections(ENGLISH, empty, table) == []
    assert align_sections(empty, empty, table) == []


def test_one_section_each():
    assert pairs(align_sections(article("de"), article("en"))) == [(0, 0)]
    assert pairs(align_sections(article("de", lead=""), article("en", lead=""))) == [(0, 0)]


def test_the_same_heading_twice():
    source = article(
        "de", ("Saison", "Im Jahr 1961 waren es 77 Spiele."), ("Saison", "Im Jahr 1988 waren es 51 Spiele.")
    )
    target = article("en", ("Season", "In 1988 there were 51 games."), ("Season", "In 1961 there were 77 games."))
    assert pairs(align_sections(source, target)) == [(0, 0), (1, 2), (2, 1)]


def test_links_match_what_words_cannot():
    source = article("ja", ("あ", "ああ", "Q1", "Q2", "Q9"), ("い", "いい", "Q3", "Q4", "Q9"), lead="う")
    target = article("en", ("B", "bb", "Q3", "Q4", "Q9"), ("A", "aa", "Q1", "Q2", "Q9"))
    assert pairs(align_sections(source, target)) == [(0, 0), (1, 2), (2, 1)]
    for side in (source, target):
        for section in side.sections:
            section.links = []
    assert pairs(align_sections(source, target)) != [(0, 0), (1, 2), (2, 1)]


def test_vectors_match_what_words_cannot():
    source, target = (article(x, ("a", "x"), ("b", "y"), ("c", "z"), lead=None) for x in "ab")
    vectors = np.eye(3, 8, dtype=np.float32)
    for shuffled in itertools.permutations(range(3)):
        matches = align_sections(source, target, vectors=(vectors, vectors[list(shuffled)]), threshold=0)
        assert pairs(matches) == [(shuffled[j], j) for j in np.argsort(shuffled)]


def test_vectors_count_without_the_scale_of_their_cosines():
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=(4, 16)) for _ in range(2)]
    vectors[1] += vectors[0]
    near = [np.concatenate([v / np.linalg.norm(v, axis=1, keepdims=True), np.full((4, 1), 2.0)], 1) for v in vectors]
    features = [
        section_features(GERMAN, ENGLISH, vectors=tuple(v / np.linalg.norm(v, axis=1, keepdims=True) for v in sides))
        for sides in (vectors, near)
    ]
    place = FEATURES.index("vectors")
    assert features[0][:, :, place].std() > 0.5
    np.testing.assert_allclose(features[0][:, :, place], features[1][:, :, place], rtol=0.05, atol=0.02)


def test_vectors_of_other_sections_are_refused():
    with pytest.raises(ValueError, match=r"expected vectors of \(4, 4\) sections, got \(3, 4\)"):
        align_sections(GERMAN, ENGLISH, vectors=(np.eye(3), np.eye(4)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("In May 1943, 12,345 men", "1943 12345"),
        ("1943年5月31日", "1943 5 31"),
        ("1.234.567 Einwohner am 31.12.1943", "1234567 31 12 1943"),
        ("12\u00a0345 habitants, 3.5", "12345 3 5"),
        ("12 345 habitants", "12 345"),  # a plain space parts numbers
        ("一九四三年，二十五人，三百零七，十分", "1943 25 307"),
        ("二千零八", "2008"),
        ("٤٢ और ४२", "42"),
        ("１９４３ 007", "1943 7"),
        ("none 一", ""),
    ],
)
def test_numbers(text, expected):
    assert numbers(text) == set(expected.split())


def test_overlap_is_the_log_of_the_weights_of_what_is_shared():
    source, target = [{"a", "b"}, {"b"}, set()], [{"a", "b", "c"}, {"c"}]
    weights = {"a": math.log(6 / 2), "b": math.log(6 / 3)}
    expected = [[math.log1p(weights["a"] + weights["b"]), 0], [math.log1p(weights["b"]), 0], [0, 0]]
    np.testing.assert_allclose(overlap(source, target), expected, atol=1e-12)
    assert overlap([], target).shape == (0, 2) and overlap([set()], [set()]).tolist() == [[0]]


def test_scores_are_the_geometric_mean_of_two_choices():
    features = np.random.default_rng(0).normal(size=(2, 3, len(FEATURES)))
    logits = features @ np.array(WEIGHTS[:-1]) + WEIGHTS[-1]
    for i, j in itertools.product(range(2), range(3)):
        row = math.exp(logits[i, j]) / (1 + sum(math.exp(logits[i, k]) for k in range(3)))
        column = math.exp(logits[i, j]) / (1 + sum(math.exp(logits[k, j]) for k in range(2)))
        assert match_scores(features, np.array(WEIGHTS))[i, j] == pytest.approx(math.sqrt(row * column))


def test_every_feature_tells_a_pair_from_another():
    source = article("de", ("Klima", "Nilsson 132 " * 9, "Q1"), ("Sport", "kurz"))
    target = article("en", ("Klima", "Nilsson 132 " * 9, "Q1"), ("Club", "x"))
    table = HeadingTable({("klima", "klima"): 5}, {"klima": 5}, {"klima": 5}, (100, 100))
    features = section_features(source, target, table, (np.eye(3), np.eye(3)))
    for name in FEATURES[1:]:
        column = features[:, :, FEATURES.index(name)]
        assert column[1, 1] > column[1, 2], name
    assert features[:, :, 0].tolist() == [[1, 0, 0], [0, 1, 1], [0, 1, 1]]
