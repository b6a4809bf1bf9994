"""The referee's side of a contest: contenders take turns, in short blocks, so that each meets the same machine."""

from __future__ import annotations

import json
import math
import statistics as plain
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from unified_irl.errors import UserError

HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Contender:
    """Who takes part."""

    name: str
    script: str
    """A file beside this one."""
    options: dict[str, Any] = field(default_factory=dict)
    python: str = sys.executable


class Running:
    """A contender in its process."""

    def __init__(self, contender: Contender, errors: IO[str]) -> None:
        """`errors` is an open file for what it complains of."""
        self.contender, self.errors = contender, errors
        command = [contender.python, str(HERE / contender.script), json.dumps(contender.options)]
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
            )
        except OSError as error:
            raise UserError(f"{contender.python} cannot be run: {error.strerror}. Expected a Python.") from error

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            said: dict[str, Any] = json.loads(line)
            return said
        self.process.wait()
        self.errors.seek(0)
        last = (self.errors.read().strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"The contender '{self.contender.name}' stopped (exit code {self.process.returncode}): {last}")

    def block(self, seconds: float, threads: int) -> dict[str, Any]:
        """What it did in about so many seconds."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps([seconds, threads]) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # what it died of is told with its answer
        said = self.answer()
        assert said["threads"] == threads, f"{self.contender.name} works on {said['threads']} threads, not {threads}"
        return said


def contest(
    contenders: Sequence[Contender],
    *,
    threads: Sequence[int],
    seconds: float,
    blocks: int,
    report: Callable[[str], None],
    unit: str = "steps",
) -> dict[str, dict[str, Any]]:
    """Units of work per second of each contender, block by block, at the number of threads that suits it best.

    `cores` says how many of them it was given meanwhile: on one thread, less than 1 means that others were at work.
    """
    with ExitStack() as stack:
        running = [
            stack.enter_context(Running(one, stack.enter_context(tempfile.TemporaryFile("w+")))) for one in contenders
        ]
        results = {one.contender.name: {"facts": one.answer()} for one in running}
        for one in running:
            trials = {n: plain.median(_speed(one.block(seconds / 3, n)) for _ in range(3)) for n in threads}
            results[one.contender.name] |= {"threads": max(trials, key=trials.__getitem__), "trials": trials}
            results[one.contender.name] |= {"blocks": [], "cores": []}
        for number in range(blocks):
            for one in running if number % 2 == 0 else reversed(running):
                result = results[one.contender.name]
                said = one.block(seconds, result["threads"])
                result["blocks"].append(_speed(said))
                result["cores"].append(said["cores"])
                result |= {name: value for name, value in said.items() if name.endswith("peak_mib")}
            latest = ", ".join(f"{name} {result['blocks'][-1]:.4g}" for name, result in results.items())
            report(f"  block {number + 1} of {blocks}, {unit} per second: {latest}")
    for result in results.values():
        result[f"{unit}_per_second"] = math.exp(plain.fmean(map(math.log, result["blocks"])))
    return results


def _speed(said: dict[str, Any]) -> float:
    return float(said["steps"] / said["seconds"])


def ratio(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """How many times as fast: the geometric mean over pairs of blocks, with its paired 95 % interval."""
    from unified_irl.statistics import paired_difference

    logs = [[math.log(speed) for speed in one["blocks"]] for one in (ours, theirs)]
    gap = paired_difference(*logs).interval
    return {name: math.exp(getattr(gap, name)) for name in ("estimate", "low", "high")}
