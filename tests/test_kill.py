"""A run or a matrix that is killed at any moment, and resumed, ends as if nothing had happened: to the last bit.

Every kill here is a SIGKILL of a live process. Most trainers are forked from a process that has its imports behind it,
so that a start costs milliseconds and the kills fall into the work; the slow tests repeat it on the console script.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch

from unified_irl import checkpoint
from unified_irl.rundir import read_metrics

CONSOLE = str(Path(sys.executable).with_name("unified-irl"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
NUM_KILLS = 10
SMALL = (
    "--task.num-nodes 10 --task.horizon 6 --task.num-demonstrations 16 --task.num-preferences 24 "
    "--run.checkpoint-every 5 --run.evaluate-every 7 --tracking.progress quiet"
)
METHODS = {
    # A network's optimiser, own samples of several rounds, and passes over the data that a kill cuts in two.
    "aihf": "--method.phases.0.rounds 200 --method.phases.0.own-memory 3 --method.phases.0.prompts 0.5 "
    "--method.phases.0.batch-size 6",
    # Three phases, of which the second ends by comparisons set aside and goes back to its best reward.
    "rlhf": "--method.warm-start.rounds 70 --method.phases.0.rounds 150 --method.phases.0.patience 30 "
    "--method.phases.1.rounds 60 --method.phases.1.patience 60",
    # Two references, one of which is the policy of up to eight rounds ago.
    "self-play-aihf": "--method.phases.0.rounds 160 --method.phases.0.reward-steps 2 --method.phases.0.refresh-every 8",
}

WARM = """
import contextlib, json, os, sys, tempfile
from experiments import cli
with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(sys.stderr):
    cli.run(["train", "walks", "aihf", "--task.num-nodes", "4", "--task.horizon", "2", "--method.phases.0.rounds", "1",
             "--tracking.progress", "quiet", "--out", place + "/run"])
print("warm", flush=True)
for line in sys.stdin:
    arguments, said = json.loads(line)
    pid = os.fork()
    if pid == 0:
        for stream in (1, 2):
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        sys.argv = ["unified-irl", *arguments]
        cli.main()
    print(pid, flush=True)
    sys.stdin.readline()  # only now is it reaped: until then, its number means no other process
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Trainer(Protocol):
    """A process that trains."""

    @property
    def pid(self) -> int: ...

    def kill(self) -> None: ...

    def wait(self) -> int:
        """Its exit code; minus the signal's number if it was killed."""
        ...


Start = Callable[[Sequence[str], Path], Trainer]


class Forked:
    """A trainer that the warm process forked."""

    def __init__(self, warm: subprocess.Popen[str], arguments: Sequence[str], said: Path) -> None:
        self._warm = warm
        self.pid = int(self._ask(json.dumps([list(arguments), str(said)])))

    def _ask(self, line: str) -> str:
        assert self._warm.stdin is not None
        assert self._warm.stdout is not None
        print(line, file=self._warm.stdin, flush=True)
        return self._warm.stdout.readline()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        return int(self._ask("reap"))


@pytest.fixture(scope="module")
def forked() -> Iterator[Start]:
    with subprocess.Popen(
        [sys.executable, "-c", WARM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=ENVIRONMENT,
    ) as warm:  # fmt: skip
        assert warm.stdout is not None
        assert warm.stdout.readline() == "warm\n"
        yield lambda arguments, said: Forked(warm, arguments, said)


def console(arguments: Sequence[str], said: Path) -> subprocess.Popen[bytes]:
    """The same through the console script."""
    with said.open("ab") as file:
        return subprocess.Popen([CONSOLE, *arguments], stdout=file, stderr=file, env=ENVIRONMENT)


@contextlib.contextmanager
def started(start: Start, arguments: Sequence[str], said: Path) -> Iterator[Trainer]:
    trainer = start(arguments, said)
    try:
        yield trainer
    except BaseException:
        trainer.kill()
        trainer.wait()
        raise


def arguments_of(method: str, run: Path) -> list[str]:
    return ["train", "walks", method, *SMALL.split(), *METHODS[method].split(), "--out", str(run)]


def outcome(run: Path) -> dict[str, Any]:
    """All that a finished run leaves behind which does not depend on the clock."""
    result = json.loads((run / "result.json").read_text())
    folders = {"latest": checkpoint.latest(run / "checkpoints"), "best": checkpoint.best(run / "checkpoints")}
    states = {which: checkpoint.load(folder) for which, folder in folders.items() if folder}
    for timed in (result, *(state["progress"] for state in states.values())):
        assert timed.pop("seconds") >= 0
    return {"result": result, "metrics": (run / "metrics.jsonl").read_bytes(), "states": states}


def must_be_same(one: Any, other: Any, place: str = "") -> None:
    """Of one type, and equal to the last bit."""
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            must_be_same(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for number, pair in enumerate(zip(one, other, strict=True)):
            must_be_same(*pair, f"{place}/{number}")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, place
        assert torch.equal(one, other), place
    else:
        assert one == other or (isinstance(one, float) and math.isnan(one) and math.isnan(other)), place


Moment = Callable[[Path], None]


def after(seconds: float) -> Moment:
    return lambda run: time.sleep(seconds)


def once(happens: Callable[[Path], bool], patience: float) -> Moment:
    """As soon as something is seen in the run directory; at the latest when patience ends."""

    def wait(run: Path) -> None:
        deadline = time.monotonic() + patience
        while not happens(run) and time.monotonic() < deadline:
            time.sleep(0.0003)

    return wait


def has_directory(run: Path) -> bool:
    return (run / "lock").exists()


def has_rows(run: Path) -> bool:
    return (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size > 0


def half_written(run: Path) -> set[int]:
    """The folders of checkpoints that are being written, or were when the writer was killed."""
    found = set()
    for folder in (run / "checkpoints").glob(".writing-*"):
        with contextlib.suppress(OSError):
            found.add(folder.stat().st_ino)
    return found


def works(run: Path) -> Callable[[Path], bool]:
    """Whether the metrics are others than they are now."""

    def rows() -> tuple[int, int] | None:
        path = run / "metrics.jsonl"
        return (path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else None

    before = rows()
    return lambda run: rows() != before


@dataclass(frozen=True)
class Pace:
    """How long a run takes that nobody kills."""

    until_it_works: float
    seconds_of_work: float

    @property
    def patience(self) -> float:
        return 3 * (self.until_it_works + self.seconds_of_work)


def moments(seed: str, pace: Pace) -> Iterator[Moment]:
    """Three that a clock would miss (no config yet, no checkpoint yet, half a checkpoint), and random ones without end:
    from the launch on, from the first new row on, and from the next beginning of a checkpoint on.

    They lie so close together that a run cannot get to its end between ten of them, unless the machine runs faster than
    it did when the pace was measured.
    """
    yield from (once(seen, pace.patience) for seen in (has_directory, has_rows))
    yield amid_a_checkpoint(0.0, pace.patience)
    draw = random.Random(seed)
    while True:
        yield after(draw.uniform(0.05, 0.05 + pace.until_it_works + pace.seconds_of_work / 6))
        yield amid_the_work(draw.uniform(0.0, pace.seconds_of_work / 6), pace.patience)
        yield amid_a_checkpoint(draw.uniform(0.0, 0.01), pace.patience)


def amid_the_work(seconds: float, patience: float) -> Moment:
    def wait(run: Path) -> None:
        once(works(run), patience)(run)
        time.sleep(seconds)

    return wait


def amid_a_checkpoint(seconds: float, patience: float) -> Moment:
    def wait(run: Path) -> None:
        left = half_written(run)
        once(lambda run: bool(half_written(run) - left), patience)(run)
        time.sleep(seconds)

    return wait


def kill_and_resume(start: Start, method: str, run: Path, when: Iterator[Moment], most: int) -> tuple[int, int]:
    """Kill the run at these moments, resuming it each time, until it is finished or `most` kills have landed; then let
    it finish. How many landed, and how many of them in the midst of a checkpoint."""
    landed = in_writing = 0
    said = run.with_suffix(".txt")
    while True:
        is_begun, left = (run / "config.json").exists(), half_written(run)
        with started(start, ["resume", str(run)] if is_begun else arguments_of(method, run), said) as trainer:
            if landed < most:
                next(when)(run)
                trainer.kill()
            code = trainer.wait()
        if code == 0:
            return landed, in_writing
        assert code == -signal.SIGKILL, said.read_text()
        landed += 1
        in_writing += bool(half_written(run) - left)


def undisturbed(start: Start, method: str, run: Path) -> Pace:
    began = time.monotonic()
    with started(start, arguments_of(method, run), run.with_suffix(".txt")) as trainer:
        once(has_rows, 300.0)(run)
        works_since = time.monotonic()
        assert trainer.wait() == 0, run.with_suffix(".txt").read_text()
    return Pace(works_since - began, time.monotonic() - works_since)


def kills_change_nothing(start: Start, method: str, place: Path) -> None:
    pace = undisturbed(start, method, place / "undisturbed")
    expected = outcome(place / "undisturbed")
    assert expected["result"]["rounds"] >= 150
    when, landed, in_writing = moments(method, pace), 0, 0
    for attempt in itertools.count():
        run = place / f"killed-{attempt}"
        kills = kill_and_resume(start, method, run, when, NUM_KILLS + 3 - landed)
        landed, in_writing = landed + kills[0], in_writing + kills[1]
        must_be_same(outcome(run), expected)
        if landed >= NUM_KILLS + 3:
            break
    print(f"{method}: {pace.until_it_works:.1f} s to begin, {pace.seconds_of_work:.1f} s of work; {landed} kills, "
          f"{in_writing} in the midst of a checkpoint, in {attempt + 1} runs")  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_ends_like_an_undisturbed_one(method: str, forked: Start, tmp_path: Path) -> None:
    """Thirteen kills: before there is a config, before there is a checkpoint, amid one, and ten at random."""
    kills_change_nothing(forked, method, tmp_path)
    if method == "rlhf":
        stages = [row["stage"] for row in read_metrics(tmp_path / "undisturbed")]
        assert stages.count(0) == 70
        assert 30 < stages.count(1) < 150, "the reward was to be stopped by the comparisons set aside"


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_same_through_the_console_script(method: str, tmp_path: Path) -> None:
    kills_change_nothing(console, method, tmp_path)


MATRIX = {
    "task.num-nodes": "10", "task.horizon": "6", "task.num-demonstrations": "16", "task.num-preferences": "24",
    "run.checkpoint-every": "10", "run.evaluate-every": "15", "method.phases.0.rounds": "80",
}  # fmt: skip


def compare_arguments(out: Path) -> list[str]:
    settings = [f"{key}={value}" for key, value in MATRIX.items()]
    matrix = ["--methods", "bc", "aihf", "--seeds", "3", "--workers", "2", "--set", *settings]
    return ["compare", *matrix, "--out", str(out)]


def seen_in_proc(pid: int) -> tuple[int, str] | None:
    """A living process' parent, and the moment it began: numbers are used again."""
    try:
        state, parent, *others = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else (int(parent), others[17])


def children_of(pid: int) -> dict[int, tuple[int, str]]:
    everybody = {number: seen_in_proc(number) for number in map(int, filter(str.isdigit, os.listdir("/proc")))}
    return {number: seen for number, seen in everybody.items() if seen and seen[0] == pid}


def survivors(processes: dict[int, tuple[int, str]]) -> list[int]:
    now = {pid: seen_in_proc(pid) for pid in processes}
    return [pid for pid, (_, began) in processes.items() if (seen := now[pid]) and seen[1] == began]


def workers_of(pid: int) -> list[int]:
    found = []
    for child in children_of(pid):
        with contextlib.suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def wait_until(condition: Callable[[], Any], patience: float = 120.0) -> Any:
    deadline = time.monotonic() + patience
    while not (seen := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return seen


def results_of(out: Path) -> dict[str, Any]:
    """Every finished cell's result, without its clock, and its metrics."""
    found = {}
    for path in (out / "cells").glob("*/result.json"):
        result = json.loads(path.read_text())
        assert result.pop("seconds") >= 0
        found[path.parent.name] = (result, (path.parent / "metrics.jsonl").read_bytes())
    return found


def stamps_of(out: Path) -> dict[Path, int]:
    """When each file of a finished cell was last written."""
    cells = [path.parent for path in (out / "cells").glob("*/result.json")]
    return {path: path.stat().st_mtime_ns for cell in cells for path in [*cell.glob("*.json"), cell / "metrics.jsonl"]}


def rows_written(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (out / "cells").glob("*/metrics.jsonl"))


def test_a_killed_matrix_ends_like_an_undisturbed_one(forked: Start, tmp_path: Path) -> None:
    """The parent is killed while it starts and amid the work, then one of the workers; nothing is lost or repeated."""
    out, said = tmp_path / "killed", tmp_path / "said.txt"
    draw = random.Random("matrix")
    for amid_the_work in (False, True, False):
        before, rows = stamps_of(out), rows_written(out)
        with console(compare_arguments(out), said) as parent:
            try:
                if amid_the_work:
                    wait_until(lambda rows=rows: rows_written(out) != rows)
                    assert len(workers_of(parent.pid)) == 2, said.read_text()
                time.sleep(draw.uniform(0.05, 0.7))
                children = children_of(parent.pid)
            finally:
                parent.kill()
        assert parent.returncode == -signal.SIGKILL, said.read_text()
        wait_until(lambda children=children: not survivors(children), patience=2.0)
        assert {path: path.stat().st_mtime_ns for path in before} == before, "a finished cell was computed again"
    assert len(results_of(out)) < 6, "the matrix was over before a worker could be killed"
    before, rows = stamps_of(out), rows_written(out)
    with console(compare_arguments(out), said) as parent:
        try:
            wait_until(lambda: rows_written(out) != rows)
            os.kill(workers_of(parent.pid)[0], signal.SIGKILL)
            assert parent.wait(timeout=300) == 0, said.read_text()
        except BaseException:
            parent.kill()
            raise
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "FAILED" not in said.read_text()

    record = json.loads((out / "results.json").read_text())
    assert len(record["cells"]) == len(results_of(out)) == 6
    assert not list((out / "cells").glob("*/failure.json"))
    for row in record["cells"]:
        run = tmp_path / f"{row['method']}-{row['seed']}"
        flags = [word for key, value in MATRIX.items() for word in (f"--{key}", value)]
        train = ["train", "walks", row["method"], *flags, "--seed", str(row["seed"]), "--out", str(run)]
        with started(forked, [*train, "--tracking.progress", "quiet"], run.with_suffix(".txt")) as trainer:
            assert trainer.wait() == 0, run.with_suffix(".txt").read_text()
        assert not row["failure"]
        must_be_same(outcome(out / row["directory"]), outcome(run))
        must_be_same({key: row[key] for key in ("final", "best", "rounds")}, {**outcome(run)["result"]})
