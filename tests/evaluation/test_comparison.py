"""Comparison of runs."""

import numpy as np
import pytest
from scipy.stats import permutation_test

from modeling_clir.evaluation.comparison import (
    compare,
    holm,
    latex_table,
    markdown_table,
    query_values,
    randomization_test,
    read_judged_run,
    read_judgements,
)
from modeling_clir.evaluation.ranking import evaluate_run

from ..helpers import run_here, write


QRELS = {"a": {"d1": 1, "d2": 0}, "b": {"d3": 2}, "none": {"d1": 0}}


def random_runs(seed: int, queries: int = 20, documents: int = 40):
    rng = np.random.default_rng(seed)
    names = [f"d{i}" for i in range(documents)]
    qrels = {
        f"q{i}": {d: int(rng.integers(0, 3)) for d in rng.choice(names, 15, replace=False)} for i in range(queries)
    }
    runs = {
        name: {q: {d: float(s) for d, s in zip(names, rng.integers(0, 9, documents))} for q in qrels} for name in "xyz"
    }
    return qrels, runs


@pytest.mark.parametrize("number", [2, 5, 9, 12])
def test_exact_randomization_test_is_that_of_scipy(number):
    rng = np.random.default_rng(number)
    for differences in (rng.normal(0.3, 1, number), rng.integers(-2, 4, number) / 10):
        expected = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
        assert randomization_test(differences) == pytest.approx(expected, abs=1e-12)


def test_drawn_randomization_test():
    differences = np.random.default_rng(0).normal(0.25, 1, 60)
    expected = permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(1)
    ).pvalue
    found = randomization_test(differences)
    assert found == pytest.approx(expected, abs=0.012) and 0.001 < found < 0.5
    assert found == randomization_test(differences) == randomization_test(-differences)
    assert found != randomization_test(differences, seed=1)
    few = differences[:12]
    assert randomization_test(few, permutations=4000) == pytest.approx(randomization_test(few), abs=0.03)
    # No draw may be as extreme, but the observed signs are.
    assert randomization_test(np.ones(40), permutations=999) == pytest.approx(1 / 1000)


def test_randomization_test_without_differences():
    assert randomization_test(np.zeros(5)) == 1
    assert randomization_test(np.array([0.0, 0.5, 0, 0.5])) == 0.5


def test_holm():
    # By hand: .005 * 4 = .02, .01 * 3 = .03, .03 * 2 = .06, and .04 * 1, which is raised to the value before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1] and holm([0.2]) == [0.2] and holm([]) == []


def test_values_of_queries_have_the_measures_for_mean():
    qrels, runs = random_runs(0)
    qrels["none"] = {"d1": 0}
    del runs["x"]["q3"]
    values = query_values(runs["x"], qrels)
    assert list(values) == ["AP", "nDCG@20", "P@10", "R@100", "RR", "Judged@20"]
    assert list(evaluate_run(runs["x"], qrels).values()) == pytest.approx([v.mean() for v in values.values()])
    assert all(
        value.shape == (21,) and value[3] == value[20] == 0 for name, value in values.items() if name != "Judged@20"
    )
    for place, query in enumerate(qrels):
        ranked = sorted(runs["x"].get(query, {}).items(), key=lambda item: (item[1], item[0]), reverse=True)[:20]
        judged = sum(document in qrels[query] for document, _ in ranked) / (len(ranked) or 1)
        assert values["Judged@20"][place] == pytest.approx(judged)


def test_compare():
    qrels, runs = random_runs(1)
    results = compare(runs, qrels)
    for measure in results:
        values = {name: query_values(run, qrels)[measure] for name, run in runs.items()}
        p_values = [randomization_test(values[name] - values["x"]) for name in "yz"]
        assert [results[measure][name]["p"] for name in "xyz"] == [None, *holm(p_values)]
        assert results[measure]["y"]["mean"] == pytest.approx(values["y"].mean())
    table = markdown_table(results).splitlines()
    names = list(evaluate_run(runs["x"], qrels))  # a mean has one name here and in run_clir.py
    assert len(table) == 5 and table[0] == f"| run | {' | '.join(names)} |" and names[0] == "MAP"
    ap = results["AP"]
    assert table[2].startswith(f"| x | {ap['x']['mean']:.4f} | ")
    assert table[3].startswith(f"| y | {ap['y']['mean']:.4f} ({ap['y']['p']:.3g}) | ")
    assert {line.count("|") for line in table} == {8}


def test_ids_of_two_types():
    qrels, runs = random_runs(2)
    numbers = {int(query[1:]): judged for query, judged in qrels.items()}
    turned = {name: {query[1:]: scores for query, scores in run.items()} for name, run in runs.items()}
    for measure, values in query_values(runs["x"], qrels).items():
        assert query_values(turned["x"], numbers)[measure].tolist() == values.tolist()
    found, expected = compare(turned, numbers), compare(runs, qrels)
    assert markdown_table(found) == markdown_table(expected)
    with pytest.raises(ValueError, match="no query in common"):
        compare(runs, numbers)


def test_latex_table_escapes_names():
    result = {"a_b&c\\d~": {"mean": 0.5, "p": None}, "50%": {"mean": 0.25, "p": 0.04}}
    assert latex_table({"P@10": result}) == (
        "\\begin{tabular}{lr}\n\\toprule\nrun & P@10 \\\\\n\\midrule\n"
        "a\\_b\\&c\\textbackslash{}d\\textasciitilde{} & 0.5000 \\\\\n50\\% & 0.2500 (0.04) \\\\\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


def test_read_judged_run(tmp_path):
    lines = ("a Q0 d9 1 2.5 t", "b Q0 d3 1 -1e-3 t", "other Q0 d1 1 1 t")
    assert read_judged_run(write(tmp_path / "x.run", *lines), QRELS) == {"a": {"d9": 2.5}, "b": {"d3": -0.001}}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a Q0 d1 1 2"], "x.run:1: expected 6 columns, got 5"),
        (["a Q0 d1 1 2 t", "b Q0 d3 1 1 t", "a Q0 d1 2 1 t"], "x.run:3: document 'd1' is listed twice for query 'a'"),
        (["a Q0 d1 1 best t"], "x.run:1: the score must be a finite number, got 'best'"),
        (["a Q0 d1 1 nan t"], "x.run:1: the score must be a finite number, got 'nan'"),
        (["c Q0 d1 1 1 t"], "x.run has no query of the qrels"),
        ([], "x.run has no query of the qrels"),
        (["a Q0 d3 1 1 t"], "x.run has no document that is judged for its query"),
    ],
)
def test_read_judged_run_errors(lines, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_judged_run(write(tmp_path / "x.run", *lines), QRELS)


def collection(folder):
    write(folder / "documents.jsonl", *({"id": f"d{i}", "text": "x"} for i in range(1, 5)))
    write(folder / "queries.tsv", "a\tx", "b\ty", "none\tz", "unjudged\tz")
    write(folder / "qrels.txt", *(f"{q} 0 {d} {r}" for q, judged in QRELS.items() for d, r in judged.items()))
    return folder


def test_a_collection_knows_its_queries_and_documents(tmp_path):
    qrels, known = read_judgements(collection(tmp_path / "c"))
    assert qrels == QRELS == read_judgements(tmp_path / "c/qrels.txt")[0]
    kept = read_judged_run(write(tmp_path / "x.run", "a Q0 d1 1 1 t", "unjudged Q0 d1 1 1 t"), qrels, known)
    assert kept == {"a": {"d1": 1}}
    for line, message in (("a Q0 d5 1 1 t", "x.run:2: no document has"), ("c Q0 d1 1 1 t", "x.run:2: no query has")):
        with pytest.raises(ValueError, match=message):
            read_judged_run(write(tmp_path / "x.run", "a Q0 d1 1 1 t", line), qrels, known)


def test_compare_depths(tmp_path, monkeypatch, capsys):
    first = write(
        tmp_path / "bm25.run", "a Q0 d3 1 9 t", "a Q0 d1 2 8 t", "a Q0 d2 3 7 t", "a Q0 d4 4 6 t", "b Q0 d3 1 1 t"
    )
    ours = write(
        tmp_path / "ours.run", "a Q0 d1 1 2 t", "a Q0 d3 2 1 t", "a Q0 d2 3 5 t", "a Q0 d4 4 6 t", "b Q0 d3 1 1 t"
    )
    collection(tmp_path / "c")
    run_here(monkeypatch, "scripts/compare_depths.py", tmp_path / "c", first, ours)
    values = {name: row[0].split()[0] for name, *row in table_rows(capsys.readouterr().out)}
    qrels, _ = read_judgements(tmp_path / "c")
    by_hand = {
        "first stage": {"a": {"d3": 3, "d1": 2, "d2": 1}},
        "first 2 reranked": {"a": {"d1": 3, "d3": 2, "d2": 1}},
        "first 3 reranked": {"a": {"d2": 3, "d1": 2, "d3": 1}},
        "first 4 reranked": {"a": {"d4": 4, "d2": 3, "d1": 2, "d3": 1}},
    }
    rest = {"b": {"d3": 1}}
    expected = {name: f"{query_values(run | rest, qrels)['AP'].mean():.4f}" for name, run in by_hand.items()}
    assert values == expected and len(set(values.values())) == 3
    run_here(monkeypatch, "scripts/compare_depths.py", tmp_path / "c", first, ours, "--depths", 3)
    assert [name for name, *_ in table_rows(capsys.readouterr().out)] == ["first stage", "first 3 reranked"]
    with pytest.raises(
        SystemExit, match=r"^error: .*ours.run has the first 4 documents of every query in .*, not the first 5"
    ):
        run_here(monkeypatch, "scripts/compare_depths.py", tmp_path / "c", first, ours, "--depths", 5)
    other = write(tmp_path / "other.run", "a Q0 d1 1 2 t")
    with pytest.raises(
        SystemExit, match=r"^error: .*other.run has the first 0 documents of every query in .*, not the first 2"
    ):
        run_here(monkeypatch, "scripts/compare_depths.py", tmp_path / "c", first, other)


def table_rows(output: str) -> list[list[str]]:
    lines = [line for line in output.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_compare_runs(tmp_path, monkeypatch, capsys, caplog):
    collection(tmp_path / "c")
    write(tmp_path / "bm25.run", "a Q0 d2 1 2 t", "a Q0 d1 2 1 t", "b Q0 d3 1 1 t")
    write(tmp_path / "ours.run", "a Q0 d1 1 2 t", "b Q0 d3 1 1 t", "b Q0 d4 2 0 t", "unjudged Q0 d1 1 1 t")
    runs = (tmp_path / "bm25.run", tmp_path / "ours.run")
    options = (*runs, "--output_dir", tmp_path / "out")
    run_here(monkeypatch, "scripts/compare_runs.py", tmp_path / "c/qrels.txt", *options)
    output = capsys.readouterr().out
    assert output.startswith("3 queries\n\n| run | MAP | nDCG@20 | P@10 | R@100 | MRR | Judged@20 |\n")
    assert "| bm25 | 0.5000 |" in output and "| ours | 0.6667 (1) |" in output
    assert "1 judged queries have no relevant document and count 0" in caplog.text
    assert "1 of 3 queries are not judged" in caplog.text and "1 of 3 judged queries are missing" in caplog.text
    assert (tmp_path / "out/comparison.md").read_text() in output
    assert (tmp_path / "out/comparison.tex").read_text().startswith("\\begin{tabular}")
    assert (tmp_path / "out/differences.png").read_bytes()[:4] == b"\x89PNG"
    rows = [line.split("\t") for line in (tmp_path / "out/queries.tsv").read_text().splitlines()]
    assert rows[0][:3] == ["query", "run", "AP"] and rows[1][:3] == ["a", "bm25", "0.500000"] and len(rows) == 7
    with pytest.raises(SystemExit, match=r"^error: .*out exists"):
        run_here(monkeypatch, "scripts/compare_runs.py", tmp_path / "c", *options)
    with pytest.raises(SystemExit, match=r"^error: there is nothing to compare"):
        run_here(monkeypatch, "scripts/compare_runs.py", tmp_path / "c", runs[0])
