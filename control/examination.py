"""How good a policy and a reward are under the ground truth."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator

from control.acting import Speaker
from control.policy import ControlPolicy
from control.recovery import TRUE_REWARDS, recovery
from envs.robots.episodes import Episode, trajectories
from envs.robots.rollout import roll_out
from envs.robots.simulators import Simulator
from unified_irl.contracts import Metrics, RewardFunction
from unified_irl.trajectories import Trajectories


def examine(
    policy: ControlPolicy | Speaker, simulators: list[Simulator], num_episodes: int, draw: Generator
) -> tuple[Metrics, Trajectories]:
    """True returns of whole episodes, acting by the mean and at random, and all of the episodes."""
    by_mean = roll_out(policy.acting(None), simulators, num_episodes, draw)
    at_random = roll_out(policy.acting(draw), simulators, num_episodes, draw)
    metrics = {
        "return": _mean_return(by_mean),
        "return_std": float(np.std([one.rewards.sum() for one in by_mean])),
        "stochastic_return": _mean_return(at_random),
        "length": float(np.mean([len(one) for one in by_mean])),
    }
    episodes = [*by_mean, *at_random]
    return metrics, trajectories(episodes, torch.zeros(len(episodes), dtype=torch.long))


def _mean_return(episodes: list[Episode]) -> float:
    return float(np.mean([one.rewards.sum() for one in episodes]))


def reward_numbers(reward: RewardFunction, behaviours: Trajectories, robot_id: str, draw: Generator) -> Metrics:
    """How far the learnt reward agrees with the true one on what the policy does."""
    found = recovery(reward, behaviours, 1.0, draw, TRUE_REWARDS.get(robot_id))
    return {f"reward/{name}": value for name, value in found.items()}
