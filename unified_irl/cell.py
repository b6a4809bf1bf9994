"""A cell of a matrix: what it is, what can come of it, and how a worker computes it."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from unified_irl.errors import UserError
from unified_irl.rundir import LABELS
from unified_irl.serialise import content_hash, read_json, write_json

RESULT, FAILURE = "result.json", "failure.json"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One entry of the matrix."""

    name: str
    """For people: what distinguishes it."""
    config: dict[str, Any]
    """Everything that decides its result, as JSON data."""
    labels: dict[str, Any] = field(default_factory=dict)
    """How it is shown where runs are watched: `tracking.Labels` as JSON. They decide nothing, nor its directory."""

    def directory(self, root: Path) -> Path:
        return root / f"{self.name}-{content_hash(self.config)}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a cell: a result, or the sentence that says why there is none."""

    cell: Cell
    result: dict[str, Any] | None
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Death:
    """A cell whose process died while computing it; another may go on with it."""

    cell: Cell
    cause: str


class ProcessDied(Exception):
    """A process that shared a cell's work died; the message is the cause."""


class WorkFailed(Exception):
    """Work that failed in another process: the sentence that says why, and where if it is a mistake of ours."""

    def __init__(self, why: str, trace: str) -> None:
        super().__init__(why)
        self.why, self.trace = why, trace


Work = Callable[[dict[str, Any], Path], Any]
"""Computes the config's result into the directory, as `result.json`, going on from what is there. Top-level, so that
worker processes can import it."""


class Workers(Protocol):
    """Those who compute cells, somewhere."""

    def begin(self, cell: Cell) -> None:
        """Have it computed."""

    def ended(self) -> Sequence[Outcome | Death]:
        """Wait until at least one of those begun has ended; what came of them."""

    def close(self) -> None:
        """End everything now: what was being done is in its checkpoints."""


def compute(cell: Cell, root: Path, work: Work) -> Outcome | Death:
    """In a worker: the cell's result, from its directory if it has been finished meanwhile."""
    directory = cell.directory(root)
    try:
        if cell.labels:
            directory.mkdir(parents=True, exist_ok=True)
            write_json(directory / LABELS, cell.labels)
        work(cell.config, directory)
        (directory / FAILURE).unlink(missing_ok=True)
        return Outcome(cell=cell, result=read_json(directory / RESULT))
    except ProcessDied as death:
        return Death(cell=cell, cause=str(death))
    except WorkFailed as failed:
        return _failed(cell, directory, failed.why, failed.trace)
    except Exception as error:
        return _failed(cell, directory, *why_and_where(error, directory))


def why_and_where(error: Exception, directory: Path) -> tuple[str, str]:
    """The sentence for a person, and the traceback if the mistake is ours."""
    if isinstance(error, UserError):
        return str(error), ""
    if isinstance(error, OSError):
        return f"{error.filename or directory}: {error.strerror or error}", ""
    return f"{type(error).__name__}: {error}", traceback.format_exc()


def _failed(cell: Cell, directory: Path, why: str, trace: str) -> Outcome:
    with contextlib.suppress(OSError):
        write_json(directory / FAILURE, {"failure": why, **({"traceback": trace} if trace else {})})
    return Outcome(cell=cell, result=None, failure=why)


def die_when(gone: Callable[[], Any]) -> None:
    """End this process at once when `gone` returns: it must not live on, holding its cell's lock."""

    def watch() -> None:
        gone()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def python_path() -> str:
    """The PYTHONPATH with which another process imports the same: where Python finds what it is not installed with."""
    installed = (sys.prefix, sys.base_prefix)
    ours = [str(Path(path).resolve()) for path in sys.path if not path.startswith(installed)]
    return os.pathsep.join([*ours, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
