"""Runs of robot tasks that are killed at any moment, or whose simulator breaks: whole checkpoints, and runs that end as
if nothing had happened, to the last bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from robots import Line, write_files
from test_kill import ENVIRONMENT, Forked, Start, console, must_be_same, outcome, started

from experiments import cli, train
from unified_irl import checkpoint
from unified_irl.rundir import read_metrics

torch.set_num_threads(1)
WARM = """
import json, os, sys
from experiments import cli
import control.domain, experiments.show, experiments.train, unified_irl.run, tyro
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
    sys.stdin.readline()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
SMALL = (
    "--task.sac.hidden 16 16 --task.sac.batch-size 16 --task.sac.learning-starts 50 --task.sac.buffer-size 1000 "
    "--task.sac.critic-warmup 5 --task.reward.hidden 16 --task.reward.penalty-points 16 --task.num-examined 2 "
    "--run.checkpoint-every 2 --run.evaluate-every 5 --tracking.progress quiet"
)
METHODS = {
    # One reward, one policy, checkpoints amid episodes; older own samples are remembered.
    "ml-irl": "--method.phases.0.rounds 14 --method.phases.0.policy-updates 25 --method.phases.0.reward-steps 2 "
    "--method.phases.0.own-memory 2",
    # All that the trainer remembers besides: demonstrated steps and starts, probes, sums of steps.
    "rft": "--method.phases.0.rounds 24 --method.phases.0.policy-updates 25 --method.phases.0.reward-steps 2 "
    "--task.sac.demonstrated-share 0.25 --task.sac.demonstrated-starts 0.5 --task.sac.n-step 3 "
    "--task.sac.reset-critics-above 0.5 --task.sac.normalise-observations --task.sac.num-simulators 2",
    # Cloned, then a reward alone, then a policy alone, drawn to its reference.
    "rlhf": "--method.warm-start.rounds 20 --method.phases.0.rounds 20 --method.phases.1.rounds 12 "
    "--method.phases.1.policy-updates 25 --task.sac.anchor reference",
    "self-play-aihf": "--method.phases.0.rounds 12 --method.phases.0.reward-steps 5",
}


def arguments_of(robot: str, method: str, run: Path) -> list[str]:
    """A small run on feedback from files that lie beside it."""
    files = run.parent / "files"
    if not files.exists():
        write_files(robot, files)
    people = [f"--task.people.demonstrations-file={files}/shown.npz"]
    if method in ("rlhf", "self-play-aihf"):
        people += [f"--task.people.preferences-file={files}/compared.parquet"]
    settings = [*people, *SMALL.split(), *METHODS[method].split()]
    return ["train", robot, method, *settings, "--out", str(run)]


@pytest.fixture(scope="module")
def forked() -> Iterator[Start]:
    with subprocess.Popen(
        [sys.executable, "-c", WARM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=ENVIRONMENT,
    ) as warm:  # fmt: skip
        assert warm.stdout is not None
        assert warm.stdout.readline() == "warm\n"
        yield lambda arguments, said: Forked(warm, arguments, said)


def rows(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def left_behind(run: Path) -> Any:
    """The outcome of a run; simulators are saved in arrays, which are compared as tensors."""

    def plain(state: Any) -> Any:
        if isinstance(state, dict):
            return {key: plain(value) for key, value in state.items()}
        if isinstance(state, list | tuple):
            return [plain(value) for value in state]
        return torch.from_numpy(state) if isinstance(state, np.ndarray) else state

    return plain(outcome(run))


def kills_change_nothing(start: Start, method: str, place: Path, num_kills: int) -> None:
    """Each kill falls a random while after a random number of new rows, the first before there is any."""
    undisturbed, run = place / "undisturbed", place / "killed"
    with started(start, arguments_of("hopper", method, undisturbed), undisturbed.with_suffix(".txt")) as trainer:
        assert trainer.wait() == 0, undisturbed.with_suffix(".txt").read_text()
    draw, landed, said = random.Random(method), 0, run.with_suffix(".txt")
    while True:
        arguments = ["resume", str(run)] if (run / "config.json").exists() else arguments_of("hopper", method, run)
        most = rows(undisturbed) * (landed + 1) // (num_kills + 1)
        wanted, pause = draw.randint(0, most) if landed else 0, draw.uniform(0.0, 0.1)
        with started(start, arguments, said) as trainer:
            if landed < num_kills:
                deadline = time.monotonic() + 60.0
                while rows(run) < wanted and time.monotonic() < deadline:
                    time.sleep(0.002)
                time.sleep(pause)
                trainer.kill()
            code = trainer.wait()
        if code == 0:
            break
        assert code == -signal.SIGKILL, said.read_text()
        landed += 1
    assert landed == num_kills, "the run was over before it could be killed"
    must_be_same(left_behind(run), left_behind(undisturbed))


def test_a_killed_run_ends_like_an_undisturbed_one(forked: Start, tmp_path: Path) -> None:
    kills_change_nothing(forked, "ml-irl", tmp_path, 2)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_kills_at_random_moments_change_nothing(method: str, forked: Start, tmp_path: Path) -> None:
    kills_change_nothing(forked, method, tmp_path, 6)


@pytest.mark.slow
def test_the_same_through_the_console_script(tmp_path: Path) -> None:
    kills_change_nothing(console, "ml-irl", tmp_path, 5)


# Simulators that break


@pytest.fixture
def line() -> Iterator[None]:
    yield
    Line.breaks_after, Line.steps_taken = None, 0


def exit_code(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["unified-irl", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


FAULTS = {
    "raises": "raised RuntimeError: the motor burnt out in step",
    "nan": "gave an observation whose entry 0 is nan in step",
    "shape": "gave an observation of shape [3] instead of [2] in step",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.usefixtures("line")
def test_a_broken_simulator_costs_no_round_that_was_over(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence and exit code 2; and once it is mended, the run ends like one in which nothing broke. Where no
    checkpoint was due yet, there is that of the first round."""
    gymnasium.register(id=f"Broken{fault}-v0", entry_point=Line, max_episode_steps=20, kwargs={"fault": fault})
    robot = f"gym:Broken{fault}-v0"
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    assert exit_code(arguments_of(robot, "ml-irl", whole), monkeypatch) == 0
    capsys.readouterr()

    Line.steps_taken, Line.breaks_after = 0, 300
    arguments, saved = arguments_of(robot, "ml-irl", broken), 2
    if fault == "raises":
        arguments[arguments.index("--run.checkpoint-every") + 1], saved = "0", 1
    assert exit_code(arguments, monkeypatch) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: The simulator '{robot}' {FAULTS[fault]}"), said
    assert said.count("\n") == 1
    assert "Traceback" not in said
    newest = checkpoint.latest(broken / "checkpoints")
    assert newest is not None
    assert 2 <= len(read_metrics(broken)) < 14
    assert not (broken / "result.json").exists()

    Line.breaks_after = None
    _, _, learner = train.load(broken)
    assert saved <= learner.num_rounds <= len(read_metrics(broken))
    assert exit_code(["resume", str(broken)], monkeypatch) == 0
    must_be_same(left_behind(broken), left_behind(whole))
    assert json.loads((broken / "result.json").read_text())["rounds"] == 14


@pytest.mark.usefixtures("line")
def test_a_simulator_that_never_worked_leaves_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Broken from its first step on: nothing was learnt, and a mended one begins from the start."""
    gymnasium.register(id="NeverWorked-v0", entry_point=Line, max_episode_steps=20, kwargs={"fault": "raises"})
    run = tmp_path / "run"
    arguments = arguments_of("gym:NeverWorked-v0", "ml-irl", run)
    Line.breaks_after = 0
    assert exit_code(arguments, monkeypatch) == 2
    assert "the motor burnt out in step 1 of an episode" in capsys.readouterr().err
    Line.breaks_after = None
    assert exit_code(["resume", str(run)], monkeypatch) == 0
    assert json.loads((run / "result.json").read_text())["rounds"] == 14
