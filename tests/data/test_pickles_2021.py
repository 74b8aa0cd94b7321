"""The pickles of 2021: plain data loads as Python loads it; anything else is refused."""

import pickle
import struct
import tracemalloc
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from modeling_clir.data.pickles_2021 import import_2021, load_plain
from modeling_clir.data.sections import ExampleKey, PretrainingDataset

from ..conftest import run


PLAIN = [
    {},
    {"a": "text", "b": "é\n\\u00e9 日本 😀", "": ""},
    {i: {"p": f"x{i}", "n": [1, 255, 256, 65536, -1, 2**31, -(2**40)]} for i in range(2500)},
    {"a": [], "b": (), "c": (1,), "d": (1, "2"), "e": (1, 2, 3), "f": (1, 2, 3, 4), "g": ["x"] * 3000},
    {"long": "x" * 70_000, "list": [str(i) for i in range(1001)]},
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", PLAIN, ids=range(len(PLAIN)))
def test_plain_data_is_what_python_loads(value, protocol, tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    assert load_plain(path) == value == pickle.loads(path.read_bytes())


class Runs:
    """Pickled, it calls a function that leaves a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Plain:
    pass


class Persistent(pickle.Pickler):
    def persistent_id(self, value):
        return "x" if value == 1 else None


def persistent(folder: Path) -> bytes:
    path = folder / "persistent"
    with open(path, "wb") as file:
        Persistent(file, 4).dump({"a": 1})
    return path.read_bytes()


def nested(number: int) -> bytes:
    return b"\x80\x02" + b"]" * number + b"a" * (number - 1) + b"."


HOSTILE = {
    "reduce": lambda folder: pickle.dumps({"a": Runs(folder / "ran")}, 4),
    "reduce of protocol 0": lambda folder: pickle.dumps({"a": Runs(folder / "ran")}, 0),
    "global": lambda folder: b"cos\nsystem\n.",
    "stack_global": lambda folder: b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "inst": lambda folder: b"(S'touch x'\nios\nsystem\n.",
    "obj": lambda folder: b"(cos\nsystem\nV touch x\no.",
    "build": lambda folder: pickle.dumps({"a": Plain()}, 2),
    "persistent id": persistent,
    "persistent id of protocol 0": lambda folder: b"Pabc\n.",
    "extension code": lambda folder: b"\x80\x02\x82\x01.",
    "out-of-band buffer": lambda folder: pickle.dumps(pickle.PickleBuffer(b"x"), 5, buffer_callback=lambda _: None),
    "bytes": lambda folder: pickle.dumps({"a": b"x"}, 4),
    "huge BYTES8": lambda folder: b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "huge BINUNICODE8": lambda folder: b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"x.",
    "huge BINUNICODE": lambda folder: b"\x80\x02X\xff\xff\xff\xffx.",
    "huge LONG4": lambda folder: b"\x80\x02\x8b\xff\xff\xff\x7fx.",
    "huge FRAME": lambda folder: b"\x80\x04\x95" + struct.pack("<Q", 2**50) + b"}.",
    "huge memo": lambda folder: b"\x80\x02]r\xff\xff\xff\xff0",
    "huge number": lambda folder: b"I" + b"9" * 1_000_000 + b"\n.",
    "truncated": lambda folder: pickle.dumps(PLAIN[2], 4)[:-900],
    "truncated string": lambda folder: pickle.dumps({"a": "x" * 500}, 2)[:200],
    "empty": lambda folder: b"",
    "text": lambda folder: b"no pickle\n",
    "deep lists": lambda folder: nested(20_000),
    "deep marks": lambda folder: b"(" * 10_000,
    "deep dicts": lambda folder: pickle.dumps({"a": {"b": {"c": "d"}}}, 4),
    "itself": lambda folder: b"\x80\x04}\x94\x8c\x01ah\x00s.",
    "list of lists": lambda folder: pickle.dumps({"a": [[1]]}, 4),
    "many values": lambda folder: b"\x80\x04" + b"}" * 200_000,
    "memo bomb": lambda folder: (
        b"}" + b")\x94" + b"".join(b"h" + bytes([i]) + b"\x86\x94" for i in range(50)) + b"K\x01s."
    ),
    "tuple as a key": lambda folder: pickle.dumps({("a", "b"): 1}, 4),
    "key twice": lambda folder: b"}K\x01K\x02sK\x01K\x03s.",
    "unknown memo": lambda folder: b"}K\x01h\x07s.",
    "mark missing": lambda folder: b"}K\x01K\x02u.",
    "value under a mark": lambda folder: b"}(K\x01s.",
    "two values": lambda folder: b"}}.",
    "bytes after the end": lambda folder: pickle.dumps({}, 4) + pickle.dumps(Runs(folder / "ran")),
    "float": lambda folder: pickle.dumps({"a": 1.5}, 4),
    "none": lambda folder: pickle.dumps({"a": None}, 4),
    "bool": lambda folder: pickle.dumps({"a": True}, 0),
    "set": lambda folder: pickle.dumps({"a": {1}}, 4),
    "lone surrogate": lambda folder: pickle.dumps({"a": "\ud800"}, 4),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(name, tmp_path):
    path, data = tmp_path / "bad.pkl", HOSTILE[name](tmp_path)
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(ValueError) as error:
        load_plain(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    message = str(error.value)
    assert message.startswith(f"{path}: byte ") and "\n" not in message and len(message) < 300 + len(str(path))
    assert int(message[len(f"{path}: byte ") :].split(":")[0]) <= len(data)
    assert not (tmp_path / "ran").exists() and peak < 20e6 + 80 * len(data)


def write_2021(folder: Path, links: dict, texts: dict, protocol: int = 4):
    for (pair, language), table in links.items():
        (folder / pair).mkdir(parents=True, exist_ok=True)
        (folder / pair / f"{language}_np.pkl").write_bytes(pickle.dumps(table, protocol))
    for (pair, language), table in texts.items():
        (folder / pair / f"{language}_text.pkl").write_bytes(pickle.dumps(table, protocol))


def data_2021(number: int = 30):
    """en 1000 + i, fr 2000 + i, de "d{i}" are aligned; negatives are the next two."""

    def linked(one, other):
        return {
            one(i): {"p": other(i), "n": [other((i + 1) % number), other((i + 2) % number)]} for i in range(number)
        }

    ids = {"en": lambda i: 1000 + i, "fr": lambda i: 2000 + i, "de": lambda i: f"d{i}"}
    links, texts = {}, {}
    for pair, one, other in (("enfr", "en", "fr"), ("en-de", "en", "de")):
        for a, b in ((one, other), (other, one)):
            links[pair, a] = linked(ids[a], ids[b])
            texts[pair, a] = {ids[a](i): f"{a}{i} one. {a}{i} two." for i in range(number)}
    return links, texts


def test_import(tmp_path):
    links, texts = data_2021()
    del texts["enfr", "fr"][2003]  # without text
    texts["enfr", "fr"][2004] = " "
    links["enfr", "fr"][2005]["p"] = 1006  # one-sided
    del links["en-de", "de"]["d7"]
    links["en-de", "en"][1008]["n"] = ["d8", "d9", "zz"]  # aligned itself, and unknown
    write_2021(tmp_path / "in", links, texts)
    result = run("scripts/import_2021.py", tmp_path / "in", tmp_path / "out", "--validation_fraction", 0.2)
    printed = result if isinstance(result, str) else result.stdout
    assert "texts that several pairs have, written once: 30" in printed
    tables = {
        (pair, split): pq.read_table(tmp_path / f"out/pairs/{pair}/{split}.parquet").to_pylist()
        for pair in ("en-fr", "en-de")
        for split in ("train", "validation")
    }
    rows = {pair: tables[pair, "train"] + tables[pair, "validation"] for pair in ("en-fr", "en-de")}
    assert {row["source_id"] for row in rows["en-fr"]} == {f"en:{1000 + i}" for i in range(30) if i not in (3, 4, 5)}
    assert {row["source_id"] for row in rows["en-de"]} == {f"en:{1000 + i}" for i in range(30) if i != 7}
    for row in rows["en-fr"]:
        i = int(row["source_id"][5:])
        assert row["target_id"] == f"fr:20{i:02}"
        after = [(i + 1) % 30, (i + 2) % 30]
        assert row["target_negatives"] == [f"fr:20{k:02}" for k in after if k not in (3, 4)]
        assert row["source_negatives"] == [f"en:10{k:02}" for k in after]
    assert next(row for row in rows["en-de"] if row["source_id"] == "en:1008")["target_negatives"] == ["de:d9"]
    train, held = (
        {row["source_id"] for row in tables["en-fr", s] + tables["en-de", s]} for s in ("train", "validation")
    )
    assert not train & held and 0 < len(held) <= 8
    assert pq.read_metadata(tmp_path / "out/sections/en.parquet").num_rows == 30
    dataset = PretrainingDataset(str(tmp_path / "out"), {"qlm": ["en-fr"], "rr": ["de-en"]})
    assert dataset[ExampleKey("rr", "de-en", 0)].documents
    for line in ("links that only one side has: ", "aligned sections without text on a side: 2", "held out"):
        assert line in printed
    assert "- sections without text: 1" in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def refused(folder: Path, message: str):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        import_2021(folder, folder.parent / "out")
    assert not (folder.parent / "out").exists()


def test_import_refuses(tmp_path):
    links, texts = data_2021()
    texts["en-de", "en"][1000] = "another text"
    write_2021(tmp_path / "a", links, texts)
    refused(tmp_path / "a", r"enfr/en_text\.pkl: '1000' has another text than in .*en-de/en_text\.pkl")
    links, texts = data_2021()
    links["enfr", "fr"][2001] = {"p": 1001}
    write_2021(tmp_path / "b", links, texts)
    refused(tmp_path / "b", r"fr_np\.pkl: '2001': expected 'p', an id, and 'n'")
    links, texts = data_2021()
    texts["enfr", "fr"]["2001"] = "x"
    write_2021(tmp_path / "c", links, texts)
    refused(tmp_path / "c", "'2001' is there as a number and as a string")
    links, texts = data_2021()
    write_2021(tmp_path / "d", links, texts)
    (tmp_path / "d/enfr").rename(tmp_path / "d/english")
    refused(tmp_path / "d", "english must have the files .* it has en, fr")
    (tmp_path / "e").mkdir()
    refused(tmp_path / "e", "no folders of language pairs")
    write_2021(tmp_path / "f", links, texts)
    (tmp_path / "f/enfr/fr_text.pkl").write_bytes(pickle.dumps({"a": Runs(tmp_path / "ran")}))
    refused(tmp_path / "f", r"fr_text\.pkl: byte \d+: ")
    assert not (tmp_path / "ran").exists()
