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
    "reward ρ, steps": ("final", "reward/step_spearman"),
    "EPIC": ("final", "reward/epic_distance"),
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
    methods = methods_of(record)
    for task_name in tasks_of(record):
        gaps = _differences(record, task_name)
        for name in methods:
            gap, p_value = gaps.get(name, (None, None))
            lines.append(
                (
                    task_name,
                    name,
                    *(_mean(record, task_name, name, group, metric) for group, metric in shown_columns),
                    "–" if gap is None else shown(gap),
                    "–" if p_value is None else f"{p_value:.3g}",
                )
            )
    return lines


def tables(records: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Several comparisons as one table, with the columns that any of them fills."""
    known = {heading for record in records for heading in headings(record)}
    together = tuple(heading for heading in ("task", "method", *COLUMNS, "difference", "p (Holm)") if heading in known)
    lines = [dict(zip(headings(record), line, strict=True)) for record in records for line in summary(record)]
    return together, [tuple(line.get(heading, "–") for heading in together) for line in lines]


def across(records: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A row for every method and a column for every task: final scores, marked where a method is ahead of (▲) or behind
    (▼) the one that it is compared with. No rows where there is only one task."""
    of_task = {task: record for record in records for task in tasks_of(record)}
    said = {key: words for record in records for key, words in verdicts(record).items()}
    methods = dict.fromkeys(name for record in records for name in methods_of(record))
    lines = []
    for name in methods if len(of_task) > 1 else ():
        cells = [
            _mean(record, task, name, "final", "score") + SIGNS.get(said[task, name].partition(" ")[0], "")
            if (task, name) in said
            else "–"
            for task, record in of_task.items()
        ]
        lines.append((name, *cells))
    return ("method", *of_task), lines


SIGNS = {"ahead": " ▲", "behind": " ▼"}


def verdicts(record: dict[str, Any], level: float = 0.05) -> dict[tuple[str, str], str]:
    """For every task and method where it stands beside the last method, as far as the corrected p-values tell."""
    methods, said = methods_of(record), {}
    for task_name in tasks_of(record):
        gaps = _differences(record, task_name)
        for name in methods:
            finished = [row for row in record["cells"] if _is_of(row, task_name, name) and "final" in row]
            if not finished:
                said[task_name, name] = "failed"
            elif name in gaps:
                gap, p_value = gaps[name]
                side = "level with" if p_value >= level else "ahead of" if gap.estimate > 0 else "behind"
                said[task_name, name] = f"{side} {methods[-1]}"
            else:
                said[task_name, name] = "reference" if name == methods[-1] else "not paired"
    return said


def tasks_of(record: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["task"] for row in record["cells"]))


def methods_of(record: dict[str, Any]) -> list[str]:
    """The last is the one that the others are compared with."""
    return list(dict.fromkeys(row["method"] for row in record["cells"]))


def values(record: dict[str, Any], task_name: str, method_name: str, group: str, metric: str) -> dict[int, float]:
    """One number per seed, from the cells that have one."""
    return {
        row["seed"]: row[group][metric]
        for row in record["cells"]
        if _is_of(row, task_name, method_name) and metric in row.get(group, {})
    }


def shown(interval: Interval) -> str:
    """An interval in a table: 0.91 [0.88, 0.94]."""
    if np.isnan(interval.low):
        return f"{interval.estimate:.3f}"
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def number(value: float) -> str:
    """One run's number in a table."""
    return f"{value:.3f}"


def _is_of(row: dict[str, Any], task_name: str, method_name: str) -> bool:
    return bool(row["task"] == task_name and row["method"] == method_name)


def _mean(record: dict[str, Any], task_name: str, method_name: str, group: str, metric: str) -> str:
    per_seed = values(record, task_name, method_name, group, metric)
    cells = [row for row in record["cells"] if _is_of(row, task_name, method_name)]
    finished = sum("final" in row for row in cells)
    if not per_seed:
        return "–" if finished else "failed"
    said = shown(statistics.mean_interval(list(per_seed.values())))
    return said if finished == len(cells) else f"{said} ({finished} of {len(cells)} seeds)"


def _differences(record: dict[str, Any], task_name: str) -> dict[str, tuple[Interval, float]]:
    """The paired difference of each method to the last one, with Holm's p-value; nothing where a seed failed."""
    *others, last = methods_of(record)
    found = {name: difference(record, task_name, name, last) for name in others}
    known = {name: one for name, one in found.items() if one is not None}
    p_values = statistics.holm([one.p_value for one in known.values()]) if known else ()
    return {name: (one.interval, float(p)) for (name, one), p in zip(known.items(), p_values, strict=True)}


def difference(
    record: dict[str, Any], task_name: str, first: str, second: str, metric: str = "score"
) -> statistics.PairedDifference | None:
    """The paired difference of final numbers, first minus second; none where a seed failed."""
    sides = [values(record, task_name, name, "final", metric) for name in (first, second)]
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


def made_with(record: dict[str, Any]) -> str:
    """What a comparison was made with: commits, hardware, seeds."""
    commits = sorted({row["commit"][:10] for row in record["cells"]})
    num_seeds = len({row["seed"] for row in record["cells"]})
    return f"{origin_of(record['environment'])}; {num_seeds} seeds; cells of commit {', '.join(commits)}."


def failures(record: dict[str, Any]) -> Sequence[str]:
    return [
        f"{row['task']} {row['method']} seed {row['seed']}: {row['failure']}"
        for row in record["cells"]
        if row["failure"]
    ]
