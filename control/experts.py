"""How the policies and demonstrations that come with a task are made: snapshots of a run under the true reward, of
which three are kept, measured on episodes that played no part in choosing them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from control.config import ControlConfig
from control.domain import ControlDomain
from control.policy import ControlPolicy
from envs.robots import snapshots
from envs.robots.episodes import Episode
from envs.robots.rollout import roll_out
from envs.robots.simulators import Simulator
from envs.robots.snapshots import Snapshot
from unified_irl.contracts import Metrics, RewardFunction, Sampler
from unified_irl.errors import UserError
from unified_irl.feed import stream

SHARES = {"simple": 0.25, "medium": 0.6}
"""Where the lower tiers should lie between the start (0: random actions or the first snapshot, whichever does better;
an arm that hardly moves beats one that moves at random) and the expert (1)."""
NUM_MEASURED = 50
"""Episodes by which a tier is measured."""


@dataclass(frozen=True)
class Sighting:
    """A policy on its way, and the return it had in an examination."""

    file: Path
    updates: int
    mean_return: float


class ExpertDomain(ControlDomain):
    """The task under its own reward; every examination leaves a snapshot of the policy."""

    def __init__(self, config: ControlConfig, seed: int, folder: Path) -> None:
        super().__init__(config, seed)
        self.folder = folder

    def evaluate(self, policy: Sampler, reward: RewardFunction | None) -> Metrics:
        metrics = super().evaluate(policy, reward)
        assert isinstance(policy, ControlPolicy)
        updates = policy.trainer.num_updates
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.contiguous() for name, value in policy.trainer.export().actor.state_dict().items()}
        path = self.folder / f"{updates:09d}.safetensors"
        save_file(tensors, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
        path.with_suffix(".json").write_text(json.dumps({"updates": updates, "return": metrics["return"]}))
        return metrics


def sightings(folder: Path) -> list[Sighting]:
    """All that a run has left so far, in order."""
    found = []
    for path in sorted(folder.glob("*.json")):
        told = json.loads(path.read_text())
        found.append(Sighting(path.with_suffix(".safetensors"), told["updates"], told["return"]))
    if not found:
        raise UserError(f"{folder} holds no snapshot yet; let the run go on until its first examination.")
    return found


def harvest(name: str, folder: Path, into: Path, facts: dict[str, Any], num_episodes: int) -> dict[str, Any]:
    """Choose three tiers among the snapshots, measure them afresh, and store them with episodes of the best."""
    domain = ControlDomain(ControlConfig(robot=name), 0)
    simulators, seen = domain.simulators(10), sightings(folder)
    floor = max(one for one in (domain.robot.random_score, seen[0].mean_return) if one is not None)
    finalists = sorted(seen, key=lambda one: -one.mean_return)[:5]
    measured = [_measured(one, simulators, f"{name} finalist") for one in finalists]
    chosen = {"expert": finalists[int(np.argmax([numbers["return"] for _, numbers in measured]))]}
    top = chosen["expert"].mean_return
    early = [one for one in seen if one.updates < chosen["expert"].updates] or seen
    for tier, share in SHARES.items():
        goal = floor + share * (top - floor)
        left = [one for one in early if one not in chosen.values()] or early
        chosen[tier] = min(left, key=lambda one: abs(one.mean_return - goal))
    tiers = {tier: _measured(chosen[tier], simulators, f"{name} {tier}") for tier in (*SHARES, "expert")}
    draw, act = stream(0, name, "shown"), tiers["expert"][0].act(None)
    shown = roll_out(act, simulators, num_episodes, draw, with_physics=True)
    told = facts | {"tiers": {tier: numbers for tier, (_, numbers) in tiers.items()}}
    told["demonstrations"] = {"count": len(shown), "return": _mean(shown)}
    snapshots.save(into, {tier: snapshot for tier, (snapshot, _) in tiers.items()}, shown, told)
    return told


def _measured(one: Sighting, simulators: list[Simulator], what: str) -> tuple[Snapshot, dict[str, float]]:
    """The snapshot as it will be stored, and its return."""
    snapshot = _snapshot(one.file, simulators[0])
    episodes = roll_out(snapshot.act(None), simulators, NUM_MEASURED, stream(0, what, "measured"))
    returns = [float(episode.rewards.sum()) for episode in episodes]
    return snapshot, {
        "return": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "length": float(np.mean([len(episode) for episode in episodes])),
        "updates": one.updates,
    }


def _mean(episodes: list[Episode]) -> float:
    return float(np.mean([episode.rewards.sum() for episode in episodes]))


def _snapshot(file: Path, simulator: Simulator) -> Snapshot:
    """An actor of Stable-Baselines3 as a plain perceptron, rounded as it will be stored."""
    state = load_file(file)
    hidden = sorted(int(name.split(".")[1]) for name in state if name.startswith("latent_pi.") and "weight" in name)
    names = [f"latent_pi.{k}" for k in hidden]
    weights = [*(state[f"{one}.weight"] for one in names), torch.cat([state["mu.weight"], state["log_std.weight"]])]
    biases = [*(state[f"{one}.bias"] for one in names), torch.cat([state["mu.bias"], state["log_std.bias"]])]
    return Snapshot(
        [weight.half().float() for weight in weights],
        [bias.half().float() for bias in biases],
        torch.from_numpy(simulator.low),
        torch.from_numpy(simulator.high),
    )
