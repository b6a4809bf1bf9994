"""The task's own reward where a learnt one would stand: what the policy can do when nothing has to be learnt."""

from __future__ import annotations

import torch
from torch import Tensor

from unified_irl.learnable import Untaught
from unified_irl.trajectories import Trajectories


class GroundTruth(Untaught):
    """A reward that was paid, not learnt."""

    refusal = (
        "learn_from is 'ground truth', but the method learns a reward; set reward_steps to 0 in its phases, or "
        "learn_from to 'feedback'."
    )

    def __call__(self, trajectories: Trajectories) -> Tensor:
        return trajectories.data["true_reward"]

    def for_policy(self) -> TrueSteps:
        return TrueSteps()


class TrueSteps:
    """What the simulator paid for each step."""

    def __call__(self, observation: Tensor, action: Tensor, next_observation: Tensor, true_reward: Tensor) -> Tensor:
        return true_reward

    def absorbing(self) -> Tensor:
        return torch.zeros(())
