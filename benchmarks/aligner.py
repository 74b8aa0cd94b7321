#!/usr/bin/env python
"""
Measures the aligner of sections: precision, recall and F1 of the matches, per set of features.

    python benchmarks/aligner.py DATA [DATA ...] --tune dev.zh-en.tsv.gz
    python benchmarks/aligner.py DATA [DATA ...] --tune dev.zh-en.tsv.gz --encoder intfloat/multilingual-e5-small --prompts "query: " "passage: "
    python benchmarks/aligner.py --fit --tune dev.zh-en.tsv.gz [--encoder ...]

DATA is one of:

- a file of five columns parted by tabs, plain or `.gz`: page, heading in the source language, heading in the target
  language, sentence, its translation. "Introduction" stands for the lead. All rows of a page with the same two headings
  are a pair of sections that match.
- a folder of Markdown files with a subfolder of the same files for each other language. Sections match if they have the
  same place in their files. Files with other numbers or levels of headings than their translation are left out.

Settings:

- `in order`: as the data has them. The two sides are parallel, so the place alone finds every match.
- `shuffled`: the target's sections are shuffled by the seed.
- `third removed`: also a random third of the sections of each side is removed.
- `halves`: also the source keeps only the first half of each section, and the target the second half, in sentences or
  paragraphs. No sentence is left whose translation is on the other side. Sections of one sentence, and links, are left out.

Rows:

- `random`: each section of the shorter side gets another one by chance.
- `same place`: section k of the source gets section k of the target.
- `shipped`: `align_sections` as it is, with its weights and threshold.
- others: features, with weights and threshold fitted on the file of --tune. Leads are told from other sections in all.

The heading table is learned from the measured pages themselves, in the setting that is measured, without their labels.
With several settings or files nothing else is shared. --fit prints the weights that `aligner.py` has.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from modeling_clir.data.files import decode_lines, read_columns
from modeling_clir.data.first_stage import load_dense
from modeling_clir.program import Parser, run_program
from modeling_clir.wikipedia.aligner import (
    FEATURES,
    ROUNDS,
    align_sections,
    encode_sections,
    match_scores,
    mutual_best,
    section_features,
)
from modeling_clir.wikipedia.articles import Article, ArticleSection
from modeling_clir.wikipedia.headings import HeadingTable


LEAD = "Introduction"
SETTINGS = {
    "in order": {},
    "shuffled": {"shuffle": True},
    "third removed": {"shuffle": True, "removed": 1 / 3},
    "halves": {"shuffle": True, "removed": 1 / 3, "halves": True},
}
# The weights are fitted on the settings that have something to refuse, with and without the order: how far the orders
# of two Wikipedias agree is not known, and lies between.
FITTED = [
    {"removed": 1 / 3, "shuffle": shuffle, "halves": halves} for shuffle in (False, True) for halves in (False, True)
]
TEXT = ("links", "headings", "length", "numbers", "names")
SETS = {
    "lead": (),
    "length": ("length",),
    "numbers": ("numbers",),
    "names": ("names",),
    "links": ("links",),
    "headings": ("headings",),
    "all but position": TEXT,
    "all": (*TEXT, "position"),
    "vectors": ("vectors",),
    "all and vectors, but position": (*TEXT, "vectors"),
    "all and vectors": (*TEXT, "position", "vectors"),
}
THRESHOLDS = np.arange(0, 0.7, 0.05)
DECAY = 1e-3  # of the weights when they are fitted


@dataclass
class Pair:
    """Two articles whose sections match in order. The texts are lists of sentences or paragraphs."""

    key: str
    source: list[tuple[str, int, list[str], list[str]]]  # heading, level, texts, links
    target: list[tuple[str, int, list[str], list[str]]]


@dataclass
class Case:
    """Two articles in a setting. `matches[i, j]` says whether section i of the source matches section j of the target."""

    source: Article
    target: Article
    matches: np.ndarray
    vectors: tuple[np.ndarray, np.ndarray] | None = None


# ---------------------------------------------------------------------------------------------------------------------
# Data
# ---------------------------------------------------------------------------------------------------------------------


def read_data(path: Path) -> dict[str, list[Pair]]:
    """Returns name to article pairs: one name for a file, one for each language of a folder."""
    if not path.is_dir():
        return {path.name: read_tsv(path)}
    found = {}
    for folder in sorted(folder for folder in path.iterdir() if folder.is_dir()):
        pairs = read_markdown(path, folder)
        if pairs:
            found[f"{path.name}/{folder.name}"] = pairs
    if not found:
        raise ValueError(f"{path}: no file *.md has a translation in a subfolder")
    return found


def read_tsv(path: Path) -> list[Pair]:
    pages = {}
    for where, (page, *headings, sentence, translation) in read_columns(path, 5, "\t"):
        if not all([page, *headings]):
            raise ValueError(f"{where}: page and headings must not be empty")
        texts = pages.setdefault(page, {}).setdefault(tuple(headings), ([], []))
        texts[0].append(sentence)
        texts[1].append(translation)
    if not pages:
        raise ValueError(f"{path} has no rows")
    pairs = []
    for page, sections in pages.items():
        sides = [[(*split_heading(h[side]), texts[side], []) for h, texts in sections.items()] for side in (0, 1)]
        pairs.append(Pair(page, *sides))
    return pairs


def split_heading(path: str) -> tuple[str, int]:
    """Returns heading and level of a path such as "Career|Early years"."""
    return ("", 1) if path == LEAD else (path.split("|")[-1], path.count("|") + 2)


def read_markdown(folder: Path, translated: Path) -> list[Pair]:
    pairs, left_out = [], []
    for file in sorted(translated.glob("*.md")):
        original = folder / file.name
        if not original.is_file():
            continue
        source, target = markdown_sections(original), markdown_sections(file)
        if [section[1] for section in source] != [section[1] for section in target]:
            left_out.append(file.name)
            continue
        filled = [(a, b) for a, b in zip(source, target) if a[2] and b[2]]
        pairs.append(Pair(file.stem, [a for a, _ in filled], [b for _, b in filled]))
    if left_out:
        print(f"{translated}: left out, other headings than {folder}: {', '.join(left_out)}")
    return pairs


def markdown_sections(path: Path) -> list[tuple[str, int, list[str], list[str]]]:
    """Reads the lead and the sections of a Markdown file: heading, level, paragraphs, links."""
    lines, fenced, sections = [line.rstrip("\r\n") for _, line in decode_lines(path)], False, [("", 1, [""], [])]
    if lines[:1] == ["---"] and "---" in lines[1:]:  # front matter
        lines = lines[lines.index("---", 1) + 1 :]
    for line in lines:
        fenced ^= line.startswith("```")
        heading = None if fenced else re.match(r"(#+)\s+(.*?)[\s#]*$", line)
        if heading:
            sections.append((plain(heading[2]), len(heading[1]), [""], []))
        else:
            sections[-1][3].extend(re.findall(r"\]\((https?://[^)\s]+)", line))
            text = plain(line)
            if text:
                sections[-1][2][-1] += f"{text} "
            elif sections[-1][2][-1]:
                sections[-1][2].append("")
    return [(heading, level, [t.strip() for t in texts if t], links) for heading, level, texts, links in sections]


def plain(line: str) -> str:
    line = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", line)
    return re.sub(r"<[^>]*>|https?://\S+|[*_`]", "", line).strip()


def make_cases(pairs: list[Pair], seed: int, shuffle=False, removed=0.0, halves=False) -> list[Case]:
    """Puts article pairs into a setting. Each article has random numbers of its own."""
    cases = []
    for number, pair in enumerate(pairs):
        rng = np.random.default_rng([seed, number])
        sides = [pair.source, pair.target]
        if halves:
            long = [i for i, parts in enumerate(zip(*sides)) if all(len(part[2]) > 1 for part in parts)]
            sides = [[side[i] for i in long] for side in sides]
            sides[0] = [(h, level, texts[: len(texts) // 2], []) for h, level, texts, _ in sides[0]]
            sides[1] = [(h, level, texts[len(texts) // 2 :], []) for h, level, texts, _ in sides[1]]
        size = len(sides[0])
        kept = [np.sort(rng.permutation(size)[round(size * removed) :]) for _ in sides]
        if shuffle:
            kept[1] = rng.permutation(kept[1])
        articles = [
            Article(
                pair.key,
                language,
                str(number),
                pair.key,
                [
                    ArticleSection(h, level, " ".join(texts), links)
                    for h, level, texts, links in map(side.__getitem__, places)
                ],
            )
            for language, side, places in zip(("source", "target"), sides, kept)
        ]
        cases.append(Case(*articles, np.equal.outer(*kept)))
    return cases


def encode_cases(cases: list[list[Case]], model):
    """Sets the vectors of the cases. A section that occurs in several settings is encoded once."""
    sections = {
        (section.heading, section.text): section
        for part in cases
        for case in part
        for article in (case.source, case.target)
        for section in article.sections
    }
    vectors = dict(zip(sections, encode_sections(model, list(sections.values()))))
    empty = np.zeros((0, len(next(iter(vectors.values())))), dtype=np.float32)
    for part in cases:
        for case in part:
            found = [[vectors[s.heading, s.text] for s in a.sections] for a in (case.source, case.target)]
            case.vectors = tuple(np.stack(side) if side else empty for side in found)


# ---------------------------------------------------------------------------------------------------------------------
# Learning and measuring
# ---------------------------------------------------------------------------------------------------------------------


def learn_headings(cases: list[Case]) -> HeadingTable:
    """Learns the heading table from the articles alone."""
    table = None
    for _ in range(ROUNDS):
        table = HeadingTable.count([(case.source, case.target) for case in cases], table)
    return table


def compute_features(cases: list[Case]) -> list[np.ndarray]:
    table = learn_headings(cases)
    return [section_features(case.source, case.target, table, case.vectors) for case in cases]


def chosen(names: tuple[str, ...]) -> np.ndarray:
    """Returns 1 for the features that a row uses, else 0; `(len(FEATURES),)`."""
    return np.array([name == "lead" or name in names for name in FEATURES], dtype=float)


def fit_weights(features: list[np.ndarray], cases: list[Case], names: tuple[str, ...]) -> np.ndarray:
    """
    Fits the weights of the features `names` and the bias: the likelihood of the choices of both sides, see
    [`match_scores`], is maximized by L-BFGS. Links weigh as much as numbers, which are compared in the same way: the
    files of sentences have no links.
    """
    used = chosen(tuple("numbers" if name == "links" else name for name in names))
    parts = [(torch.tensor(f * used), torch.tensor(c.matches, dtype=torch.float64)) for f, c in zip(features, cases)]
    parts = [part for part in parts if part[1].numel()]
    weights = torch.zeros(len(FEATURES) + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        total = DECAY * (weights**2).sum()
        for part, matches in parts:
            logits = part @ weights[:-1] + weights[-1]
            for axis in (0, 1):
                none = torch.zeros_like(logits.sum(axis, keepdim=True))
                total = total + torch.logsumexp(torch.cat([logits, none], axis), axis).sum()
            total = total - 2 * (logits * matches).sum()
        total.backward()
        return total

    optimizer.step(loss)
    fitted = weights.detach().numpy().copy()
    links, numbers = FEATURES.index("links"), FEATURES.index("numbers")
    fitted[links] = fitted[numbers] if "links" in names else 0
    fitted[numbers] *= "numbers" in names
    return fitted


def measure(matches: list[list[tuple]], cases: list[Case]) -> dict[str, float]:
    """Returns precision, recall and F1 over all sections of all articles."""
    found = sum(map(len, matches))
    right = sum(int(case.matches[i, j]) for part, case in zip(matches, cases) for i, j, *_ in part)
    precision, recall = right / max(found, 1), right / max(sum(int(case.matches.sum()) for case in cases), 1)
    return {"precision": precision, "recall": recall, "F1": 2 * precision * recall / max(precision + recall, 1e-9)}


def match(features: list[np.ndarray], weights: np.ndarray, threshold: float) -> list[list[tuple]]:
    return [mutual_best(match_scores(part, weights), threshold) for part in features]


def fit_threshold(features: list[np.ndarray], cases: list[Case], weights: np.ndarray) -> float:
    f1 = [measure(match(features, weights, threshold), cases)["F1"] for threshold in THRESHOLDS]
    return float(THRESHOLDS[int(np.argmax(f1))])


def random_matches(cases: list[Case], seed: int) -> list[list[tuple]]:
    rng = np.random.default_rng(seed)
    sizes = [case.matches.shape for case in cases]
    return [list(zip(rng.permutation(n)[: min(n, m)], rng.permutation(m)[: min(n, m)])) for n, m in sizes]


def shipped(cases: list[Case], table: HeadingTable, vectors: bool) -> list[list[tuple]]:
    return [align_sections(case.source, case.target, table, case.vectors if vectors else None) for case in cases]


def fit(pairs: list[Pair], args, model) -> tuple[list[np.ndarray], list[Case]]:
    parts = [make_cases(pairs, args.seed, **setting) for setting in FITTED]
    if model:
        encode_cases(parts, model)
    features = [feature for cases in parts for feature in compute_features(cases)]
    return features, [case for cases in parts for case in cases]


def report(name: str, settings: dict[str, list[Case]], fitted: dict[str, tuple], args) -> list[dict]:
    """Prints and returns the rows of one data set."""
    rows = []

    def add(setting, features, matches, cases):
        rows.append({"data": name, "setting": setting, "features": features, **measure(matches, cases)})
        numbers = "  ".join(f"{rows[-1][key]:.3f}" for key in ("precision", "recall", "F1"))
        print(f"{name:24}{setting:16}{features:32}{numbers}", flush=True)

    for setting, cases in settings.items():
        table = learn_headings(cases)
        features = [section_features(case.source, case.target, table, case.vectors) for case in cases]
        add(setting, "random", random_matches(cases, args.seed), cases)
        add(setting, "same place", [[(k, k) for k in range(min(case.matches.shape))] for case in cases], cases)
        for row, (weights, threshold) in fitted.items():
            if row != "links" or any(part[:, :, FEATURES.index("links")].any() for part in features):
                add(setting, row, match(features, weights, threshold), cases)
        add(setting, "shipped", shipped(cases, table, False), cases)
        if args.encoder:
            add(setting, "shipped, with vectors", shipped(cases, table, True), cases)
    return rows


def main(argv: list[str] | None = None):
    parser = Parser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="*", metavar="DATA", help="files or folders that are measured")
    parser.add_argument("--tune", type=Path, help="file for the weights and thresholds of the rows per feature")
    parser.add_argument("--fit", action="store_true", help="print the weights for aligner.py, fitted on --tune")
    parser.add_argument("--encoder", metavar="MODEL", help="folder or Hub name; adds the rows with vectors")
    parser.add_argument(
        "--prompts", nargs=2, metavar=("QUERY", "DOCUMENT"), help="what the encoder reads before a text"
    )
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="(default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder for the rows as aligner.csv")
    args = parser.parse_args(argv)
    if args.fit and not args.tune:
        raise ValueError("--fit needs --tune")
    if not args.fit and not args.data:
        raise ValueError("name the data to measure, or --fit")

    # 1. Read
    measured = {name: pairs for path in args.data for name, pairs in read_data(path).items()}
    tuned = read_tsv(args.tune) if args.tune else None
    model = load_dense(args.encoder, tuple(args.prompts) if args.prompts else None) if args.encoder else None

    # 2. Fit
    fitted = {}
    if tuned:
        features, cases = fit(tuned, args, model)
        for row, names in SETS.items():
            if model or "vectors" not in names:
                weights = fit_weights(features, cases, names)
                fitted[row] = weights, fit_threshold(features, cases, weights)
    if args.fit:
        for row, constant in (("all", "WEIGHTS"), ("all and vectors", "WEIGHTS_WITH_VECTORS")):
            if row in fitted:
                print(f"{constant} = ({', '.join(f'{weight:.2f}' for weight in fitted[row][0])})")
                for threshold in THRESHOLDS:
                    f1 = measure(match(features, fitted[row][0], threshold), cases)
                    print(f"  threshold {threshold:.2f}:", "  ".join(f"{k} {v:.3f}" for k, v in f1.items()))

    # 3. Measure
    rows = []
    for name, pairs in measured.items():
        settings = {setting: make_cases(pairs, args.seed, **SETTINGS[setting]) for setting in args.settings}
        if model:
            encode_cases(list(settings.values()), model)
        sections = sum(len(pair.source) for pair in pairs)
        print(f"{name}: {len(pairs)} articles, {sections} pairs of sections")
        rows += report(name, settings, fitted, args)
    if rows and args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        with open(args.output / "aligner.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    run_program(main)
