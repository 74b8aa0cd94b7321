"""The command that builds a corpus from Wikipedia, killed and on other executors too."""

import bz2
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest


pytest.importorskip("datatrove")

from ..conftest import run
from ..helpers import run_here, write
from ..shared import shared_path
from .test_hub_sources import (
    finewiki_row,
    heading,
    megawika_row,
    node,
    paragraph,
    structured_row,
    write_lines,
    write_parquet,
)
from .test_pipeline import content, rows
from .wikis import HEADINGS, prose, write_wikis
from .written import page, write_dump, write_sql


REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = "scripts/build_wikipedia.py"
NAME = "enwiki-20240501-pages-articles-multistream.xml.bz2"


def options(output: Path, dumps: Path, *more) -> list[str]:
    flags = ("--languages", "en,de,fr", "--source", "dumps", "--input", dumps, "--tasks", 3, *more)
    return [str(part) for part in (output, *flags, "--validation_fraction", 0.2)]


@pytest.fixture
def dumps(tmp_path) -> Path:
    return write_wikis(tmp_path / "dumps")


# ---------------------------------------------------------------------------------------------------------------------
# Sources of the Hub
# ---------------------------------------------------------------------------------------------------------------------


def hub_folder(source: str, folder: Path, topics: int = 6) -> Path:
    """Writes what `write_wikis` writes, in the layout of a set of the Hub, in English and French."""
    for language in ("en", "fr"):
        made = []
        for topic in range(1, topics + 1):
            texts = [prose(language, topic, j).strip() for j in range(5)]
            headed = list(zip(HEADINGS[language], texts[1:]))
            title, key = f"{language} {topic}", f"Q{topic}"
            if source == "finewiki":
                text = "\n\n".join([texts[0], *(f"## {head}\n\n{text}" for head, text in headed)])
                made.append(finewiki_row(topic, title, text, key))
            elif source == "megawika2":
                elements = [paragraph(texts[0])]
                for head, text in headed:
                    elements += [heading(head, 2), paragraph(text)]
                other = "fr" if language == "en" else "en"
                made.append(megawika_row(title, elements, {other: f"{other} {topic}"}))
            else:
                sections = [node("section", parts=[node("paragraph", texts[0])], name="Abstract")]
                sections += [node("section", parts=[node("paragraph", text)], name=head) for head, text in headed]
                made.append(structured_row(topic, title, sections, key))
        if source == "finewiki":
            write_parquet(folder / "data" / f"{language}wiki" / "000.parquet", made)
        elif source == "megawika2":
            write_lines(folder / "data" / language / "0.jsonl", made)
        else:
            write_lines(folder / f"20240916.{language}" / "0.jsonl", made)
    return folder


@pytest.mark.parametrize("source", ["finewiki", "megawika2", "structured"])
def test_sets_of_the_hub_give_the_same_pairs_as_dumps(source, tmp_path, monkeypatch, capsys):
    folder = hub_folder(source, tmp_path / "set")
    flags = ("--languages", "en,fr", "--source", source, "--input", folder, "--tasks", 2, "--validation_fraction", 0)
    run_here(monkeypatch, PROGRAM, tmp_path / "corpus", *flags)
    pairs = rows(tmp_path / "corpus", "pairs/en-fr/train")
    assert len(pairs) == 30
    assert all(row["source_id"].partition("#")[2] == row["target_id"].partition("#")[2] for row in pairs)
    assert "en-fr" in capsys.readouterr().out


def test_set_with_other_columns_is_refused_by_name(tmp_path, mistake):
    folder = tmp_path / "set"
    for language in ("en", "fr"):
        write_parquet(folder / "data" / f"{language}wiki" / "0.parquet", [{"title": "A", "body": "B"}])
    flags = ("--languages", "en,fr", "--source", "finewiki", "--input", folder)
    assert "enwiki/0.parquet: lacks page_id, text, wikidata_id" in mistake(PROGRAM, tmp_path / "corpus", *flags)


# ---------------------------------------------------------------------------------------------------------------------
# Bad input
# ---------------------------------------------------------------------------------------------------------------------


def spoil(path: Path, change) -> None:
    path.write_bytes(change(path.read_bytes()))


def repack(change):
    return lambda data: bz2.compress(change(bz2.decompress(data)))


SPOILED = {
    "truncated": (NAME, lambda data: data[:-40], f"{NAME}: damaged or cut off after byte"),
    "cut in a page": (NAME, repack(lambda text: text[: text.rindex(b"<title>") + 9]), f"{NAME}: cut off at byte"),
    "not UTF-8": (NAME, repack(lambda text: text.replace(b"en1", b"\xff\xfe")), f"{NAME}: not UTF-8 at byte"),
    "empty": (NAME, lambda data: b"", f"{NAME}: empty"),
    "duplicate id": (
        NAME,
        repack(lambda text: text.replace(b"<id>2</id>", b"<id>1</id>")),
        "is a duplicate of page 1",
    ),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_bad_dump_is_named_with_its_place(kind, tmp_path, dumps, mistake):
    name, change, said = SPOILED[kind]
    spoil(dumps / name, change)
    assert said in mistake(PROGRAM, *options(tmp_path / "corpus", dumps))
    assert not (tmp_path / "corpus").exists()


def test_sql_dump_of_another_table_is_refused(tmp_path, dumps, mistake):
    write_sql(dumps / "enwiki-20240501-page_props.sql.gz", "langlinks", [(1, "de", "A")])
    assert "enwiki-20240501-page_props.sql.gz" in mistake(PROGRAM, *options(tmp_path / "corpus", dumps))


def test_mistake_in_another_process_is_one_line_too(tmp_path, dumps):
    data = dumps / NAME
    data.write_bytes(data.read_bytes()[:-40])
    done = run(PROGRAM, *options(tmp_path / "corpus", dumps, "--workers", 2), check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "|" not in done.stderr, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {data}: ")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--languages", "en"), "--languages needs two or more languages"),
        (("--tasks", 0), "at least 1"),
        (("--executor", "cloud"), "--executor is local, slurm or ray"),
        (("--source", "dump"), "--source is one of dumps, finewiki, megawika2, structured, got 'dump'"),
        (("--languages", "en,xx"), "has no dump of 'xx'"),
        (("--executor", "slurm"), "needs --slurm_partition"),
        (("--encoder", "missing/"), "there is no missing"),
        (("--encoder", "sample"), "Unrecognized model in"),
        (("--topics", "missing.tsv"), "there is no missing.tsv"),
        (("--topics", "README.md", "--source", "finewiki"), "--topics goes with --source dumps, not finewiki"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, dumps, mistake, flags, said):
    assert said in mistake(PROGRAM, *options(tmp_path / "corpus", dumps, *flags))
    assert [path.name for path in tmp_path.iterdir()] == ["dumps"]


def test_it_is_uploaded_in_one_commit(tmp_path, dumps, at_hub, monkeypatch, mistake):
    command = (PROGRAM, *options(tmp_path / "corpus", dumps, "--push_to_hub", "someone/wikipedia"))
    monkeypatch.setenv("HF_TOKEN", "hf_reads")
    assert "only reads" in mistake(*command) and not list(tmp_path.glob("corpus*"))
    monkeypatch.setenv("HF_TOKEN", "hf_ours")
    run_here(monkeypatch, *command)
    repository = at_hub.repositories["dataset", "someone/wikipedia"]
    assert len(repository.commits) == 2 and len(repository.tags) == 1
    assert "license: cc-by-sa-4.0" in at_hub.files("someone/wikipedia", kind="dataset")["README.md"].decode()


def test_language_link_to_a_missing_page_is_counted(tmp_path, monkeypatch):
    for language, other in (("en", "de"), ("de", "en")):
        pages = [
            page(i, f"Page {i}", f"{prose(language, i, 0)}\n== {HEADINGS[language][0]} ==\n{prose(language, i, 1)}")
            for i in range(1, 5)
        ]
        write_dump(tmp_path / "dumps" / f"{language}wiki-20240501-pages-articles.xml.bz2", pages, language)
        links = [(i, other, f"Page {i}") for i in range(1, 4)] + [(4, other, "Missing")]
        write_sql(tmp_path / "dumps" / f"{language}wiki-20240501-langlinks.sql.gz", "langlinks", links)
    flags = ("--languages", "en,de", "--source", "dumps", "--input", tmp_path / "dumps")
    run_here(monkeypatch, PROGRAM, tmp_path / "corpus", *flags)
    card = (tmp_path / "corpus" / "README.md").read_text(encoding="utf-8")
    assert "en: language links to missing pages" in card and "de: language links to missing pages" in card


# ---------------------------------------------------------------------------------------------------------------------
# Killed, and elsewhere
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def expected(tmp_path, dumps) -> dict[str, bytes]:
    run(PROGRAM, *options(tmp_path / "expected" / "corpus", dumps))  # the card says the name of the folder
    return content(tmp_path / "expected" / "corpus")


@pytest.mark.slow
def test_killed_ten_times_it_writes_the_same_bytes(tmp_path, dumps, expected):
    command = [sys.executable, PROGRAM, *options(tmp_path / "corpus", dumps, "--workers", 2)]
    moments = random.Random(0)
    kills = 0
    while kills < 10:
        process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            process.wait(moments.uniform(1, 6))
        except subprocess.TimeoutExpired:
            process.kill()
            kills += process.wait() == -signal.SIGKILL
        # A corpus that is there is whole, even if the run was killed as it cleared up; the next run starts anew
        if (tmp_path / "corpus").exists():
            assert content(tmp_path / "corpus") == expected
            shutil.rmtree(tmp_path / "corpus")
            shutil.rmtree(tmp_path / "corpus.work", ignore_errors=True)
        else:
            assert process.returncode == -signal.SIGKILL
    run(PROGRAM, *options(tmp_path / "corpus", dumps, "--workers", 2))
    assert content(tmp_path / "corpus") == expected
    assert not (tmp_path / "corpus.work").exists()


@pytest.mark.slow
def test_ray_writes_the_same_bytes(tmp_path, dumps, expected):
    pytest.importorskip("ray")
    run(PROGRAM, *options(tmp_path / "corpus", dumps, "--executor", "ray", "--workers", 2))
    assert content(tmp_path / "corpus") == expected


@pytest.mark.slow
def test_mistake_on_ray_is_one_line(tmp_path, dumps):
    pytest.importorskip("ray")
    (dumps / NAME).write_bytes((dumps / NAME).read_bytes()[:-40])
    done = run(PROGRAM, *options(tmp_path / "corpus", dumps, "--executor", "ray"), check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {dumps / NAME}: ")


SBATCH = """#!{python}
# Runs each task of a job at once, as SLURM would later, and keeps the script.
import os, re, subprocess, sys
script = open(sys.argv[-1], encoding="utf-8").read()
with open("{log}", "a", encoding="utf-8") as log:
    log.write(" ".join(sys.argv[1:-1]) + "\\n" + script)
last = re.search(r"--array=0-(\\d+)", script)
if "launch_pickled_pipeline" in script:
    for number in range(int(last[1]) + 1):
        environment = os.environ | {{"SLURM_ARRAY_TASK_ID": str(number), "SLURM_NODELIST": "here"}}
        subprocess.run(["bash", sys.argv[-1]], env=environment, check=True, stdout=subprocess.DEVNULL)
print("Submitted batch job 7")
"""


@pytest.mark.slow
def test_slurm_jobs_write_the_same_bytes(tmp_path, dumps, expected, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sbatch").write_text(SBATCH.format(python=sys.executable, log=tmp_path / "log"), encoding="utf-8")
    (programs / "scontrol").write_text("#!/bin/sh\necho here\n", encoding="utf-8")
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    flags = ("--executor", "slurm", "--slurm_partition", "cpu", "--workers", 2)
    done = run(PROGRAM, *options(tmp_path / "corpus", dumps, *flags))
    assert "handed to SLURM" in done.stdout
    assert content(tmp_path / "corpus") == expected
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert "#SBATCH --partition=cpu" in log and "#SBATCH --array=0-2%2" in log and "--dependency=afterok:7" in log


# ---------------------------------------------------------------------------------------------------------------------
# Pretraining
# ---------------------------------------------------------------------------------------------------------------------


def pretrain(corpus: Path, output: Path, pairs: str, steps: int = 2):
    model = ("--model_name_or_path", output / "bertlong", "--output_dir", output / "trained", "--max_length", 256)
    run("-m", "modeling_clir.convert", "base", output / "bertlong")
    train = (
        "--do_train",
        "--max_steps",
        steps,
        "--per_device_train_batch_size",
        2,
        "--use_cpu",
        "--report_to",
        "none",
    )
    run("run_pretraining.py", "--corpus", corpus, *model, "--qlm_pairs", pairs, "--rr_pairs", pairs, *train)
    state = json.loads((output / "trained" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["global_step"] == steps


@pytest.mark.slow
def test_corpus_pretrains(tmp_path, dumps):
    run(PROGRAM, *options(tmp_path / "corpus", dumps))
    pretrain(tmp_path / "corpus", tmp_path, "en-de,en-fr")


@pytest.mark.slow
def test_real_dumps_pretrain_20_steps(tmp_path):
    """Two topics, which the three dumps have in common, without Wikidata ids and language links."""
    for language in ("en", "de", "fr"):
        folder = tmp_path / "dumps" / language
        folder.mkdir(parents=True)
        (folder / "wiki.xml.bz2").symlink_to(shared_path(f"data/wikitext/minidump_{language}/wiki.xml.bz2"))
    found = [("Berlin", "en"), ("Berlin", "de"), ("Berlin", "fr")]
    found += [("Arthur Schopenhauer", "en"), ("Arthur Schopenhauer", "de")]
    table = write(tmp_path / "topics.tsv", *(f"{title}\t{language}\t{title}" for title, language in found))
    made = (f"WIKIPEDIA={tmp_path / 'dumps'}", "LANGUAGES=en,de,fr", "PAIRS=en-de,en-fr,de-fr", f"TOPICS={table}")
    output = tmp_path / "output"
    command = [
        "make",
        "-o",
        ".venv/installed",
        "wikipedia",
        *made,
        f"OUTPUT={output}",
        f"BIN={Path(sys.executable).parent}",
        "BASE=base",
    ]
    subprocess.run(command, cwd=REPOSITORY, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    sections = rows_by_heading(output / "corpus", "en-de")
    assert {("", ""), ("Media", "Medien"), ("Capital city", "Deutsche Hauptstadt")} <= sections
    state = json.loads((output / "clir-bertlong" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["global_step"] == 20


def rows_by_heading(corpus: Path, pair: str) -> set[tuple[str, str]]:
    headings = {
        row["id"]: row["heading"] for language in pair.split("-") for row in rows(corpus, f"sections/{language}")
    }
    return {(headings[row["source_id"]], headings[row["target_id"]]) for row in rows(corpus, f"pairs/{pair}/train")}
