"""The update against Stable-Baselines3's own, number by number, and against autograd."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium as gym
import pytest
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor

from control.sac import FastSAC
NUM_ROWS = 64


class OneBatch:
    """A replay that always gives the same batch."""

    def __init__(self, samples: ReplayBufferSamples) -> None:
        self.samples = samples

    def sample(self, batch_size: int, env: object = None) -> ReplayBufferSamples:
        return self.samples


@pytest.fixture
def samples() -> ReplayBufferSamples:
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    done = (torch.rand(NUM_ROWS, 1, generator=draw) < 0.2).float()
    return ReplayBufferSamples(
        observations=normal(NUM_ROWS, 3),
        actions=torch.tanh(normal(NUM_ROWS, 1)),
        next_observations=normal(NUM_ROWS, 3),
        dones=done,
        rewards=normal(NUM_ROWS, 1),
    )


def with_noise(noise: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both libraries draw this noise: first for the observations, then for those that follow."""
    parts: Iterator[Tensor] = iter(noise.chunk(2))
    monkeypatch.setattr("torch.distributions.normal._standard_normal", lambda *_, **__: next(parts))
    monkeypatch.setattr("torch.randn", lambda *_, **__: noise)


@pytest.mark.parametrize("ent_coef", ["auto", 0.2])
@pytest.mark.parametrize("net_arch", [[32, 32], [16], [24, 16, 8]])
def test_updates_equal_those_of_stable_baselines3(
    samples: ReplayBufferSamples, monkeypatch: pytest.MonkeyPatch, ent_coef: str | float, net_arch: list[int]
) -> None:
    """Ten updates on one batch with the same noise move every weight alike."""
    env = gym.make("Pendulum-v1")
    options = {"ent_coef": ent_coef, "policy_kwargs": {"net_arch": net_arch}, "buffer_size": 10, "device": "cpu"}
    theirs, ours = (kind("MlpPolicy", env, **options) for kind in (SAC, FastSAC))
    assert isinstance(ours, FastSAC)
    assert ours.networks is not None
    ours.set_parameters(theirs.get_parameters())
    noises = [torch.randn(2 * NUM_ROWS, 1, generator=torch.Generator().manual_seed(k)) for k in range(10)]
    for model in (theirs, ours):
        model.replay_buffer = OneBatch(samples)
        model.set_logger(Logger(None, []))
        for noise in noises:
            with monkeypatch.context() as patch:
                with_noise(noise, patch)
                model.train(1, NUM_ROWS)
    for name, value in theirs.policy.state_dict().items():
        torch.testing.assert_close(ours.policy.state_dict()[name], value, rtol=1e-4, atol=2e-6, msg=name)
    if ent_coef == "auto":
        torch.testing.assert_close(ours.log_ent_coef, theirs.log_ent_coef)
