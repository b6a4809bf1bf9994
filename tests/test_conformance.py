"""The graph world keeps every promise, and a world that breaks one is caught at it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from envs.walks.config import WalksConfig
from envs.walks.domain import WalksDomain
from envs.walks.policy import TabularPolicy, TabularReward, Walker
from unified_irl import conformance
from unified_irl.batch import Batch
from unified_irl.conformance import check_domain
from unified_irl.conformance_bench import Bench
from unified_irl.errors import UserError
from unified_irl.methods import METHODS
from unified_irl.trajectories import Contexts

torch.set_num_threads(1)

KINDS = ("free", "linear", "network")
TINY = WalksConfig(
    num_nodes=5, num_neighbours=2, horizon=4, num_demonstrations=10, num_preferences=10, reward_width=4, reward="linear"
)


@pytest.mark.parametrize(("policy", "reward"), [*itertools.product(KINDS, KINDS)])
def test_the_graph_world_keeps_every_promise(policy: Any, reward: Any):
    domain = WalksDomain(replace(TINY, policy=policy, reward=reward), seed=0)
    rows = [METHODS["aihf"], METHODS["self-play-aihf"], METHODS["bc"]] if reward == "linear" else [METHODS["ml-irl"]]
    assert check_domain(domain, rows) == [
        f"{check.__name__} ({row.name})" for row in rows for check in conformance.CHECKS
    ]


def test_single_precision_and_segments_and_missing_data_keep_every_promise():
    for changes in (
        {"dtype": "float32"},
        {"preference_level": "segment", "segment_length": 2},
        {"num_demonstrations": 0},
        {"num_preferences": 0},
    ):
        assert check_domain(WalksDomain(replace(TINY, **changes), seed=1), seed=1)


def test_discounted_rows_and_worlds_that_choose_the_start_keep_every_promise():
    row = replace(METHODS["aihf"], gamma=0.9)
    assert check_domain(WalksDomain(TINY, 0), [row], contexts_are_chosen=False)


class Broken(WalksDomain):
    """The graph world with a policy and a reward of other classes."""

    policy_class: type[TabularPolicy] = TabularPolicy
    reward_class: type[TabularReward] = TabularReward

    def build(self, method):
        parts = super().build(method)
        parts.policy.__class__ = self.policy_class
        if parts.reward is not None:
            parts.reward.__class__ = self.reward_class
        return parts


BROKEN: list[tuple[str, Callable[[], WalksDomain]]] = []


def caught_by(check: str):
    """This class (of a domain, a policy or a reward) breaks what the named check looks at."""

    def note(cls: type) -> type:
        if issubclass(cls, WalksDomain):
            made = cls
        else:
            which = "policy_class" if issubclass(cls, TabularPolicy) else "reward_class"
            made = type(cls.__name__, (Broken,), {which: cls})
        BROKEN.append((check, made))
        return cls

    return note


@caught_by("contexts_are_numbered")
class CountsFromOne(WalksDomain):
    @property
    def contexts(self):
        return replace(self.world.pairs, ids=self.world.pairs.ids + 1)


@caught_by("contexts_are_numbered")
class ContextsWithoutGoal(WalksDomain):
    @property
    def contexts(self):
        pairs = self.world.pairs
        return Contexts(ids=pairs.ids, data={"start": pairs.data["start"], "goal": pairs.data["goal"][:-1]})


@caught_by("data_are_valid")
class ShowsUnknownContexts(WalksDomain):
    @property
    def demonstrations(self):
        data = super().demonstrations
        return replace(data, trajectories=replace(data.trajectories, context_id=data.trajectories.context_id + 1000))


@caught_by("data_are_valid")
class ShowsNaN(WalksDomain):
    @property
    def demonstrations(self):
        data = super().demonstrations
        return replace(data, trajectories=replace(data.trajectories, weight=data.trajectories.weight * torch.nan))


@caught_by("data_are_valid")
class LabelsTwice(WalksDomain):
    @property
    def preferences(self):
        data = super().preferences
        return replace(data, label=data.label + 1.0)


@caught_by("builds_start_afresh")
class BuildsOnce(WalksDomain):
    def build(self, method):
        self.parts = getattr(self, "parts", None) or super().build(method)
        return self.parts


@caught_by("builds_start_afresh")
class BuildsAtRandom(WalksDomain):
    def build(self, method):
        parts = super().build(method)
        with torch.no_grad():
            for parameter in parts.policy.scores.parameters():
                parameter.normal_()
        return parts


@caught_by("samples_answer_their_contexts")
class AnswersBackwards(TabularPolicy):
    def sample(self, contexts, generator):
        return super().sample(contexts[torch.arange(len(contexts)).flip(0)], generator)


@caught_by("samples_answer_their_contexts")
class AnswersOnceTooFew(TabularPolicy):
    def sample(self, contexts, generator):
        return super().sample(contexts[:-1], generator)


@caught_by("samples_answer_their_contexts")
class ForgetsTheFirstStep(TabularPolicy):
    def sample(self, contexts, generator):
        walks = super().sample(contexts, generator)
        return replace(walks, start_step=walks.start_step + 1)


@caught_by("samples_answer_their_contexts")
class FrozenForgetsWhatItAnswers(TabularPolicy):
    def frozen(self):
        frozen = super().frozen()
        frozen.__class__ = Forgetful
        return frozen


class Forgetful(Walker):
    def sample(self, contexts, generator):
        walks = super().sample(contexts, generator)
        return replace(walks, context_id=torch.zeros_like(walks.context_id))


@caught_by("samples_depend_on_the_generator")
class RollsItsOwnDice(TabularPolicy):
    def sample(self, contexts, generator):
        return super().sample(contexts, torch.default_generator)


@caught_by("samples_depend_on_the_generator")
class AlwaysTheSame(TabularPolicy):
    def sample(self, contexts, generator):
        return super().sample(contexts, torch.Generator().manual_seed(0))


@caught_by("log_probs_fit_the_samples")
class SpeaksOfPadding(TabularPolicy):
    def log_prob(self, trajectories):
        return super().log_prob(trajectories) - 0.1 * ~trajectories.mask


@caught_by("log_probs_fit_the_samples")
class SpeaksOfWholeBehaviours(TabularPolicy):
    def log_prob(self, trajectories):
        return super().log_prob(trajectories).sum(1, keepdim=True) / trajectories.num_steps


@caught_by("log_probs_fit_the_samples")
class HasNoGradient(TabularPolicy):
    def log_prob(self, trajectories):
        return super().log_prob(trajectories).detach()

    def descend(self, loss, batch, normaliser, step_size=1.0):
        return {"loss": torch.zeros(())}


@caught_by("log_probs_fit_the_samples")
class FrozenHasAGradient(TabularPolicy):
    def frozen(self):
        frozen = super().frozen()
        frozen.log_policy_HGNA = frozen.log_policy_HGNA.clone().requires_grad_()
        return frozen


@caught_by("log_probs_fit_the_samples")
class ActsHotterThanItSays(TabularPolicy):
    def walker(self):
        walker = super().walker()
        return Walker(self.graph, (0.5 * walker.log_policy_HGNA).log_softmax(-1))


class Alias(Walker):
    """Looks frozen, and looks up the living policy every time."""

    @property
    def log_policy_HGNA(self):
        return self.policy.walker().log_policy_HGNA

    def load_state_dict(self, state):
        pass


@caught_by("frozen_stays")
class FrozenIsAnAlias(TabularPolicy):
    def frozen(self):
        alias = Alias.__new__(Alias)
        alias.graph, alias.policy = self.graph, self
        return alias


@caught_by("frozen_stays")
class FrozenIsStale(TabularPolicy):
    def frozen(self):
        return Walker(self.graph, self.graph.uniform().expand(self.horizon, self.graph.shape[0], -1, -1))


@caught_by("descent_goes_down")
class ClimbsItsLoss(TabularPolicy):
    def descend(self, loss, batch, normaliser, step_size=1.0):
        def negated(*given):
            value, metrics = loss(*given)
            return -value, metrics

        metrics = super().descend(negated, batch, normaliser, step_size)
        return metrics | {"loss": -metrics["loss"]}


@caught_by("descent_goes_down")
class LearnsWhileMeasuring(TabularPolicy):
    def measure(self, loss, batch, normaliser):
        return self.descend(loss, batch, normaliser)


@caught_by("descent_goes_down")
class MeasuresOnePiece(TabularReward):
    def measure(self, loss, batch, normaliser):
        return super().measure(loss, next(iter(batch.micro_batches(3))), normaliser)


@caught_by("descent_goes_down")
class RewardSitsStill(TabularReward):
    def descend(self, loss, batch, normaliser, step_size=1.0):
        value, metrics = loss(batch, normaliser)
        return metrics | {"loss": value.detach()}


@caught_by("descent_goes_down")
class ItsStepsHaveOneLength(TabularReward):
    def descend(self, loss, batch, normaliser, step_size=1.0):
        return super().descend(loss, batch, normaliser)


@caught_by("micro_batches_add_up")
class StepsPerMicroBatch(TabularPolicy):
    def descend(self, loss, batch, normaliser, step_size=1.0):
        size, self.descent.config = (
            self.descent.config.micro_batch_size,
            replace(self.descent.config, micro_batch_size=0),
        )
        metrics = [
            super(StepsPerMicroBatch, self).descend(loss, one, normaliser, step_size)
            for one in batch.micro_batches(size)
        ]
        return {name: sum(one[name] for one in metrics) for name in metrics[0]}


@caught_by("micro_batches_add_up")
class ClipsPerMicroBatch(TabularReward):
    def descend(self, loss, batch, normaliser, step_size=1.0):
        parameters, config, total = self.descent.parameters, self.descent.config, 0.0
        self.descent.optimiser.zero_grad()
        for piece in batch.micro_batches(config.micro_batch_size):
            value, _ = loss(piece, normaliser)
            value.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 0.05)
            total = total + value.detach()
        self.descent.step()
        return {"loss": total}


@caught_by("micro_batches_keep_pairs_and_normaliser")
class NormalisesPerMicroBatch(TabularReward):
    def descend(self, loss, batch, normaliser, step_size=1.0):
        return super().descend(lambda piece, _: loss(piece, piece.normaliser()), batch, normaliser, step_size)


@caught_by("micro_batches_keep_pairs_and_normaliser")
class TearsPairsApart(TabularReward):
    def descend(self, loss, batch, normaliser, step_size=1.0):
        rolled = Batch(
            demonstrations=batch.demonstrations,
            own=batch.own[torch.arange(len(batch.own)).roll(1)],
            preferences=batch.preferences,
        )
        return super().descend(loss, rolled, normaliser, step_size)


@caught_by("micro_batches_keep_pairs_and_normaliser")
class ForgetsTheLastRow(TabularPolicy):
    def descend(self, loss, batch, normaliser, step_size=1.0):
        short = Batch(
            demonstrations=batch.demonstrations[:-1],
            own=batch.own[:-1],
            preferences=batch.preferences,
        )
        return super().descend(loss, short, normaliser, step_size)


@caught_by("checkpoints_hold_everything")
class SavesNothing(TabularPolicy):
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@caught_by("checkpoints_hold_everything")
class ForgetsItsOptimiser(TabularReward):
    def state_dict(self):
        return {"scores": self.scores.state_dict()}

    def load_state_dict(self, state):
        self.scores.load_state_dict(state["scores"])


@caught_by("checkpoints_hold_everything")
class ForgetsHowManyStepsItTook(TabularPolicy):
    def state_dict(self):
        return super().state_dict() | {"descent": super().state_dict()["descent"] | {"num_steps": 0}}


@caught_by("checkpoints_hold_everything")
class FrozenForgets(TabularPolicy):
    def frozen(self):
        frozen = super().frozen()
        frozen.load_state_dict = lambda state: None
        return frozen


@caught_by("checkpoints_hold_everything")
class RemembersOutsideItsState(TabularPolicy):
    """Momentum that no checkpoint knows of."""

    def descend(self, loss, batch, normaliser, step_size=1.0):
        self.count = getattr(self, "count", 0) + 1
        for group in self.descent.optimiser.param_groups:
            group["weight_decay"] = 0.1 * self.count
        return super().descend(loss, batch, normaliser, step_size)


@caught_by("improve_climbs_and_touches_nothing_else")
class HandsBackTooFew(TabularPolicy):
    def improve(self, *given):
        metrics, own = super().improve(*given)
        return metrics, own[own.context_id != own.context_id[0]]


@caught_by("improve_climbs_and_touches_nothing_else")
class HandsBackSegments(TabularPolicy):
    def improve(self, *given):
        metrics, own = super().improve(*given)
        return metrics, own.segment(own.rewarded.sum(1) - 1, 1)


@caught_by("improve_climbs_and_touches_nothing_else")
class SaysNoLoss(TabularPolicy):
    def improve(self, *given):
        _, own = super().improve(*given)
        return {}, own


@caught_by("improve_climbs_and_touches_nothing_else")
class SaysNaN(TabularPolicy):
    def improve(self, *given):
        _, own = super().improve(*given)
        return {"policy_loss": float("nan")}, own


@caught_by("improve_climbs_and_touches_nothing_else")
class MovesTheReward(TabularPolicy):
    def improve(self, reward, *given):
        with torch.no_grad():
            for parameter in reward.scores.parameters():
                parameter.mul_(0.9)
        return super().improve(reward, *given)


@caught_by("improve_climbs_and_touches_nothing_else")
class MovesTheReference(TabularPolicy):
    def improve(self, reward, reference, *given):
        result = super().improve(reward, reference, *given)
        reference.log_policy_HGNA = self.walker().log_policy_HGNA
        return result


@caught_by("improve_climbs_and_touches_nothing_else")
class StaysWhereItIs(TabularPolicy):
    def improve(self, reward, reference, beta, gamma, contexts, num_updates, generator):
        return {"policy_loss": 0.0}, self.sample(contexts, generator)


@caught_by("only_rewarded_steps_count")
class CountsPadding(TabularPolicy):
    """A policy gradient on returns that were summed over everything the reward says."""

    def improve(self, reward, reference, beta, gamma, contexts, num_updates, generator):
        own = self.sample(contexts, generator)
        with torch.no_grad():
            return_B = reward(own).sum(1)

        def loss(batch, normaliser):
            value = -(return_B * self.log_prob(batch.own).sum(1)).sum() / normaliser.own
            return value, {}

        batch = Batch(own=own)
        metrics = self.descend(loss, batch, batch.normaliser())
        return {"policy_loss": float(metrics["loss"])}, own


@caught_by("only_rewarded_steps_count")
class RewardHasNoGradient(TabularReward):
    def __call__(self, trajectories):
        return super().__call__(trajectories).detach()

    def descend(self, loss, batch, normaliser, step_size=1.0):
        return {"loss": torch.zeros(())}


@caught_by("padding_changes_nothing")
class RewardsTheMean(TabularReward):
    def __call__(self, trajectories):
        return super().__call__(trajectories) / trajectories.num_steps


@caught_by("padding_changes_nothing")
class SpeaksTheMean(TabularPolicy):
    def log_prob(self, trajectories):
        return super().log_prob(trajectories) * (4.0 / trajectories.num_steps)


@caught_by("evaluation_is_only_looking")
class HasNoScore(WalksDomain):
    def evaluate(self, policy, reward):
        metrics = super().evaluate(policy, reward)
        return {name: value for name, value in metrics.items() if name != "score"}


@caught_by("evaluation_is_only_looking")
class ScoresNaN(WalksDomain):
    def evaluate(self, policy, reward):
        return super().evaluate(policy, reward) | {"regret": float("nan")}


@caught_by("evaluation_is_only_looking")
class ScoresTensors(WalksDomain):
    def evaluate(self, policy, reward):
        return super().evaluate(policy, reward) | {"regret": torch.tensor(0.0)}


@caught_by("evaluation_is_only_looking")
class TrainsOnTheExamination(WalksDomain):
    def evaluate(self, policy, reward):
        with torch.no_grad():
            for parameter in policy.scores.parameters():
                parameter.add_(0.1)
        return super().evaluate(policy, reward)


@caught_by("implicit_reward_moves_the_policy_alone")
class FrozenIsHalfAlive(TabularPolicy):
    """What it calls frozen follows every step."""

    def frozen(self):
        return FrozenIsAnAlias.frozen(self)


@caught_by("implicit_reward_moves_the_policy_alone")
class OnlyClones(TabularPolicy):
    def descend(self, loss, batch, normaliser, step_size=1.0):
        value, metrics = loss(batch, normaliser)
        if "demonstration_nll" in metrics:
            return super().descend(loss, batch, normaliser, step_size)
        return metrics | {"loss": value.detach()}


@pytest.mark.parametrize(("check", "domain"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_promise_is_caught(check: str, domain: Callable[..., WalksDomain]):
    """The check that looks for it names it; and the whole suite does not let the world pass."""
    world = domain(replace(TINY, policy="free"), 0)
    bench = Bench(world, METHODS["aihf"], seed=0, chosen=True)
    with pytest.raises((AssertionError, UserError)) as caught:
        getattr(conformance, check)(bench)
    assert str(caught.value).strip()
    with pytest.raises(AssertionError, match=r"^[a-z_]+ \(aihf\): .+"):
        check_domain(world, [METHODS["aihf"]])


def test_every_check_has_somebody_to_catch():
    assert {check for check, _ in BROKEN} == {check.__name__ for check in conformance.CHECKS}


def test_the_scaffold_of_the_broken_worlds_is_sound():
    assert check_domain(Broken(TINY, 0))
