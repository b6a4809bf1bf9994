"""The task's own reward where a learnt one would stand: what the policy can do when nothing has to be learnt."""

from __future__ import annotations

import torch
from torch import Tensor

from unified_irl.batch import Batch, Normaliser
from unified_irl.contracts import LossFunction, State
from unified_irl.errors import UserError
from unified_irl.trajectories import Trajectories


class GroundTruth:
    """A reward that was paid, not learnt."""

    def __call__(self, trajectories: Trajectories) -> Tensor:
        return trajectories.data["true_reward"]

    def for_policy(self) -> TrueSteps:
        return TrueSteps()

    def descend(
        self, loss: LossFunction, batch: Batch, normaliser: Normaliser, step_size: float = 1.0
    ) -> dict[str, Tensor]:
        raise UserError(
            "learn_from is 'ground truth', but the method learns a reward; set reward_steps to 0 in its phases, or "
            "learn_from to 'feedback'."
        )

    def measure(self, loss: LossFunction, batch: Batch, normaliser: Normaliser) -> dict[str, Tensor]:
        return self.descend(loss, batch, normaliser)

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        return None


class TrueSteps:
    """What the simulator paid for each step."""

    def __call__(self, observation: Tensor, action: Tensor, next_observation: Tensor, true_reward: Tensor) -> Tensor:
        return true_reward

    def absorbing(self) -> Tensor:
        return torch.zeros(())
