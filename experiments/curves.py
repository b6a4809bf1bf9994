"""Learning curves: scores on the way, and on one grid for several seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Run = dict[str, FloatArray]
AXES = {
    "share": "share of the run's rounds",
    "steps": "simulated steps",
    "minutes": "minutes of work",
    "labels": "comparisons answered while learning",
}
"""What a score can be drawn against. A run that lacks one lacks the curve."""


def curve_of(cell: Path) -> dict[str, list[float]]:
    """The scores on the way, and where on the way each was."""
    from unified_irl.rundir import read_clock, read_metrics

    rows = read_metrics(cell) if (cell / "metrics.jsonl").exists() else []
    seen, clock = [row for row in rows if "eval/score" in row], read_clock(cell)
    if not seen:
        return {}
    curve = {
        "share": [row["step"] / seen[-1]["step"] for row in seen],
        "score": [row["eval/score"] for row in seen],
    }
    if any("env_steps" in row for row in seen):
        curve["steps"] = [row.get("env_steps", 0.0) for row in seen]
    if all(row["step"] in clock for row in seen):
        curve["minutes"] = [clock[row["step"]] / 60.0 for row in seen]
    if any(row.get("num_asked") for row in rows):
        asked = {row["step"]: row["num_asked"] for row in rows if "num_asked" in row}
        curve["labels"] = [max((asked[step] for step in asked if step <= row["step"]), default=0.0) for row in seen]
    return curve


def runs_of(record: dict[str, Any], task_name: str) -> dict[str, list[Run]]:
    """The curves of every method on a task, one per seed."""
    runs: dict[str, list[Run]] = {}
    for row in record["cells"]:
        if row["task"] == task_name and row.get("curve"):
            run = {name: np.array(numbers, dtype=float) for name, numbers in row["curve"].items()}
            runs.setdefault(row["method"], []).append(run)
    return runs


def axes_of(runs: dict[str, list[Run]]) -> list[str]:
    """Those of the axes that some run knows."""
    return [axis for axis in AXES if any(axis in run for several in runs.values() for run in several)]


def on_one_grid(several: list[Run], axis: str, count: int = 101) -> tuple[FloatArray, FloatArray]:
    """The grid [G] and every run's scores on it [S, G]: none before its first examination; a run that is over keeps its
    last score."""
    grid = np.linspace(0.0, max(run[axis][-1] for run in several), count)
    return grid, np.array([np.interp(grid, run[axis], run["score"], left=np.nan) for run in several])
