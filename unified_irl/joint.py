"""The losses of one phase, put together: the demonstration term, the preference term and their regularisers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unified_irl import objectives
from unified_irl.batch import Batch, Normaliser
from unified_irl.contracts import LossFunction, RewardFunction
from unified_irl.objectives import Loss, TensorMetrics, returns
from unified_irl.rows import Method, Phase, Regularisation
from unified_irl.trajectories import Trajectories


@dataclass(frozen=True, kw_only=True)
class Term:
    """One term of the objective: a link, the reward it looks at, and how it is regularised."""

    reward: RewardFunction
    gamma: float
    beta: float
    sharpness: float
    regularisation: Regularisation

    def returns(self, trajectories: Trajectories) -> tuple[Tensor, Tensor, Tensor]:
        """Per-step rewards [B, T], discounts [B, T] and returns [B]."""
        reward_BT = self.reward(trajectories)
        discount_BT = trajectories.discount(self.gamma)
        return reward_BT, discount_BT, returns(reward_BT, discount_BT)


def likelihood_term(term: Term, batch: Batch, normaliser: Normaliser) -> Loss | None:
    """Here the term's 'reward' is the policy's log-probability."""
    if batch.demonstrations is None or normaliser.demonstrations is None:
        return None
    _, _, log_prob_B = term.returns(batch.demonstrations)
    return objectives.negative_log_likelihood(log_prob_B, batch.demonstrations.weight, normaliser.demonstrations)


def linear_term(term: Term, batch: Batch, normaliser: Normaliser) -> Loss | None:
    """The sides need not be paired, so a micro-batch may hold rows of one side only."""
    demonstrations, own = batch.demonstrations, batch.own
    if normaliser.demonstrations is None or normaliser.own is None or (demonstrations is None and own is None):
        return None
    shown = None if demonstrations is None else term.returns(demonstrations)
    did = None if own is None else term.returns(own)
    none = normaliser.own.new_zeros(0)
    loss = objectives.linear(
        none if shown is None else shown[2],
        none if did is None else did[2],
        none if demonstrations is None else demonstrations.weight,
        none if own is None else own.weight,
        normaliser.demonstrations,
        normaliser.own,
        term.beta,
    )
    return _with_regularisers(loss, term.regularisation, batch, normaliser, shown, did)


def pairwise_term(term: Term, batch: Batch, normaliser: Normaliser) -> Loss | None:
    demonstrations, own = batch.demonstrations, batch.own
    if demonstrations is None or own is None or normaliser.demonstrations is None:
        return None
    shown, did = term.returns(demonstrations), term.returns(own)
    loss = objectives.pairwise(shown[2], did[2], demonstrations.weight, normaliser.demonstrations)
    return _with_regularisers(loss, term.regularisation, batch, normaliser, shown, did)


def bradley_terry_term(term: Term, batch: Batch, normaliser: Normaliser) -> Loss | None:
    preferences = batch.preferences
    if preferences is None or normaliser.preferences is None:
        return None
    weight_B = preferences.first.weight
    _, _, first_B = term.returns(preferences.first)
    _, _, second_B = term.returns(preferences.second)
    loss, metrics = objectives.bradley_terry(
        first_B,
        second_B,
        preferences.label,
        preferences.margin,
        weight_B,
        normaliser.preferences,
        term.regularisation.label_smoothing,
        term.sharpness,
    )
    if term.regularisation.centring:
        extra, more = objectives.centring(first_B, second_B, weight_B, normaliser.preferences)
        loss, metrics = loss + term.regularisation.centring * extra, metrics | more
    return loss, metrics


def _with_regularisers(
    loss: Loss,
    regularisation: Regularisation,
    batch: Batch,
    normaliser: Normaliser,
    *sides: tuple[Tensor, Tensor, Tensor] | None,
) -> Loss:
    """The loss plus the magnitude and clamp penalties over demonstrations and own samples."""
    total, metrics = loss
    parts = ((batch.demonstrations, normaliser.demonstrations), (batch.own, normaliser.own))
    for (trajectories, scale), side in zip(parts, sides, strict=True):
        if trajectories is None or scale is None or side is None:
            continue
        reward_BT, discount_BT, return_B = side
        penalties = []
        if regularisation.magnitude:
            penalties.append((regularisation.magnitude, objectives.magnitude(return_B, trajectories.weight, scale)))
        if regularisation.clamp:
            wall = objectives.clamp_excess(
                reward_BT, discount_BT, regularisation.clamp_bound, trajectories.weight, scale
            )
            penalties.append((regularisation.clamp, wall))
        for weight, (penalty, more) in penalties:
            total = total + weight * penalty
            metrics = metrics | {name: value + metrics.get(name, 0.0) for name, value in more.items()}
    return total, metrics


TermFunction = Callable[[Term, Batch, Normaliser], Loss | None]
DEMONSTRATION_TERMS: dict[str, TermFunction] = {
    "likelihood": likelihood_term,
    "linear": linear_term,
    "pairwise": pairwise_term,
}
PREFERENCE_TERMS: dict[str, TermFunction] = {"bradley-terry": bradley_terry_term}


def joint_loss(
    method: Method,
    phase: Phase,
    *,
    log_prob: RewardFunction,
    demonstration_reward: RewardFunction | None,
    preference_reward: RewardFunction | None,
) -> LossFunction:
    """w_d · demonstration term + w_p · preference term. A term of weight 0 is absent: it is not even evaluated."""

    def term(reward: RewardFunction | None) -> Term:
        assert reward is not None, f"phase '{phase.name}' looks at a reward that method '{method.name}' does not have"
        return Term(
            reward=reward,
            gamma=method.gamma,
            beta=method.beta,
            sharpness=phase.preference_sharpness,
            regularisation=method.regularisation,
        )

    weighted: list[tuple[float, TermFunction, Term]] = []
    if phase.learns_demonstrations:
        speaks = demonstration_reward if phase.needs_own_samples else log_prob
        weighted.append((phase.demonstration_weight, DEMONSTRATION_TERMS[phase.demonstration], term(speaks)))
    if phase.learns_preferences:
        weighted.append((phase.preference_weight, PREFERENCE_TERMS[phase.preference], term(preference_reward)))

    def loss(batch: Batch, normaliser: Normaliser) -> tuple[Tensor, TensorMetrics]:
        terms = [(weight, function(one, batch, normaliser)) for weight, function, one in weighted]
        present = [(weight, value) for weight, value in terms if value is not None]
        if not present:  # a micro-batch with rows of what this phase does not look at
            return torch.zeros((), requires_grad=True), {}
        total = present[0][0] * present[0][1][0]
        for weight, (value, _) in present[1:]:
            total = total + weight * value
        return total, {name: metric for _, (_, metrics) in present for name, metric in metrics.items()}

    return loss
