"""A matrix of cells in local processes. A cell is a config; its directory is named by the config's content.

So a finished cell is never computed again, a changed config never meets an old result, and a killed matrix goes on
where its cells' checkpoints are. A cell that fails says why and leaves the others alone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unified_irl.errors import UserError
from unified_irl.serialise import content_hash, read_json, write_json

RESULT, FAILURE = "result.json", "failure.json"
MOST_CRASHES = 3
"""Times a cell may take its worker down before it counts as failed."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One entry of the matrix."""

    name: str
    """For people: what distinguishes it."""
    config: dict[str, Any]
    """Everything that decides its result, as JSON data."""

    def directory(self, root: Path) -> Path:
        return root / f"{self.name}-{content_hash(self.config)}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a cell: a result, or the sentence that says why there is none."""

    cell: Cell
    result: dict[str, Any] | None
    failure: str = ""


Work = Callable[[dict[str, Any], Path], Any]
"""Computes the config's result into the directory, as `result.json`, going on from what is there. Top-level, so that
worker processes can import it."""


def run_cells(
    cells: Sequence[Cell],
    root: Path,
    work: Work,
    *,
    num_workers: int = 1,
    report: Callable[[int, int, Outcome], None] | None = None,
) -> list[Outcome]:
    """Every cell's outcome, in the order given. `report` hears of each as it ends: how many are done, of how many."""
    if num_workers < 1:
        raise UserError(f"num_workers is {num_workers}; expected 1 or more.")
    _refuse_twins(cells)
    outcomes: dict[str, Outcome] = {}
    for outcome in _finished(cells, root):
        outcomes[outcome.cell.name] = outcome
    missing = [cell for cell in cells if cell.name not in outcomes]
    for outcome in _computed(missing, root, work, num_workers):
        outcomes[outcome.cell.name] = outcome
        if report is not None:
            report(len(outcomes), len(cells), outcome)
    return [outcomes[cell.name] for cell in cells]


def _refuse_twins(cells: Sequence[Cell]) -> None:
    names = [cell.name for cell in cells]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise UserError(f"Several cells are called {', '.join(twins)}; give every cell of a matrix its own name.")


def _finished(cells: Sequence[Cell], root: Path) -> Iterator[Outcome]:
    for cell in cells:
        path = cell.directory(root) / RESULT
        if path.exists():
            yield Outcome(cell=cell, result=read_json(path))


def _computed(cells: Sequence[Cell], root: Path, work: Work, num_workers: int) -> Iterator[Outcome]:
    """Outcomes as they come. A worker that dies takes its pool along: the pool is made anew and its cells go on."""
    crashes = dict.fromkeys((cell.name for cell in cells), 0)
    waiting = list(cells)
    while waiting:
        done: list[str] = []
        pool = ProcessPoolExecutor(
            min(num_workers, len(waiting)), multiprocessing.get_context("spawn"), _watch_parent, (os.getpid(),)
        )
        try:
            futures = {pool.submit(_compute, cell, root, work): cell for cell in waiting}
            for outcome in _as_they_end(futures):
                done.append(outcome.cell.name)
                yield outcome
        except BrokenProcessPool:
            for cell in waiting:
                if cell.name not in done and cell.directory(root).exists():
                    crashes[cell.name] += 1
        finally:
            _stop(pool)
        lost = [cell for cell in waiting if cell.name not in done]
        waiting = [cell for cell in lost if crashes[cell.name] < MOST_CRASHES]
        for cell in lost:
            if cell not in waiting:
                yield Outcome(cell=cell, result=None, failure=f"its process died {MOST_CRASHES} times (out of memory?)")


def _as_they_end(futures: dict[Future[Outcome], Cell]) -> Iterator[Outcome]:
    left = set(futures)
    while left:
        ended, left = wait(left, return_when=FIRST_COMPLETED)
        for future in ended:
            yield future.result()


def _compute(cell: Cell, root: Path, work: Work) -> Outcome:
    """In a worker: the cell's result, from its directory if it has been finished meanwhile."""
    directory = cell.directory(root)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        work(cell.config, directory)
        (directory / FAILURE).unlink(missing_ok=True)
        return Outcome(cell=cell, result=read_json(directory / RESULT))
    except UserError as error:
        with contextlib.suppress(OSError):
            write_json(directory / FAILURE, {"failure": str(error)})
        return Outcome(cell=cell, result=None, failure=str(error))


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the workers now: what they were doing is in their checkpoints."""
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()


def _watch_parent(parent: int) -> None:
    """A worker whose matrix was killed must not live on, holding its cell's lock."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
