"""What the record of a comparison says, with how much certainty. Tables and plots read records through here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unified_irl import statistics
from unified_irl.statistics import Interval

COLUMNS = {
    "final score": ("final", "score"),
    "best score": ("best", "score"),
    "acting at random": ("final", "stochastic_score"),
    "return": ("final", "return"),
    "gold": ("final", "gold"),
    "greedy gold": ("final", "greedy_gold"),
    "KL to start": ("final", "kl_to_start"),
    "wins against start": ("final", "win_rate"),
    "KL to expert's": ("final", "kl_expert"),
    "score, unseen": ("final", "unseen/score"),
    "reward ρ": ("final", "reward/return_spearman"),
}
"""What a table shows: the result's group and metric behind each heading. A world that lacks one lacks the column."""


def columns(record: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Those of the columns that some cell fills."""
    return {
        heading: (group, metric)
        for heading, (group, metric) in COLUMNS.items()
        if any(metric in row.get(group, {}) for row in record["cells"])
    }


def headings(record: dict[str, Any]) -> tuple[str, ...]:
    return ("task", "method", *columns(record), "difference", "p (Holm)")


def summary(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table: means with 95 % t-intervals over seeds; differences are paired, against the last method."""
    lines, shown_columns = [], columns(record).values()
    tasks = list(dict.fromkeys(row["task"] for row in record["cells"]))
    methods = list(dict.fromkeys(row["method"] for row in record["cells"]))
    for task_name in tasks:
        differences = {name: _difference(record, task_name, name, methods[-1]) for name in methods[:-1]}
        known = {name: one.p_value for name, one in differences.items() if one is not None}
        p_values = dict(zip(known, statistics.holm(list(known.values())), strict=True)) if known else {}
        for name in methods:
            gap = differences.get(name)
            lines.append(
                (
                    task_name,
                    name,
                    *(_mean(record, task_name, name, group, metric) for group, metric in shown_columns),
                    "–" if gap is None else shown(gap.interval),
                    f"{p_values[name]:.3g}" if name in p_values else "–",
                )
            )
    return lines


def values(record: dict[str, Any], task_name: str, method_name: str, group: str, metric: str) -> dict[int, float]:
    """One number per seed, from the cells that have one."""
    return {
        row["seed"]: row[group][metric]
        for row in record["cells"]
        if row["task"] == task_name and row["method"] == method_name and metric in row.get(group, {})
    }


def shown(interval: Interval) -> str:
    """An interval in a table: 0.91 [0.88, 0.94]."""
    if np.isnan(interval.low):
        return f"{interval.estimate:.3f}"
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _mean(record: dict[str, Any], task_name: str, method_name: str, group: str, metric: str) -> str:
    per_seed = values(record, task_name, method_name, group, metric)
    count = sum(row["task"] == task_name and row["method"] == method_name for row in record["cells"])
    finished = sum(
        row["task"] == task_name and row["method"] == method_name and "final" in row for row in record["cells"]
    )
    if not per_seed:
        return "–" if finished else "failed"
    said = shown(statistics.mean_interval(list(per_seed.values())))
    return said if finished == count else f"{said} ({finished} of {count} seeds)"


def _difference(record: dict[str, Any], task_name: str, first: str, second: str) -> statistics.PairedDifference | None:
    """The paired difference of final scores, first minus second; none where a seed failed."""
    sides = [values(record, task_name, name, "final", "score") for name in (first, second)]
    seeds = sorted({row["seed"] for row in record["cells"] if row["task"] == task_name})
    if any(seed not in side for seed in seeds for side in sides):
        return None
    return statistics.paired_difference(*([side[seed] for seed in seeds] for side in sides))


def tuned(record: dict[str, Any]) -> list[str]:
    """What each method was tried with on other seeds, and what it went on with; nothing where nothing was tuned."""
    return [
        f"{row['task']} {row['method']}: {' '.join(row['chosen'])} of "
        + "; ".join(
            f"{' '.join(one['settings'])} ({'failed' if one['score'] is None else format(one['score'], '.3f')})"
            for one in row["tried"]
        )
        for row in record.get("tuning", ())
    ]


def origin(environment: dict[str, Any]) -> dict[str, Any]:
    """What a stored result says of where it comes from: command, commit and hardware."""
    kept = ("started_at", "git", "python", "torch", "numpy", "platform", "cpu", "num_cores", "memory_bytes",
            "cuda_device")  # fmt: skip
    return {"command": " ".join(environment["command"]), **{key: environment[key] for key in kept}}


def origin_of(environment: dict[str, Any]) -> str:
    """Commit and hardware, in a phrase."""
    git = environment["git"] if isinstance(environment["git"], dict) else {"commit": "unknown", "dirty": False}
    state = " with uncommitted changes" if git["dirty"] else ""
    return f"commit {git['commit'][:10]}{state}; {environment['cpu']}, {environment['num_cores']} cores"


def failures(record: dict[str, Any]) -> Sequence[str]:
    return [
        f"{row['task']} {row['method']} seed {row['seed']}: {row['failure']}"
        for row in record["cells"]
        if row["failure"]
    ]
