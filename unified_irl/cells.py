"""A matrix of cells. A cell is a config; its directory is named by the config's content.

So a finished cell is never computed again, a changed config never meets an old result, and a killed matrix goes on
where its cells' checkpoints are. A cell that fails says why and leaves the others alone. Who computes the cells, local
processes or a Ray cluster, changes nothing of what comes of them.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from unified_irl.cell import FAILURE, RESULT, Cell, Death, Outcome, Work, Workers
from unified_irl.errors import UserError
from unified_irl.launch_config import Launch
from unified_irl.rundir import DirectoryLock
from unified_irl.serialise import read_json

__all__ = ["FAILURE", "MOST_CRASHES", "RESULT", "Cell", "Outcome", "Work", "run_cells"]
MOST_CRASHES = 3
"""Times a cell may take its worker down before it counts as failed."""

Begun = Callable[[Cell], None]
Report = Callable[[int, int, Outcome], None]


def run_cells(
    cells: Sequence[Cell],
    root: Path,
    work: Work,
    *,
    num_workers: int = 1,
    launch: Launch | None = None,
    begun: Begun | None = None,
    report: Report | None = None,
) -> list[Outcome]:
    """Every cell's outcome, in the order given. `begun` hears of each that a worker gets, `report` of each as it ends:
    how many are done, of how many."""
    if num_workers < 1:
        raise UserError(f"num_workers is {num_workers}; expected 1 or more.")
    _refuse_twins(cells)
    with _alone_in(root):
        outcomes = {outcome.cell.name: outcome for outcome in _finished(cells, root)}
        missing = [cell for cell in cells if cell.name not in outcomes]
        for outcome in _computed(missing, root, work, num_workers, launch or Launch(), begun):
            outcomes[outcome.cell.name] = outcome
            if report is not None:
                report(len(outcomes), len(cells), outcome)
        return [outcomes[cell.name] for cell in cells]


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


def _computed(
    cells: Sequence[Cell], root: Path, work: Work, num_workers: int, launch: Launch, begun: Begun | None
) -> Iterator[Outcome]:
    """Outcomes as they come. A cell whose worker died is begun again, a few times."""
    if not cells:
        return
    waiting, crashes, num_running = deque(cells), Counter[str](), 0
    with contextlib.closing(_workers(root, work, min(num_workers, len(cells)), launch)) as workers:
        while waiting or num_running:
            while waiting and num_running < num_workers:
                cell = waiting.popleft()
                workers.begin(cell)
                num_running += 1
                if begun is not None:
                    begun(cell)
            for end in workers.ended():
                num_running -= 1
                if isinstance(end, Outcome):
                    yield end
                    continue
                crashes[end.cell.name] += 1
                if crashes[end.cell.name] < MOST_CRASHES:
                    waiting.appendleft(end.cell)
                else:
                    yield _given_up(end)


def _given_up(death: Death) -> Outcome:
    why = f"its process died {MOST_CRASHES} times, at last by {death.cause}"
    return Outcome(cell=death.cell, result=None, failure=why)


def _workers(root: Path, work: Work, num_workers: int, launch: Launch) -> Workers:
    if launch.processes_per_cell > 1:
        from unified_irl.together import Together

        work = Together(work, launch.processes_per_cell)
    if launch.launcher == "ray":
        from unified_irl.ray_workers import RayWorkers

        return RayWorkers(root, work, num_workers, launch)
    from unified_irl.local_workers import LocalWorkers

    return LocalWorkers(root, work, num_workers, launch.gpus_per_cell)
