"""A comparison: methods × tasks × seeds as cells, and what can be said of them with how much certainty."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from experiments.compare_config import CompareConfig
from experiments.curves import curve_of
from experiments.matrix import Entry, Matrix
from experiments.summary import across, failures, headings, made_with, summary, tuned
from experiments.tuning import flags_of, tune
from experiments.watching import run_watched


def compare(config: CompareConfig, command: list[str]) -> dict[str, Any]:
    """Compute what is missing, and gather everything into one JSON-able record."""
    from unified_irl.environment import describe_environment

    root, matrix = Path(config.out), Matrix(config)
    entries = entries_of(matrix, {})  # what cannot be run is told before anything is tuned
    if tuning := tune(matrix):
        entries = entries_of(matrix, {(row["task"], row["method"]): row["chosen"] for row in tuning})
    outcomes = run_watched([entry.cell for entry in entries], root / "cells", config)
    rows = [
        {
            "task": entry.task,
            "method": entry.method,
            "seed": entry.seed,
            "directory": str(outcome.cell.directory(Path("cells"))),
            "failure": outcome.failure,
            "commit": commit_of(outcome.cell.directory(root / "cells")),
            "curve": curve_of(outcome.cell.directory(root / "cells")),
            **(outcome.result or {}),
        }
        for entry, outcome in zip(entries, outcomes, strict=True)
    ]
    record = {"command": shlex.join(command), "environment": describe_environment(command), "cells": rows}
    return record | ({"tuning": tuning} if tuning else {})


def entries_of(matrix: Matrix, chosen: dict[tuple[str, str], list[str]]) -> list[Entry]:
    """Every cell, under the settings that tuning chose."""
    config = matrix.config
    return [
        entry
        for task in config.tasks
        for method in config.methods
        for entry in matrix.entries(task, method, range(config.seeds), flags_of(chosen.get((task, method), ())))
    ]


def commit_of(cell: Path) -> str:
    """The commit at which a cell was begun, which need not be today's."""
    from unified_irl.serialise import read_json

    environment = read_json(cell / "environment.json") if (cell / "environment.json").exists() else {}
    git = environment.get("git")
    return git["commit"] if isinstance(git, dict) else "unknown"


def run(config: CompareConfig, command: list[str]) -> int:
    """Compute what is missing, or take a stored record; then write and show what it says."""
    from unified_irl.serialise import read_json

    return finish(config, read_json(Path(config.redraw)) if config.redraw else compare(config, command))


def finish(config: CompareConfig, record: dict[str, Any]) -> int:
    """Write the record, the table and the plots, and show the table. The exit code: 1 if a cell failed."""
    from experiments.plots import comparison_plots
    from experiments.report.making import write
    from experiments.report.sources import read_from
    from experiments.show import markdown, table
    from unified_irl.serialise import write_json, write_text

    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    lines, num_seeds = summary(record), len({row["seed"] for row in record["cells"]})
    methods = list(dict.fromkeys(row["method"] for row in record["cells"]))
    write_json(out / "results.json", record)
    origin = f"`{record['command']}`; {made_with(record)}"
    tries = "".join(f"- {line}\n" for line in tuned(record))
    tries = f"\nTuned on other seeds, by mean final score:\n\n{tries}" if tries else ""
    write_text(out / "table.md", f"{markdown(headings(record), lines)}\n{origin}\n{tries}")
    table(f"{num_seeds} seeds, means with 95 % intervals; differences are paired, against {methods[-1]}",
          headings(record), lines, numbers_from=2)  # fmt: skip
    tasks, worlds = across([record])
    if worlds:
        table(f"final scores, task beside task; ▲ ahead of, ▼ behind {methods[-1]}", tasks, worlds, numbers_from=1)
    failed = failures(record)
    for sentence in failed:
        print(f"failed: {sentence}")
    plots = comparison_plots(record, out)
    print(f"table: {out / 'table.md'}\nnumbers: {out / 'results.json'}\nplots: {', '.join(map(str, plots))}")
    if config.report:
        folder = Path(config.redraw).parent if config.redraw else out
        write([read_from(record, folder, out.resolve().name)], out / "report.html")
        print(f"page: {out / 'report.html'}")
    return 1 if failed else 0
