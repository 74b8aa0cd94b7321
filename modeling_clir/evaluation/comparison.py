"""
Compares runs: measures of each query, a significance test, tables and a plot.

Values of queries have the names of `ir_measures` (`AP`, `RR`). Means have the names of [`evaluate_run`] (`MAP`,
`MRR`).
"""

import logging
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..data.collections import read_collection, read_qrels
from ..data.runs import Run, read_run
from .ranking import MEASURES, evaluate_queries


logger = logging.getLogger(__name__)

MEAN_NAMES = {str(measure): name for name, measure in MEASURES.items()}  # AP to MAP, RR to MRR
PERMUTATIONS = 100_000
SIGNS_AT_ONCE = 2**22


def read_judgements(path: Path) -> tuple[dict[str, dict[str, int]], tuple[dict, dict] | None]:
    """
    Reads the qrels of a TREC file or a collection folder; for a folder also its queries and documents. Queries without
    a relevant document stay and count 0 in every run, as in trec_eval; their number is logged. Raises
    `FileNotFoundError` for a missing file, `ValueError` for a file without judgements, and the errors of
    [`read_qrels`] or [`read_collection`].
    """
    if path.is_dir():
        collection = read_collection(path)
        return collection.qrels, (collection.queries, collection.documents)
    qrels = {}
    for _, query, document, relevance in read_qrels(path):
        qrels.setdefault(query, {})[document] = relevance
    if not qrels:
        raise ValueError(f"{path} has no judgement")
    if empty := sum(max(judged.values()) <= 0 for judged in qrels.values()):
        logger.warning(f"{path}: {empty} judged queries have no relevant document and count 0")
    return qrels, None


def read_judged_run(path: Path, qrels: dict[str, dict[str, int]], known: tuple[dict, dict] | None = None) -> Run:
    """
    Reads the judged queries of a TREC run.

    Args:
        path (`Path`): the file, plain or `.gz`.
        qrels (`dict[str, dict[str, int]]`): query id to document id to relevance.
        known (`tuple[dict, dict]`, *optional*): all queries and documents, by id. If given, unknown ids are errors.

    Logs the number of queries of the run that are not judged (left out), and of judged queries that the run lacks
    (they count 0). Raises `FileNotFoundError` for a missing file, and the `ValueError` of [`read_run`]. Raises
    `ValueError` too for a run without any query of the qrels, or without any document that is judged for its query.
    """
    run = read_run(path, known)
    kept = {query: listed for query, listed in run.items() if query in qrels}
    if not kept:
        raise ValueError(f"{path} has no query of the qrels: are the qrels of another topic set?")
    if not any(document in qrels[query] for query, listed in kept.items() for document in listed):
        raise ValueError(f"{path} has no document that is judged for its query: are the qrels of other documents?")
    if others := len(run) - len(kept):
        logger.warning(f"{path}: {others} of {len(run)} queries are not judged and are left out")
    if missing := len(qrels) - len(kept):
        logger.warning(f"{path}: {missing} of {len(qrels)} judged queries are missing and count 0")
    return kept


def query_values(run: Run, qrels: dict[str, dict[str, int]]) -> dict[str, np.ndarray]:
    """
    Computes AP, nDCG@20, P@10, R@100, RR and Judged@20 of each query. Errors are those of [`evaluate_queries`].

    Returns:
        Name of the measure to its values, `(queries,)`, in the order of `qrels`.
    """
    measured = evaluate_queries(run, qrels).values()
    return {str(measure): np.array([one[name] for one in measured]) for name, measure in MEASURES.items()}


def randomization_test(differences: np.ndarray, permutations: int = PERMUTATIONS, seed: int = 0) -> float:
    """
    Computes the two-sided p-value of a paired randomization test (Fisher 1935; Smucker, Allan and Carterette 2007, "A
    comparison of statistical significance tests for information retrieval evaluation"). The p-value is the share of
    random signs that move the mean of `differences` at least as far from 0.

    Args:
        differences (`np.ndarray` of shape `(queries,)`): values of one run minus values of another; zeros change
            nothing.
        permutations (`int`, defaults to 100,000): if there are at most this many choices of signs, all are tried and
            the value is exact. Otherwise this many are drawn, and the observed signs count as one more (Phipson and
            Smyth 2010).
        seed (`int`, defaults to 0): seed of the draw.
    """
    sizes = np.abs(differences[differences != 0])
    number = len(sizes)
    exact = number < 63 and 2**number <= permutations
    total = 2**number if exact else permutations
    observed = abs(differences.sum()) - 1e-9 * sizes.sum()  # sums in another order differ in their last digits
    generator, extreme = np.random.default_rng(seed), 0
    step = max(1, SIGNS_AT_ONCE // max(number, 1))
    for start in range(0, total, step):
        rows = np.arange(start, min(start + step, total))
        if exact:
            signs = (rows[:, None] >> np.arange(number)) & 1
        else:
            signs = generator.integers(0, 2, (len(rows), number), dtype=np.int8)
        # A signed sum is twice the sum of the positive sizes minus the sum of all sizes.
        extreme += int((np.abs(2 * (signs @ sizes) - sizes.sum()) >= observed).sum())
    return extreme / total if exact else (extreme + 1) / (total + 1)


def holm(p_values: list[float]) -> list[float]:
    """Adjusts p-values for their number (Holm 1979), in the given order. Below alpha, a value rejects at alpha."""
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, (len(p_values) - rank) * p_values[place])
        adjusted[place] = min(1.0, largest)
    return adjusted


def compare(runs: dict[str, Run], qrels: dict[str, dict[str, int]]) -> dict[str, dict[str, dict]]:
    """
    Compares runs with the first run.

    Args:
        runs (`dict[str, Run]`): runs by name.
        qrels (`dict[str, dict[str, int]]`): query id to document id to relevance.

    Returns:
        Name of the measure (`AP`, ...) to name of the run to `values`, `(queries,)`, their `mean`, and `p`. `p` is the
        p-value of the difference from the first run, adjusted by Holm over the runs, and `None` for the first run.
    """
    values = {name: query_values(run, qrels) for name, run in runs.items()}
    first, *others = runs
    results = {}
    for measure in map(str, MEASURES.values()):
        p_values = [randomization_test(values[name][measure] - values[first][measure]) for name in others]
        results[measure] = {
            name: {"values": values[name][measure], "mean": float(values[name][measure].mean()), "p": p}
            for name, p in zip(runs, [None, *holm(p_values)])
        }
    return results


def cells(results: dict[str, dict[str, dict]]) -> list[list[str]]:
    """Makes the header and a row for each run: its name, and the mean and p-value of each measure."""
    rows = [["run", *(MEAN_NAMES[measure] for measure in results)]]
    for name in next(iter(results.values())):
        cell = (results[measure][name] for measure in results)
        rows.append([name] + [f"{c['mean']:.4f}" + ("" if c["p"] is None else f" ({c['p']:.3g})") for c in cell])
    return rows


def markdown_table(results: dict[str, dict[str, dict]]) -> str:
    """Writes a table in Markdown: means, with p-values in parentheses."""
    header, *rows = cells(results)
    lines = [header, ["---", *("---:" for _ in results)], *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def latex_table(results: dict[str, dict[str, dict]]) -> str:
    """Writes a table in LaTeX with the package `booktabs`: means, with p-values in parentheses."""
    special = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}"})
    special |= str.maketrans({"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"})
    header, *rows = (" & ".join(cell.translate(special) for cell in line) + " \\\\\n" for line in cells(results))
    columns = "l" + "r" * len(results)
    body = f"\\toprule\n{header}\\midrule\n{''.join(rows)}\\bottomrule\n"
    return f"\\begin{{tabular}}{{{columns}}}\n{body}\\end{{tabular}}\n"


def plot_differences(results: dict[str, dict[str, dict]], measure: str, path: Path):
    """Plots the queries' differences from the first run in one measure, sorted, in a panel for each other run."""
    (first, reference), *others = results[measure].items()
    figure = Figure(figsize=(8, 0.6 + 2.2 * len(others)), layout="constrained")
    parts = figure.subplots(len(others), sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (name, result) in zip(parts, others):
        differences = np.sort(result["values"] - reference["values"])[::-1]
        axes.bar(np.arange(1, len(differences) + 1), differences, width=1.0)
        axes.axhline(0, color="black", linewidth=0.6)
        better, worse = int((differences > 0).sum()), int((differences < 0).sum())
        axes.set_title(f"{name}: {better} queries better, {worse} worse", fontsize=9, parse_math=False)
        axes.set_ylabel(measure)
    parts[-1].set_xlabel("queries, by difference")
    figure.suptitle(f"Difference from {first}", fontsize=10, parse_math=False)
    figure.savefig(path, dpi=150)


__all__ = [
    "compare",
    "holm",
    "latex_table",
    "markdown_table",
    "plot_differences",
    "query_values",
    "randomization_test",
    "read_judged_run",
    "read_judgements",
]
