"""Small worlds for the tests of the control world: tiny networks, episodes of noise, and what people make of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.envs.classic_control import PendulumEnv
from torch import Generator, Tensor

from control.config import ControlConfig
from control.files.demonstrations import write_demonstrations
from control.files.preferences import Comparisons, write_preferences
from control.reward_config import RewardConfig
from control.sac_config import SACConfig
from control.trainer import Trainer
from envs.robots import snapshots
from envs.robots.config import PeopleConfig
from envs.robots.episodes import Episode, trajectories
from envs.robots.rollout import roll_out
from envs.robots.simulators import Simulator
from envs.robots.snapshots import Snapshot
from envs.robots.table import robot
from unified_irl.feedback import Demonstrations, Provenance
from unified_irl.methods import METHODS, Method

TINY: dict[str, Any] = {
    "hidden": (16, 16), "batch_size": 32, "learning_starts": 50, "critic_warmup": 0, "buffer_size": 1000,
}  # fmt: skip

SHORT = "gym:ShortPendulum-v0"
"""A pendulum whose episodes are over after 40 steps."""
gymnasium.register(id="ShortPendulum-v0", entry_point=PendulumEnv, max_episode_steps=40)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def tiny_config(name: str, **sac: Any) -> ControlConfig:
    """Eight demonstrations, eight comparisons, networks that learn in no time, absorbing steps where robots fall."""
    falls = robot(name).can_fall
    return ControlConfig(
        robot=name,
        people=PeopleConfig(num_demonstrations=8, num_preferences=8, num_compared_episodes=1, segment_length=10),
        ends="absorbing" if falls else "as they come",
        sac=SACConfig(**{**TINY, **sac}),
        reward=RewardConfig(hidden=(16,), penalty_points=32, absorbing=falls),
        num_examined=2,
    )


def tiny_row(name: str) -> Method:
    """A row of the table whose every phase is over after two rounds, a few updates each."""
    row = METHODS[name]
    phases = tuple(_tiny(phase) for phase in row.phases)
    return replace(row, phases=phases, warm_start=replace(row.warm_start, rounds=2))


def _tiny(phase: Any) -> Any:
    climbs = {"policy_updates": 30, "practice": 1} if phase.policy_updates else {}
    return replace(phase, rounds=2, reward_steps=min(phase.reward_steps, 2), segment=10, **climbs)


def trainer(name: str, num_simulators: int = 1, **sac: Any) -> Trainer:
    simulators = [Simulator(name) for _ in range(num_simulators)]
    config = SACConfig(**{**TINY, **sac}, num_simulators=num_simulators)
    return Trainer(simulators[0].env, simulators, config, seeded())


def noise_episodes(name: str, count: int, seed: int = 0) -> list[Episode]:
    """Episodes of uniform actions."""
    simulator, draw = Simulator(name), np.random.default_rng(seed)
    size = simulator.action_size

    def act(observations: np.ndarray) -> np.ndarray:
        return draw.uniform(simulator.low, simulator.high, (len(observations), size)).astype(np.float32)

    return roll_out(act, [simulator], count, seeded(seed))


def write_experts(name: str, folder: Path) -> None:
    """What comes with a task, made by perceptrons of random weights; the better a tier, the further its actions lean
    to their upper bound, so that whoever learns has something to tell them by."""
    simulator, draw = Simulator(name), seeded(1)
    low, high = torch.from_numpy(simulator.low), torch.from_numpy(simulator.high)

    def snapshot(lean: float) -> Snapshot:
        sizes = [(8, simulator.observation_size), (2 * simulator.action_size, 8)]
        weights = [0.3 * torch.randn(size, generator=draw) for size in sizes]
        biases = [torch.zeros(8), torch.tensor([lean, -1.0]).repeat_interleave(simulator.action_size)]
        return Snapshot(weights, biases, low, high)

    tiers = {tier: snapshot(lean) for tier, lean in (("simple", -1.0), ("medium", 0.0), ("expert", 1.0))}
    shown = roll_out(tiers["expert"].act(draw), [simulator], 8, draw, with_physics=simulator.can_reset_to)
    facts = {"tiers": {tier: {"return": 1000.0} for tier in tiers}}
    snapshots.save(folder / f"{name}.safetensors", tiers, shown, facts)


def write_files(name: str, folder: Path, count: int = 8) -> PeopleConfig:
    """Demonstrations and comparisons of noise as files, and the settings that name them."""
    episodes = noise_episodes(name, count)
    behaviours = trajectories(episodes)
    nobody = torch.zeros(count, dtype=torch.long)
    shown = Demonstrations(trajectories=behaviours, maker=nobody, makers=(Provenance(maker="noise"),))
    write_demonstrations(folder / "shown.npz", shown, "npz")
    firsts, seconds = torch.arange(count), torch.arange(count).roll(1)
    compared = Comparisons(
        episode_a=firsts, start_a=nobody, episode_b=seconds, start_b=nobody, length=torch.full((count,), 5),
        label=(firsts < seconds).float(), teacher=("index",) * count,
    )  # fmt: skip
    write_preferences(folder / "compared.parquet", compared, behaviours, folder / "shown.npz")
    return PeopleConfig(
        demonstrations_file=str(folder / "shown.npz"), preferences_file=str(folder / "compared.parquet")
    )


class Paid:
    """What the simulator paid, times a factor that can be changed, and so much for every absorbing step."""

    def __init__(self, factor: float = 1.0, after: float = 0.0) -> None:
        self.factor, self.after = factor, after

    def __call__(self, observation: Tensor, action: Tensor, next_observation: Tensor, true_reward: Tensor) -> Tensor:
        return self.factor * true_reward

    def absorbing(self) -> Tensor:
        return torch.tensor(self.after)


class Line(gymnasium.Env):
    """A point on a line, to be held near zero. After `breaks_after` steps, counted over all instances, it is faulty."""

    steps_taken = 0
    breaks_after: int | None = None

    def __init__(self, fault: str = "", dtype: str = "float32") -> None:
        self.fault = fault
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.dtype(dtype).type)
        self.place = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.normal(size=2)
        return self.place.copy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        Line.steps_taken += 1
        self.place = self.place + 0.1 * np.array([float(action[0]), 1.0])
        seen: Any = self.place.copy()
        if Line.breaks_after is not None and Line.steps_taken > Line.breaks_after:
            if self.fault == "raises":
                raise RuntimeError("the motor burnt out")
            seen = np.full(2, np.nan) if self.fault == "nan" else np.zeros(3)
        return seen, -abs(float(self.place[0])), bool(abs(self.place[0]) > 3.0), False, {}
