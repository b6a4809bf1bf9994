"""Several processes at one run: the same numbers as one, and a clear end when one of them is gone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import ended, launched

from experiments.tiny import make
from llm.sampler import Completions
from unified_irl import parallel
from unified_irl.parallel import World

torch.set_num_threads(1)
SMALL = (
    "--task.data.completion-tokens", 12, "--task.num-examined", 7, "--method.phases.0.rounds", 4,
    "--method.warm-start.rounds", 5, "--run.evaluate-every", 1, "--run.checkpoint-every", 1, "--run.keep", 2,
)  # fmt: skip
PLAIN = (  # Adam's first steps are signs of gradients, and a sum in another order may turn one that is nearly zero
    "--method.policy-descent.optimiser", "sgd", "--method.policy-descent.learning-rate", 0.1,
    "--method.reward-descent.optimiser", "sgd", "--method.reward-descent.learning-rate", 0.1,
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make(folder, "llama", 40, 0)
    return folder


def started(count: int, words: list[Any]) -> list[subprocess.Popen[str]]:
    return launched(count, ["-m", "experiments.cli", *map(str, words)])


def train(tiny: Path, method: str, out: Path, *flags: Any) -> list[Any]:
    return ["train", "hf", method, "--model", tiny / "model", "--demonstrations", tiny / "ultrachat.jsonl",
            "--preferences", tiny / "ultrafeedback.jsonl", "--task.cache", out.parent / "cache", "--out", out, *SMALL,
            *flags]  # fmt: skip


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", ["aihf", pytest.param("self-play-aihf", marks=pytest.mark.slow)])
def test_two_processes_compute_what_one_does(method: str, tiny: Path, tmp_path: Path) -> None:
    """Every loss and every examination of own samples, through cloning, climbing and learning from all feedback; with
    all weights on both, and with a share of them on each."""
    flags = (*PLAIN, "--method.phases.0.reward-steps", 2, "--method.phases.0.batch-size", 7)
    for name, count, more in (("alone", 1, ()), ("copied", 2, ()), ("sharded", 2, ("--task.model.shard",))):
        told = ended(started(count, train(tiny, method, tmp_path / name, *flags, *more)))
        assert [code for code, *_ in told] == [0] * count, told
        assert all(out == "" for _, out, _ in told[1:]), "one of them speaks"
    one, *others = (rows(tmp_path / name) for name in ("alone", "copied", "sharded"))
    for two in others:
        assert len(one) == len(two) == 9
        for alone, together in zip(one, two, strict=True):
            assert together == pytest.approx(alone, abs=1e-5, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True], ids=["copied", "sharded"])
def test_where_one_is_killed_the_other_says_so_and_both_resume(shard: bool, tiny: Path, tmp_path: Path) -> None:
    """From the last checkpoint on as if nothing had happened, but for the last digits; also as a single one."""
    flags = (*PLAIN, "--method.phases.0.rounds", 8, *(("--task.model.shard",) if shard else ()))
    whole = ended(started(2, train(tiny, "aihf", tmp_path / "whole", *flags)))
    assert [one[0] for one in whole] == [0, 0]
    run = tmp_path / "killed"
    writer, helper = started(2, train(tiny, "aihf", run, *flags))
    while not (run / "metrics.jsonl").exists() or len(rows(run)) < 7:
        assert writer.poll() is None
        time.sleep(0.02)
    helper.send_signal(signal.SIGKILL)
    (code, _, complaint), (killed, *_) = ended([writer, helper])
    assert (code, killed) == (2, -signal.SIGKILL)
    assert "error: Another process of this run is gone, or was never there" in complaint
    assert "start all processes again with `resume`" in complaint
    assert "Traceback" not in complaint
    count = 1 if shard else 2
    assert [one[0] for one in ended(started(count, ["resume", run]))] == [0] * count
    for alone, together in zip(rows(tmp_path / "whole"), rows(run), strict=True):
        assert together == pytest.approx(alone, abs=1e-4, rel=1e-4)
    finished = ended(started(2, ["resume", run]))
    assert [one[0] for one in finished] == [0, 0]


def test_worlds_that_do_not_share_their_work_say_so(tmp_path: Path) -> None:
    told = ended(started(2, ["train", "walks", "bc", "--out", tmp_path / "it"]))
    assert all(code == 2 for code, *_ in told)
    assert "walks runs in one process, but 2 were started; start one." in told[0][2]
    assert not (tmp_path / "it").exists()


@pytest.mark.slow
def test_accelerate_launches_it(tiny: Path, tmp_path: Path) -> None:
    words = [*map(str, train(tiny, "aihf", tmp_path / "it", *PLAIN))]
    program = Path(sys.executable).with_name("accelerate")
    # With --cpu, Accelerate starts a single process unless there is MPI; --multi_gpu does not mind that there is none.
    launch = [program, "launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision",
              "no", "--dynamo_backend", "no", "-m", "experiments.cli"]  # fmt: skip
    done = subprocess.run([*launch, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("everything is in") == 1
    assert len(rows(tmp_path / "it")) == 9
    assert json.loads((tmp_path / "it/environment.json").read_text())["num_processes"] == 2


def test_shares_are_even_and_complete() -> None:
    for count in range(8):
        shares = [World(rank, 3).share(count).tolist() for rank in range(3)]
        assert sorted(row for share in shares for row in share) == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_shares_of_samples_are_woven_into_their_places(count: int) -> None:
    every = Completions(torch.arange(count * 2).view(count, 2), torch.arange(count), torch.arange(count) > 2,
                        torch.rand(count, 2))  # fmt: skip
    parts = [Completions(*(part[World(rank, 3).share(count)] for part in vars(every).values())) for rank in range(3)]
    for woven, whole in zip(vars(Completions.woven(parts)).values(), vars(every).values(), strict=True):
        assert torch.equal(woven, whole)


def test_alone_nobody_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_world", World(1, 3))
    with parallel.alone():
        assert parallel.world() == World()
        assert parallel.gather("mine") == ["mine"]
    assert parallel.world() == World(1, 3)
