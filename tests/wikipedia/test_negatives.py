"""Hard negatives are near a section, and never the section or nearly the same text."""

import random

from modeling_clir.wikipedia.articles import Article, ArticleSection
from modeling_clir.wikipedia.negatives import hard_negatives, near_duplicates, shingle


def written(key: str, *texts: str, links=()) -> Article:
    return Article(key, "en", key, key, [ArticleSection(f"{key}{i}", 2, t, list(links)) for i, t in enumerate(texts)])


WHALES = "The blue whale sings under water and eats krill in the cold sea"
SONGS = "A song of the humpback whale lasts for hours in the warm sea"
TRAINS = "The night train leaves the station at ten and has eleven carriages"
BREAD = "Rye bread rises slowly over the night and bakes for an hour"


def test_unmatched_sections_come_first_then_near_ones_then_other_matched_ones():
    articles = [
        written("a", WHALES, BREAD, TRAINS),
        written("b", SONGS, "Marble is a stone"),
        written("c", BREAD + " too"),
    ]
    negatives = hard_negatives(articles, [{0, 1}, set(), {0}], number=10)
    assert list(negatives) == [(0, 0), (0, 1), (2, 0)]
    first = negatives[0, 0]
    assert first[0] == (0, 2) and first[1] == (1, 0) and first[-1] == (0, 1)
    assert hard_negatives(articles, [{0, 1}, set(), {0}], number=2)[0, 0] == first[:2]
    assert hard_negatives(articles, [{0}, set(), set()], number=0) == {(0, 0): []}


def test_near_duplicates_are_left_out_wherever_they_are():
    copies = [WHALES + ".", WHALES.replace("blue", "grey"), WHALES.upper(), f"{WHALES}. {TRAINS}. {BREAD}."]
    articles = [written("a", WHALES, copies[0], BREAD), *[written(f"c{i}", text) for i, text in enumerate(copies)]]
    articles.append(written("b", SONGS))
    negatives = hard_negatives(articles, [{0}, *[set()] * 5], number=10)[0, 0]
    assert negatives == [(0, 2), (5, 0)]


def test_measure_of_near_duplicates():
    numbers = [f"w{i}" for i in range(12)]
    text = shingle(" ".join(numbers))
    assert len(text) == 10
    assert near_duplicates(text, shingle(" ".join(numbers[5:])))
    assert near_duplicates(text, shingle(" ".join([*numbers[:7], *"abcde"])))  # 5 of 10
    assert not near_duplicates(text, shingle(" ".join([*numbers[:6], *"abcdef"])))  # 4 of 10
    assert near_duplicates(shingle("one"), shingle("ONE.")) and not near_duplicates(shingle("one"), shingle("two"))
    assert near_duplicates(shingle(""), text)
    assert near_duplicates(shingle("鯨は冷たい海にいる"), shingle("鯨は冷たい海にいる。"))


def test_shared_links_find_neighbours_that_words_do_not():
    articles = [
        written("a", "alpha", links=["Q7", "Q8"]),
        written("b", "beta", links=["Q9"]),
        written("c", "gamma", links=["Q8", "Q7"]),
    ]
    assert hard_negatives(articles, [{0}, set(), set()], number=3)[0, 0] == [(2, 0)]


def test_neighbours_in_scripts_without_spaces():
    articles = [
        written("a", "鯨は冷たい海で歌う"),
        written("b", "夜行列車は駅を出る"),
        written("c", "暖かい海の鯨の群れ"),
    ]
    assert hard_negatives(articles, [{0}, set(), set()], number=1)[0, 0] == [(2, 0)]


def test_sections_without_words_are_no_negatives():
    articles = [written("a", WHALES, "", "!!!"), written("b", "")]
    assert hard_negatives(articles, [{0}, {0}], number=3) == {(0, 0): [], (1, 0): []}
    assert hard_negatives([], [], number=3) == {}


def test_random_shards_hold_what_is_promised():
    rng = random.Random(0)
    words = [f"word{i}" for i in range(30)]
    articles = [
        written(f"a{k}", *[" ".join(rng.choices(words, k=rng.randint(0, 9))) for _ in range(rng.randint(1, 5))])
        for k in range(20)
    ]
    matched = [{j for j in range(len(article.sections)) if rng.random() < 0.5} for article in articles]
    negatives = hard_negatives(articles, matched, number=4)
    assert set(negatives) == {(i, j) for i, own in enumerate(matched) for j in own}
    assert negatives == hard_negatives(articles, matched, number=4)
    for (i, j), found in negatives.items():
        assert (i, j) not in found and len(found) == len(set(found)) <= 4
        own = shingle(articles[i].sections[j].text)
        assert not any(near_duplicates(own, shingle(articles[k].sections[m].text)) for k, m in found)
