"""A matrix of cells in local processes. A cell is a config; its directory is named by the config's content.

So a finished cell is never computed again, a changed config never meets an old result, and a killed matrix goes on
where its cells' checkpoints are. A cell that fails says why and leaves the others alone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from unified_irl.errors import UserError
from unified_irl.rundir import DirectoryLock
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
    with _alone_in(root):
        return _run_cells(cells, root, work, num_workers, report)


@contextlib.contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Two matrices in one folder would compute each other's cells."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = DirectoryLock(root)
    except OSError as error:
        raise UserError(f"The directory {root} cannot be made: {error.strerror}. Choose another.") from error
    try:
        yield
    finally:
        lock.release()


def _run_cells(
    cells: Sequence[Cell],
    root: Path,
    work: Work,
    num_workers: int,
    report: Callable[[int, int, Outcome], None] | None,
) -> list[Outcome]:
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
    """Outcomes as they come. A worker has one cell at a time, so it is known whose computation it died of."""
    waiting, crashes = deque(cells), Counter[str]()
    idle: list[_Worker] = []
    busy: list[_Worker] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < num_workers:
                busy.append(idle.pop() if idle else _Worker(root, work))
                busy[-1].begin(waiting.popleft())
            ready = wait([worker.line for worker in busy])
            for worker in [worker for worker in busy if worker.line in ready]:
                outcome, cell = worker.outcome(), worker.cell
                busy.remove(worker)
                if outcome is not None:
                    idle.append(worker)
                    yield outcome
                    continue
                crashes[cell.name] += 1
                if crashes[cell.name] < MOST_CRASHES:
                    waiting.appendleft(cell)
                else:
                    why = f"its process died {MOST_CRASHES} times, at last by {worker.cause_of_death()}"
                    yield Outcome(cell=cell, result=None, failure=why)
    finally:
        for worker in [*idle, *busy]:
            worker.stop()


class _Worker:
    """A process that computes one cell after another."""

    cell: Cell

    def __init__(self, root: Path, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self.line, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, root, work, os.getpid()))
        self._process.start()
        theirs.close()

    def begin(self, cell: Cell) -> None:
        self.cell = cell
        with contextlib.suppress(OSError):  # it is dead already; `outcome` will say so
            self.line.send(cell)

    def outcome(self) -> Outcome | None:
        """What came of its cell; None if it died."""
        try:
            outcome: Outcome = self.line.recv()
        except (EOFError, OSError):
            return None
        return outcome

    def cause_of_death(self) -> str:
        self._process.join()
        code = self._process.exitcode or 0
        if code == -signal.SIGKILL:
            return f"signal {-code} (the system sends it when memory runs out)"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def stop(self) -> None:
        """End it now: what it was doing is in its checkpoints."""
        self._process.terminate()
        self._process.join()


def _serve(line: Any, root: Path, work: Work, parent: int) -> None:
    """A worker's life. Ctrl-C reaches it too, but is the matrix's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _watch_parent(parent)
    with contextlib.suppress(EOFError):
        while True:
            line.send(_compute(line.recv(), root, work))


def _compute(cell: Cell, root: Path, work: Work) -> Outcome:
    """In a worker: the cell's result, from its directory if it has been finished meanwhile."""
    directory = cell.directory(root)
    try:
        work(cell.config, directory)
        (directory / FAILURE).unlink(missing_ok=True)
        return Outcome(cell=cell, result=read_json(directory / RESULT))
    except UserError as error:
        return _failed(cell, directory, str(error))
    except OSError as error:
        return _failed(cell, directory, f"{error.filename or directory}: {error.strerror or error}")
    except Exception as error:
        return _failed(cell, directory, f"{type(error).__name__}: {error}", traceback.format_exc())


def _failed(cell: Cell, directory: Path, why: str, trace: str = "") -> Outcome:
    with contextlib.suppress(OSError):
        write_json(directory / FAILURE, {"failure": why, **({"traceback": trace} if trace else {})})
    return Outcome(cell=cell, result=None, failure=why)


def _watch_parent(parent: int) -> None:
    """A worker whose matrix was killed must not live on, holding its cell's lock."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
