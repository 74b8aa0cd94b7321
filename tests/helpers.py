"""Functions that write and read files for several tests."""

import gzip
import json
import random
import re
import runpy
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast


def write(path: Path, *lines: str | dict, end: str = "\n") -> Path:
    """Writes a line for each value: a string as it is, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)) + end for line in lines)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def run_here(monkeypatch, program: str, *options):
    """Runs one of the project's programs in this process, to save time. Its exit is a `SystemExit`."""
    monkeypatch.setattr("sys.argv", [program, *map(str, options)])
    if program.startswith("-m "):
        runpy.run_module(program.removeprefix("-m "), run_name="__main__", alter_sys=True)
        return
    runpy.run_path(str(Path(__file__).resolve().parents[1] / program), run_name="__main__")


def blocks(text: str) -> list[tuple[str, str]]:
    """Lists the blocks of code in Markdown: language and content."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def run_examples(card: str, name: str, capsys) -> list[str]:
    """Runs the Python examples of a card in order. What they print must be the next block of text. Returns those."""
    namespace, printed, compared = {"__name__": "__main__"}, "", []
    for language, text in blocks(card):
        if language == "python":
            assert f'"{name}"' in text
            capsys.readouterr()
            exec(compile(text, name, "exec"), namespace)
            printed = capsys.readouterr().out
        elif language == "text":
            assert printed == text
            compared.append(text)
    return compared


def squad(language: str, layout=((2, 1), (1,)), **changes) -> dict:
    """Makes data in SQuAD's layout. `layout` has for each article the number of questions of each paragraph."""
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


TEXT = [
    "Turm",
    "gebaut",
    "ÜBER",
    "naïve",
    "Cafés",
    "長城是",
    "में",
    "دَرس",
    "1866",
    "(x)",
    "[SEP]",
    "🙂",
    "\u200b",
    "ﬁn",
]


def texts(seed: int, number: int, longest: int) -> list[str]:
    """Draws texts of 1 to `longest` words that tokenizers treat in different ways."""
    rng = random.Random(seed)
    spaces = [" ", " ", " ", "  ", "\n", ", ", "-"]
    return [
        "".join(rng.choice(TEXT) + rng.choice(spaces) for _ in range(rng.randint(1, longest))) for _ in range(number)
    ]


def train_tokenizer(kind: str):
    """Trains `"byte_level"` (as RoBERTa, ModernBERT), `"unigram"` (as XLM-R) or `"no_cls"` (one special token)."""
    unigram = kind == "unigram"
    tokenizer = Tokenizer(models.Unigram() if unigram else models.BPE())
    special = ["<s>", "</s>", "<pad>", "<unk>"]
    if unigram:
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    tokenizer.train_from_iterator(texts(7, 50, 30), trainer)
    single, pair = ("$A </s>", "$A </s> $B </s>") if kind == "no_cls" else ("<s> $A </s>", "<s> $A </s> </s> $B </s>")
    places = [(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=places)
    named = {"sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    named |= {} if kind == "no_cls" else {"cls_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
