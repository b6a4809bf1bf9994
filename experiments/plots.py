"""Plots of comparisons, drawn from their stored records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.curves import AXES, Run, axes_of, on_one_grid, runs_of
from experiments.summary import values
from unified_irl import statistics


def comparison_plots(record: dict[str, Any], out: Path) -> list[Path]:
    """For every task: final scores with intervals, and learning curves."""
    tasks = list(dict.fromkeys(row["task"] for row in record["cells"]))
    return [path for name in tasks for path in (_scores(record, name, out), *_curves(record, name, out))]


def canvas(width: float = 7.0, height: float = 4.2) -> tuple[Any, Any]:
    """A figure and its axes, without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height), dpi=150, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def store(figure: Any, path: Path) -> Path:
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
    return path


def _scores(record: dict[str, Any], task_name: str, out: Path) -> Path:
    methods = list(dict.fromkeys(row["method"] for row in record["cells"]))
    figure, axes = canvas(height=0.5 + 0.45 * len(methods))
    for line, name in enumerate(reversed(methods)):
        scores = list(values(record, task_name, name, "final", "score").values())
        if not scores:
            continue
        mean = statistics.mean_interval(scores)
        axes.plot(scores, [line] * len(scores), "o", color="0.7", markersize=4, zorder=1)
        if not np.isnan(mean.low):
            axes.plot([mean.low, mean.high], [line, line], color="C0", linewidth=2)
        axes.plot(mean.estimate, line, "o", color="C0", markersize=7)
    axes.axvline(1.0, color="0.4", linestyle="--", linewidth=1)
    axes.set(
        yticks=range(len(methods)),
        yticklabels=list(reversed(methods)),
        xlabel="final score (0: start policy, 1: expert); mean, 95 % interval, and every seed",
        title=task_name,
    )
    return store(figure, out / f"{task_name}-scores.png")


def _curves(record: dict[str, Any], task_name: str, out: Path) -> list[Path]:
    """Examinations during training against the share of the run that was over (runs differ in their rounds), and where
    they are known, against simulated steps, the time it took and the comparisons answered."""
    runs = runs_of(record, task_name)
    return [_curve(runs, axis, task_name, out) for axis in axes_of(runs)]


def _curve(runs: dict[str, list[Run]], axis: str, task_name: str, out: Path) -> Path:
    """The mean over the seeds of each method; a run that is over keeps its last score."""
    figure, axes = canvas()
    for number, (name, several) in enumerate(runs.items()):
        known = [run for run in several if axis in run]
        if known:
            grid, curves = on_one_grid(known, axis)
            axes.plot(grid, np.mean(curves, axis=0), color=f"C{number}", label=name)
    axes.axhline(1.0, color="0.4", linestyle="--", linewidth=1)
    axes.set(xlabel=AXES[axis], ylabel="score (mean over seeds)", title=task_name)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    suffix = "curves" if axis == "share" else f"curves-{axis}"
    return store(figure, out / f"{task_name}-{suffix}.png")
