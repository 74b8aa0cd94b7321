#!/usr/bin/env python
"""
Measures how fast one core turns a Wikipedia dump into plain text, step by step.

    python benchmarks/wikitext.py DUMP.xml.bz2

`unpack` reads the bytes; `pages` also reads the XML; `text` also makes the sections, as scripts/build_wikipedia.py
does. Below it the parser mwparserfromhell makes plain text of the same pages, after `cut` has removed what is never
text, and alone. Articles are pages of the main namespace without redirects; MB are of unpacked XML. A step's time is
that of the fastest repeat, because other programs on the machine only add time. Prints a table in Markdown.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from modeling_clir.wikipedia.dumps import Stream, read_pages
from modeling_clir.wikipedia.wikitext import Site, cut, sections


def read(file: Path) -> list[tuple[Site, str]]:
    pages = read_pages(file, "en")
    return [(site, page.text) for site, page in pages if not page.namespace and not page.redirect and page.text]


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dump", type=Path, help="XML file of pages, plain, .bz2 or .gz; a slice of some megabytes")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(argv)

    import mwparserfromhell

    size = sum(len(chunk) for chunk in Stream(args.dump).chunks())
    articles = read(args.dump)

    def parse(prepare: Callable[[str], str]) -> int:
        return sum(len(mwparserfromhell.parse(prepare(text)).strip_code()) for _, text in articles)

    steps: dict[str, Callable[[], object]] = {
        "unpack": lambda: sum(len(chunk) for chunk in Stream(args.dump).chunks()),
        "pages": lambda: len(read(args.dump)),
        "text": lambda: [sections(text, site) for site, text in read(args.dump)],
        "cut": lambda: [cut(text) for _, text in articles],
        "sections": lambda: [sections(text, site) for site, text in articles],
        "cut, mwparserfromhell": lambda: parse(cut),
        "mwparserfromhell": lambda: parse(str),
    }
    print(f"{args.dump.name}: {len(articles)} articles, {size / 1e6:.1f} MB\n")
    print("| step | seconds | articles/s | MB/s |\n|---|---|---|---|")
    for name, step in steps.items():
        seconds = []
        for _ in range(args.repeats):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        best = min(seconds)
        print(f"| {name} | {best:.2f} | {len(articles) / best:.0f} | {size / best / 1e6:.1f} |")


if __name__ == "__main__":
    main()
