"""The comparisons that a page is made of, and what is left of their cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.curves import curve_of
from experiments.frontier import path_of
from experiments.summary import methods_of, tasks_of
from unified_irl.errors import UserError
from unified_irl.serialise import read_json


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A stored record, and where it lies."""

    name: str
    record: dict[str, Any]
    folder: Path

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One per cell."""
        rows: list[dict[str, Any]] = self.record["cells"]
        return rows

    @property
    def tasks(self) -> list[str]:
        return tasks_of(self.record)

    @property
    def methods(self) -> list[str]:
        return methods_of(self.record)

    def cell(self, row: dict[str, Any]) -> Path | None:
        """The directory of a cell's run, while it is there."""
        path = self.folder / row["directory"]
        return path if row["directory"] and (path / "config.json").is_file() else None

    def config(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """What the cell's run was asked for."""
        cell = self.cell(row)
        return None if cell is None else read_json(cell / "config.json")

    def divergence(self, row: dict[str, Any]) -> dict[str, list[Any]]:
        """The path of a language run; of a cell that is gone only its end, and of another world's nothing."""
        cell = self.cell(row)
        if cell is not None and (cell / "metrics.jsonl").is_file():
            return path_of(cell)
        end = row.get("final", {})
        if "kl_to_start" not in end or "gold" not in end:
            return {}
        names = {"kl": "kl_to_start", "gold": "gold", "start_gold": "start_gold", "proxy": "learnt_return"}
        return {name: [end.get(metric)] for name, metric in names.items()}


def gather(places: Sequence[Path]) -> list[Comparison]:
    """What lies there. A task that several comparisons have is called by both names."""
    found = [_read(place) for place in places]
    shared = {task for task, count in Counter(task for one in found for task in one.tasks).items() if count > 1}
    for one in found:
        for row in [*one.rows, *one.record.get("tuning", ())]:
            if row["task"] in shared:
                row["task"] = f"{row['task']} ({one.name})"
    return found


def _read(place: Path) -> Comparison:
    path = place / "results.json" if place.is_dir() else place
    if not path.is_file():
        raise UserError(
            f"{place} holds no results.json; give the directory that `compare` wrote, or a stored results.json."
        )
    record = read_json(path)
    if not isinstance(record, dict) or not {"cells", "command", "environment"} <= record.keys() or not record["cells"]:
        raise UserError(f"{path} is no record of a comparison; expected the results.json that `compare` writes.")
    name = path.parent.resolve().name if path.name == "results.json" else path.stem
    return read_from(record, path.parent, name)


def read_from(record: dict[str, Any], folder: Path, name: str) -> Comparison:
    """A record whose cells lie below the folder. Curves are read anew where they can: old records know fewer axes."""
    rows = [dict(row) for row in record["cells"]]
    comparison = Comparison(name=name, record=record | {"cells": rows}, folder=folder)
    for row in rows:
        cell = comparison.cell(row)
        row["curve"] = (curve_of(cell) if cell else {}) or row.get("curve", {})
    return comparison
