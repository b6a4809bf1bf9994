"""The task's own policies at three tiers, and episodes of the best: small files that come with the package.

A file is made by `experts TASK` and says in its header how good each tier was measured to be, and by which command.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor

from envs.robots.episodes import Episode
from envs.robots.rollout import Act
from unified_irl.errors import UserError

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Snapshot:
    """A tanh-Gaussian perceptron with ReLU between its layers."""

    weights: Sequence[Tensor]
    biases: Sequence[Tensor]
    low: Tensor
    high: Tensor
    """Bounds of the actions."""

    def act(self, generator: Generator | None) -> Act:
        """At random with a generator, by the mean without."""

        def act(observations: np.ndarray) -> np.ndarray:
            seen = torch.from_numpy(observations)
            for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
                seen = torch.addmm(bias, seen, weight.T).relu()
            mean, log_std = torch.addmm(self.biases[-1], seen, self.weights[-1].T).chunk(2, dim=1)
            if generator is not None:
                mean = mean + log_std.clamp(-20.0, 2.0).exp() * torch.randn(mean.shape, generator=generator)
            return (self.low + 0.5 * (torch.tanh(mean) + 1.0) * (self.high - self.low)).numpy()

        return act


@dataclass(frozen=True)
class Experts:
    """What comes with a task."""

    tiers: dict[str, Snapshot]
    episodes: list[Episode]
    """The expert's, deterministic."""
    facts: dict[str, Any]
    """Of each tier the return, its spread and the steps it was trained for; and the command and hardware."""

    @property
    def score(self) -> float:
        """The mean return of the expert."""
        return float(self.facts["tiers"]["expert"]["return"])


def path_of(task: str) -> Path:
    return DATA / f"{task}.safetensors"


def save(path: Path, tiers: Mapping[str, Snapshot], episodes: Sequence[Episode], facts: Mapping[str, Any]) -> None:
    """Weights in half precision; they are the policy, so whoever measures it measures them."""
    tensors: dict[str, Tensor] = {}
    for tier, snapshot in tiers.items():
        tensors |= {f"{tier}/low": snapshot.low, f"{tier}/high": snapshot.high}
        for k, (weight, bias) in enumerate(zip(snapshot.weights, snapshot.biases, strict=True)):
            tensors |= {f"{tier}/{k}/weight": weight.half(), f"{tier}/{k}/bias": bias.half()}
    tensors |= {
        "episodes/observations": torch.from_numpy(np.concatenate([one.observations for one in episodes])),
        "episodes/actions": torch.from_numpy(np.concatenate([one.actions for one in episodes])),
        "episodes/rewards": torch.from_numpy(np.concatenate([one.rewards for one in episodes])),
        **_physics(episodes),
        "episodes/lengths": torch.tensor([len(one) for one in episodes]),
        "episodes/terminated": torch.tensor([one.terminated for one in episodes]),
        "episodes/truncated": torch.tensor([one.truncated for one in episodes]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    save_file(
        {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()},
        partial,
        {"facts": json.dumps(facts)},
    )
    partial.replace(path)


def _physics(episodes: Sequence[Episode]) -> dict[str, Tensor]:
    known = [one.physics for one in episodes if one.physics is not None]
    return {"episodes/physics": torch.from_numpy(np.concatenate(known))} if len(known) == len(episodes) else {}


def load(path: Path, task: str) -> Experts:
    if not path.is_file():
        raise UserError(
            f"Task '{task}' comes without policies and demonstrations of its own; give it demonstrations_file (and "
            f"preferences_file), or train its experts first: unified-irl experts {task}."
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = json.loads(file.metadata()["facts"])
        tiers = {tier: _snapshot(tensors, tier) for tier in facts["tiers"]}
        return Experts(tiers, _episodes(tensors), facts)
    except (SafetensorError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a task's policies: {error}. Restore a copy.") from error


def _snapshot(tensors: Mapping[str, Tensor], tier: str) -> Snapshot:
    count = sum(name.startswith(f"{tier}/") and name.endswith("/weight") for name in tensors)
    return Snapshot(
        [tensors[f"{tier}/{k}/weight"].float() for k in range(count)],
        [tensors[f"{tier}/{k}/bias"].float() for k in range(count)],
        tensors[f"{tier}/low"],
        tensors[f"{tier}/high"],
    )


def _episodes(tensors: Mapping[str, Tensor]) -> list[Episode]:
    lengths = tensors["episodes/lengths"].tolist()
    rows = [length + 1 for length in lengths]
    observations = tensors["episodes/observations"].split(rows)
    physics = tensors["episodes/physics"].split(rows) if "episodes/physics" in tensors else [None] * len(rows)
    actions, rewards = (tensors[f"episodes/{name}"].split(lengths) for name in ("actions", "rewards"))
    ends = (tensors[f"episodes/{name}"].tolist() for name in ("terminated", "truncated"))
    return [
        Episode(
            observations=seen.numpy(),
            actions=did.numpy(),
            rewards=paid.numpy(),
            terminated=terminated,
            truncated=cut,
            physics=None if where is None else where.numpy(),
        )
        for seen, did, paid, where, terminated, cut in zip(observations, actions, rewards, physics, *ends, strict=True)
    ]
