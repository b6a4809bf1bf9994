"""What every domain owes the core, as small named checks. A new domain calls `check_domain` in its tests.

A broken promise is an AssertionError: the name of the check, the method it was tried with, and a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Generator

from unified_irl import feed
from unified_irl.batch import Batch, Normaliser
from unified_irl.contracts import (
    Domain,
    LossFunction,
    Metrics,
    Parts,
    Policy,
    Reward,
    RewardFunction,
    Sampler,
)
from unified_irl.errors import UserError
from unified_irl.feedback import Preferences, Provenance
from unified_irl.implicit import ImplicitReward
from unified_irl.joint import joint_loss
from unified_irl.methods import CLONE, METHODS, Method, Phase
from unified_irl.trajectories import Contexts, Trajectories

ROWS = (METHODS["aihf"], METHODS["self-play-aihf"])
JOINT = Phase(name="joint", demonstration="pairwise", preference="bradley-terry")
GENTLE = {"optimiser": "sgd", "learning_rate": 1e-2, "max_grad_norm": 1.0, "weight_decay": 0.0,
          "schedule": "constant", "warmup_steps": 0, "micro_batch_size": 0}  # fmt: skip
"""Descent whose outcome is as smooth as the loss. Adam would blow the rounding of a zero gradient up to a step."""


def check_domain(
    domain: Domain,
    method_rows: Iterable[Method] = ROWS,
    seed: int = 0,
    *,
    contexts_are_chosen: bool = True,
    num_rows: int = 8,
) -> list[str]:
    """The names of the checks passed. Where `improve` cannot choose where it starts, say `contexts_are_chosen=False`."""
    passed = []
    for row in method_rows:
        bench = Bench(domain, row, seed, contexts_are_chosen, num_rows)
        for check in CHECKS:
            try:
                check(bench)
            except (AssertionError, UserError) as error:
                raise AssertionError(f"{check.__name__} ({row.name}): {error}") from error
            passed.append(f"{check.__name__} ({row.name})")
    return passed


@dataclass(frozen=True)
class Bench:
    """A domain, a method, and the few behaviours on which every check works."""

    domain: Domain
    method: Method
    seed: int
    contexts_are_chosen: bool
    num_rows: int

    def draw(self, name: str) -> Generator:
        return feed.stream(self.seed, "conformance", name)

    def build(self, **descent: Any) -> Parts:
        """Fresh parts that descend gently, but for the given changes."""
        config = replace(self.method.policy_descent, **(GENTLE | descent))
        return self.domain.build(replace(self.method, policy_descent=config, reward_descent=config))

    @cached_property
    def batch(self) -> Batch:
        """Demonstrations and comparisons of the domain, or behaviours of the start in their place; own samples."""
        start, data, compared = self.build().policy.frozen(), self.domain.demonstrations, self.domain.preferences
        ids = torch.randint(len(self.domain.contexts), (self.num_rows,), generator=self.draw("contexts"))
        if data is None:
            shown = start.sample(self.domain.contexts[ids], self.draw("shown"))
        else:
            shown = data.trajectories[: self.num_rows]
        own = start.sample(self.domain.contexts[shown.context_id], self.draw("own"))
        label = (torch.arange(len(shown)) % 2).to(shown.weight)
        nobody = {"maker": torch.zeros(len(shown), dtype=torch.long), "makers": (Provenance(maker="nobody"),)}
        made_up = Preferences(first=shown, second=own, label=label, margin=torch.zeros_like(label), **nobody)  # type: ignore[arg-type]
        compared = made_up if compared is None else compared[: self.num_rows]
        return Batch(demonstrations=shown, own=own, preferences=compared)

    @property
    def shown(self) -> Trajectories:
        assert self.batch.demonstrations is not None
        return self.batch.demonstrations

    @property
    def contexts(self) -> Contexts:
        return self.domain.contexts[self.shown.context_id]

    def loss(self, parts: Parts, phase: Phase, reward: RewardFunction | None = None) -> LossFunction:
        reward = reward or self.reward(parts)
        log_prob = parts.policy.log_prob
        return joint_loss(self.method, phase, log_prob=log_prob, demonstration_reward=reward, preference_reward=reward)

    def reward(self, parts: Parts) -> RewardFunction:
        return parts.reward or ImplicitReward(parts.policy, parts.reference, self.method.beta)

    def learners(self, parts: Parts) -> list[tuple[str, Policy | Reward, LossFunction]]:
        """Who descends what: the policy clones, and policy or reward descend the joint loss."""
        joint = self.loss(parts, JOINT)
        return [("policy", parts.policy, self.loss(parts, CLONE)), ("reward", parts.reward or parts.policy, joint)]

    def train(self, parts: Parts, name: str = "train") -> Metrics:
        """A little of everything that learning does."""
        for _, learner, loss in self.learners(parts):
            learner.descend(loss, self.batch, self.batch.normaliser())
        return {} if parts.reward is None else self.improve(parts, parts.reward, name)[0]

    def improve(self, parts: Parts, reward: Reward, name: str = "improve") -> tuple[Metrics, Trajectories]:
        beta, gamma, draw = self.method.beta, self.method.gamma, self.draw(name)
        return parts.policy.improve(reward, parts.reference, beta, gamma, self.contexts, 2, draw)

    @torch.no_grad()
    def behaviour(self, *of: Sampler | RewardFunction | None) -> list[Any]:
        """What samplers do and say, and what rewards pay."""
        seen: list[Any] = []
        for one in of:
            if one is not None and hasattr(one, "sample"):
                seen += [one.sample(self.contexts, self.draw("behaviour")).state_dict(), one.log_prob(self.shown)]
            elif one is not None and not hasattr(one, "sample"):
                seen.append(one(self.shown))
        return seen


def contexts_are_numbered(bench: Bench) -> None:
    contexts = bench.domain.contexts
    wanted = torch.arange(len(contexts))
    assert torch.equal(contexts.ids, wanted), "the ids of the contexts must be 0, 1, 2, …, because an id is an index."
    for name, value in contexts.data.items():
        assert len(value) == len(wanted), f"contexts hold {len(value)} entries of '{name}' for {len(wanted)} ids."


def data_are_valid(bench: Bench) -> None:
    shown, compared = bench.domain.demonstrations, bench.domain.preferences
    if shown is not None:
        ids = shown.validated().trajectories.context_id
        inside = int(ids.min()) >= 0 and int(ids.max()) < len(bench.domain.contexts)
        assert inside, "a demonstration answers a context that the domain does not have."
    if compared is not None:
        compared.validated()


def building_is_repeatable(bench: Bench) -> None:
    first, second = bench.build(), bench.build()
    bench.train(first)
    first = bench.build()
    alike = _same(*(bench.behaviour(one.policy, one.reference, one.reward) for one in (first, second)))
    assert alike, "two builds of one method differ: what is built must depend on the domain, the method and its seed."


def samples_answer_their_contexts(bench: Bench) -> None:
    parts = bench.build()
    everything = bench.domain.contexts
    asked = everything[torch.randint(len(everything), (bench.num_rows,), generator=bench.draw("asked"))]
    for who, sampler in _samplers(parts):
        answer = sampler.sample(asked, bench.draw("answer")).validated(f"samples of the {who}")
        right = torch.equal(answer.context_id, asked.ids)
        assert right, f"the {who} must give one behaviour per context, in order, with the context's id in context_id."


def samples_depend_on_their_generator(bench: Bench) -> None:
    parts = bench.build()
    bench.train(parts)
    for who, sampler in _samplers(parts):
        drawn = []
        for name, elsewhere in (("one", 1), ("one", 2), ("two", 1)):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(elsewhere)
                drawn.append(sampler.sample(bench.contexts, bench.draw(name)).state_dict())
        assert _same(drawn[0], drawn[1]), f"the {who} samples differently from generators of one seed."
        assert not _same(drawn[0], drawn[2]), f"the {who} samples alike from generators of different seeds."


def log_probs_belong_to_samples(bench: Bench) -> None:
    parts = bench.build()
    bench.train(parts)
    for who, sampler in _samplers(parts):
        own = sampler.sample(bench.contexts, bench.draw("own"))
        for trajectories in (own, bench.shown):
            log_prob = sampler.log_prob(trajectories)
            shape = log_prob.shape == trajectories.mask.shape
            assert shape, f"log_prob of the {who} has shape {list(log_prob.shape)}; expected [behaviours, steps]."
            assert bool(log_prob.isfinite().all()), f"log_prob of the {who} is not finite everywhere."
            assert not bool(log_prob[~trajectories.mask].any()), f"log_prob of the {who} is not zero off the mask."
            assert log_prob.requires_grad == (sampler is parts.policy), (
                f"log_prob of the {who} is {'' if log_prob.requires_grad else 'not '}differentiable."
            )
        _close(sampler.log_prob(own), own.behaviour_log_prob, f"the {who} says another log_prob than when it acted")


def frozen_stays(bench: Bench) -> None:
    parts = bench.build(optimiser="adam")
    bench.train(parts)
    frozen = parts.policy.frozen()
    before, policy_before = bench.behaviour(frozen), bench.behaviour(parts.policy)
    assert _same(before, policy_before), "frozen() acts differently from the policy it was taken from."
    for step in ("once", "again"):
        bench.train(parts, step)
        assert _same(before, bench.behaviour(frozen)), "what frozen() gave moves when the policy learns."
    assert not _same(policy_before, bench.behaviour(parts.policy)), "the policy does not move when it learns."


def descent_lowers_the_loss(bench: Bench) -> None:
    parts = bench.build()
    for who, learner, loss in bench.learners(parts):
        first, then = (float(learner.descend(loss, bench.batch, bench.batch.normaliser())["loss"]) for _ in range(2))
        assert then < first, f"the loss of the {who} goes from {first:g} to {then:g} in a small step downhill."


def micro_batches_add_up(bench: Bench) -> None:
    whole, pieces = bench.build(), bench.build(micro_batch_size=1)
    for (who, one, loss), (_, other, same_loss) in zip(bench.learners(whole), bench.learners(pieces), strict=True):
        losses = []
        for learner, function in ((one, loss), (other, same_loss)):
            losses.append(learner.descend(function, bench.batch, bench.batch.normaliser())["loss"])
        _close(losses[1], losses[0], f"the loss of the {who} in micro-batches of one row is not that of the batch")
        after = [one if who == "policy" else bench.reward(whole), other if who == "policy" else bench.reward(pieces)]
        said = [(one.log_prob if who == "policy" else one)(bench.shown) for one in after]  # type: ignore[union-attr, operator]
        _close(said[1], said[0], f"a step of the {who} in micro-batches of one row is not that of the whole batch")


def descent_keeps_pairs_and_normaliser(bench: Bench) -> None:
    scale = Normaliser(**{name: 3.0 * value for name, value in vars(bench.batch.normaliser()).items()})
    parts = bench.build(micro_batch_size=3)
    for who, learner, loss in bench.learners(parts):
        pieces: list[Batch] = []

        def spy(batch: Batch, normaliser: Normaliser, loss: LossFunction = loss, to: list[Batch] = pieces) -> Any:
            right = _same(vars(normaliser), vars(scale))
            assert right, "descend must hand the loss the normaliser of the whole batch, as it was given."
            to.append(batch)
            return loss(batch, normaliser)

        learner.descend(spy, bench.batch, scale)
        for name in ("demonstrations", "own"):
            rows = torch.cat([getattr(piece, name).context_id.cpu() for piece in pieces if getattr(piece, name)])
            whole = getattr(bench.batch, name).context_id.cpu()
            assert torch.equal(rows.sort()[0], whole.sort()[0]), f"the {who}'s micro-batches are not the batch."
        for piece in pieces:
            if piece.demonstrations and piece.own:
                together = torch.equal(piece.demonstrations.context_id, piece.own.context_id)
                assert together, f"descend of the {who} tears demonstrations and own samples of one context apart."
