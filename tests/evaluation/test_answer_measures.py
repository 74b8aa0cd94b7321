"""
F1 and exact match of answers. Constants in capital letters hold the output of the evaluation scripts of SQuAD v1.1 and
v2.0 and of MLQA, under Python 3.11.
"""

import json
import random

import pytest

from modeling_clir.evaluation.answer_measures import (
    apply_threshold,
    best_threshold,
    evaluate_answers,
    exact_match,
    mean_answers,
    normalize_answer,
    token_f1,
)

from ..shared import shared_path


LANGUAGES = ("ar", "de", "en", "es", "hi", "vi", "zh")


def equal(expected):
    """Compares to the last digit, except for the order of addition, which differs between versions of Python."""
    return pytest.approx(expected, rel=1e-13, abs=0)


@pytest.mark.parametrize(
    "language, text, expected",
    [
        (None, "  The\tRiver, an X-ray of\u00a0it & THEN a thesis! ", "river xray of it then thesis"),
        (None, "«The» – 'a', die", "« » – die"),
        ("en", "«The» tail – a “fox” of the $5", "tail fox of 5"),
        ("en", "ＴＨＥ ｃａｔ，the", "ｔｈｅ ｃａｔthe"),
        ("de", "Der Turm des Doms, in dem einer wohnt (eine Derbheit)", "turm doms in wohnt derbheit"),
        ("es", "¿Las dos torres del Rey, unas viejas? El", "dos torres del rey viejas"),
        ("vi", "Những chiếc thuyền của làng là: cũ", "thuyền làng cũ"),
        ("en", "a an the", ""),
        ("de", "der die das dem den des; ein eine einem einen einer eines", ""),
        ("es", "el la los las: un una unos unas", ""),
        ("vi", "của là cái chiếc những", ""),
        ("vi", "la\u0300 la", "la\u0300 la"),
        ("hi", "राजा, और a रानी।", "राजा और a रानी"),
        ("ar", "القمر، والشمال؟ في حال", "قمر و شم في ح"),
        ("zh", "《红楼梦》 第3回", "红 楼 梦 第 3 回"),
        ("zh", "ABC公司（the 2号）", "abc 公 司 the 2 号"),
        ("zh", "𠀀〇龦龥かな", "𠀀〇龦 龥 かな"),
        *[(language, " .\n«…»‽ ", "") for language in LANGUAGES],
        (None, "a. the!", ""),
        (None, "", ""),
    ],
)
def test_normalize_answer(language, text, expected):
    assert normalize_answer(text, language) == expected


def test_f1_by_hand():
    assert token_f1("the red red boat", ["a red boat sank"]) == pytest.approx(2 / 3)
    assert token_f1("red", ["boat", "red boat", "red red boat"]) == pytest.approx(2 / 3)
    assert token_f1("boat", ["ship"]) == 0
    assert token_f1("红楼", ["红楼梦"], "zh") == pytest.approx(4 / 5)
    assert token_f1("红楼", ["红楼梦"]) == 0
    assert exact_match("Boat.", ["ship", "the boat"])
    assert not exact_match("Boat", ["boat house"])
    assert exact_match("ein Boot", ["das Boot"], "de")
    assert not exact_match("ein Boot", ["das Boot"], "en")


def test_nothing_left_of_an_answer():
    """The scripts differ: F1 of "the" and "a" is 0 in SQuAD v1.1, and 1 in v2.0, which has the empty answer."""
    for prediction, golds, unanswerable, expected in [
        ("", [], False, (1.0, True)),
        ("the", [], False, (1.0, True)),
        ("boat", [], False, (0.0, False)),
        ("the", ["a"], False, (0.0, True)),
        ("the", ["a"], True, (1.0, True)),
        ("the", ["a", "boat"], False, (0.0, True)),
        ("the", ["a", "boat"], True, (0.0, False)),
        ("boat", ["a", "boat"], True, (1.0, True)),
        ("boat", ["a"], True, (0.0, False)),
    ]:
        found = tuple(measure(prediction, golds, None, unanswerable) for measure in (token_f1, exact_match))
        assert found == expected, (prediction, golds, unanswerable)
    assert evaluate_answers({"q": "the"}, {"q": ["a"]}) == {"q": {"F1": 0.0, "EM": 1.0}}
    with_unanswerable = evaluate_answers({"q": "the", "r": "the"}, {"q": ["a"], "r": []})
    assert with_unanswerable == {
        "q": {"F1": 1.0, "EM": 1.0, "answerable": 1.0},
        "r": {"F1": 1.0, "EM": 1.0, "answerable": 0.0},
    }


# Prediction and gold answers.
ANSWERS = {
    "ar": [
        ("القمر الأحمر", ["قمر أحمر", "الأحمر"]),
        ("في سنة ١٩١١،", ["سنة 1911", "١٩١١"]),
        ("جبال الألب", ["الجبال", "جبال ألب العالية"]),
        ("", ["النهر"]),
        ("والمدينة القديمة", ["المدينة القديمة"]),
    ],
    "de": [
        ("Der alte Leuchtturm", ["eines alten Leuchtturms", "alte Leuchtturm"]),
        ("den Hafen von Norrvik", ["dem Hafen"]),
        ("„Straße“ des Lichts", ["STRASSE", "straße lichts"]),
        ("die", ["der"]),
        ("1.866 Meter", ["1866 Meter über dem Meer"]),
    ],
    "en": [
        ("The old lighthouse", ["an old, old lighthouse", "lighthouse"]),
        ("“granite” reef", ["granite reef"]),
        ("A-team", ["team", "a team"]),
        ("$5 million", ["5 million dollars", "€5 million"]),
        ("an", ["the"]),
    ],
    "es": [
        ("¡Las torres!", ["unas torres", "torre"]),
        ("el puerto del norte", ["puerto de norte", "un puerto"]),
        ("la-la", ["lala", "la la"]),
        ("El Niño", ["nino", "NIÑO"]),
        ("veinte y una", ["veinte"]),
    ],
    "hi": [
        ("पुराना किला।", ["पुराना किला", "किला"]),
        ("राजा और रानी", ["राजा", "रानी और राजा"]),
        ("१९११ में", ["1911 में"]),
        ("the किला", ["किला"]),
        ("नदी", ["नदियाँ"]),
    ],
    "vi": [
        ("những con thuyền", ["Con thuyền", "chiếc thuyền"]),
        ("của vua", ["vua Hùng", "là vua"]),
        ("năm 1911 – 1912", ["1911–1912", "năm 1911"]),
        ("cái", ["chiếc"]),
        ("Làng cũ", ["làng cũ bên sông"]),
    ],
    "zh": [
        ("老灯塔。", ["灯塔", "旧灯塔"]),
        ("１９１１年", ["1911年", "一九一一年"]),
        ("ABC 公司", ["abc公司", "公司"]),
        ("《红楼梦》的作者", ["红楼梦"]),
        ("北京，上海", ["上海北京"]),
    ],
}

# F1 and EM by the script of MLQA and by the script of SQuAD v1.1.
OFFICIAL = {
    "ar": ((59.333333333333336, 20.0), (39.333333333333336, 0.0)),
    "de": ((63.33333333333333, 60.0), (42.095238095238095, 0.0)),
    "en": ((52.0, 40.0), (42.0, 20.0)),
    "es": ((86.66666666666666, 60.0), (64.76190476190476, 20.0)),
    "hi": ((63.33333333333333, 20.0), (60.0, 20.0)),
    "vi": ((69.33333333333333, 60.0), (52.666666666666664, 0.0)),
    "zh": ((79.33333333333333, 20.0), (13.333333333333332, 0.0)),
}

# Prediction, gold answers, probability of no answer; and F1, EM and best thresholds by the script of SQuAD v2.0.
ANSWERS_V2 = [
    ("The old lighthouse", ["old lighthouse", "a lighthouse"], 0.1),
    ("granite", ["a granite reef"], 0.55),
    ("in 1911", [], 0.4),
    (".", [], 0.3),
    ("", [], 0.9),
    ("", ["the harbour"], 0.8),
    ("the", ["a"], 0.2),
    ("a boat and a ship", ["the ship and the boat", "ships"], 0.7),
    ("nobody", [], 0.75),
    ("the reef", ["an"], 0.05),
    ("1911 to 1912", ["1911", "a", "1912"], 0.5),
]
OFFICIAL_V2 = {
    "EM": 36.36363636363637,
    "F1": 56.060606060606055,
    "questions": 11,
    "HasAns_EM": 28.571428571428573,
    "HasAns_F1": 59.52380952380952,
    "HasAns_questions": 7,
    "NoAns_EM": 50.0,
    "NoAns_F1": 50.0,
    "NoAns_questions": 4,
    "best_EM": 54.54545454545455,
    "best_EM_threshold": 0.2,
    "best_F1": 56.06060606060607,
    "best_F1_threshold": 0.7,
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_scripts_of_mlqa_and_squad(language):
    predictions = {str(i): prediction for i, (prediction, _) in enumerate(ANSWERS[language])}
    answers = {str(i): golds for i, (_, golds) in enumerate(ANSWERS[language])}
    for code, (f1, em) in zip((language, None), OFFICIAL[language]):
        measured = evaluate_answers(predictions, answers, code)
        assert mean_answers(measured) == {"F1": equal(f1), "EM": equal(em), "questions": 5}
        assert [{"F1": token_f1(*one, code), "EM": exact_match(*one, code)} for one in ANSWERS[language]] == list(
            measured.values()
        )


def v2(rows):
    """Returns predictions, answers and scores by question id."""
    return ({str(i): row[column] for i, row in enumerate(rows)} for column in range(3))


def best(measured, predictions, scores):
    names = [(f"best_{measure}", f"best_{measure}_threshold") for measure in ("F1", "EM")]
    values = [best_threshold(measured, predictions, scores, measure) for measure in ("F1", "EM")]
    return {name: value for pair in zip(names, values) for name, value in zip(*pair)}


def test_script_of_squad_v2():
    predictions, answers, scores = v2(ANSWERS_V2)
    measured = evaluate_answers(predictions, answers)
    assert mean_answers(measured) | best(measured, predictions, scores) == equal(OFFICIAL_V2)


def altered(text: str, number: int) -> str:
    """Alters a gold answer into a prediction; the scripts measured such predictions."""
    words = text.split()
    full_width = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
    articles = ("the", "die", "los", "những", "ال", "وال", "the ")
    return (
        text,
        " ".join(words[1:]),
        text.upper(),
        f" «{text}」.",
        full_width,
        " ".join([*words, *words[:2]]),
        text[: (len(text) + 1) // 2],
        f"{articles[number // 9 % 7]} {text}",
        articles[number // 9 % 7] + text + "。",
    )[number % 9]


def real_answers(file: str, copies: int = 9) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Reads altered and gold answers of a SQuAD file; a question without answer gets another question's answer."""
    articles = json.loads(shared_path(f"data/{file}").read_text(encoding="utf-8"))["data"]
    questions = [qa for article in articles for paragraph in article["paragraphs"] for qa in paragraph["qas"]] * copies
    predictions, answers, last = {}, {}, ""
    for number, qa in enumerate(sorted(questions, key=lambda qa: qa["id"])):
        golds = [answer["text"] for answer in qa["answers"]]
        last = golds[-1] if golds else ("" if number % 3 else last)
        answers[f"{qa['id']} {number}"] = golds
        predictions[f"{qa['id']} {number}"] = altered(last, number)
    return predictions, answers


OF_REAL_ANSWERS = {
    ("mlqa/MLQA_V1/test/test-context-ar-question-ar.json", "ar"): (83.11258928926829, 45.833333333333336),
    ("mlqa/MLQA_V1/test/test-context-de-question-de.json", "de"): (64.85166411092332, 34.5679012345679),
    ("mlqa/MLQA_V1/test/test-context-en-question-en.json", "en"): (69.09081632664558, 39.111111111111114),
    ("mlqa/MLQA_V1/test/test-context-es-question-es.json", "es"): (70.33056210498735, 38.888888888888886),
    ("mlqa/MLQA_V1/test/test-context-hi-question-hi.json", "hi"): (81.49110909320903, 41.7989417989418),
    ("mlqa/MLQA_V1/test/test-context-vi-question-vi.json", "vi"): (70.00000000000001, 33.333333333333336),
    ("mlqa/MLQA_V1/test/test-context-zh-question-zh.json", "zh"): (78.02469135802468, 44.44444444444444),
    ("mlqa/MLQA_V1/dev/dev-context-hi-question-hi.json", "hi"): (73.9058447453055, 44.44444444444444),
    ("mlqa/MLQA_V1/dev/dev-context-vi-question-vi.json", "vi"): (69.35879252788351, 34.72222222222222),
    ("mlqa/MLQA_V1/dev/dev-context-zh-question-zh.json", "zh"): (78.74122488501574, 44.44444444444444),
    ("xquad/xquad.de.json", None): (52.55838633290463, 25.333333333333332),
    ("xquad/xquad.en.json", None): (53.33120612818149, 26.28228228228228),
    ("xquad/xquad.es.json", None): (55.97157170735835, 25.633633633633632),
}
OF_REAL_ANSWERS_V2 = {
    "EM": 55.010660980810236,
    "F1": 65.62992563725301,
    "questions": 1407,
    "HasAns_EM": 23.54609929078014,
    "HasAns_F1": 44.73944024342551,
    "HasAns_questions": 705,
    "NoAns_EM": 86.6096866096866,
    "NoAns_F1": 86.6096866096866,
    "NoAns_questions": 702,
    "best_EM": 55.792466240227434,
    "best_EM_threshold": 0.4,
    "best_F1": 66.55141589776213,
    "best_F1_threshold": 0.7,
}


@pytest.mark.parametrize("file, language", OF_REAL_ANSWERS)
def test_scripts_on_altered_answers(file, language):
    f1, em = OF_REAL_ANSWERS[file, language]
    predictions, answers = real_answers(file)
    measured = evaluate_answers(predictions, answers, language)
    assert mean_answers(measured) == {"F1": equal(f1), "EM": equal(em), "questions": len(answers)}
    perfect = evaluate_answers({question: golds[0] for question, golds in answers.items()}, answers, language)
    assert mean_answers(perfect) == {"F1": 100, "EM": 100, "questions": len(answers)}


def test_script_of_squad_v2_on_altered_answers():
    predictions, answers = real_answers("squad/dev-v2.0.json", copies=1)
    # A probability that is often small if the answer is right, with many equal values.
    scores = {q: (number * 37 % 50 + 20 * (not answers[q])) / 70 for number, q in enumerate(answers)}
    means = mean_answers(evaluate_answers(apply_threshold(predictions, scores, 0.6), answers))
    measured = evaluate_answers(predictions, answers)
    assert means | best(measured, predictions, scores) == equal(OF_REAL_ANSWERS_V2)


def test_best_threshold_is_the_best():
    """All thresholds are tried. Scores are positive and differ, because only then the script is exact."""
    rng = random.Random(0)
    words = ["boat", "reef", "harbour", "old", "tower"]

    def text():
        return " ".join(rng.sample(words, rng.randint(1, 3)))

    none_best = 0
    for _ in range(100):
        rows = [
            (text(), [text() for _ in range(rng.choice((0, 0, 1, 2)))], score)
            for score in rng.sample([i / 50 for i in range(1, 50)], rng.randint(1, 12))
        ]
        predictions, answers, scores = v2(rows)
        measured = evaluate_answers(predictions, answers)
        for measure in ("F1", "EM"):
            means = {
                threshold: mean_answers(evaluate_answers(apply_threshold(predictions, scores, threshold), answers))
                for threshold in [0.0, *sorted(scores.values())]
            }
            largest = max(mean[measure] for mean in means.values())
            value, threshold = best_threshold(measured, predictions, scores, measure)
            assert value == pytest.approx(largest)
            assert means[threshold][measure] == pytest.approx(largest)
            none_best += threshold == 0
    assert 20 < none_best < 180


def test_apply_threshold():
    assert apply_threshold({"q": "boat", "r": "reef"}, {"r": 0.6, "q": 0.5}, 0.5) == {"q": "boat", "r": ""}


def test_parts_without_questions_are_left_out():
    means = mean_answers(evaluate_answers({"q": "", "r": "boat"}, {"q": [], "r": []}))
    whole = {"F1": 50.0, "EM": 50.0, "questions": 2}
    assert means == whole | {f"NoAns_{name}": value for name, value in whole.items()}


def test_refused():
    with pytest.raises(ValueError, match="'fr': MLQA's rules are for ar, de, en, es, hi, vi, zh"):
        normalize_answer("le bateau", "fr")
    with pytest.raises(ValueError, match=r"question 'r' has no prediction \(1 of 2"):
        evaluate_answers({"q": ""}, {"q": ["boat"], "r": ["reef"]})
    with pytest.raises(
        ValueError, match=r"no question 'r'.*\(1 of 2\): are these the answers of another question set"
    ):
        evaluate_answers({"q": "", "r": ""}, {"q": ["boat"]})
    with pytest.raises(ValueError, match="there are no questions"):
        mean_answers({})
    with pytest.raises(ValueError, match="there are no questions"):
        best_threshold({}, {}, {})
    with pytest.raises(ValueError, match="the no-answer scores have no question 'q'"):
        apply_threshold({"q": "boat"}, {}, 0.5)
    with pytest.raises(ValueError, match="question 'q' has no prediction"):
        best_threshold({"q": {"F1": 1.0, "EM": 1.0}}, {}, {"q": 0.5})
    with pytest.raises(ValueError, match="'q': the no-answer score is NaN"):
        best_threshold({"q": {"F1": 1.0, "EM": 1.0}}, {"q": "boat"}, {"q": float("nan")})
