"""A cell's work, shared by several processes of one machine.

They are started by torch's own launcher, which is what `accelerate launch` starts where there are several GPUs (on
processors alone that starts one process only), and find each other as `parallel` says. Each tells in a file how it
ended; one that tells nothing was killed.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unified_irl.cell import ProcessDied, Work, WorkFailed, die_when, python_path, why_and_where
from unified_irl.errors import LostAnother
from unified_irl.rundir import PROCESSES_LOG
from unified_irl.serialise import read_json, write_json


@dataclass(frozen=True)
class Together:
    """Work as so many processes do it, in one directory."""

    work: Work
    num_processes: int

    def __call__(self, config: dict[str, Any], directory: Path) -> None:
        with tempfile.TemporaryDirectory() as place:
            what = {"module": self.work.__module__, "work": self.work.__qualname__}
            write_json(Path(place) / "task.json", {**what, "config": config, "directory": str(directory.resolve())})
            self._launch(place, directory)
            self._judge([_told(Path(place), rank) for rank in range(self.num_processes)])

    def _launch(self, place: str, directory: Path) -> None:
        """Returns when the last process has ended. They watch their standard input, which ends when this one does."""
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(self.num_processes)]
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / PROCESSES_LOG).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *launcher, "-m", "unified_irl.together", place],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": python_path()},
                start_new_session=True,
            )  # fmt: skip
            process.wait()

    def _judge(self, told: list[dict[str, Any] | None]) -> None:
        """Of several failures the one that is not just the loss of another; a death only if there is no such."""
        failures = [one for one in told if one and one["why"]]
        own = [one for one in failures if not one["lost_another"]]
        silent = [str(rank) for rank, one in enumerate(told) if one is None]
        if silent and not own:
            raise ProcessDied(
                f"losing process {' and '.join(silent)} of {self.num_processes} ({PROCESSES_LOG} has more)"
            )
        if failures:
            first = (own or failures)[0]
            raise WorkFailed(first["why"], first["trace"])


def _told(place: Path, rank: int) -> dict[str, Any] | None:
    path = place / f"{rank}.json"
    return read_json(path) if path.exists() else None


def _share(place: Path) -> None:
    """In one of the processes: its share, and how it ended."""
    die_when(lambda: os.read(0, 1))
    task = read_json(place / "task.json")
    why, trace, lost_another = "", "", False
    try:
        work: Work = getattr(importlib.import_module(task["module"]), task["work"])
        work(task["config"], Path(task["directory"]))
    except Exception as error:
        why, trace = why_and_where(error, Path(task["directory"]))
        lost_another = isinstance(error, LostAnother)
    write_json(place / f"{os.environ['RANK']}.json", {"why": why, "trace": trace, "lost_another": lost_another})
    sys.exit(1 if why else 0)


if __name__ == "__main__":
    _share(Path(sys.argv[1]))
