"""What the conformance suite works on: a domain, a method and a few behaviours; and how it compares what it sees."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from unified_irl import checkpoint, feed
from unified_irl.batch import Batch, Normaliser
from unified_irl.contracts import (
    Domain,
    Learnable,
    LossFunction,
    Metrics,
    Parts,
    Reward,
    RewardFunction,
    Sampler,
    State,
)
from unified_irl.feedback import Preferences
from unified_irl.implicit import ImplicitReward
from unified_irl.joint import joint_loss
from unified_irl.rows import CLONE, Method, Phase, Query
from unified_irl.trajectories import Contexts, Trajectories

NUM_ROWS = 8
NUM_QUERIES = 5
JUNK = 1e3
JOINT = Phase(name="joint", demonstration="pairwise", preference="bradley-terry")
GENTLE: dict[str, Any] = {
    "optimiser": "sgd",
    "learning_rate": 1e-2,
    "schedule": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "micro_batch_size": 0,
}
"""Steps as smooth as the loss: Adam would blow the rounding error of a zero gradient up to a whole step."""


@dataclass
class Learning:
    """Something that descends, the loss that it descends, and what it then says of trajectories."""

    who: str
    learner: Learnable
    loss: LossFunction
    says: Callable[[Trajectories], Tensor]


class Bench:
    """Everything on it is drawn from its seed and made afresh, so one check leaves nothing behind for the next.

    `chosen` is false where the world itself draws the start of the behaviours that `improve` makes.
    """

    def __init__(self, domain: Domain, method: Method, seed: int, chosen: bool) -> None:
        self.domain, self.method, self.seed, self.chosen = domain, method, seed, chosen

    def draw(self, name: str) -> Generator:
        return feed.stream(self.seed, "conformance", name)

    def build(self, **changes: Any) -> Parts:
        """Fresh parts that descend gently."""
        descent = replace(self.method.policy_descent, **(GENTLE | changes))
        return self.domain.build(replace(self.method, policy_descent=descent, reward_descent=descent))

    def build_with_memory(self) -> Parts:
        """Fresh parts whose steps depend on those before them."""
        return self.build(optimiser="adam", schedule="inverse-sqrt")

    @cached_property
    def shown(self) -> Trajectories:
        """Demonstrations of the domain; where it has none, behaviours of its first policy."""
        if (data := self.domain.demonstrations) is not None:
            return data.trajectories[:NUM_ROWS]
        return self.build().policy.sample(self.asked, self.draw("shown"))

    @cached_property
    def asked(self) -> Contexts:
        """Any contexts, in any order."""
        count = len(self.domain.contexts)
        return self.domain.contexts[torch.randint(count, (NUM_ROWS,), generator=self.draw("asked"))]

    @cached_property
    def contexts(self) -> Contexts:
        """The contexts of what was shown."""
        return self.domain.contexts[self.shown.context_id.clamp(min=0)]

    @cached_property
    def batch(self) -> Batch:
        compared = self.domain.preferences
        own = self.build().policy.sample(self.contexts, self.draw("own"))
        return Batch(demonstrations=self.shown, own=own, preferences=None if compared is None else compared[:NUM_ROWS])

    @cached_property
    def marks(self) -> Tensor:
        return torch.arange(1, len(self.shown) + 1).to(self.shown.weight)

    @cached_property
    def marked(self) -> Batch:
        """The batch with weights 1, 2, 3, …, by which each row and its partner can be told."""
        shown, own = (replace(one, weight=self.marks) for one in (self.shown, self.batch.own) if one is not None)
        return replace(self.batch, demonstrations=shown, own=own)

    @cached_property
    def padded(self) -> Trajectories:
        """What was shown, in wider padding."""
        return self.shown.padded(self.shown.num_steps + 3)

    def reward(self, parts: Parts) -> RewardFunction:
        """The reward of the method, explicit or implicit."""
        return parts.reward or ImplicitReward(parts.policy, parts.reference, self.method.beta)

    def loss(self, parts: Parts, phase: Phase, reward: RewardFunction) -> LossFunction:
        speak = parts.policy.log_prob
        return joint_loss(self.method, phase, log_prob=speak, demonstration_reward=reward, preference_reward=reward)

    def learning(self, parts: Parts) -> tuple[Learning, Learning]:
        """The policy clones; the reward (or the policy that it is) tells good behaviours from worse ones."""
        policy, reward = parts.policy, self.reward(parts)
        return (
            Learning("policy", policy, self.loss(parts, CLONE, reward), policy.log_prob),
            Learning("reward", parts.reward or policy, self.loss(parts, JOINT, reward), reward),
        )

    def descend(self, one: Learning, step_size: float = 1.0) -> Tensor:
        """The loss on the batch, and a step down it."""
        return one.learner.descend(one.loss, self.batch, self.batch.normaliser(), step_size)["loss"]

    def measure(self, one: Learning, batch: Batch | None = None) -> Tensor:
        """The loss alone."""
        batch = batch or self.batch
        return one.learner.measure(one.loss, batch, batch.normaliser())["loss"]

    def done_twice(self, parts: Parts) -> Trajectories:
        """Behaviours of the policy, two in each context, so that any level of comparison finds pairs."""
        return parts.policy.sample(self.domain.contexts[self.asked.ids.repeat(2)], self.draw("done"))

    def ask(self, parts: Parts, own: Trajectories, query: Query, draw: str) -> Preferences | None:
        phase = replace(JOINT, queries=NUM_QUERIES, query=query)
        return self.domain.ask(own, self.reward(parts), NUM_QUERIES, phase, self.method.gamma, self.draw(draw))

    def said(self, parts: Parts, own: Trajectories, query: Query, draw: str) -> list[Any]:
        """The same answers, to compare."""
        answers = self.ask(parts, own, query, draw)
        return [] if answers is None else [answers.first.state_dict(), answers.second.state_dict(), answers.label]

    def improve(self, parts: Parts, reward: Reward, num_updates: int = 2) -> tuple[Metrics, Trajectories]:
        beta, gamma, draw = self.method.beta, self.method.gamma, self.draw("improve")
        return parts.policy.improve(reward, parts.reference, beta, gamma, self.contexts, num_updates, draw)

    def trained(self, parts: Parts | None = None) -> Parts:
        """The parts (fresh ones where none are given), after a little of all that learning does."""
        parts = parts or self.build()
        for one in self.learning(parts):
            self.descend(one)
        if parts.reward is not None:
            self.improve(parts, parts.reward)
        return parts

    def held(self, parts: Parts) -> list[Any]:
        """What a checkpoint holds of the parts."""
        return [parts.policy, parts.policy.frozen(), *([] if parts.reward is None else [parts.reward])]

    @torch.no_grad()
    def seen(self, *of: Any) -> list[Any]:
        """How policies act and what they say, and what rewards pay."""
        acts = [one.sample(self.contexts, self.draw("seen")).state_dict() for one in of if hasattr(one, "sample")]
        return [acts, *(getattr(one, "log_prob", one)(self.shown) for one in of if one is not None)]


class JunkOutside:
    """A reward that says junk wherever reward does not count."""

    def __init__(self, reward: Any) -> None:
        self.reward = reward

    def __call__(self, trajectories: Trajectories) -> Tensor:
        said: Tensor = self.reward(trajectories)
        return torch.where(trajectories.rewarded, said, JUNK)

    def for_policy(self) -> Callable[..., Tensor]:
        forward: Callable[..., Tensor] = self.reward.for_policy()
        return forward

    def descend(self, *given: Any) -> dict[str, Tensor]:
        metrics: dict[str, Tensor] = self.reward.descend(*given)
        return metrics

    def measure(self, *given: Any) -> dict[str, Tensor]:
        metrics: dict[str, Tensor] = self.reward.measure(*given)
        return metrics

    def state_dict(self) -> State:
        state: State = self.reward.state_dict()
        return state

    def load_state_dict(self, state: State) -> None:
        self.reward.load_state_dict(state)


def samplers(parts: Parts) -> list[tuple[str, Sampler]]:
    return [("policy", parts.policy), ("frozen policy", parts.policy.frozen())]


def watched(loss: LossFunction) -> tuple[LossFunction, list[Batch], list[Normaliser]]:
    """The same loss, and the batches and normalisers it will have been given."""
    batches: list[Batch] = []
    normalisers: list[Normaliser] = []

    def watching(batch: Batch, normaliser: Normaliser) -> tuple[Tensor, dict[str, Tensor]]:
        batches.append(batch)
        normalisers.append(normaliser)
        return loss(batch, normaliser)

    return watching, batches, normalisers


def reloaded(states: list[State]) -> list[State]:
    """What comes out when this goes into a checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        back: list[State] = checkpoint.load(checkpoint.save(Path(folder), states, 1))
    return back


def shows(side: Trajectories, own: Trajectories) -> list[bool]:
    """Of each behaviour on this side of comparisons, whether it is one of the own ones, or a piece of one."""
    found = []
    for number in range(len(side)):
        one = side[number : number + 1]
        there = own[own.context_id == one.context_id]
        there = there.segment(one.start_step.expand(len(there)), one.num_steps)
        alike = (there.mask | ~one.mask).all(1)
        for name, value in one.data.items():
            differs = (there.data[name] != value).flatten(2).any(2) if value.dim() > 2 else there.data[name] != value
            alike &= ~(differs & one.mask).any(1)
        found.append(bool(alike.any()))
    return found


def must(kept: bool, sentence: str) -> None:
    """Like `assert`, but not switched off by -O."""
    if not kept:
        raise AssertionError(sentence)


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit, however nested."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and one.dtype == other.dtype and bool((one == other).all())
    return bool(one == other)


def close(sentence: str, one: Tensor, other: Tensor) -> None:
    """Equal but for rounding."""
    tolerance = 1e-10 if one.dtype == torch.float64 else 1e-4
    one, other = one.detach().cpu(), other.detach().cpu()
    error = float(((one - other).abs() / (1.0 + other.abs())).max())
    must(error <= tolerance, f"{sentence}; they differ by {error:.1e}.")
