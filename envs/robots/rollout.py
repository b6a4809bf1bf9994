"""Whole episodes of whoever acts.

Shape legend: N episodes side by side, O observations, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator

from envs.robots.episodes import Episode
from envs.robots.simulators import Simulator
from unified_irl.contracts import State

Act = Callable[[np.ndarray], np.ndarray]
"""Observations [N, O] to actions [N, A], in the units of the environment."""


def seed_from(generator: Generator) -> int:
    return int(torch.randint(2**31 - 1, (), generator=generator))


def roll_out(
    act: Act, simulators: list[Simulator], num_episodes: int, generator: Generator, *, with_physics: bool = False
) -> list[Episode]:
    """Whole episodes, as many simulators at a time as there are; episode k starts from its own drawn seed."""
    keeps = with_physics and simulators[0].can_reset_to
    seeds = torch.randint(2**31 - 1, (num_episodes,), generator=generator).tolist()
    done: dict[int, Episode] = {}
    running = {k: Record.begin(simulators[k], seeds[k], keeps) for k in range(min(len(simulators), num_episodes))}
    free = iter(range(len(running), num_episodes))
    numbers = {lane: lane for lane in running}
    while running:
        actions = act(np.stack([record.observations[-1] for record in running.values()]))
        for (lane, record), action in zip(list(running.items()), actions, strict=True):
            if not record.step(simulators[lane], action):
                continue
            done[numbers[lane]] = record.episode()
            following = next(free, None)
            if following is None:
                del running[lane]
            else:
                numbers[lane], running[lane] = following, Record.begin(simulators[lane], seeds[following], keeps)
    return [done[k] for k in range(num_episodes)]


@dataclass
class Record:
    """An episode while it lasts."""

    observations: list[np.ndarray]
    actions: list[np.ndarray]
    rewards: list[float]
    terminated: bool = False
    truncated: bool = False
    physics: list[np.ndarray] | None = None
    """Where these are kept: one for each of the observations."""
    is_whole: bool = True
    """Whether it began where the task begins."""
    seed: int | None = None
    """From which seed, where that is known."""

    @staticmethod
    def begin(simulator: Simulator, seed: int, keeps_physics: bool = False) -> Record:
        observation = simulator.reset(seed)
        return Record([observation], [], [], physics=[simulator.physics()] if keeps_physics else None, seed=seed)

    @staticmethod
    def begin_at(simulator: Simulator, physics: np.ndarray, seed: int) -> Record:
        """In the middle of what somebody else did."""
        return Record([simulator.reset_to(physics, seed)], [], [], is_whole=False)

    def step(self, simulator: Simulator, action: np.ndarray) -> bool:
        """Whether the episode is over."""
        observation, reward, self.terminated, self.truncated = simulator.step(action)
        self.observations.append(observation)
        self.actions.append(action)
        self.rewards.append(reward)
        if self.physics is not None:
            self.physics.append(simulator.physics())
        return self.terminated or self.truncated

    def episode(self) -> Episode:
        return Episode(
            observations=np.stack(self.observations).astype(np.float32),
            actions=np.stack(self.actions).astype(np.float32),
            rewards=np.array(self.rewards, dtype=np.float32),
            terminated=self.terminated,
            truncated=self.truncated,
            physics=None if self.physics is None else np.stack(self.physics).astype(np.float32),
            seed=self.seed,
        )

    def state_dict(self) -> State:
        return {
            "observations": torch.from_numpy(np.stack(self.observations)),
            "actions": torch.from_numpy(np.array(self.actions, dtype=np.float32)),
            "rewards": torch.tensor(self.rewards, dtype=torch.float64),
            "is_whole": self.is_whole,
        }

    @staticmethod
    def restored(state: State) -> Record:
        return Record(
            list(state["observations"].numpy()),
            list(state["actions"].numpy()),
            state["rewards"].tolist(),
            is_whole=state["is_whole"],
        )
