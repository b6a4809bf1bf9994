"""A run directory: one run's config, environment, metrics, checkpoints and result, held by one process at a time.

config.json        what was asked for; its presence makes the directory a run
environment.json   with which code, packages and machine
clock.jsonl        when each examined step was reached
metrics.jsonl      one row per line; "nan", "inf" and "-inf" stand for the numbers JSON lacks
checkpoints/       see `unified_irl.checkpoint`
result.json        the outcome; its presence means the run is finished
labels.json        how a cell of a matrix is shown where runs are watched
processes.log      what the processes said that shared a cell's work
lock               held while a process works here; it dies with the process
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unified_irl.environment import describe_environment
from unified_irl.errors import UserError
from unified_irl.serialise import NUMBER_WORDS, plain, read_json, write_json

CONFIG, ENVIRONMENT, METRICS = "config.json", "environment.json", "metrics.jsonl"
CLOCK = "clock.jsonl"
RESULT, LOCK = "result.json", "lock"
LABELS, PROCESSES_LOG = "labels.json", "processes.log"
_BEFORE_THE_CONFIG = {LOCK, ENVIRONMENT, LABELS, PROCESSES_LOG, "failure.json"}


class RunDirectory:
    """The run in a directory, locked for this process until `close`. Made by `create` or `open`."""

    def __init__(self, path: Path, lock: DirectoryLock) -> None:
        self.path = path
        self._lock = lock
        self.config: dict[str, Any] = read_json(path / CONFIG)
        if not isinstance(self.config, dict):
            raise UserError(f"{path / CONFIG} holds no table of settings. Restore a copy, or start in a new directory.")
        self._metrics = _open_metrics(path / METRICS)

    @classmethod
    def create(cls, path: Path, config: dict[str, Any], command: Sequence[str]) -> RunDirectory:
        """Start a run here. The directory must be new or empty: a run is never overwritten."""
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file; expected a directory for the run. Choose another name.")
        if path.is_dir():
            _refuse_what_is_there(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = DirectoryLock(path)
            try:
                _refuse_what_is_there(path)  # again: another process may have been first to the lock
                write_json(path / ENVIRONMENT, describe_environment(command))
                write_json(path / CONFIG, config)
                return cls(path, lock)
            except BaseException:
                lock.release()
                raise
        except OSError as error:
            raise UserError(f"The run directory {path} cannot be made: {_why(error)}. Choose another.") from error

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Go on with the run in this directory."""
        if not path.is_dir():
            raise UserError(f"There is no run directory {path} to resume. Check the name, or start a new run there.")
        if not (path / CONFIG).exists():
            raise UserError(f"{path} is not a run directory: it has no {CONFIG}. Give the directory of an earlier run.")
        try:
            lock = DirectoryLock(path)
            try:
                return cls(path, lock)
            except BaseException:
                lock.release()
                raise
        except OSError as error:
            raise UserError(f"The run directory {path} cannot be used: {_why(error)}.") from error

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints lie."""
        return self.path / "checkpoints"

    @property
    def is_finished(self) -> bool:
        """Whether the run has written its result."""
        return (self.path / RESULT).exists()

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Add a row to the metrics. It is in the file, whole, when this returns."""
        line = (json.dumps(plain(row), allow_nan=False) + "\n").encode()
        end = os.fstat(self._metrics).st_size
        try:
            while line:
                line = line[os.write(self._metrics, line) :]
        except OSError as error:
            os.ftruncate(self._metrics, end)  # no torn line may stand before the next row
            raise UserError(f"{self.path / METRICS} cannot be written: {_why(error)}. Mend that and resume.") from error

    def append_clock(self, step: int, seconds: float) -> None:
        """Note when a step was examined. Beside the metrics, whose bytes must not depend on the time of day."""
        with (self.path / CLOCK).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "seconds": round(seconds, 3)}) + "\n")

    def metrics_offset(self) -> int:
        """How many bytes of metrics are safely on disk: what a checkpoint stores, for `truncate_metrics` on resume."""
        os.fsync(self._metrics)
        return os.fstat(self._metrics).st_size

    def truncate_metrics(self, num_bytes: int) -> None:
        """Drop the rows written after the checkpoint that stored this offset; they will be computed again."""
        path = self.path / METRICS
        size = os.fstat(self._metrics).st_size
        if not 0 <= num_bytes <= size:
            raise UserError(
                f"{path} is {size} bytes long, and the checkpoint was saved when it had {num_bytes}: rows were lost. "
                "Restore a copy of the file, or start a new run."
            )
        if num_bytes and _byte_before(path, num_bytes) != b"\n":
            raise UserError(
                f"{path} was altered: no row ends at byte {num_bytes}, where one ended when the checkpoint was saved. "
                "Restore a copy of the file, or start a new run."
            )
        os.ftruncate(self._metrics, num_bytes)
        os.fsync(self._metrics)

    def write_result(self, result: dict[str, Any]) -> None:
        """Write the outcome, which finishes the run."""
        try:
            write_json(self.path / RESULT, result)
        except OSError as error:
            raise UserError(f"{self.path / RESULT} cannot be written: {_why(error)}. Mend that and resume.") from error

    def close(self) -> None:
        """Let another process have the directory."""
        if self._metrics >= 0:
            os.close(self._metrics)
            self._metrics = -1
        self._lock.release()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file (or of the run directory that holds it), "nan" and "inf" as floats again.

    A last line without its end is left out: its writer was killed, or is writing it this moment.
    """
    file = path / METRICS if path.is_dir() else path
    try:
        *lines, _ = file.read_bytes().split(b"\n")
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist; expected the metrics of a run there.") from error
    return [_parsed(line, file, number) for number, line in enumerate(lines, start=1)]


def read_clock(path: Path) -> dict[int, float]:
    """Seconds of work after which each examined step of a run was reached; what a resumed run did again counts."""
    file = path / CLOCK
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    rows = [_parsed(line, file, number) for number, line in enumerate(lines, start=1)]
    return {row["step"]: row["seconds"] for row in rows}


class DirectoryLock:
    """An exclusive hold on a directory, which the operating system lets go when the process ends, however it ends."""

    def __init__(self, directory: Path) -> None:
        path = directory / LOCK
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(path)
            self._close()
            raise UserError(
                f"{directory} is in use by {holder}. Wait until it ends, or choose another directory."
            ) from error
        except OSError as error:
            self._close()
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
                raise
            raise UserError(f"The file system of {directory} has no locks. Put runs on a local disk.") from error
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        except OSError:
            self.release()
            raise
        _held.add(self)

    def release(self) -> None:
        if self._descriptor >= 0:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._close()

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1


_held: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


def _forget_locks() -> None:
    """A forked worker shares its parent's locks, and would go on holding them after the parent was killed."""
    for lock in list(_held):
        if lock._descriptor >= 0:
            lock._close()


os.register_at_fork(after_in_child=_forget_locks)


def _holder(lock: Path) -> str:
    try:
        holder = json.loads(lock.read_text())
        pid, host = int(holder["pid"]), holder["host"]
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"  # it has the lock, and has not yet written its name
    return f"process {pid} on {host}" + (" (this very process)" if pid == os.getpid() else "")


def _refuse_what_is_there(path: Path) -> None:
    if (path / CONFIG).exists():
        state = "a finished run" if (path / RESULT).exists() else "a run"
        raise UserError(f"{path} already holds {state}. Resume it, or choose another directory for a new one.")
    # What a process leaves that was killed before it wrote the config is no run yet.
    others = [p.name for p in path.iterdir() if p.name not in _BEFORE_THE_CONFIG and not p.name.endswith(".tmp")]
    if others:
        raise UserError(
            f"{path} exists and is not a run directory: it holds {', '.join(sorted(others)[:3])}. "
            "Choose a new or an empty directory."
        )


def _open_metrics(path: Path) -> int:
    """Open the metrics for appending, without the line that a killed process left half-written."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    os.ftruncate(descriptor, path.read_bytes().rfind(b"\n") + 1)
    return descriptor


def _byte_before(path: Path, end: int) -> bytes:
    with path.open("rb") as file:
        file.seek(end - 1)
        return file.read(1)


def _parsed(line: bytes, file: Path, number: int) -> dict[str, Any]:
    try:
        return {
            key: NUMBER_WORDS.get(value, value) if isinstance(value, str) else value
            for key, value in json.loads(line).items()
        }
    except (ValueError, AttributeError) as error:
        raise UserError(f"Line {number} of {file} is not a row of metrics. Mend or remove that line.") from error


def _why(error: OSError) -> str:
    return error.strerror or str(error)
