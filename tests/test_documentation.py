"""
Runs the commands and examples of README.md and docs/ on the sample, with a tiny model. A block after
`<!-- needs: ... -->` needs data from elsewhere; for such a block the tests only check that programs and files exist.
"""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from .conftest import REPOSITORY
from .helpers import QUIET
from .serving.servers import running


SERVER = "http://127.0.0.1:8000"
PAGES = [Path("README.md"), *sorted(path.relative_to(REPOSITORY) for path in REPOSITORY.glob("docs/*.md"))]
LINKED = ("base", "benchmarks", "metrics", "recipes", "sample", "scripts")
# Later options override those of the page.
SMALL = {
    "run_pretraining.py": (*QUIET, "--max_steps", "2", "--max_eval_pairs", "4"),
    "run_clir.py": QUIET,
    "run_mlqa.py": (*QUIET, "--num_train_epochs", "1", "--max_length", "128", "--doc_stride", "32"),
    "run_alignment.py": ("--use_cpu",),
}
SMALL_TRAINING = {"run_clir.py": ("--num_train_epochs", "1", "--fold", "0")}


@dataclass
class Block:
    page: Path
    line: int
    language: str
    text: str
    mark: str  # of the comment before it

    @property
    def commands(self) -> list[list[str]]:
        """Splits each command into words, without comments and variables set before it."""
        lines = self.text.replace("\\\n", " ").splitlines()
        commands = [shlex.split(line, comments=True) for line in lines]
        return [[word for word in command if not re.match(r"[A-Z_]+=", word)] for command in commands if command]


def blocks(page: Path) -> list[Block]:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    found = re.finditer(r"(?:<!-- ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [Block(page, text.count("\n", 0, m.start(2)) + 1, m[2], m[3], m[1] or "") for m in found]


def program_of(command: list[str]) -> tuple[str, list[str]]:
    """Maps `accelerate launch run_clir.py --a b` to `run_clir.py` and `--a b`. A module is named `-m NAME`."""
    if command[:2] == ["accelerate", "launch"]:
        start = next(i for i, word in enumerate(command) if word.endswith(".py"))
        return command[start], command[start + 1 :]
    if command[:2] == ["python", "-m"]:
        return f"-m {command[2]}", command[3:]
    if command[0] in ("python", "sbatch"):
        return command[1], command[2:]
    return command[0], command[1:]


def expand(word: str) -> list[str]:
    return sorted(map(str, Path().glob(word))) if "*" in word else [word]


def run_command(command: list[str], monkeypatch):
    program, options = program_of(command)
    options = [part for option in options for part in expand(option)]
    options += SMALL.get(program, ())
    options += SMALL_TRAINING.get(program, ()) if "--do_train" in options else ()
    monkeypatch.setattr(sys, "argv", [program, *options])
    try:
        if program.startswith("-m "):
            runpy.run_module(program.removeprefix("-m "), run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(str(REPOSITORY / program), run_name="__main__")
    except SystemExit as end:
        assert not end.code, f"{' '.join(command)}: {end}"


def without_numbers(text: str) -> list[str]:
    return sorted(re.sub(r"-?\d+\.\d+", "#", line) for line in text.splitlines())


@pytest.fixture
def workplace(tmp_path, tiny_bert, monkeypatch):
    """Copies the repository with a tiny model in base/, and tiny untrained models for the trained models."""
    from modeling_clir.convert import main as convert

    for name in LINKED:
        (tmp_path / name).symlink_to(tiny_bert if name == "base" else REPOSITORY / name)
    assert convert([str(tiny_bert), str(tmp_path / "output/demo/clir-bertlong")]) == 0
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def run_page(page: Path, languages: set[str], monkeypatch, capsys):
    """
    Runs a page's blocks in one of the `languages`, in order. A block of text is the output of the block before. A
    server that is started with `&` runs to the end of the page, on a free port.
    """
    namespace, printed, url = {"__name__": "__main__"}, "", SERVER
    with ExitStack() as servers:
        for block in blocks(page):
            block.text = block.text.replace(SERVER, url)
            where = f"{page}:{block.line}"
            if block.mark.startswith("needs:"):
                continue
            if block.language == "text" and "python" in languages:
                if "make demo" in block.mark:
                    assert without_numbers(printed) == without_numbers(block.text), where
                else:
                    assert printed == block.text, where
            elif block.language in languages:
                capsys.readouterr()
                if block.language == "python":
                    exec(compile(block.text, where, "exec"), namespace)
                else:
                    for command in block.commands:
                        if command[-1] == "&":
                            model, *options = command[3:-1]
                            url = servers.enter_context(running(Path(model).resolve(), *options))
                        elif command[0] == "curl":
                            words = [word.replace(SERVER, url) for word in command]
                            assert shutil.which("curl") is None or subprocess.run(words, timeout=60).returncode == 0
                        else:
                            run_command(command, monkeypatch)
                printed = capsys.readouterr().out
    return namespace


def test_readme_reranks(workplace, monkeypatch, capsys):
    namespace = run_page(Path("README.md"), {"python"}, monkeypatch, capsys)
    assert len(namespace["documents"]) == 2


def test_commands_of_readme(workplace, monkeypatch, capsys):
    run_page(Path("README.md"), {"bash"}, monkeypatch, capsys)
    assert (workplace / "output/clir/en-de.run").stat().st_size
    assert list((workplace / "output/clir-en-de").glob("fold-0/*.safetensors"))
    assert (workplace / "output/clir-bertlong/learning_curve.png").stat().st_size
    assert (workplace / "output/qa/sample/context-de.question-en.json").stat().st_size


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)
def test_page(page, workplace, sample_collection, monkeypatch, capsys):
    for name in ("bertlong", "clir-bertlong"):
        (workplace / "output" / name).symlink_to(workplace / "output/demo/clir-bertlong")
    shutil.copytree(sample_collection, workplace / "output/collections")
    namespace = run_page(page, {"bash", "python"}, monkeypatch, capsys)
    if page.stem == "ranking":
        for name in ("hits", "hits_of_cross_encoder", "hits_of_pipeline"):
            in_order = sorted(namespace[name], key=lambda hit: hit["corpus_id"])
            np.testing.assert_allclose([hit["score"] for hit in in_order], namespace["scores"], atol=1e-4)


def test_programs_and_files_are_there():
    make = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    seen = 0
    for page in PAGES:
        for block in blocks(page):
            assert block.language in ("bash", "python", "text", ""), f"{page}:{block.line}"
            for command in block.commands if block.language == "bash" else []:
                program, options = program_of(command)
                where = f"{page}:{block.line}: {program}"
                if program == "curl":
                    assert options, where
                elif program == "make":
                    assert all(re.search(rf"^{target}:", make, re.MULTILINE) for target in options[:1]), where
                elif program.startswith("-m "):
                    assert (REPOSITORY / (program[3:].replace(".", "/") + ".py")).is_file(), where
                else:
                    assert (REPOSITORY / program).is_file(), where
                for option in options:
                    if option.split("/")[0] in ("sample", "recipes", "base"):
                        assert (REPOSITORY / option).exists(), f"{where} {option}"
                seen += 1
    assert seen > 20


def test_links():
    pages = [
        *PAGES,
        Path("CONTRIBUTING.md"),
        *(path.relative_to(REPOSITORY) for path in REPOSITORY.glob("results/*.md")),
    ]
    for page in pages:
        text = (REPOSITORY / page).read_text(encoding="utf-8")
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)", text):
            path = (REPOSITORY / page).parent / target if target else REPOSITORY / page
            assert path.exists(), f"{page}: {target}"
            if anchor:
                titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
                anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
                assert anchor in anchors, f"{page}: {target}#{anchor}"


def test_readme_is_short_and_its_tree_is_true():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    tree = next(block.text for block in blocks(Path("README.md")) if not block.language)
    names = re.findall(r"(?<!\S)([\w/]+/|\w+\.py)(?=\s)", tree)
    assert {"modeling_clir/", "training/", "run_clir.py", "docs/"} <= set(names)
    for name in names:
        assert (REPOSITORY / name).exists() or (REPOSITORY / "modeling_clir" / name).is_dir(), name


def test_figure_of_the_attention(tmp_path, monkeypatch):
    program = str(REPOSITORY / "docs/attention.py")
    kinds = runpy.run_path(program)["attention_kinds"]()
    query, document = slice(0, 6), slice(6, 23)
    place = np.arange(17)
    assert (kinds[query, :23] == 1).all() and (kinds[document, query] == 2).all()
    assert ((kinds[document, document] == 3) == (abs(place[:, None] - place) <= 3)).all()
    assert (kinds[23:] == 0).all() and (kinds[:, 23:] == 0).all()
    monkeypatch.setattr(sys, "argv", [program, str(tmp_path / "figure.png")])
    runpy.run_path(program, run_name="__main__")
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert os.path.getsize(REPOSITORY / "docs/attention.png") < 100_000


def test_examples_trust_the_code_of_a_checkpoint_in_the_tokenizer_too():
    """transformers reads the config first and would ask."""
    for page in PAGES:
        for block in blocks(page):
            if block.language == "python":
                for call in re.findall(r"\bAuto\w+\.from_pretrained\([^)]*\)", block.text):
                    assert "trust_remote_code=True" in call, f"{page}:{block.line}: {call}"
