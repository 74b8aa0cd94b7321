"""Collections from the raw files of CLEF. The tests write such files with their own sentences."""

import gzip
import json
import shutil
from collections import Counter, defaultdict

import pytest

from modeling_clir.data.clef import document_text, read_clef_qrels, read_clef_topics, write_clef
from modeling_clir.data.collections import read_collection
from modeling_clir.data.runs import read_run

from ..helpers import clir_command, run_here, write


# For each sub-collection: language, file, markup, and the expected texts.
RAW = [
    (
        "en",
        "la/la940101.gz",
        """<DOC>
<DOCNO> LA010194-0001 </DOCNO>
<DOCID> 000001 </DOCID>
<DATE>
<P>January 1, 1994</P>
</DATE>
<SECTION> <P> Metro; Part B </P> </SECTION>
<HEADLINE>
<P>
A LIGHTHOUSE KEEPER
</P>
<P>RETIRES</P>
</HEADLINE>
<BYLINE><P>By NOBODY</P></BYLINE>
<TEXT>
<P>
The lamp of the old
lighthouse went out.
</P>
<P>Fish &amp; chips were served.</P>
</TEXT>
<SUBJECT><P>LIGHTHOUSES</P></SUBJECT>
</DOC>
<DOC>
<DOCNO> LA010194-0002 </DOCNO>
<HEADLINE><P>Not judged</P></HEADLINE>
<TEXT><P>Nobody asked for this.</P></TEXT>
</DOC>
""",
        {
            "LA010194-0001": "A LIGHTHOUSE KEEPER RETIRES The lamp of the old lighthouse went out. "
            "Fish & chips were served.",
            "LA010194-0002": "Not judged Nobody asked for this.",
        },
    ),
    (
        "en",
        "gh95/GH950102.sgml",
        "<DOC>\n<DOCNO>GH950102-000000</DOCNO>\n<DOCID>GH950102-000000</DOCID>\n<DATE>950102</DATE>\n"
        "<HEADLINE>Ferry in the fog</HEADLINE>\n<EDITION>1</EDITION><PAGE>2</PAGE>\n"
        "<TEXT>The ferry cost &pound;3.50.\nNobody paid.\n</TEXT>\n</DOC>",
        {"GH950102-000000": "Ferry in the fog The ferry cost £3.50. Nobody paid."},
    ),
    (
        "de",
        "fr_rundschau/fr940103.sgml",
        "<DOC>\n<DOCNO>FR940103-000001</DOCNO>\n<DOCID>FR940103-000001</DOCID>\n<WEEK>1</WEEK>\n"
        "<TEXT>Der Hafen fror im Mai zu, was niemand erklären konnte.</TEXT>\n"
        "<TITLE>Früher Frost</TITLE>\n</DOC>\n",
        {"FR940103-000001": "Früher Frost Der Hafen fror im Mai zu, was niemand erklären konnte."},
    ),
    (
        "de",
        "der_spiegel/spiegel.sgml",
        "<DOC>\n<DOCNO>SPIEGEL9495-000003</DOCNO>\n<ACCOUNT>#0</ACCOUNT>\n<ISSUE>1</ISSUE>\n"
        "<TITLE>Hochwasser</TITLE>\n"
        "<LEAD>Die Br&uuml;cke h&#228;lt.</LEAD>\n"
        "<TEXT>Im Dorf steht das Wasser &uuml;ber der T&Uuml;R.</TEXT>\n</DOC>\n",
        {"SPIEGEL9495-000003": "Hochwasser Die Brücke hält. Im Dorf steht das Wasser über der TÜR."},
    ),
    (
        "de",
        "sda/sda94.sgml",
        "<DOC>\n<DOCNO>SDA.940101.0001</DOCNO>\n<KW>WETTER SCHNEE</KW>\n<TI>Neuschnee</TI>\n<ST>In den Bergen</ST>\n"
        "<LD>Es schneite.</LD>\n<TX>Zehn Zentimeter.</TX>\n<TX>Dann Regen.</TX>\n</DOC>\n",
        {"SDA.940101.0001": "Neuschnee Es schneite. In den Bergen Zehn Zentimeter. Dann Regen."},
    ),
    (
        "fr",
        "lemonde94/19940101.sgml",
        "<DOC>\n<DOCNO>LEMONDE94-000001-19940101</DOCNO>\n<TITLE>Le moulin de pierre</TITLE>\n"
        "<SUBJECTS>MOULIN</SUBJECTS>\n"
        "<LEAD1>Un été.</LEAD1>\n<TEXT>La rivière est à sec, dit-on.</TEXT>\n</DOC>\n",
        {"LEMONDE94-000001-19940101": "Le moulin de pierre Un été. La rivière est à sec, dit-on."},
    ),
    (
        "fr",
        "ats95/ats.sgml.gz",
        "<DOC>\n<DOCNO>ATS.950101.0002</DOCNO>\n<KW>NEIGE</KW>\n<TI>Neige</TI>\n<TX>Il neige.</TX>\n</DOC>\n",
        {"ATS.950101.0002": "Neige Il neige."},
    ),
    (
        "es",
        "efe/19940101.sgml",
        "<DOC>\n<DOCNO>EFE19940101-00001</DOCNO>\n<CATEGORY>TIEMPO</CATEGORY>\n<TITLE> EL FARO\n</TITLE>\n"
        "<TEXT> El señor del faro duerme.</TEXT>\n</DOC>\n",
        {"EFE19940101-00001": "EL FARO El señor del faro duerme."},
    ),
    (
        "it",
        "la_stampa/st94.sgml",
        "<DOC>\n<DOCNO>LASTAMPA94-000001</DOCNO>\n<TITLE>Il porto</TITLE>\n"
        "<TEXT>La citt&agrave; dorme.</TEXT>\n</DOC>\n",
        {"LASTAMPA94-000001": "Il porto La città dorme."},
    ),
    (
        "it",
        "agz95/agz.sgml",
        "<DOC>\n<DOCNO>AGZ.950101.0001</DOCNO>\n<TI>La nave\n\nLa nave è partita.</TI>\n</DOC>\n",
        {"AGZ.950101.0001": "La nave La nave è partita."},
    ),
    (
        "nl",
        "nrc/nh94.sgml",
        "<DOC>\n<DOCNO>NH19940103-0001</DOCNO>\n<BODYY>\n<TI><P>De dijk</P></TI>\n<AU><P>Door niemand</P></AU>\n"
        "<LE><P>Het water stijgt.</P></LE>\n<TE><P>De dijk is oud.</P>\n<P>Niemand weet hoe oud.</P></TE>\n"
        "<OS><P>Beeld: een dijk.</P></OS>\n</BODYY>\n</DOC>\n",
        {
            "NH19940103-0001": "De dijk Het water stijgt. De dijk is oud. Niemand weet hoe oud. Beeld: een dijk.",
        },
    ),
    (
        "nl",
        "ad/ad95.sgml",
        "<doc>\n<docno>AD19950103-0002</docno>\n<bodyy>\n<ti><p>De brug</ti>\n"
        "<te><p>Geen brug.\n<p>Geen co&ouml;rdinaten.</te>\n"
        "</bodyy>\n</doc>\n",
        {"AD19950103-0002": "De brug Geen brug. Geen coördinaten."},
    ),
]
LANGUAGES = ("en", "de", "fr", "es", "it", "nl")
TEXTS = {language: {} for language in LANGUAGES}
for _language, _, _, _expected in RAW:
    TEXTS[_language].update(_expected)
NOT_JUDGED = "LA010194-0002"


def write_raw(path, text: str, encoding: str = "latin-1"):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def topic(language: str, number: int, words: str = "é", tag: str | None = None) -> str:
    """Writes a topic as in the files of 2001 to 2003."""
    tag = tag or language.upper()
    fields = "".join(
        f"<{tag}-{name}> {language} {name} {number} {words} </{tag}-{name}>\n" for name in ("title", "desc", "narr")
    )
    return f"<top>\n<num> C{number:03d} </num>\n{fields}</top>\n\n"


def text_of(language: str, number: int) -> str:
    return f"{language} title {number} é {language} desc {number} é"


@pytest.fixture(scope="module")
def clef(tmp_path_factory):
    """Writes documents of all sub-collections, topics 1, 41, 92 and 141 in six languages, and qrels of two years."""
    folder = tmp_path_factory.mktemp("clef")
    for language, name, markup, _ in RAW:
        write_raw(folder / language / name, markup)
    write_raw(folder / "de/README", "What is in this folder.")
    write_raw(folder / "de/.hidden", "<DOC>")
    for language in LANGUAGES:
        write_raw(folder / f"topics/2000/TOP-{language}.txt", topic(language, 1) + topic(language, 41))
        write_raw(folder / f"topics/2001/Top-{language}01.txt.gz", topic(language, 92) + topic(language, 141))
        # Topic 41 has no relevant document; topic 141 is not judged. 2000 and 2001 judge one document twice.
        ids = [key for key in TEXTS[language] if key != NOT_JUDGED]
        write(
            folder / f"qrels/{language}_2000", *(f"1 0 {key} {int(key == ids[-1])}" for key in ids), f"41 0 {ids[0]} 0"
        )
        write(
            folder / f"qrels/{language}_2001.gz", *(f"092 0 {key} 1" for key in reversed(ids)), f"C001 0 {ids[-1]} 1"
        )
    return folder


def prepare(monkeypatch, output, clef, pairs: str, *options):
    """Runs the script on the files of the fixture, unless the options name other files."""
    languages = sorted({pair.split("-")[1] for pair in pairs.split(",")})
    files = {
        "--documents": [f"{language}={clef / language}" for language in languages],
        "--topics": [clef / "topics"],
        "--qrels": [
            f"{language}={clef / 'qrels' / language}_{year}" for language in languages for year in ("2000", "2001.gz")
        ],
    }
    given = [word for option, paths in files.items() if option not in options for word in (option, *paths)]
    run_here(monkeypatch, "scripts/prepare_clef.py", output, "--pairs", pairs, *given, *options)


def test_prepare_clef(clef, tmp_path, monkeypatch, capsys):
    pairs = ["en-de", "fr-de", "de-en", "en-fr", "fr-es", "nl-it", "it-nl", "es-es"]
    prepare(monkeypatch, tmp_path / "out", clef, ",".join(pairs))
    printed = capsys.readouterr().out
    for pair in pairs:
        query_language, language = pair.split("-")
        read = read_collection(tmp_path / "out" / pair)
        expected = {key: text for key, text in TEXTS[language].items() if key != NOT_JUDGED}
        ids = list(expected)
        assert read.documents == expected
        assert read.queries == {f"C{number:03d}": text_of(query_language, number) for number in (1, 92)}
        assert read.qrels == {"C001": {key: int(key == ids[-1]) for key in ids}, "C092": dict.fromkeys(ids, 1)}
        assert read.candidates == {"C001": sorted(ids), "C092": sorted(ids)} and read.folds is None
        assert f"{pair}: 2 queries, {len(ids)} documents, {len(ids):.1f} judged for each query\n" in printed


def test_all_documents(clef, tmp_path, monkeypatch):
    prepare(monkeypatch, tmp_path, clef, "de-en", "--all_documents", "--topic_fields", "description,narrative,title")
    read = read_collection(tmp_path / "de-en")
    assert read.documents == TEXTS["en"]
    assert all(NOT_JUDGED not in candidates for candidates in read.candidates.values())
    assert read.queries["C092"] == "de desc 92 é de narr 92 é de title 92 é"


def test_what_is_left_out_is_counted(clef, tmp_path, monkeypatch, caplog):
    prepare(monkeypatch, tmp_path, clef, "en-de")
    log = caplog.text
    assert "de: topics without a relevant document, left out: 1 (C041)" in log
    assert "en-de: topics without a judgement, left out: 1 (C141)" in log
    assert f"de: files without a <DOC>, skipped: 1 ({clef}/de/README)" in log
    assert "de: fields that are not indexed: 4 (" in log and "KW" in log and "WEEK" in log


@pytest.mark.parametrize(
    ("markup", "text", "notes"),
    [
        ("<TITLE>a</TITLE><TEXT>b</TEXT>", "a b", {}),
        ("<text>b</text><Title>a</TITLE>", "a b", {}),
        ("<TEXT>b<TITLE>a</TITLE>c</TEXT>", "a b c", {}),
        ("<TEXT>a<KW>b</KW>c</TEXT>", "a c", {"KW": 1}),
        ("<TEXT>a<CAPTION>b</CAPTION>c</TEXT>", "a b c", {}),
        ("<TEXT>a<br>b<P>c<p/>d</P></TEXT>", "a b c d", {}),
        ('<TEXT TYPE="x">a</TEXT ><KW>b</KW>', "a", {"KW": 1}),
        ("<TX>a</TX><KW>b</KW><TX>c</TX>", "a c", {"KW": 1}),
        ("<TITLE>a<KW>b<TEXT>c\n\n<P>d", "a c d", {"TITLE": 1, "KW": 2, "TEXT": 0}),
        ("<TITLE>a\n<TEXT>b</TEXT>\n<PAGE>2", "a b", {"TITLE": 1, "PAGE": 1}),
        ("<KW>a<KW>b<TEXT>c</TEXT>", "c", {"KW": 4}),
        ("<TITLE>a<FIG/>b<TEXT>c</TEXT>", "a b c", {"TITLE": 1}),
        ("<TEXT>a<TEXT>b</TEXT>c</TEXT>d", "a b c", {"outside of any": 1}),
        ("a <PAGE>b</PAGE> <TEXT>c</TEXT> d", "c", {"outside of any": 2, "PAGE": 1}),
        ("<TEXT>a <!-- <KW> --> b </TITLE> c</TEXT>", "a b c", {}),
        ("<TEXT>a < b > c <1> <x@y.z> </TEXT>", "a < b > c <1> <x@y.z>", {}),
        ("<TEXT>&lt;P&gt; &amp;eacute; &#233;&#xE9; &eacute &Eacute;</TEXT>", "<P> &eacute; éé é É", {}),
        (
            "<TEXT>AT&T, R&D; &hyph; &hyph; a&nbsp;b&#150;</TEXT>",
            "AT&T, R&D; &hyph; &hyph; a b–",
            {"&hyph;": 2, "&D;": 1},
        ),
        ("<TEXT> <P></P> &nbsp; </TEXT>", "", {}),
    ],
)
def test_document_text(markup, text, notes):
    counted = defaultdict(Counter)
    assert document_text(f"<DOCNO> X </DOCNO>\n{markup}\n", counted) == text
    assert sum(counted.values(), Counter()) == +Counter(notes)


def test_files_of_documents(tmp_path):
    """Some documents share a line, have no end, or have one of two encodings."""
    markup = "x <DOC><DOCNO>a</DOCNO><TEXT>é</TEXT></DOC> <DOC><DOCNO>b<TEXT>f\n<DOC>\n<DOCNO>c\n<TEXT>g"
    write(tmp_path / "qrels", *(f"1 0 {key} 1" for key in "abc"))
    for encoding in ("latin-1", "utf-8"):
        path = write_raw(tmp_path / encoding, markup, encoding)
        topics = {"en": {"C001": "q"}}
        documents, qrels = {"de": [path]}, {"de": [tmp_path / "qrels"]}
        for encodings in (None, {"de": encoding}, {None: encoding, "fr": "koi8-r"}):
            write_clef(tmp_path / "out", [("en", "de")], documents, topics, qrels, encodings)
            assert read_collection(tmp_path / "out/en-de").documents == {"a": "é", "b": "f", "c": "g"}
            shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (topic("de", 7), {"de": {"C007": text_of("de", 7)}}),
        (topic("de", 7).lower(), {"de": {"C007": text_of("de", 7)}}),
        (topic("es", 141, tag="SP") + topic("de", 8, tag="G"),
         {"es": {"C141": text_of("es", 141)}, "de": {"C008": text_of("de", 8)}}),
        ("<top>\n<num> 9\n<E-title> a\n<E-desc> b &amp;\nc\n<E-narr> d\n<top><num>C10<E-title>e<E-desc>f",
         {"en": {"C009": "a b & c", "C010": "e f"}}),
        (
            '<topics>\n<topic lang="de">\n<identifier>150-AH</identifier>\n<title>a</title>\n'
            "<description>\nb\n</description>\n<narrative>c</narrative>\n</topic>\n</topics>",
            {"de": {"C150": "a b"}},
        ),
        ("<top><num>1</num><FR-title>a</FR-title><IT-title>b</IT-title><FR-desc>c</FR-desc>"
         "<IT-desc>d</IT-desc></top>",
         {"fr": {"C001": "a c"}, "it": {"C001": "b d"}}),
    ],
)  # fmt: skip
def test_topics(text, expected, tmp_path):
    for encoding in ("latin-1", "utf-8", "utf-8-sig"):
        assert read_clef_topics([(None, write_raw(tmp_path / "t", text, encoding))]) == expected
        (tmp_path / "t").unlink()
    if len(expected) == 1:
        (there,) = expected.values()
        assert read_clef_topics([("sv", write_raw(tmp_path / "t.gz", text))]) == {"sv": there}


# Language, words that only this language's encodings have, and an encoding.
WORDS = [
    ("zh", "长城是什么", "gb2312"),
    ("zh", "長城", "big5"),
    ("ja", "長城とは", "euc_jp"),
    ("ja", "長城とは", "iso2022_jp"),
    ("ru", "Китайская стена", "koi8-r"),
    ("ru", "Китайская стена", "cp1251"),
    ("cs", "Velká zeď", "iso8859-2"),
    ("en", "the wall’s – “end”", "cp1252"),
    ("ru", "Китайская стена", "utf-8"),
]


@pytest.mark.parametrize(("language", "words", "encoding"), WORDS)
def test_encodings_of_topics(language, words, encoding, tmp_path):
    """Encodings are given (by language or for all) or declared; otherwise an error names file, line and option."""
    expected = {language: {"C001": f"{language} title 1 {words} {language} desc 1 {words}"}}
    path = write_raw(tmp_path / "t.gz", topic(language, 1, words), encoding)
    for given in ({language: encoding}, {None: encoding}, {None: "latin-1", language: encoding}):
        assert read_clef_topics([(None, path)], encodings=given) == expected
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<topics>{topic(language, 1, words)}</topics>'
    assert read_clef_topics([(None, write_raw(tmp_path / "declared", text, encoding))]) == expected
    if encoding == "utf-8":
        assert read_clef_topics([(None, path)]) == expected
        return
    with pytest.raises(ValueError) as error:
        read_clef_topics([(None, path)])
    assert str(error.value).startswith(f"{path}:3: ") and f"--topic_encoding {language}=" in str(error.value)


def test_encodings_of_topics_errors(tmp_path):
    path = write_raw(tmp_path / "t", topic("ru", 1, "стена") + topic("en", 1), "utf-8")
    with pytest.raises(ValueError, match="t has topics in en, ru, which have different encodings in --topic_encoding"):
        read_clef_topics([(None, path)], encodings={"en": "latin-1", "ru": "utf-8"})
    with pytest.raises(ValueError, match="t:3: not ASCII"):
        read_clef_topics([(None, path)], encodings={None: "ascii"})
    with pytest.raises(ValueError, match="t:3: control characters, so the encoding is not latin-1"):
        read_clef_topics([(None, path)], encodings={None: "latin-1"})
    with pytest.raises(ValueError, match="t:1: UTF-16 or UTF-32"):
        read_clef_topics([(None, write_raw(path, topic("de", 1), "utf-16"))])
    with pytest.raises(ValueError, match=r"t:1: expected an encoding as utf-8, latin-1, .*; got 'x-sjis-9'"):
        read_clef_topics([(None, write_raw(path, '<?xml version="1.0" encoding="x-sjis-9"?>' + topic("de", 1)))])


def test_encodings_of_documents(clef, tmp_path, monkeypatch):
    markup = DOC.format("a", "Стена.") + DOC.format("b", "x")
    files = {}
    for encoding in ("koi8-r", "utf-8"):
        files[encoding] = write_raw(tmp_path / encoding / "a.sgml", markup, encoding)
    write_raw(tmp_path / "utf-8/README", "не документ", "cp1251")
    (tmp_path / "utf-8/picture.png").write_bytes(bytes(range(256)))
    write(tmp_path / "qrels", "1 0 a 1")
    options = ("--qrels", f"ru={tmp_path / 'qrels'}", "--documents")
    with pytest.raises(SystemExit) as error:
        prepare(monkeypatch, tmp_path / "out", clef, "en-ru", *options, f"ru={files['koi8-r']}")
    assert str(error.value).startswith(f"error: {files['koi8-r']}:3: not UTF-8, and 'ru' is not written in Latin-1")
    assert "--encoding ru=ENCODING" in str(error.value)
    for number, (encoding, given) in enumerate(
        {"koi8-r": ("--encoding", "latin-1", "ru=koi8-r"), "utf-8": ()}.items()
    ):
        output, folder = tmp_path / str(number), files[encoding].parent
        prepare(monkeypatch, output, clef, "en-ru", *options, f"ru={folder}", *given)
        assert read_collection(output / "en-ru").documents == {"a": "Стена."}


def test_linked_folders(clef, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/de").symlink_to(clef / "de")
    (tmp_path / "data/again").symlink_to(tmp_path / "data")
    prepare(monkeypatch, tmp_path, clef, "en-de", "--documents", f"de={tmp_path / 'data'}")
    assert read_collection(tmp_path / "en-de").documents == TEXTS["de"]


def test_topics_in_a_folder(tmp_path):
    write_raw(tmp_path / "a/1.txt", topic("de", 1))
    write_raw(tmp_path / "a/copy.txt", topic("de", 1))
    (tmp_path / "a/README").write_bytes(b"none \xff\0")
    write_raw(tmp_path / "2.txt", "<top><num>C002<title>c<desc>d")
    read = read_clef_topics([(None, tmp_path / "a"), ("de", tmp_path / "2.txt")])
    assert read == {"de": {"C001": text_of("de", 1), "C002": "c d"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no topic", "t: found no topic (topics start with <top>)"),
        ("\n\n<top>\n<DE-title>a<DE-desc>b</top>", "t:3: the topic has no number"),
        (topic("de", 1) + "<top><num>C002</num><DE-desc>b</top>", "t:8: the topic C002 has no title in 'de'"),
        ("<top><num>C002</num><DE-title> </DE-title><DE-desc>b</top>", "t:1: the topic C002 has no title in 'de'"),
        ("<top><num>C002</num><DE-title>a</DE-title></top>", "t:1: the topic C002 has no description in 'de'"),
        ("<top><num>C002</num></top>", "t:1: the topic C002 has no title, as <EN-title>"),
        ("<top><num>C2x<DE-title>a<DE-desc>b", "t:1: expected the number of a topic, as C041, 41 or 41-AH; got 'C2x'"),
        ("<top><num>C002<title>a<desc>b", "t:1: <title> names no language; give the file as LANGUAGE="),
        ("<top><num>C002<DE-title>a<DE-title>b", "t:1: the topic has more than one <de-title>"),
        (topic("de", 1) + topic("de", 1, "other"), "t:8: the topic C001 occurs more than once in 'de'"),
    ],
)
def test_topics_errors(text, message, tmp_path):
    with pytest.raises(ValueError) as error:
        read_clef_topics([(None, write_raw(tmp_path / "t", text))])
    assert str(error.value).startswith(f"{tmp_path}/{message}")


def test_qrels(tmp_path):
    write(tmp_path / "a", "41 0 LA010194-0001 1", "041\t0\td\t0", "", "10.2452/7-AH 0 d 1")
    write(tmp_path / "b", "C041 0 d 0", "200 0 d 1")
    read = read_clef_qrels([tmp_path / "a", tmp_path / "b"])
    assert list(read) == ["C007", "C041", "C200"]
    assert read["C041"] == {"LA010194-0001": (1, f"{tmp_path}/a:1"), "d": (0, f"{tmp_path}/a:2")}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["41 0 d 1", "041 0 d 0"], "q:2: document 'd' is judged 0, but 1 in {folder}/q:1"),
        (["41 0 d 2"], "q:1: the relevance must be 0 or 1, got '2'"),
        (["41 0 d"], "q:1: expected 4 columns, got 3"),
        (["41 0 d 1", "GIRT7 0 d 1"], "q:2: expected the number of a topic"),
    ],
)
def test_qrels_errors(lines, message, tmp_path):
    with pytest.raises(ValueError) as error:
        read_clef_qrels([write(tmp_path / "q", *lines)])
    assert str(error.value).startswith(f"{tmp_path}/{message.format(folder=tmp_path)}")


# Content that replaces the fixture's file of documents, qrels or topics, and the error.
DOC = "<DOC>\n<DOCNO>{}</DOCNO>\n<TEXT>{}</TEXT>\n</DOC>\n"
FIRST = "FR940103-000001"


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("--documents", DOC.format(FIRST, "a") * 2, f"{{path}}:5: the document {FIRST!r} occurs more than once"),
        ("--documents", "\n<DOC>\n<TEXT>a</TEXT>\n</DOC>", "{path}:2: expected a document with an id in <DOCNO>"),
        ("--documents", DOC.format("a b", "a"), "{path}:1: expected a document with an id in <DOCNO>"),
        ("--documents", "nothing", "{path}: found no document (documents start with <DOC>); is it SGML?"),
        ("--documents", DOC.format(FIRST, " "), f"{{path}}:1: the document {FIRST!r} has no text, but is judged in "),
        (
            "--documents",
            DOC.format(FIRST, "a"),
            "{clef}/qrels/de_2000:2: judged documents that are in no file: 2 (SPIEGEL",
        ),
        ("--qrels", "1 0 gone 1\n", "{path}:1: judged documents that are in no file: 1 (gone); add"),
        ("--qrels", f"7 0 {FIRST} 1\n", "{path}:1: judged topics that are missing in 'en': 1 (C007); add"),
        ("--qrels", f"1 0 {FIRST} 0\n", "no topic has a relevant document in 'de' (--qrels)"),
        ("--topics", topic("fr", 1), "no topic is in 'en', only in fr (--topics)"),
    ],
)
def test_errors(option, text, message, clef, tmp_path, monkeypatch):
    path = write_raw(tmp_path / "in/file", text)
    argument = path if option == "--topics" else f"de={path}"
    with pytest.raises(SystemExit) as error:
        prepare(monkeypatch, tmp_path / "out", clef, "en-de", option, argument)
    assert str(error.value).startswith("error: " + message.format(path=path, clef=clef))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--pairs", "en"), "a pair is a query and a document language"),
        (
            ("--topic_fields", "title,summary"),
            "--topic_fields must be from title, description, narrative; got 'summary'",
        ),
        (("--documents", "somewhere"), "--documents takes LANGUAGE=PATH, as de=somewhere"),
        (("--documents", "en=somewhere"), "--documents has nothing in 'de': add de=PATH"),
        (("--documents", "de=somewhere"), "somewhere does not exist"),
        (("--qrels", "de=somewhere"), "somewhere does not exist"),
        (("--encoding", "utf-8"), "{clef}/de/fr_rundschau/fr940103.sgml:5: not UTF-8"),
        (("--encoding", "de=utf-16"), "--encoding: expected an encoding as utf-8, latin-1, cp1252"),
        (("--topic_encoding", "latin-77"), "--topic_encoding: expected an encoding as utf-8, latin-1, cp1252"),
        (("--topic_encoding", "en=rot13"), "--topic_encoding: expected an encoding as utf-8, latin-1, cp1252"),
    ],
)
def test_options_errors(options, message, clef, tmp_path, monkeypatch):
    with pytest.raises(SystemExit) as error:
        prepare(monkeypatch, tmp_path / "out", clef, "en-de", *options)
    assert message.format(clef=clef) in str(error.value)


def test_from_the_raw_files_to_the_results_of_five_folds(clef, tiny_bert, tmp_path, monkeypatch):
    """The same seed gives the same files in another folder, byte for byte."""
    numbers, keys = range(1, 11), list(TEXTS["de"])
    topics = write_raw(tmp_path / "topics", "".join(topic("en", number) for number in numbers))
    judged = (f"{number} 0 {key} {int(number % 3 == place)}" for number in numbers for place, key in enumerate(keys))
    files = ("--topics", topics, "--qrels", f"de={write(tmp_path / 'qrels', *judged)}")
    prepare(monkeypatch, tmp_path / "clef", clef, "en-de", *files)
    train = ("--do_train", "--num_train_epochs", "2", "--learning_rate", "1e-3", "--seed", "7")
    for name in ("one", "two"):
        run_here(monkeypatch, *clir_command(tiny_bert, [tmp_path / "clef/en-de"], tmp_path / name, *train))
    metrics = json.loads((tmp_path / "one/metrics.json").read_text(encoding="utf-8"))["en-de"]
    assert [fold["queries"] for fold in metrics["folds"].values()] == [2] * 5 and metrics["pairs"] == 10 * len(keys)
    assert set(read_run(tmp_path / "one/en-de.run")) == {f"C{number:03d}" for number in numbers}
    for name in ("en-de.run", "en-de.csv", "metrics.json", "en-de.folds.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_archives_are_named(clef, tmp_path, monkeypatch, caplog):
    write_raw(tmp_path / "in/la940101.Z", "<DOC>")
    with pytest.raises(SystemExit, match=r"found no document \(documents start with <DOC>\); unpack archives first"):
        prepare(monkeypatch, tmp_path / "out", clef, "en-de", "--documents", f"de={tmp_path / 'in'}")
    documents = ("--documents", f"de={clef / 'de'}", f"de={tmp_path / 'in'}")
    write_raw(tmp_path / "in/other.sgml", DOC.format("other", "a"))
    prepare(monkeypatch, tmp_path / "out", clef, "en-de", *documents)
    assert f"files that cannot be read (unpack them): 1 ({tmp_path}/in/la940101.Z)" in caplog.text


def test_skip_missing(clef, tmp_path, monkeypatch, caplog):
    """Missing judged documents and topics are left out, and so is a topic without any remaining document."""
    documents = write_raw(
        tmp_path / "documents", DOC.format("a", "one") + DOC.format("b", "") + DOC.format("c", "x\x80")
    )
    lines = ["1 0 a 1", "1 0 b 1", "1 0 gone 0", "41 0 a 0", "41 0 b 1", "7 0 a 1", "92 0 c 1"]
    qrels = write(tmp_path / "qrels", *lines)
    options = ("--documents", f"de={documents}", "--qrels", f"de={qrels}", "--skip_missing")
    prepare(monkeypatch, tmp_path, clef, "en-de", *options)
    read = read_collection(tmp_path / "en-de")
    assert read.documents == {"a": "one", "c": "x\x80"}
    assert read.qrels == {"C001": {"a": 1}, "C092": {"c": 1}} and set(read.queries) == {"C001", "C092"}
    log = caplog.text
    assert "judged documents that are in no file or have no text, left out: 2 (b, gone)" in log
    assert "judged topics that are missing in 'en': 1 (C007), left out" in log
    assert "topics without a relevant document, left out: 1 (C041)" in log
    assert "documents with control characters (is it latin-1? see --encoding): 1 (c)" in log


def test_all_folders_or_none(clef, tmp_path, monkeypatch):
    write(tmp_path / "fr-en/mine", "mine")
    with pytest.raises(SystemExit, match="fr-en exists"):
        prepare(monkeypatch, tmp_path, clef, "en-de,fr-en")
    assert [path.name for path in tmp_path.iterdir()] == ["fr-en"]
