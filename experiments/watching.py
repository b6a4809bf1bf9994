"""A matrix that is computed while somebody watches: a live view on a terminal, a line per ended cell elsewhere.

The view reads what the cells write into their directories, so it works wherever they are computed and asks nothing of
them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from experiments.compare_config import CompareConfig
from experiments.train import run_cell
from unified_irl.cells import RESULT, Cell, Outcome, run_cells

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_MOST_BYTES = 2**18
"""Of a file of metrics that was there before; its end is all that counts."""


def run_watched(cells: Sequence[Cell], root: Path, config: CompareConfig) -> list[Outcome]:
    """The outcomes of the cells of a comparison."""
    with _view(cells, root, config.workers) as view:
        return run_cells(
            cells, root, run_cell, num_workers=config.workers, launch=config.launch,
            begun=view.begun if view else None, report=view.report if view else report,
        )  # fmt: skip


def report(done: int, count: int, outcome: Outcome) -> None:
    """A line on standard error for every cell that ends."""
    print(_line(done, count, outcome), file=sys.stderr, flush=True)


def _line(done: int, count: int, outcome: Outcome) -> str:
    said = f"score {outcome.result['final']['score']:.3f}" if outcome.result else f"FAILED: {outcome.failure}"
    return f"cell {done}/{count}  {outcome.cell.name}  {said}"


@contextmanager
def _view(cells: Sequence[Cell], root: Path, num_workers: int) -> Iterator[View | None]:
    """The live view while the matrix is computed, if standard error is a terminal that can show one."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_dumb_terminal:
        yield None
        return
    with shown(view := View(cells, root, num_workers), console):
        yield view


@contextmanager
def shown(view: View, console: Console) -> Iterator[None]:
    """Drawn anew every second, below the lines of the cells that ended; gone at the end."""
    from rich.live import Live

    with Live(get_renderable=view.table, console=console, refresh_per_second=1, transient=True):
        console.show_cursor(True)  # whoever is killed now leaves a terminal as it was
        yield


class View:
    """What is known of a matrix at a moment."""

    def __init__(self, cells: Sequence[Cell], root: Path, num_workers: int) -> None:
        self._root, self._count, self._num_workers = root, len(cells), num_workers
        self._num_ended = sum((cell.directory(root) / RESULT).exists() for cell in cells)
        self._num_failed = 0
        self._began = time.monotonic()
        self._running: dict[str, _Running] = {}
        self._durations: list[float] = []

    def begun(self, cell: Cell) -> None:
        self._running[cell.name] = _Running(cell, cell.directory(self._root))

    def report(self, done: int, count: int, outcome: Outcome) -> None:
        self._num_ended = done
        running = self._running.pop(outcome.cell.name)
        if outcome.result is None:
            self._num_failed += 1
        else:
            self._durations.append(running.elapsed())
        report(done, count, outcome)

    def table(self) -> Table:
        """The numbers of the matrix, then a line for each cell that is being computed."""
        from rich.table import Table

        running = list(self._running.values())
        for one in running:
            one.look()
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_row(self._summary(running))
        for one in running:
            table.add_row(one.line())
        return table

    def _summary(self, running: Sequence[_Running]) -> str:
        num_waiting = self._count - self._num_ended - len(running)
        parts = [f"{self._count} cells: {self._num_ended - self._num_failed} done", f"{self._num_failed} failed",
                 f"{len(running)} running", f"{num_waiting} waiting"]  # fmt: skip
        return (
            ", ".join(parts)
            + f"  elapsed {_clock(time.monotonic() - self._began)}"
            + _left(self._seconds_left(running, num_waiting))
        )

    def _seconds_left(self, running: Sequence[_Running], num_waiting: int) -> float | None:
        """As if what waits took as long as what has ended, or else as what runs will have taken."""
        left = [one.seconds_left() for one in running]
        wholes = [one.elapsed() + rest for one, rest in zip(running, left, strict=True) if rest is not None]
        if not (known := self._durations or wholes):
            return None
        typical = fmean(known)
        rests = [max(typical - one.elapsed(), 0.0) if rest is None else rest
                 for one, rest in zip(running, left, strict=True)]  # fmt: skip
        return max([(sum(rests) + num_waiting * typical) / self._num_workers, *rests])


class _Running:
    """A cell that is being computed, as its metrics tell."""

    def __init__(self, cell: Cell, directory: Path) -> None:
        self._name, self._path = cell.name, directory / "metrics.jsonl"
        self._stages = _rounds_of_stages(cell.config)
        self._began = time.monotonic()
        self._offset = max(0, _size(self._path) - _MOST_BYTES)
        self._stage, self._total = 0, sum(self._stages)
        self._done, self._score = 0, ""
        self._first: tuple[float, int] | None = None
        self.look()
        self._first = None  # what was there before says nothing of the pace

    def look(self) -> None:
        """Read on where the last look ended."""
        if _size(self._path) < self._offset:
            self._offset = 0  # the cell went back to its checkpoint
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                whole, newline, _ = file.read().rpartition(b"\n")
        except OSError:
            return
        self._offset += len(whole) + len(newline)
        for line in whole.splitlines():
            self._learn(line)

    def _learn(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            step, stage = int(row["step"]), int(row.get("stage", 0))
        except (ValueError, LookupError, TypeError):
            return  # the middle of a row, where the look began
        if stage != self._stage:
            self._total = step - 1 + sum(self._stages[stage:])
        self._stage, self._done = stage, step
        if "eval/score" in row:
            self._score = f"{float(row['eval/score']):.3f}"
        moved_on = self._first is None or step < self._first[1]
        self._first = (time.monotonic(), step) if moved_on else self._first

    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def seconds_left(self) -> float | None:
        """At the pace since it was first seen to move."""
        if self._first is None or self._done <= self._first[1] or self._done >= self._total:
            return None
        since, first = self._first
        return (time.monotonic() - since) / (self._done - first) * (self._total - self._done)

    def line(self) -> str:
        rounds = f"round {self._done}" + (f"/{self._total}" if self._total else "") if self._done else "begins"
        score = f"  score {self._score}" if self._score else ""
        return f"  {self._name}  {rounds}{score}  elapsed {_clock(self.elapsed())}" + _left(self.seconds_left())


def _rounds_of_stages(config: dict[str, Any]) -> list[int]:
    """The most rounds of each stage of a cell's method."""
    method = config["method"]
    stages = [method["warm_start"], *method["phases"]] if method["init"] == "clone" else method["phases"]
    return [stage["rounds"] for stage in stages]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"  left {_clock(seconds)}"
