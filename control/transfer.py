"""What a learnt reward is worth to somebody else: a fresh policy climbs it, in its own task or in another one with the
same observations and actions, and is then examined under what that task really pays.

With a reward of the state alone this is the transfer experiment of ML-IRL (Zeng et al., 2022).
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from control.acting import Speaker
from control.config import ControlConfig
from control.domain import ControlDomain
from control.examination import examine
from control.export_reward import load_reward
from control.features import Features
from control.ground_truth import TrueSteps
from control.policy import ControlPolicy, random_entropy
from control.replay import StepReward
from control.trainer import Trainer
from unified_irl.cells import RESULT
from unified_irl.contracts import Metrics
from unified_irl.errors import Diverged, UserError
from unified_irl.feed import stream
from unified_irl.serialise import from_json, write_json

UPDATES_BETWEEN_NEWS = 500
SECONDS_BETWEEN_NEWS = 10.0
News = Callable[[int, float], None]
"""Hears of the updates done, and of the mean true return of the episodes that ended since."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """All that decides what a fresh policy learns."""

    task: ControlConfig
    """Where it practises, and how; without people."""
    reward: str = ""
    """The file of the learnt reward, by its name beside the folders of the lessons; empty: the task's own reward."""
    beta: float
    """Temperature under a learnt reward. Under the task's own it is automatic."""
    pays_toll: bool
    """Whether every step pays what acting at random earns by its entropy, as it did while the reward was learnt."""
    discount: float
    """γ of the backups."""
    updates: int
    """Updates of the policy."""
    seed: int
    """Seed of the networks, the simulators and the examination: the same for every reward, so that lessons pair."""
    threads: int = 1
    """Torch threads."""


def lesson(
    task: ControlConfig, *, reward: str, beta: float, gamma: float, updates: int, seed: int, threads: int
) -> Lesson:
    """The lesson with a run's settings; nothing of what was demonstrated reaches it."""
    sac = replace(
        task.sac,
        temperature="fixed" if reward else "auto",
        anchor="uniform",
        demonstrated_share=0.0,
        reset_critics_above=0.0,
    )
    return Lesson(
        task=replace(task, sac=sac),
        reward=reward,
        beta=beta if reward else 1.0,
        pays_toll=bool(reward),
        discount=min(gamma, sac.discount),
        updates=updates,
        seed=seed,
        threads=threads,
    )


def work(config: dict[str, Any], path: Path) -> None:
    """A lesson as one cell of a matrix: its result is there when it is over."""
    given = from_json(Lesson, config, str(path))
    path.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(given.threads)
    began = time.monotonic()
    result = learn(given, path.parent, _Line(path.name.rpartition("-")[0], given.updates))
    write_json(path / RESULT, result | {"seconds": time.monotonic() - began})


def learn(given: Lesson, folder: Path, news: News) -> Metrics:
    """A fresh policy practises, and is examined under the task's own reward."""
    domain = ControlDomain(given.task, given.seed)
    trainer, reward = begin(given, domain, folder)
    draw = stream(given.seed, "transfer", "practice")
    toll = random_entropy(given.beta, len(trainer.scales.action_low)) if given.pays_toll else 0.0
    done, counts = 0, Metrics()
    while done < given.updates:
        count = min(UPDATES_BETWEEN_NEWS, given.updates - done)
        counts, episodes = trainer.train(reward, given.beta, given.discount, count, draw, toll=toll)
        done += count
        _refuse_nonsense(counts, done)
        news(done, float(np.mean([one.rewards.sum() for one in episodes])) if episodes else np.nan)
    speaker = Speaker(trainer.sac.actor, trainer.scales, domain.examiners, 0)
    return examined(speaker, domain, given.seed) | {"env_steps": counts["env_steps"]}


def _refuse_nonsense(counts: Metrics, done: int) -> None:
    for name, value in counts.items():
        if not math.isfinite(value):
            raise Diverged(f"After {done:,} updates {name} is {value:g}; expected a number. Lower sac.learning_rate.")


def begin(given: Lesson, domain: ControlDomain, folder: Path) -> tuple[Trainer, StepReward]:
    """Fresh networks, and the reward that they will climb."""
    practising = domain.simulators(given.task.sac.num_simulators)
    build = stream(given.seed, "transfer", "build")
    trainer = Trainer(practising[0].env, practising, given.task.sac, build, domain.device)
    if not given.reward:
        return trainer, TrueSteps()
    return trainer, load_reward(folder / given.reward).to(domain.device).for_policy()


def examined(policy: ControlPolicy | Speaker, domain: ControlDomain, seed: int) -> Metrics:
    """True returns of whole episodes; a seed starts them in the same places, whoever acts."""
    metrics, _ = examine(policy, domain.examiners, domain.config.num_examined, stream(seed, "transfer", "examination"))
    return metrics | ({"score": domain.score(metrics["return"])} if has_scale(domain) else {})


def has_scale(domain: ControlDomain) -> bool:
    """Whether scores lie on a scale from random actions to an expert; without one they are the returns."""
    return (domain.score(0.0), domain.score(1.0)) != (0.0, 1.0)


def refuse_other_shapes(features: Features, domain: ControlDomain, learnt_in: str) -> None:
    """A reward can only judge what has the shape of what it was learnt on."""
    one = domain.helpers[0]
    had = (features.num_observations, len(features.action_low))
    has = (one.observation_size, one.action_size)
    if had != has:
        raise UserError(
            f"The reward was learnt in {learnt_in}, on observations of {had[0]} and actions of {had[1]} numbers; "
            f"{domain.config.robot} has {has[0]} and {has[1]}. Choose a task of the same shapes."
        )
    low, high = features.action_low.cpu().numpy(), features.action_high.cpu().numpy()
    if not (np.allclose(one.low, low) and np.allclose(one.high, high)):
        raise UserError(
            f"The reward was learnt in {learnt_in}, on actions from {low.tolist()} to {high.tolist()}; those of "
            f"{domain.config.robot} lie from {one.low.tolist()} to {one.high.tolist()}. Choose a task of their range."
        )


class _Line:
    """A line on standard error now and then: lessons are long, and others may be learnt beside this one."""

    def __init__(self, name: str, updates: int) -> None:
        self.name, self.updates = name, updates
        self.last_time = time.monotonic()

    def __call__(self, done: int, mean_return: float) -> None:
        if time.monotonic() - self.last_time >= SECONDS_BETWEEN_NEWS:
            self.last_time = time.monotonic()
            said = "" if np.isnan(mean_return) else f"  return in practice {mean_return:.1f}"
            print(f"  {self.name}: {done:,} of {self.updates:,} updates{said}", file=sys.stderr, flush=True)
