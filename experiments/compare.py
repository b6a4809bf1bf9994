"""A comparison: methods × tasks × seeds as cells, and what can be said of them with how much certainty."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.compare_config import CompareConfig
from experiments.summary import failures, headings, origin_of, summary
from experiments.train import config_to_json, default_config, run_cell, with_flags
from unified_irl.cells import Cell, Outcome, run_cells
from unified_irl.errors import UserError


def cells_of(config: CompareConfig) -> list[tuple[str, str, int, Cell]]:
    """Task, method, seed and cell of every entry."""
    variants = dict(map(_variant, config.variants))
    if unused := [name for name in variants if name not in config.methods]:
        raise UserError(f"the variant {unused[0]} does not stand among the methods; add it to --methods.")
    common = _as_flags(list(config.set), "compare --set")
    entries = []
    for task_name in config.tasks:
        for method_name in config.methods:
            row, changes = variants.get(method_name, (method_name, []))
            flags = [*common, *_as_flags(changes, "compare --variants")]
            what = "compare --variants" if changes else "compare --set"
            base = with_flags(task_name, default_config(task_name, row), flags, what)
            if base.seed != 0:
                raise UserError(f"seed={base.seed} is set, but seeds are set by --seeds: it gives their number.")
            base = replace(base, tracking=replace(base.tracking, progress="quiet"))
            for seed in range(config.seeds):
                data = config_to_json(task_name, replace(base, seed=seed))
                entries.append(
                    (task_name, method_name, seed, Cell(name=f"{task_name}-{method_name}-{seed}", config=data))
                )
    return entries


def _variant(given: str) -> tuple[str, tuple[str, list[str]]]:
    """The name, and what it stands for: a method and changes to it."""
    name, _, meaning = given.partition("=")
    row, *changes = _words(meaning) or [""]
    if not name or not row or "=" in row:
        raise UserError(
            "compare --variants takes 'NAME=METHOD KEY=VALUE …', as in 'longer-bc=bc method.phases.0.rounds=600'; "
            f"'{given}' was given."
        )
    return name, (row, changes)


def _as_flags(changes: list[str], what: str) -> list[str]:
    flags = []
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key:
            raise UserError(f"{what} takes KEY=VALUE, as in task.num-demonstrations=16; '{change}' was given.")
        flags += _as_flag(key.replace("_", "-"), value)
    return flags


def _as_flag(key: str, value: str) -> list[str]:
    """KEY=VALUE as `train` takes it: --key value, several values in a row, or --key / --no-key for true and false."""
    if value.lower() in ("true", "false"):
        *path, last = key.split(".")
        return ["--" + ".".join([*path, last if value.lower() == "true" else f"no-{last}"])]
    return [f"--{key}", *_words(value)]


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"a quotation mark in '{text}' has no partner; close it, or leave it out.") from error


def compare(config: CompareConfig, command: list[str]) -> dict[str, Any]:
    """Compute what is missing, and gather everything into one JSON-able record."""
    from unified_irl.environment import describe_environment

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
            "commit": commit_of(outcome.cell.directory(root / "cells")),
            "curve": curve_of(outcome.cell.directory(root / "cells")),
            **(outcome.result or {}),
        }
        for (task_name, method_name, seed, _), outcome in zip(entries, outcomes, strict=True)
    ]
    return {"command": shlex.join(command), "environment": describe_environment(command), "cells": rows}


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
    if any("env_steps" in row for row in seen) and all(row["step"] in clock for row in seen):
        curve["minutes"] = [clock[row["step"]] / 60.0 for row in seen]
    return curve


def commit_of(cell: Path) -> str:
    """The commit at which a cell was begun, which need not be today's."""
    from unified_irl.serialise import read_json

    environment = read_json(cell / "environment.json") if (cell / "environment.json").exists() else {}
    git = environment.get("git")
    return git["commit"] if isinstance(git, dict) else "unknown"


def report(done: int, count: int, outcome: Outcome) -> None:
    """A line on standard error for every cell that ends."""
    import sys

    said = f"score {outcome.result['final']['score']:.3f}" if outcome.result else f"FAILED: {outcome.failure}"
    print(f"cell {done}/{count}  {outcome.cell.name}  {said}", file=sys.stderr, flush=True)


def run(config: CompareConfig, command: list[str]) -> int:
    """Compute what is missing, or take a stored record; then write and show what it says."""
    from unified_irl.serialise import read_json

    return finish(config, read_json(Path(config.redraw)) if config.redraw else compare(config, command))


def finish(config: CompareConfig, record: dict[str, Any]) -> int:
    """Write the record, the table and the plots, and show the table. The exit code: 1 if a cell failed."""
    from experiments.plots import comparison_plots
    from experiments.show import markdown, table
    from unified_irl.serialise import write_json, write_text

    out = Path(config.out)
    lines, num_seeds = summary(record), len({row["seed"] for row in record["cells"]})
    methods = list(dict.fromkeys(row["method"] for row in record["cells"]))
    write_json(out / "results.json", record)
    commits = sorted({row["commit"][:10] for row in record["cells"]})
    origin = f"`{record['command']}`; {origin_of(record['environment'])}; {num_seeds} seeds; cells of commit "
    origin += f"{', '.join(commits)}."
    write_text(out / "table.md", f"{markdown(headings(record), lines)}\n{origin}\n")
    table(f"{num_seeds} seeds, means with 95 % intervals; differences are paired, against {methods[-1]}",
          headings(record), lines, numbers_from=2)  # fmt: skip
    failed = failures(record)
    for sentence in failed:
        print(f"failed: {sentence}")
    plots = comparison_plots(record, out)
    print(f"table: {out / 'table.md'}\nnumbers: {out / 'results.json'}\nplots: {', '.join(map(str, plots))}")
    return 1 if failed else 0
