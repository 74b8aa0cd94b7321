"""What several tests write and read."""

import gzip
import json
import runpy
from pathlib import Path


def write(path: Path, *lines: str | dict, end: str = "\n") -> Path:
    """Strings as they are, anything else as JSON, a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)) + end for line in lines)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def run_here(monkeypatch, program: str, *options):
    """Runs one of the project's programs in this process, which takes less time; its exit is a `SystemExit`."""
    monkeypatch.setattr("sys.argv", [program, *map(str, options)])
    runpy.run_path(str(Path(__file__).resolve().parents[1] / program), run_name="__main__")


def squad(language: str, layout=((2, 1), (1,)), **changes) -> dict:
    """`layout`: for each article the number of questions of each paragraph."""
    data = []
    for a, paragraphs in enumerate(layout):
        rows = [
            {
                "context": changes.get("context", f"{language} {a}.{p}"),
                "qas": [{"id": f"{a}.{p}.{q}", "question": f"{language} {a}.{p}.{q}?"} for q in range(number)],
            }
            for p, number in enumerate(paragraphs)
        ]
        data.append({"title": f"{language} {a}", "paragraphs": rows})
    return {"data": data}


# Options of every run of a runner in a test, and the lengths of the tiny BERT.
QUIET = ("--use_cpu", "--report_to", "none", "--disable_tqdm", "true")
SHORT = ("--max_length", "100", "--max_query_length", "30")


def clir_command(model, collections, output, *flags) -> list[str]:
    where = ("--model_name_or_path", model, "--collections", *collections, "--output_dir", output)
    return [str(part) for part in ("run_clir.py", *where, *QUIET, *SHORT, *flags)]


# The vocabulary of the fixture `tokenizer`.
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"[unused{i}]" for i in range(30))]
WORDS += ["[", "]", "sep", "mask", "cls", ".", "##s", "##ing", "##ä", *"长城是的。"]
WORDS += [f"{letter}{i}" for letter in "qd" for i in range(60)] + [f"##{i}" for i in range(10)]
WORDS += [chr(0x1100), *(f"##{chr(c)}" for c in (0x1100, 0x1161, 0x11A8))]  # one syllable of Hangul is three of these


def tokens(tokenizer, ids) -> str:
    return " ".join(tokenizer.convert_ids_to_tokens(ids))
