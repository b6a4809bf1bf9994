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


def serve(advance: Callable[[], int], facts: dict[str, str]) -> None:
    """Say the facts; then answer lines of input, each [seconds, threads], until there are no more.

    `advance` works on a little and returns how many environment steps that were. What it prints goes to stderr.
    """
    import torch

    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        answers.write(json.dumps(facts) + "\n")
        for line in sys.stdin:
            wanted, threads = json.loads(line)
            torch.set_num_threads(threads)
            steps, began, worked = 0, time.perf_counter(), time.process_time()
            while (seconds := time.perf_counter() - began) < wanted:
                steps += advance()
            busy = (time.process_time() - worked) / seconds
            said = {"steps": steps, "seconds": seconds, "threads": torch.get_num_threads(), "cores": busy}
            answers.write(json.dumps(said | {"peak_mib": peak_mib()}) + "\n")


def peak_mib() -> float:
    """The most memory that this process ever held. Linux alone keeps it apart from its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
