"""The contender's side of a contest: told for how long to work, it says how far it came.

The standard library alone, because a script that imports this runs in whatever environment its contender needs.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def options() -> dict[str, Any]:
    """What this contender was told when it was started."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    return given


def serve(advance: Callable[[], int], facts: dict[str, Any]) -> None:
    """Say the facts; then answer lines of input, each [seconds, threads], until there are no more.

    `advance` works on a little and returns how many steps that were. What it prints goes to stderr.
    """
    turns = Turns()
    turns.ready(facts)
    while not turns.over:
        turns.did(advance())


class Turns:
    """The same for work that has a loop of its own: call `did` after every piece of it, and leave once it is `over`.

    From the beginning on, what anybody prints goes to stderr.
    """

    def __init__(self) -> None:
        self.answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self.over = False

    def ready(self, facts: dict[str, Any]) -> None:
        """Say the facts, and wait for the first block."""
        self.answers.write(json.dumps(facts) + "\n")
        self._wait()

    def did(self, steps: int) -> None:
        """So many more steps are done; where the block is over, answer, and wait for the next one."""
        self.steps += steps
        seconds = time.perf_counter() - self.began
        if seconds < self.wanted:
            return
        import torch

        busy = (time.process_time() - self.worked) / seconds
        said = {"steps": self.steps, "seconds": seconds, "threads": torch.get_num_threads(), "cores": busy}
        if torch.cuda.is_initialized():
            said["device_peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
        self.answers.write(json.dumps(said | {"peak_mib": peak_mib()}) + "\n")
        self._wait()

    def _wait(self) -> None:
        line = sys.stdin.readline()
        if not line:
            self.over = True
            self.answers.close()
            return
        import torch

        self.wanted, threads = json.loads(line)
        torch.set_num_threads(threads)
        self.steps, self.began, self.worked = 0, time.perf_counter(), time.process_time()


def peak_mib() -> float:
    """The most memory that this process ever held. Linux alone keeps it apart from its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def forget_peak() -> None:
    """From now on, the most is counted anew, from what is held at present. Where that cannot be, it stays."""
    if os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")
