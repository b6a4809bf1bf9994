"""A comparison: methods × tasks × seeds as cells, and what can be said of them with how much certainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.compare_config import CompareConfig
from experiments.train import config_to_json, default_config, run_cell, with_flags
from unified_irl import statistics
from unified_irl.cells import Cell, Outcome, run_cells
from unified_irl.errors import UserError

if TYPE_CHECKING:
    from unified_irl.statistics import Interval


def cells_of(config: CompareConfig) -> list[tuple[str, str, int, Cell]]:
    """Task, method, seed and cell of every entry."""
    arguments = []
    for change in config.set:
        key, equals, value = change.partition("=")
        if not equals or not key:
            raise UserError(f"--set takes KEY=VALUE, as in task.num-demonstrations=16; '{change}' was given.")
        arguments += [f"--{key.replace('_', '-')}", value]
    entries = []
    for task_name in config.tasks:
        for method_name in config.methods:
            base = with_flags(task_name, default_config(task_name, method_name), arguments, "compare --set")
            base = replace(base, tracking=replace(base.tracking, progress="quiet"))
            for seed in range(config.seeds):
                data = config_to_json(task_name, replace(base, seed=seed))
                entries.append(
                    (task_name, method_name, seed, Cell(name=f"{task_name}-{method_name}-{seed}", config=data))
                )
    return entries


def compare(config: CompareConfig, command: list[str]) -> dict[str, Any]:
    """Compute what is missing, and gather everything into one JSON-able record."""
    from unified_irl.rundir import describe_environment

    entries = cells_of(config)
    root = Path(config.out)
    outcomes = run_cells([entry[3] for entry in entries], root / "cells", run_cell, num_workers=config.workers,
                         report=report)  # fmt: skip
    rows = [
        {
            "task": task_name,
            "method": method_name,
            "seed": seed,
            "directory": str(outcome.cell.directory(Path("cells"))),
            "failure": outcome.failure,
            **(outcome.result or {}),
        }
        for (task_name, method_name, seed, _), outcome in zip(entries, outcomes, strict=True)
    ]
    return {"command": " ".join(command), "environment": describe_environment(command), "cells": rows}


def report(done: int, count: int, outcome: Outcome) -> None:
    """A line on standard error for every cell that ends."""
    import sys

    said = f"score {outcome.result['final']['score']:.3f}" if outcome.result else f"FAILED: {outcome.failure}"
    print(f"cell {done}/{count}  {outcome.cell.name}  {said}", file=sys.stderr, flush=True)


HEADINGS = ("task", "method", "final score", "best score", "KL to expert's", "score, unseen", "difference", "p (Holm)")


def summary(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table: means with 95 % t-intervals over seeds; differences are paired, against the last method."""
    lines = []
    tasks = list(dict.fromkeys(row["task"] for row in record["cells"]))
    methods = list(dict.fromkeys(row["method"] for row in record["cells"]))
    for task_name in tasks:
        differences = {name: _difference(record, task_name, name, methods[-1]) for name in methods[:-1]}
        adjusted = statistics.holm([one.p_value for one in differences.values() if one is not None])
        p_values = dict(zip([name for name, one in differences.items() if one is not None], adjusted, strict=True))
        for name in methods:
            gap = differences.get(name)
            lines.append(
                (
                    task_name,
                    name,
                    *(_mean(record, task_name, name, group, metric) for group, metric in (
                        ("final", "score"), ("best", "score"), ("final", "kl_expert"), ("final", "unseen/score"))),
                    "–" if gap is None else shown(gap.interval),
                    f"{p_values[name]:.3g}" if name in p_values else "–",
                )
            )  # fmt: skip
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
    return shown(statistics.mean_interval(list(per_seed.values()))) if per_seed else "failed"


def _difference(record: dict[str, Any], task_name: str, first: str, second: str) -> statistics.PairedDifference | None:
    """The paired difference of final scores, first minus second, over the seeds that both finished."""
    sides = [values(record, task_name, name, "final", "score") for name in (first, second)]
    seeds = sorted(set(sides[0]) & set(sides[1]))
    if not seeds:
        return None
    return statistics.paired_difference(*([side[seed] for seed in seeds] for side in sides))


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


def finish(config: CompareConfig, record: dict[str, Any]) -> None:
    """Write the record, the table and the plots, and show the table."""
    from experiments.plots import comparison_plots
    from experiments.show import markdown, table
    from unified_irl.serialise import write_json, write_text

    out = Path(config.out)
    lines = summary(record)
    write_json(out / "results.json", record)
    origin = f"`{record['command']}`; {origin_of(record['environment'])}; {config.seeds} seeds."
    write_text(out / "table.md", f"{markdown(HEADINGS, lines)}\n{origin}\n")
    table(f"{config.seeds} seeds, means with 95 % intervals; differences are paired, against {config.methods[-1]}",
          HEADINGS, lines, numbers_from=2)  # fmt: skip
    for sentence in failures(record):
        print(f"failed: {sentence}")
    plots = comparison_plots(record, out)
    print(f"table: {out / 'table.md'}\nnumbers: {out / 'results.json'}\nplots: {', '.join(map(str, plots))}")
