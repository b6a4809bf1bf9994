"""Cells in processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from unified_irl.cell import Cell, Death, Outcome, Work, compute, die_when
from unified_irl.errors import UserError


class LocalWorkers:
    """Processes that each compute one cell after another, so that it is known whose computation one died of."""

    def __init__(self, root: Path, work: Work, num_workers: int, gpus_per_cell: float) -> None:
        self._root, self._work = root, work
        self._free_gpus = shares_of_gpus(num_workers, gpus_per_cell)
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []

    def begin(self, cell: Cell) -> None:
        gpus = self._free_gpus
        worker = self._idle.pop() if self._idle else _Worker(self._root, self._work, gpus.pop() if gpus else None)
        self._busy.append(worker)
        worker.begin(cell)

    def ended(self) -> Sequence[Outcome | Death]:
        ready = wait([worker.line for worker in self._busy])
        return [self._end_of(worker) for worker in list(self._busy) if worker.line in ready]

    def _end_of(self, worker: _Worker) -> Outcome | Death:
        self._busy.remove(worker)
        end = worker.end()
        if end is not None:
            self._idle.append(worker)
            return end
        cause = worker.cause_of_death()
        if worker.gpus is not None:
            self._free_gpus.append(worker.gpus)
        return Death(cell=worker.cell, cause=cause)

    def close(self) -> None:
        for worker in [*self._idle, *self._busy]:
            worker.stop()


def shares_of_gpus(num_workers: int, gpus_per_cell: float) -> list[str]:
    """What each worker sees as CUDA_VISIBLE_DEVICES, the first worker's last; nothing where cells need no GPU."""
    if not gpus_per_cell:
        return []
    here, count = _visible_gpus(), max(1, int(gpus_per_cell))
    shares = [here[int(gpus_per_cell * worker) :][:count] for worker in reversed(range(num_workers))]
    if any(len(share) < count for share in shares):
        raise UserError(
            f"{num_workers} workers with gpus_per_cell={gpus_per_cell:g} need more GPUs than this machine shows "
            f"({len(here)}). Lower --workers or --gpus-per-cell."
        )
    return [",".join(share) for share in shares]


def _visible_gpus() -> list[str]:
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named or [str(number) for number in range(torch.cuda.device_count())]


class _Worker:
    """A process that computes one cell after another."""

    cell: Cell

    def __init__(self, root: Path, work: Work, gpus: str | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.line, theirs = context.Pipe()
        self.gpus = gpus
        self._process = context.Process(target=_serve, args=(theirs, root, work, gpus, os.getpid()))
        self._process.start()
        theirs.close()

    def begin(self, cell: Cell) -> None:
        self.cell = cell
        with contextlib.suppress(OSError):  # it is dead already; `end` will say so
            self.line.send(cell)

    def end(self) -> Outcome | Death | None:
        """What came of its cell; None if it died itself."""
        try:
            end: Outcome | Death = self.line.recv()
        except (EOFError, OSError):
            return None
        return end

    def cause_of_death(self) -> str:
        self._process.join()
        return cause_of(self._process.exitcode or 0)

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()


def cause_of(exit_code: int) -> str:
    """What a process died of, in words."""
    if exit_code == -signal.SIGKILL:
        return f"signal {-exit_code} (the system sends it when memory runs out)"
    return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"


def _serve(line: Any, root: Path, work: Work, gpus: str | None, parent: int) -> None:
    """A worker's life. Ctrl-C reaches it too, but is the matrix's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_when(lambda: _outlived(parent))
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    with contextlib.suppress(EOFError):
        while True:
            line.send(compute(line.recv(), root, work))


def _outlived(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
