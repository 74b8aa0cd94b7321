#!/usr/bin/env python
"""
Measures how fast a corpus is built from Wikipedia, and how much memory a process takes.

    python benchmarks/wikipedia.py --dumps FOLDER --languages en,de,fr [--copies 40] [--workers 1 2 4]

Multiplies real dumps into larger ones: each copy of an article is a topic of its own. So boilerplate and headings are as
frequent as in the articles. Prints pages a second and process, the highest memory of a process, and the core hours of
`WIKIPEDIAS`, in proportion to the bytes of the compressed dumps.
"""

import bz2
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from modeling_clir.names import check_path
from modeling_clir.program import Parser, run_program


REPOSITORY = Path(__file__).resolve().parents[1]
# Assumed: articles, and GB of pages-articles-multistream.xml.bz2
WIKIPEDIAS = {"en": (7_000_000, 24.0), "de": (3_000_000, 7.5), "fr": (2_700_000, 6.5), "es": (2_000_000, 4.8)}
PER_LINE = re.compile(
    r" (\w+): (\d+) of \d+ tasks(?:, ([\d,]+) (\w+), ([\d,]+) a second)?.*; ([\d,]+) s, at most ([\d,]+) MB"
)


def multiply(dumps: Path, folder: Path, language: str, copies: int):
    """Writes a multistream dump of `copies` copies of each article, and Wikidata ids that join the languages."""
    from modeling_clir.wikipedia.dumps import find_dumps
    from modeling_clir.wikipedia.topics import Topics, build_topics

    (dump,) = find_dumps(dumps, [language])
    index = folder / f"{language}.sqlite"
    build_topics(index, [dump])
    topics = Topics(index)
    data = b"".join(bz2.decompress(file.read_bytes()) for file in dump.files)
    head = data[: data.index(b"<page>")]
    pages = re.findall(rb"<page>.*?</page>\s*", data, flags=re.DOTALL)
    rows = []
    name = folder / f"{language}wiki-20240501-pages-articles-multistream.xml.bz2"
    with open(name, "wb") as file:
        file.write(bz2.compress(head))
        for copy in range(copies):
            made = []
            for number, page in enumerate(pages):
                title = re.search(rb"<title>(.*?)</title>", page)[1]
                page_id = copy * len(pages) + number + 1
                key = topics.key(language, title.decode())
                page = page.replace(b"<title>" + title, b"<title>" + title + f" {copy}".encode(), 1)
                made.append(re.sub(rb"<id>\d+</id>", f"<id>{page_id}</id>".encode(), page, count=1))
                if key and key.startswith("Q"):
                    rows.append(f"({page_id},'wikibase_item','{key}{copy:05d}',NULL)")
            file.write(bz2.compress(b"".join(made)))
        file.write(bz2.compress(b"</mediawiki>\n"))
    columns = ("pp_page", "pp_propname", "pp_value", "pp_sortkey")
    created = ",\n".join(f"  `{column}` varbinary(255)" for column in columns)
    text = f"CREATE TABLE `page_props` (\n{created}\n);\nINSERT INTO `page_props` VALUES {','.join(rows)};\n-- Dump completed\n"
    (folder / f"{language}wiki-20240501-page_props.sql").write_text(text, encoding="utf-8")
    index.unlink()


def build(dumps: Path, output: Path, languages: list[str], tasks: int, workers: int) -> dict[str, tuple]:
    """Builds a corpus. Returns for each stage (number, what is counted, per second and process, seconds, MB)."""
    flags = ["--languages", ",".join(languages), "--source", "dumps", "--input", str(dumps)]
    command = [sys.executable, "scripts/build_wikipedia.py", str(output), *flags, "--tasks", str(tasks)]
    done = subprocess.run(
        [*command, "--workers", str(workers)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    stages = {}
    for name, _, number, counted, speed, seconds, memory in PER_LINE.findall(done.stderr):
        integers = [int((value or "0").replace(",", "")) for value in (number, speed, seconds, memory)]
        stages[name] = (integers[0], counted, *integers[1:])
    return stages


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("--dumps", type=Path, required=True, help="folder of dumps (docs/wikipedia.md)")
    parser.add_argument("--languages", default="en,de,fr")
    parser.add_argument("--copies", type=int, default=40)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    args = parser.parse_args()
    check_path(args.dumps)
    languages = args.languages.split(",")
    print(f"{args.copies} copies, {args.tasks} tasks, {os.cpu_count()} cores\n")
    print("| workers | seconds | read, pages/s a process | align, topics/s a process | read, MB | align, MB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    with TemporaryDirectory() as temporary:
        dumps = Path(temporary) / "dumps"
        dumps.mkdir()
        for language in languages:
            multiply(args.dumps, dumps, language, args.copies)
        size = sum(file.stat().st_size for file in dumps.glob("*.bz2"))
        first = {}
        for workers in args.workers:
            start = time.monotonic()
            stages = build(dumps, Path(temporary) / f"corpus{workers}", languages, args.tasks, workers)
            seconds = time.monotonic() - start
            first = first or stages
            read, align = stages["read"], stages["align"]
            print(f"| {workers} | {seconds:.0f} | {read[2]} | {align[2]} | {read[4]} | {align[4]} |", flush=True)
    pages, topics = first["read"][0], first["align"][0]
    print(f"\n{size / 1e6:.1f} MB of dumps; {pages:,} pages of {size / pages / 1e3:.1f} kB, {topics:,} topics")
    articles, gigabytes = (sum(numbers) for numbers in zip(*WIKIPEDIAS.values()))
    print(
        f"\nCore hours of {', '.join(WIKIPEDIAS)} ({articles:,} articles, {gigabytes:.1f} GB) at the speed of one worker:\n"
    )
    print("| stage | seconds | MB/s | core hours |\n| --- | ---: | ---: | ---: |")
    hours = 0
    for name, (*_, seconds, _) in first.items():
        hours += seconds * gigabytes * 1e9 / size / 3600
        if seconds:
            print(
                f"| {name} | {seconds} | {size / 1e6 / seconds:.3f} | {seconds * gigabytes * 1e9 / size / 3600:,.0f} |"
            )
    print(f"| all | | | {hours:,.0f} |")


if __name__ == "__main__":
    run_program(main)
