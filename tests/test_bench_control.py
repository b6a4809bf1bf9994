"""bench control-speed: its arithmetic, and a run of a few seconds (measuring takes minutes and a quiet machine)."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator
from torch.utils.flop_counter import FlopCounterMode

from control.ground_truth import GroundTruth
from control.sac_config import SACConfig
from control.trainer import Trainer
from envs.robots.simulators import Simulator
from experiments import cli
from experiments.bench_control_speed import BenchControlSpeedConfig, gemm_throughput, run, update_flop
from experiments.peers.contest import Contender, contest, ratio
from unified_irl.errors import UserError

HOPPER = {"num_observations": 11, "num_actions": 3, "hidden": (256, 256), "batch_size": 256, "num_critics": 2}


def test_flop_of_an_update_by_hand() -> None:
    """Parameters of the actor: 12·256 + 257·256 + 257·6 = 70,406; of a critic: 15·256 + 257·256 + 257·1 = 69,889.

    Four passes of the one and six of each of two others, 2 FLOP per row and parameter, 256 rows:
    2 · 256 · (4 · 70,406 + 6 · 2 · 69,889) = 573,589,504.
    """
    assert update_flop(**HOPPER) == 573_589_504
    assert update_flop(num_observations=1, num_actions=1, hidden=(1,), batch_size=1, num_critics=1) == 2 * (
        4 * (2 + 4) + 6 * (3 + 2)
    )


def test_flop_agrees_with_what_our_update_multiplies() -> None:
    """Counted product by product while it runs; the formula counts biases and two slopes that nobody needs as well."""
    simulators, draw = [Simulator("hopper")], Generator().manual_seed(0)
    config = SACConfig(temperature="auto", learning_starts=300)
    trainer = Trainer(simulators[0].env, simulators, config, draw)
    trainer.train(GroundTruth().for_policy(), 1.0, 0.99, 1, draw)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        trainer._update(GroundTruth().for_policy(), 0.99, draw)
    assert 0.97 < counter.get_total_flops() / update_flop(**HOPPER) < 1.0


def test_ratio_of_paired_blocks() -> None:
    """Twice and four times as fast: √8 on the whole. The logarithms, ln 2 and 2 ln 2, have a standard error of
    ln 2 / 2, and t with one degree of freedom is 12.706."""
    times = ratio({"blocks": [20.0, 40.0]}, {"blocks": [10.0, 10.0]})
    assert times["estimate"] == pytest.approx(math.sqrt(8))
    assert times["low"] == pytest.approx(math.sqrt(8) * 2 ** (-12.706 / 2), rel=1e-3)
    assert times["high"] == pytest.approx(math.sqrt(8) * 2 ** (12.706 / 2), rel=1e-3)


def test_throughput_leaves_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    assert gemm_throughput(torch.float32, before + 1, 0.001) > 1e8
    assert torch.get_num_threads() == before


def test_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = "--blocks 2 --seconds 0.2 --threads 1 --learning-starts 300 --warm-up 10 --out speed.json"
    assert cli.run(["bench", "control-speed", *tiny.split()]) == 0
    stored = json.loads(Path("speed.json").read_text())
    assert {"command", "git", "cpu", "num_cores"} <= set(stored)
    result = stored["result"]["sac"]
    assert set(result["contenders"]) == {"trainer, half", "trainer", "FastSAC", "SAC"}
    for name, one in result["contenders"].items():
        assert len(one["blocks"]) == 2
        assert one["steps_per_second"] == pytest.approx(math.sqrt(math.prod(one["blocks"])))
        assert one["threads"] == 1
        assert 50 < one["peak_mib"] < 5000
        assert all(0 < cores < 1.2 for cores in one["cores"])
        if name != "SAC":
            gained = one["steps_per_second"] / result["contenders"]["SAC"]["steps_per_second"]
            assert result["ratios_to_sac"][name]["estimate"] == pytest.approx(gained)
    floor = result["floor"]
    assert floor["update_flop"] == 573_589_504
    assert floor["simulator_seconds"] > 0
    for product in floor["products"]:
        assert product["update_seconds"] * product["flop_per_second"] == pytest.approx(573_589_504)
    said = capsys.readouterr().out
    assert "574 MFLOP" in said
    assert "The whole loop is left out. imitation needs an environment of its own" in said
    assert "loop" not in stored["result"]


@pytest.mark.slow
def test_the_loop_goes_round() -> None:
    told = {"robot": "hopper", "learning_starts": 300, "warm_up": 1}
    result = contest(
        [Contender(name="ml-irl", script="ml_irl.py", options=told)], threads=[1], seconds=0.1, blocks=1, report=print
    )["ml-irl"]
    assert result["facts"]["task"] == "Hopper-v5"
    assert result["steps_per_second"] > 1


def test_a_contender_that_fails_says_why() -> None:
    lost = Contender(
        name="lost", script="actor_critics.py", options={"which": "nobody", "learning_starts": 1, "device": "cpu"}
    )
    with pytest.raises(UserError, match=r"The contender 'lost' stopped \(exit code 1\): KeyError: 'nobody'"):
        contest([lost], threads=[1], seconds=0.1, blocks=1, report=print)


@pytest.mark.parametrize("python", ["/nowhere/python", sys.executable])
def test_a_python_without_imitation_is_refused(python: str) -> None:
    with pytest.raises(UserError) as refused:
        run(BenchControlSpeedConfig(imitation_python=python), print)
    assert str(refused.value).startswith(f"{python} is no Python that knows imitation. imitation needs an environment")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"blocks": 0}, "blocks is 0; expected more than 0."),
        ({"seconds": math.nan}, "seconds is nan; expected more than 0."),
        ({"threads": (0,)}, "threads is (0,); expected one or more numbers of threads, such as 1 2."),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        BenchControlSpeedConfig(**settings)
    assert str(refused.value) == sentence
