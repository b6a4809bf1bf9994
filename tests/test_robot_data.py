"""What comes with the robots: three policies and demonstrations each, as good as their files say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from envs.robots import snapshots
from envs.robots.rollout import roll_out
from envs.robots.simulators import Simulator
from envs.robots.table import robot
from unified_irl.feed import stream

NAMES = ("pendulum", "inverted-double-pendulum", "reacher", "hopper", "halfcheetah", "walker2d")


def test_all_six_fit_into_ten_megabytes() -> None:
    files = {path.stem: path.stat().st_size for path in snapshots.DATA.glob("*.safetensors")}
    assert set(files) == set(NAMES)
    assert sum(files.values()) <= 10e6


@pytest.mark.parametrize("name", NAMES)
def test_tiers_are_three_policies_as_good_as_their_file_says(name: str) -> None:
    """Each better than the one before; the expert over its bar, where there is one, acting by its mean."""
    found = snapshots.load(snapshots.path_of(name), name)
    assert list(found.tiers) == ["simple", "medium", "expert"]
    told = [found.facts["tiers"][tier]["return"] for tier in found.tiers]
    assert told == sorted(told)
    for one, other in (("simple", "medium"), ("medium", "expert")):
        assert not torch.equal(found.tiers[one].weights[0], found.tiers[other].weights[0])
    (episode,) = roll_out(found.tiers["expert"].act(None), [Simulator(name)], 1, stream(0, name, "test"))
    reached = float(episode.rewards.sum())
    spread = found.facts["tiers"]["expert"]["return_std"]
    assert reached == pytest.approx(told[2], abs=max(5.0 * spread, 1.0))
    bar = robot(name).expert_bar
    assert bar is None or min(reached, told[2]) >= bar
    assert len(found.episodes) == 10
    shown = float(np.mean([one.rewards.sum() for one in found.episodes]))
    assert shown == pytest.approx(found.facts["demonstrations"]["return"], abs=1e-2)
