"""What the policy has lived through. Rewards are asked for when a batch is drawn, never stored, so that old steps are
always judged by the reward as it is now.

Shape legend: B rows, N steps of a backup, O observations, A actions.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from control.scales import Scales
from control.update import Transitions
from unified_irl.contracts import State


class StepReward(Protocol):
    """The reward as SAC asks for it, [B] each; actions are in the environment's units, and `true_reward` is what the
    simulator paid."""

    def __call__(
        self, observation: Tensor, action: Tensor, next_observation: Tensor, true_reward: Tensor
    ) -> Tensor: ...

    def absorbing(self) -> Tensor:
        """The reward of one step after the world has ended the episode."""
        ...


class Replay:
    """A ring of transitions, one row each: observation, action, next observation, true reward, and how it ended.

    The first columns are just what a critic takes, and a row is gathered at once. Steps of `num_lanes` simulators lie
    interleaved, so that the next step of a row's simulator is `num_lanes` rows on.
    """

    def __init__(self, num_observations: int, scales: Scales, capacity: int, num_lanes: int) -> None:
        self.num_observations, self.num_actions, self.num_lanes = num_observations, len(scales.action_low), num_lanes
        num_actions, device = self.num_actions, scales.action_low.device
        self.scales = scales
        self.capacity = capacity // num_lanes * num_lanes
        self.width = 2 * num_observations + num_actions + 3
        self.rows = torch.zeros(min(self.capacity, 65_536 // num_lanes * num_lanes), self.width, device=device)
        self.size = self.head = 0

    def add(
        self, observation: np.ndarray, action: np.ndarray, next_observation: np.ndarray, outcome: np.ndarray
    ) -> None:
        """One step of every simulator; actions within [−1, 1]; the outcome [N, 3]: what was paid, and whether the world
        ended the episode, or anything did (a time limit, say)."""
        if self.size == len(self.rows) < self.capacity:
            more = torch.zeros(min(len(self.rows), self.capacity - len(self.rows)), self.width, device=self.rows.device)
            self.rows, self.head = torch.cat([self.rows, more]), self.size
        row = np.concatenate([observation, action, next_observation, outcome], axis=1)
        self.rows[self.head : self.head + self.num_lanes] = torch.from_numpy(row)
        self.head = (self.head + self.num_lanes) % self.capacity
        self.size = min(self.size + self.num_lanes, self.capacity)

    def cut(self) -> None:
        """What comes next does not follow from the last steps: their episodes go on no further."""
        if self.size:
            last = (self.head - 1 - torch.arange(self.num_lanes)) % self.capacity
            self.rows[last.to(self.rows.device), -1] = 1.0

    def draw(self, count: int, generator: Generator) -> Tensor:
        """long[B]: which rows."""
        return torch.randint(self.size, (count,), generator=generator)

    def transitions(self, index: Tensor, reward: StepReward, gamma: float, num_steps: int) -> Transitions:
        """The drawn rows with their current reward, summed over the steps of the backup."""
        rows = self.rows.index_select(0, index.to(self.rows.device))
        if num_steps == 1:
            return self._one_step(rows, reward, gamma)
        age = (self.head - 1 - index) % self.capacity if self.size == self.capacity else self.size - 1 - index
        offset = torch.arange(num_steps) * self.num_lanes
        after = (index[:, None] + offset) % self.capacity
        known = offset <= age[:, None]
        window = self.rows[torch.where(known, after, index[:, None]).to(self.rows.device)]
        ended = window[..., -1] > 0
        alive = torch.cat([torch.zeros_like(ended[:, :1]), ended[:, :-1]], 1).cumsum(1) == 0
        counts = (alive & known.to(alive.device)).to(rows.dtype)
        steps = self._one_step(window.flatten(0, 1), reward, gamma)
        reward_BN = steps.reward.view(counts.shape) * counts
        power = gamma ** torch.arange(num_steps, device=rows.device)
        last = counts.sum(1).long() - 1
        pick = torch.arange(len(rows), device=rows.device) * num_steps + last
        return Transitions(
            seen=rows[:, : self.num_observations + self.num_actions],
            observation=rows[:, : self.num_observations],
            following=steps.following[pick],
            reward=(reward_BN * power).sum(1),
            discount=steps.discount[pick] * power[last],
        )

    def _one_step(self, rows: Tensor, reward: StepReward, gamma: float) -> Transitions:
        num_seen = self.num_observations + self.num_actions
        observation, action = rows[:, : self.num_observations], rows[:, self.num_observations : num_seen]
        following = rows[:, num_seen : num_seen + self.num_observations]
        true_reward, terminated = rows[:, -3], rows[:, -2]
        judged = reward(observation, self.scales.outward(action), following, true_reward)
        # After the end there are absorbing steps for ever: their value is a geometric series.
        judged = torch.addcmul(judged, terminated, reward.absorbing() * (gamma / (1.0 - gamma)))
        return Transitions(
            seen=rows[:, :num_seen],
            observation=observation,
            following=following,
            reward=judged,
            discount=gamma * (1.0 - terminated),
        )

    def state_dict(self) -> State:
        return {"rows": self.rows[: self.size], "head": self.head}

    def load_state_dict(self, state: State) -> None:
        rows = state["rows"].to(self.rows.device)
        self.size, self.head = len(rows), state["head"]
        if len(rows) > len(self.rows):
            self.rows = rows.clone()
        else:
            self.rows[: len(rows)] = rows
