"""
Reads the pretraining data of Yu, Fei, Li 2021: for each language pair a folder of pickles,

    {pair}/{language}_np.pkl     id -> {"p": id of the aligned section, "n": ids of hard negatives}, in the other language
    {pair}/{language}_text.pkl   id -> text

A pickle can run any code when Python loads it. [`load_plain`] is a reader of its own that knows dicts, lists, tuples,
strings and whole numbers; nothing in it can import, call or build anything.
"""

import gc
import logging
import random
from collections import Counter
from pathlib import Path

from .corpus_card import corpus_card
from .corpus_files import write_pairs, write_sections
from .files import check_text, new_folder
from .languages import warn_of_cards


logger = logging.getLogger(__name__)

MAX_STACK = 100_000  # values that wait for their container; Python writes 1000 at a time, but tuples whole
MAX_DIGITS = 20  # of a number in text; in bytes it has at most 8

# Opcodes with a length in front of their data: bytes of the length
STRINGS = {ord("X"): 4, 0x8C: 1, 0x8D: 8}
NUMBERS = {ord("K"): 1, ord("M"): 2, ord("J"): 4}
TUPLES = {ord(")"): 0, 0x85: 1, 0x86: 2, 0x87: 3}


def load_plain(path: Path):
    """
    Reads a pickle, protocols 0 to 5, of dicts, lists, tuples, strings and whole numbers. Keys are strings or numbers.
    Lists and tuples hold strings and numbers; dicts hold all these, and dicts that hold no dict. So memory is bounded by
    the size of the file.

    Raises `ValueError` with file and byte for anything else, a key that occurs twice, a length beyond the end of the
    file, and bytes after the end of the pickle.
    """
    data = path.read_bytes()
    size, place, at = len(data), 0, 0
    stack, marks, memo = [], [], {}
    holders, held = set(), set()  # ids of the dicts that hold dicts, and that dicts hold

    def fail(message: str):
        raise ValueError(f"{path}: byte {at}: {message}; expected a pickle of dicts, lists, strings and numbers")

    def take(number: int) -> bytes:
        nonlocal place
        if number > size - place:
            fail(f"{number} bytes are announced, and {size - place} are left")
        place += number
        return data[place - number : place]

    def unsigned(number: int) -> int:
        return int.from_bytes(take(number), "little")

    def line(most: int | None = None) -> bytes:
        nonlocal place
        end = data.find(b"\n", place, None if most is None else place + most + 2)
        if end < 0:
            fail("a line without an end, or a number that is too long")
        text, place = data[place:end], end + 1
        return text

    def number_in(text: bytes) -> int:
        if not text.removeprefix(b"-").isdigit() or len(text) > MAX_DIGITS:
            fail("not a whole number")
        return int(text)

    def pop(least: int = 0):
        if len(stack) <= max(least, marks[-1] if marks else 0):
            fail("a value is missing")
        return stack.pop()

    def since_mark() -> list:
        if not marks:
            fail("a mark is missing")
        start = marks.pop()
        values = stack[start:]
        del stack[start:]
        return values

    def container(kind: type):
        if not stack or len(stack) <= (marks[-1] if marks else 0) or type(stack[-1]) is not kind:
            fail(f"a {kind.__name__} is missing")
        return stack[-1]

    def plain(values: list) -> list:
        for value in values:
            if type(value) is not str and type(value) is not int:
                fail(f"a {type(value).__name__} in a list or tuple")
        return values

    def set_items(target: dict, values: list):
        if len(values) % 2:
            fail("a key without a value")
        items = iter(values)
        for key in items:
            value = next(items)
            if type(key) is not str and type(key) is not int:
                fail(f"a {type(key).__name__} as a key")
            if key in target:
                fail(f"the key {str(key)[:40]!r} occurs more than once")
            if type(value) is dict:
                if value is target or id(value) in holders or id(target) in held:
                    fail("dicts nested more than twice")
                holders.add(id(target))
                held.add(id(value))
            target[key] = value

    while True:
        at = place
        if place >= size:
            fail("the file ends")
        code = data[place]
        place += 1
        if code in STRINGS:
            try:
                stack.append(str(take(unsigned(STRINGS[code])), "utf-8"))
            except UnicodeDecodeError:
                fail("a string is not UTF-8")
        elif code == 0x94:  # MEMOIZE
            memo[len(memo)] = pop()
            stack.append(memo[len(memo) - 1])
        elif code in (ord("q"), ord("r"), ord("p")):  # PUT
            key = number_in(line(MAX_DIGITS)) if code == ord("p") else unsigned(1 if code == ord("q") else 4)
            memo[key] = pop()
            stack.append(memo[key])
        elif code in (ord("h"), ord("j"), ord("g")):  # GET
            key = number_in(line(MAX_DIGITS)) if code == ord("g") else unsigned(1 if code == ord("h") else 4)
            if key not in memo:
                fail(f"nothing is kept under {key}")
            stack.append(memo[key])
        elif code in NUMBERS:
            stack.append(int.from_bytes(take(NUMBERS[code]), "little", signed=code == ord("J")))
        elif code == ord("("):
            marks.append(len(stack))
            if len(marks) > 100:
                fail("containers nested too deep")
        elif code in (ord("u"), ord("s")):  # SETITEMS, SETITEM
            values = since_mark() if code == ord("u") else [pop(), pop()][::-1]
            set_items(container(dict), values)
        elif code in (ord("e"), ord("a")):  # APPENDS, APPEND
            values = since_mark() if code == ord("e") else [pop()]
            container(list).extend(plain(values))
        elif code == ord("}"):
            stack.append({})
        elif code == ord("]"):
            stack.append([])
        elif code == ord("d"):
            values = since_mark()
            stack.append({})
            set_items(stack[-1], values)
        elif code == ord("l"):
            stack.append(list(plain(since_mark())))
        elif code == ord("t"):
            stack.append(tuple(plain(since_mark())))
        elif code in TUPLES:
            stack.append(tuple(plain([pop() for _ in range(TUPLES[code])][::-1])))
        elif code == ord("V"):
            try:
                stack.append(str(line(), "raw-unicode-escape"))
            except UnicodeDecodeError:
                fail("a string has a bad escape")
        elif code in (ord("I"), ord("L")):
            text = line(MAX_DIGITS)
            if code == ord("I") and text in (b"00", b"01"):
                fail("a bool")
            stack.append(number_in(text.removesuffix(b"L") if code == ord("L") else text))
        elif code == 0x8A:  # LONG1
            length = unsigned(1)
            if length > 8:
                fail("a number of more than 8 bytes")
            stack.append(int.from_bytes(take(length), "little", signed=True))
        elif code == 0x80:  # PROTO
            if unsigned(1) > 5:
                fail("a protocol after 5")
        elif code == 0x95:  # FRAME
            if (length := unsigned(8)) > size - place:
                fail(f"a frame of {length} bytes, and {size - place} are left")
        elif code == ord("."):
            if len(stack) != 1 or marks:
                fail(f"the pickle ends with {len(stack)} values")
            if place != size:
                fail(f"{size - place} bytes after the end")
            return stack[0]
        else:
            fail(f"the opcode {bytes([code])!r}")
        if len(stack) > MAX_STACK:
            fail(f"more than {MAX_STACK} values without a container")


def load_table(path: Path, kind: type) -> dict:
    """Reads a pickle of one dict, whose values are of this type. Ids become strings."""
    collecting = gc.isenabled()
    gc.disable()  # it would look at the millions of containers again and again
    try:
        table = load_plain(path)
    finally:
        if collecting:
            gc.enable()
    if type(table) is not dict:
        raise ValueError(f"{path}: expected a dict, got a {type(table).__name__}")
    found = {}
    for key, value in table.items():
        if type(value) is not kind:
            raise ValueError(f"{path}: {key!r}: expected a {kind.__name__}, got a {type(value).__name__}")
        if str(key) in found:
            raise ValueError(f"{path}: the id {key!r} is there as a number and as a string")
        found[str(key)] = value
    return found


def load_links(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Reads `{language}_np.pkl`: id to the aligned id and the ids of the negatives."""
    links = {}
    for key, value in load_table(path, dict).items():
        aligned, negatives = value.get("p"), value.get("n")
        if set(value) != {"p", "n"} or type(aligned) not in (str, int) or type(negatives) not in (list, tuple):
            raise ValueError(f"{path}: {key!r}: expected 'p', an id, and 'n', a list of ids")
        links[key] = (str(aligned), list(dict.fromkeys(map(str, negatives))))
    return links


def languages_of(folder: Path) -> tuple[str, str]:
    """Returns the languages of a folder such as `enfr` or `en-fr`, in its order, by its files `*_np.pkl`."""
    found = sorted(path.name.removesuffix("_np.pkl") for path in folder.glob("*_np.pkl"))
    for source, target in (found, found[::-1]) if len(found) == 2 else ():
        if folder.name in (source + target, f"{source}-{target}"):
            return source, target
    raise ValueError(
        f"{folder} must have the files A_np.pkl, A_text.pkl, B_np.pkl and B_text.pkl of two languages and be named AB or "
        f"A-B; it has {', '.join(found) or 'no *_np.pkl'}"
    )


def import_2021(
    folder: Path, output: Path, validation_fraction: float = 0.05, seed: int = 0, license: str | None = None
) -> tuple[dict[str, dict[str, int]], Counter]:
    """
    Writes a corpus of the pickles in the subfolders of `folder`, all or nothing. A pair is written if each of its
    sections links to the other and both have a text; of its negatives, those with a text. All others are counted.

    The data does not tell the article of a section. Sections that are linked, over all languages, are taken for one
    article, and whole articles are held out. So two sections of one real article may be in training and held out, and the
    held-out measures are better than those of new articles.

    Args:
        folder (`Path`): has the folders of the pairs.
        output (`Path`): folder to write; it must not exist.
        validation_fraction (`float`, defaults to 0.05): the share of the articles that is held out, drawn by `seed`.
        seed (`int`, defaults to 0).
        license (`str`, *optional*): see [`corpus_card`].

    Returns `{pair: {split: aligned sections}}`, and what was left out, by reason. Raises `ValueError` for a pickle that
    holds anything but plain data, and an id that has different texts in two pairs.
    """
    if not 0 <= validation_fraction < 1:
        raise ValueError(f"validation_fraction must be at least 0 and less than 1, got {validation_fraction}")
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise FileNotFoundError(f"{folder} has no folders of language pairs, such as enfr")
    pairs = {languages_of(path): path for path in folders}
    if twice := [path for path, (source, target) in zip(folders, pairs) if (target, source) in pairs]:
        raise ValueError(f"{twice[0]}: another folder has the same languages; remove one")
    if len(pairs) < len(folders):
        raise ValueError(f"{folder}: two folders have the same languages; remove one")
    warn_of_cards(sorted({language for pair in pairs for language in pair}))
    texts, origin, aligned, left_out = {}, {}, {}, Counter()
    for (source, target), path in pairs.items():
        links = {language: load_links(path / f"{language}_np.pkl") for language in (source, target)}
        for language in (source, target):
            file, known = path / f"{language}_text.pkl", texts.setdefault(language, {})
            for key, text in load_table(file, str).items():
                check_text(text, f"{file}: {key!r}")
                if known.get(key, text) != text:
                    raise ValueError(f"{file}: {key!r} has another text than in {origin[language, key]}")
                if not text.strip():
                    left_out["sections without text"] += 1
                    continue
                left_out["texts that several pairs have, written once"] += key in known
                known[key] = text
                origin.setdefault((language, key), file)
        aligned[source, target] = align(links, texts, source, target, left_out)
    articles = join_articles(aligned)
    names = sorted(set(articles.values()))
    held_out = set(random.Random(seed).sample(names, round(validation_fraction * len(names))))
    counts = {}
    with new_folder(output) as temporary:
        for language, known in texts.items():
            rows = (
                (f"{language}:{key}", language, articles.get((language, key), f"{language}:{key}"), "", "", text)
                for key, text in known.items()
            )
            write_sections(temporary / f"sections/{language}.parquet", rows)
        for (source, target), rows in aligned.items():
            name = f"{source}-{target}"
            counts[name] = {
                split: write_pairs(
                    temporary / f"pairs/{name}/{split}.parquet",
                    (
                        (
                            f"{source}:{one}",
                            f"{target}:{other}",
                            [f"{source}:{key}" for key in source_negatives],
                            [f"{target}:{key}" for key in target_negatives],
                        )
                        for one, other, source_negatives, target_negatives in rows
                        if (articles[source, one] in held_out) == (split == "validation")
                    ),
                )
                for split in ("train", "validation")
            }
        if not any(sum(splits.values()) for splits in counts.values()):
            raise ValueError(f"{folder}: no two sections link to each other and have texts")
        sources = [f"the data of Yu, Fei, Li 2021, {path.name}" for path in folders]
        (temporary / "README.md").write_text(corpus_card(temporary, license, sources, left_out), encoding="utf-8")
    return counts, left_out


def align(links: dict[str, dict], texts: dict[str, dict], source: str, target: str, left_out: Counter) -> list[tuple]:
    """Pairs sections that link to each other. Returns their ids and their negatives in both languages."""
    rows = []
    for one, (other, target_negatives) in links[source].items():
        back, source_negatives = links[target].get(other, (None, []))
        if back != one:
            left_out["links that only one side has"] += 1
        elif one not in texts[source] or other not in texts[target]:
            left_out["aligned sections without text on a side"] += 1
        else:
            kept = []
            for language, own, listed in ((source, one, source_negatives), (target, other, target_negatives)):
                known = [key for key in listed if key in texts[language] and key != own]
                left_out["negatives without text, or aligned themselves"] += len(listed) - len(known)
                kept.append(known)
            rows.append((one, other, *kept))
    for other, (one, _) in links[target].items():
        left_out["links that only one side has"] += links[source].get(one, (None,))[0] != other
    return rows


def join_articles(aligned: dict[tuple[str, str], list[tuple]]) -> dict[tuple[str, str], str]:
    """Gives all sections that are linked, directly or over others, the name of one of them."""
    parent = {}

    def find(section):
        while parent.setdefault(section, section) != section:
            parent[section] = section = parent[parent[section]]
        return section

    for (source, target), rows in aligned.items():
        for one, other, *_ in rows:
            first, second = sorted((find((source, one)), find((target, other))))
            parent[second] = first
    return {section: ":".join(find(section)) for section in list(parent)}


__all__ = ["import_2021", "load_plain"]
