"""Heading tables and boilerplate are learned from articles, and add up."""

import pytest

from modeling_clir.wikipedia.aligner import ROUNDS, align_sections
from modeling_clir.wikipedia.articles import Article, ArticleSection
from modeling_clir.wikipedia.headings import MIN_ARTICLES, Boilerplate, HeadingTable


def written(language: str, key: int, *sections: tuple[str, str]) -> Article:
    parts = [ArticleSection(heading, 2 if heading else 1, text) for heading, text in sections]
    return Article(f"Q{key}", language, str(key), f"T{key}", parts)


def article_pairs(number: int) -> list[tuple[Article, Article]]:
    """Pairs whose headings are the same in all; numbers in the texts tell in most which sections match."""
    made = []
    for k in range(number):
        years = [f"{1100 + 7 * k}", f"{1500 + 3 * k}"] if k % 4 else ["", ""]
        german = written(
            "de", k, ("", "Einleitung."), ("Frühes Leben", f"Geboren {years[0]}."), ("Wirken", f"Dort ab {years[1]}.")
        )
        english = written(
            "en", k, ("", "Intro."), ("Career", f"There in {years[1]}."), ("Early life", f"Born {years[0]}.")
        )
        made.append((german, english))
    return made


def learn(articles, parts=1) -> HeadingTable:
    table = None
    for _ in range(ROUNDS):
        table = HeadingTable.merge(HeadingTable.count(articles[i::parts], table) for i in range(parts))
    return table


def test_headings_of_other_articles_match_where_texts_do_not():
    articles = article_pairs(40)
    table = learn(articles)
    german, english = articles[0]  # no numbers here
    expected = [(0, 0), (1, 2), (2, 1)]
    assert [match[:2] for match in align_sections(german, english)] != expected
    assert [match[:2] for match in align_sections(german, english, table)] == expected
    scores = table.score(["Frühes Leben", "Wirken", ""], ["Early life", "Career", "?"])
    assert scores.shape == (3, 3) and scores[0, 0] > 0.8 and scores[1, 1] > 0.8
    assert scores[0, 1] < 0.2 and not scores[2].any() and not scores[:, 2].any()


def test_tables_of_shards_add_up_to_the_table_of_all():
    articles = article_pairs(40)
    whole = learn(articles)
    for parts in (2, 7, 40):
        assert learn(articles, parts).to_json() == whole.to_json()
    assert HeadingTable.merge([]) == HeadingTable()
    assert HeadingTable.merge([whole, HeadingTable()]) == whole != HeadingTable()


def test_a_table_survives_json():
    table = learn(article_pairs(12))
    again = HeadingTable.from_json(table.to_json())
    assert again == table and again.ratio == table.ratio != 1
    assert (again.score(["Wirken"], ["Career"]) == table.score(["Wirken"], ["Career"])).all()


def test_rare_pairs_do_not_count():
    table = HeadingTable({("a", "b"): 1, ("a", "c"): 2}, {"a": 3}, {"b": 1, "c": 2}, (10, 20))
    assert table.score(["A"], ["b"])[0, 0] == 0
    assert table.score(["A"], ["c"])[0, 0] == pytest.approx(2 * (2 - 1) / (3 + 2))
    smaller = table.without_rare()
    assert dict(smaller.pairs) == {("a", "c"): 2} and smaller.ratio == table.ratio == 0.5
    assert (smaller.score(["A"], ["b", "c"]) == table.score(["A"], ["b", "c"])).all()


def test_a_word_that_stands_everywhere_goes_with_none():
    pairs = {("leben", "life"): 10, ("und", "life"): 10, ("und", "work"): 10, ("werk", "work"): 10}
    table = HeadingTable(pairs, {"leben": 10, "werk": 10, "und": 20}, {"life": 10, "work": 10})
    assert table.dice("leben", "life") > table.dice("und", "life") > table.dice("leben", "work") == 0


PROSE = (
    "This is a paragraph of prose, which is rather long and ends like a sentence.\nSo does this one, a bit shorter."
)
SHORT = "Berlin\nSkarvholm\nTromsø"
UNFINISHED = "A list of things which has long lines that are no sentences, such as book titles and their publishers"


def wiki(number: int, sections: dict[str, str], share=1.0, language="en") -> list[Article]:
    made = []
    for k in range(number):
        own = sections.items() if k < share * number else ()
        made.append(written(language, k, ("", PROSE), ("Career", PROSE), *own))
    return made


@pytest.mark.parametrize("text", [SHORT, UNFINISHED, "", "  \n "])
def test_frequent_headings_over_no_prose_are_boilerplate(text):
    counts = Boilerplate.count(wiki(100, {"See also": text}, share=0.3))
    assert counts.is_boilerplate("See also") and counts.is_boilerplate("see  also:")
    assert not any(map(counts.is_boilerplate, ["Career", "", "Unknown"]))


def test_frequent_prose_is_no_boilerplate():
    counts = Boilerplate.count(wiki(100, {"History": PROSE, "Style": PROSE.replace("\n", " ")}))
    assert not any(map(counts.is_boilerplate, ["History", "Style", "Career"]))


def test_prose_in_a_script_without_ends_of_sentences_is_no_boilerplate():
    thai = "นี่คือย่อหน้าที่ยาวพอสมควรและไม่มีเครื่องหมายจบประโยค"
    articles = [written("th", k, ("", thai), ("ประวัติ", thai), ("ดูเพิ่ม", "กรุงเทพ")) for k in range(50)]
    counts = Boilerplate.count(articles)
    assert not counts.is_boilerplate("ประวัติ") and counts.is_boilerplate("ดูเพิ่ม")


def test_small_corpora_have_no_boilerplate():
    below, enough = (Boilerplate.count(wiki(n, {"See also": SHORT})) for n in (MIN_ARTICLES - 1, MIN_ARTICLES))
    assert not below.is_boilerplate("See also") and enough.is_boilerplate("See also")


def test_rare_headings_of_large_corpora_are_no_boilerplate():
    rare, frequent = (Boilerplate.count(wiki(3000, {"Maps": SHORT}, share)) for share in (0.008, 0.012))
    assert not rare.is_boilerplate("Maps") and frequent.is_boilerplate("Maps")


def test_a_heading_counts_once_per_article():
    articles = [written("en", 0, ("", PROSE), *[("See also", SHORT)] * 50)]
    assert not Boilerplate.count(articles).is_boilerplate("See also")


def test_boilerplate_of_shards_adds_up_and_survives_json():
    articles = wiki(60, {"See also": SHORT, "Only here": PROSE}, share=0.2) + wiki(40, {"See also": SHORT})
    whole = Boilerplate.count(articles)
    merged = Boilerplate.merge(Boilerplate.count(articles[i::7]) for i in range(7))
    assert merged == whole and merged.to_json() == whole.to_json()
    again = Boilerplate.from_json(whole.to_json())
    assert again == whole and again.is_boilerplate("See also")
    kept = whole.without_rare()
    assert "only here" in whole.headings and "only here" not in kept.headings and kept.is_boilerplate("See also")
