"""Episodes as every part of the control world writes and reads them.

A behaviour's `data` holds, for each step t,

    observation       float[B, T, O]   what the policy saw
    action            float[B, T, A]   what it did, in the units of the environment
    next_observation  float[B, T, O]   what came of it
    true_reward       float[B, T]      what the task paid; learning never looks at it, zero where nobody knows
    absorbing         float[B, T]      how many steps after the end this column stands for; zero on ordinary steps

An absorbing column is rewarded but not chosen, and its observations and action are zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Generator, Tensor

from unified_irl import feed
from unified_irl.trajectories import Trajectories

FIELDS = ("observation", "action", "next_observation", "true_reward", "absorbing")


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode as a simulator gives it."""

    observations: np.ndarray
    """float[T + 1, O], the one after the last step included."""
    actions: np.ndarray
    """float[T, A], in the units of the environment."""
    rewards: np.ndarray
    """float[T]."""
    terminated: bool
    truncated: bool
    physics: np.ndarray | None = None
    """float[T + 1, P]: positions and velocities, from which another episode can begin, where they were written down."""
    seed: int | None = None
    """What the simulator was reset with, where it was; the same actions then do the same again."""
    log_prob: np.ndarray | None = None
    """float[T]: log-probability of the actions under whoever acted, where that is known."""

    def __len__(self) -> int:
        return len(self.actions)


def trajectories(episodes: Sequence[Episode], context_id: Tensor | None = None) -> Trajectories:
    """The episodes as one padded batch; without contexts they answer none (−1)."""
    count, longest = len(episodes), max(len(one) for one in episodes)

    def padded(parts: Sequence[np.ndarray]) -> Tensor:
        whole = np.zeros((count, longest, *parts[0].shape[1:]), dtype=np.float32)
        for row, part in zip(whole, parts, strict=True):
            row[: len(part)] = part
        return torch.from_numpy(whole)

    mask = torch.arange(longest) < torch.tensor([len(one) for one in episodes])[:, None]
    rewards = padded([one.rewards for one in episodes])
    return Trajectories(
        data={
            "observation": padded([one.observations[:-1] for one in episodes]),
            "action": padded([one.actions for one in episodes]),
            "next_observation": padded([one.observations[1:] for one in episodes]),
            "true_reward": rewards,
            "absorbing": torch.zeros_like(rewards),
        },
        mask=mask,
        rewarded=mask,
        context_id=torch.full((count,), -1) if context_id is None else context_id,
        weight=torch.ones(count),
        behaviour_log_prob=padded(
            [np.zeros(len(one), np.float32) if one.log_prob is None else one.log_prob for one in episodes]
        ),
        start_step=torch.zeros(count, dtype=torch.long),
        terminated=torch.tensor([one.terminated for one in episodes]),
        truncated=torch.tensor([one.truncated for one in episodes]),
    )


def with_absorbing(behaviours: Trajectories, horizon: int | Tensor) -> Trajectories:
    """Episodes that the world ended early, with one more column for all the steps that were left until the horizon.

    A horizon (one for all, or long[B]) of 0 adds none. Columns of this kind that are there already, from a file, say,
    give way.

    Every behaviour then covers the same number of steps, and a reward for merely staying alive (or for dying soon)
    gains nothing by itself.
    """
    behaviours = as_lived(behaviours)
    steps = behaviours.rewarded.sum(1)
    left = torch.where(behaviours.terminated, (horizon - steps).clamp(min=0), 0)
    if not bool(left.any()):
        return behaviours
    grown = behaviours.padded(max(behaviours.num_steps, int((steps + (left > 0)).max())))
    rows = left.nonzero().squeeze(1)
    rewarded, absorbing = grown.rewarded.clone(), grown.data["absorbing"].clone()
    rewarded[rows, steps[rows]] = True
    absorbing[rows, steps[rows]] = left[rows].to(absorbing.dtype)
    return replace(grown, rewarded=rewarded, data={**grown.data, "absorbing": absorbing})


def as_lived(behaviours: Trajectories) -> Trajectories:
    """Without absorbing columns."""
    absorbing = behaviours.data["absorbing"]
    if not bool(absorbing.any()):
        return behaviours
    rewarded = behaviours.rewarded & (absorbing == 0)
    data = {**behaviours.data, "absorbing": torch.zeros_like(absorbing)}
    return replace(behaviours, rewarded=rewarded, data=data)


def window(behaviours: Trajectories, num_steps: int, draw: Generator) -> Trajectories:
    """Of each behaviour `num_steps` steps from a random place on, steps after its end among them: it may begin at any
    lived step, and its absorbing column stands for no more steps than the window has left."""
    lived, runs_on = behaviours.mask.sum(1), (behaviours.data["absorbing"] > 0).any(1)
    room = torch.where(runs_on, lived, (lived - num_steps).clamp(min=0) + 1)
    cut = feed.window(behaviours, num_steps, draw, room)
    absorbing = torch.minimum(cut.data["absorbing"], num_steps - torch.arange(float(num_steps)))
    return replace(cut, data={**cut.data, "absorbing": absorbing})
