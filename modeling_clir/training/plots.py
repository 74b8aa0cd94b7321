"""Plots learning curves."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


PANELS = (
    ("Training loss", {"qlm_loss": "QLM", "rr_loss": "RR"}),
    ("Held-out QLM loss", {"eval_qlm_loss": "QLM"}),
    (
        "Held-out accuracy",
        {"eval_qlm_accuracy": "QLM accuracy", "eval_rr_accuracy": "RR accuracy", "eval_rr_mrr": "RR MRR"},
    ),
)


def plot_learning_curve(log_history: list[dict], path: Path):
    """Writes a PNG of the log of a Trainer (`trainer.state.log_history`), by step."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, len(PANELS)), PANELS):
        for name, label in names.items():
            points = [(record["step"], record[name]) for record in log_history if name in record]
            if points:
                axes.plot(*zip(*points), marker="o" if len(points) < 30 else None, markersize=3, label=label)
        axes.set(title=title, xlabel="optimizer step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False)
        else:
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="grey")
    figure.savefig(path, dpi=120)


def plot_development(curves: dict[str, list[float]], path: Path, title: str = "Development MAP"):
    """Writes a PNG with a curve per name (of a fold, for instance): a value after each epoch. Marks the best epoch."""
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        (line,) = axes.plot(range(1, len(values) + 1), values, label=name)
        best = values.index(max(values))
        axes.plot(best + 1, values[best], marker="o", color=line.get_color())
    axes.set(title=title, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


__all__ = ["plot_development", "plot_learning_curve"]
