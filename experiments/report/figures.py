"""The figures of a comparison: what is drawn, and what is said where nothing can be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.curves import AXES, FloatArray, axes_of, on_one_grid, runs_of
from experiments.frontier import changes
from experiments.report import svg
from experiments.report.inks import DASHES
from experiments.report.sources import Comparison
from experiments.report.svg import Dots, Frame, Line
from experiments.summary import shown, values
from unified_irl import statistics

EXPERT = {0.0: "start", 1.0: "expert"}
RECOVERY = {
    "reward/return_spearman": "rank correlation of learnt and true returns (Spearman)",
    "reward/return_pearson": "correlation of learnt and true returns (Pearson)",
    "reward/step_spearman": "rank correlation of learnt and true rewards, step by step (Spearman)",
    "reward/epic_distance": "EPIC distance of the learnt reward from the true one (0: they agree, 1: they disagree)",
    "reward_gold_correlation": "rank correlation of learnt and true rewards of completions (Spearman)",
    "reward_accuracy": "share of fresh comparisons that the learnt reward decides as people would",
}
"""How far a learnt reward agrees with the true one."""
NUM_POINTS = 61


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing of one task; or, where there is none, the sentence that says why."""

    task: str
    title: str
    drawing: str = ""
    methods: tuple[str, ...] = ()
    """Those in the drawing."""
    note: str = ""


def scores(comparison: Comparison, methods: Sequence[str]) -> Iterator[Figure]:
    """Final scores of every task."""
    for task in comparison.tasks:
        rows = _rows_of_dots(comparison, task, "score", missing="failed")
        if rows:
            frame = Frame(title=f"{task}: final score", x_label="final score (0: start, 1: expert)", guides=EXPERT)
            yield Figure(
                task=task, title="Final score", drawing=svg.dots(rows, frame, methods),
                note="Mean with its 95 % interval, and every seed.",
            )  # fmt: skip


def curves(comparison: Comparison, methods: Sequence[str]) -> Iterator[Figure]:
    """Scores on the way, against everything that the runs know."""
    for task in comparison.tasks:
        runs = runs_of(comparison.record, task)
        for axis in axes_of(runs):
            known = {name: [run for run in several if axis in run] for name, several in runs.items()}
            drawn = [_curve(name, several, axis) for name, several in known.items() if several]
            frame = Frame(title=f"{task}: score", x_label=AXES[axis], y_label="score", guides=EXPERT)
            yield Figure(
                task=task, title=f"Against {AXES[axis]}", drawing=svg.lines(drawn, frame, methods),
                methods=tuple(one.method for one in drawn),
                note="Mean over the seeds with its 95 % interval; a run that is over keeps its last score.",
            )  # fmt: skip
        if "labels" not in axes_of(runs):
            yield Figure(task=task, title=f"Against {AXES['labels']}", note=_fixed_set(comparison, task))


def divergences(comparison: Comparison, methods: Sequence[str]) -> Iterator[Figure]:
    """What divergence from the start bought in true reward, and whether the learnt reward went on believing."""
    for task in comparison.tasks:
        rows = [row for row in comparison.rows if row["task"] == task]
        paths = [(row, path) for row in rows if (path := comparison.divergence(row))]
        if not paths:
            continue
        named = tuple(dict.fromkeys(row["method"] for row, _ in paths))
        only_ends = all(len(path["kl"]) == 1 for _, path in paths)
        frame = Frame(title=f"{task}: true reward", x_label="KL to the start, nats", y_label="true reward")
        yield Figure(
            task=task, title="Divergence and true reward", methods=named,
            drawing=svg.lines([_frontier(row, path) for row, path in paths], frame, methods),
            note="Only where runs ended: their directories are gone, and with them the way there." if only_ends
            else "Every run is a path from the start; the dot is its end.",
        )  # fmt: skip
        learning = [(row, path) for row, path in paths if len([one for one in path["proxy"] if one is not None]) > 1]
        if learning:
            frame = Frame(
                title=f"{task}: gold and the learnt reward",
                x_label="√KL to the start",
                y_label="change, of its largest",
            )
            drawn = [line for row, path in learning for line in _believed(row, path)]
            yield Figure(
                task=task, title="Over-optimisation", drawing=svg.lines(drawn, frame, methods),
                methods=tuple(dict.fromkeys(row["method"] for row, _ in learning)),
                note="Whole lines: the true reward; dashed ones: the learnt reward. Where the dashed line rises and "
                "the whole one falls, the reward is over-optimised.",
            )  # fmt: skip


def recoveries(comparison: Comparison, methods: Sequence[str]) -> Iterator[Figure]:
    """How far learnt rewards agree with the true one."""
    for task in comparison.tasks:
        for metric, label in RECOVERY.items():
            rows = _rows_of_dots(comparison, task, metric)
            if rows:
                guides = {0.5: "", 1.0: ""} if metric == "reward_accuracy" else {0.0: "", 1.0: ""}
                frame = Frame(title=f"{task}: {label}", x_label=metric, guides=guides)
                title = label[0].upper() + label[1:]
                note = "Under the final policy; mean with its 95 % interval, and every seed."
                yield Figure(task=task, title=title, drawing=svg.dots(rows, frame, methods), note=note)


def small_curve(row: dict[str, Any], methods: Sequence[str]) -> str:
    """One run's curve."""
    curve = row.get("curve")
    if not curve:
        return ""
    axis = "steps" if "steps" in curve else "share"
    frame = Frame(title=f"{row['method']} on its way", x_label=AXES[axis], y_label="score", guides=EXPERT)
    return svg.lines([Line(method=row["method"], x=curve[axis], y=curve["score"], has_end=True)], frame, methods)


def _rows_of_dots(comparison: Comparison, task: str, metric: str, missing: str = "") -> list[Dots]:
    """A row for every method that has the metric; `missing` stands in the rows of the others."""
    rows = []
    for name in dict.fromkeys(row["method"] for row in comparison.rows if row["task"] == task):
        seeds = list(values(comparison.record, task, name, "final", metric).values())
        if seeds:
            mean = statistics.mean_interval(seeds)
            rows.append(Dots(method=name, values=seeds, mean=mean.estimate, low=mean.low, high=mean.high,
                             told=f"{name}: {shown(mean)}"))  # fmt: skip
        elif missing:
            rows.append(Dots(method=name, told=missing))
    return rows


def _curve(name: str, several: list[dict[str, FloatArray]], axis: str) -> Line:
    """The mean over the seeds, from where all of them are known."""
    grid, scores_SG = on_one_grid(several, axis, NUM_POINTS)
    known = np.isfinite(scores_SG).all(0)
    low, high, mean = (np.full(NUM_POINTS, math.nan) for _ in range(3))
    for place in np.flatnonzero(known):
        interval = statistics.mean_interval(scores_SG[:, place])
        mean[place], low[place], high[place] = interval.estimate, interval.low, interval.high
    said = f"{name}: {mean[-1]:.3f} at the end, {len(several)} seeds"
    return Line(method=name, x=grid, y=mean, low=low, high=high, told=said)


def _frontier(row: dict[str, Any], path: dict[str, list[Any]]) -> Line:
    """From the start to the end; of a run whose way is not known only the end."""
    kl, gold = path["kl"], path["gold"]
    if len(kl) > 1:
        kl, gold = [0.0, *kl], [path["start_gold"][0], *gold]
    return Line(method=row["method"], x=kl, y=gold, has_end=True, told=f"{row['method']}, seed {row['seed']}")


def _believed(row: dict[str, Any], path: dict[str, list[Any]]) -> list[Line]:
    distance, moved = changes(path)
    run = f"{row['method']}, seed {row['seed']}"
    return [
        Line(method=row["method"], x=distance, y=moved[name], dash=dash, told=f"{run}: {reward}")
        for name, dash, reward in (("gold", "", "true reward"), ("proxy", DASHES["implicit"], "learnt reward"))
    ]


def _fixed_set(comparison: Comparison, task: str) -> str:
    """Why there is no curve against comparisons."""
    configs = [found for row in comparison.rows if row["task"] == task and (found := comparison.config(row))]
    counts = sorted({count for one in configs if (count := _num_preferences(one["task"])) is not None})
    number = f"the {' or '.join(map(str, counts))} comparisons" if counts else "the comparisons"
    return (
        "No run here asked for comparisons while it learnt: those that learn from comparisons had all of "
        f"{number} from their first round, so there is no such axis."
    )


def _num_preferences(task: dict[str, Any]) -> int | None:
    count: int | None = task.get("people", task).get("num_preferences")
    return count
