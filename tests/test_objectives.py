"""The losses against numbers derived by hand, finite differences, and the identities between them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unified_irl import objectives
from unified_irl.batch import Batch
from unified_irl.feedback import Preferences, Provenance
from unified_irl.implicit import ImplicitReward
from unified_irl.joint import joint_loss
from unified_irl.methods import Method, Phase, Regularisation
from unified_irl.trajectories import Trajectories

torch.set_num_threads(1)

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)
ONE = torch.ones((), dtype=torch.float64)


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def value(loss: objectives.Loss) -> float:
    return float(loss[0])


def compared(first: Tensor, second: Tensor, label: Tensor, margin=None, weight=None, normaliser=None, **knobs):
    """Bradley-Terry with weight 1 each, divided by their number, where nothing else is said."""
    weight = torch.ones_like(first) if weight is None else weight
    margin = torch.zeros_like(first) if margin is None else margin
    return objectives.bradley_terry(
        first, second, label, margin, weight, weight.sum() if normaliser is None else normaliser, **knobs
    )


def behaviours(rewards: list[list[float]], context_id: list[int] | None = None, weight=None) -> Trajectories:
    """One behaviour per list; each step carries its reward in `data["says"]`. All steps are chosen."""
    longest = max(len(row) for row in rewards)
    mask = torch.tensor([[step < len(row) for step in range(longest)] for row in rewards])
    says = torch.tensor([row + [0.0] * (longest - len(row)) for row in rewards], dtype=torch.float64)
    count = len(rewards)
    return Trajectories(
        data={"says": says},
        mask=mask,
        rewarded=mask,
        context_id=torch.arange(count) if context_id is None else torch.tensor(context_id),
        weight=torch.ones(count, dtype=torch.float64) if weight is None else weight,
        behaviour_log_prob=torch.zeros_like(says),
        start_step=torch.zeros(count, dtype=torch.long),
        terminated=torch.ones(count, dtype=torch.bool),
        truncated=torch.zeros(count, dtype=torch.bool),
    )


def preferences(first: Trajectories, second: Trajectories, label: Tensor, margin: Tensor | None = None) -> Preferences:
    return Preferences(
        first=first,
        second=second,
        label=label,
        margin=torch.zeros_like(label) if margin is None else margin,
        maker=torch.zeros(len(label), dtype=torch.long),
        makers=(Provenance(maker="somebody"),),
    )


def says(trajectories: Trajectories) -> Tensor:
    return trajectories.data["says"]


def method(phase: Phase, **changes) -> Method:
    return Method(name="test", summary="", reward="explicit", phases=(phase,), **changes)


def joint(phase: Phase, batch: Batch, reward=says, **changes) -> tuple[float, dict[str, float]]:
    loss = joint_loss(method(phase, **changes), phase, log_prob=says, demonstration_reward=reward,
                      preference_reward=reward)  # fmt: skip
    total, metrics = loss(batch, batch.normaliser())
    return float(total), {name: float(metric) for name, metric in metrics.items()}


def test_returns_discount_and_skip_what_has_no_discount():
    """1 + ½·2 + ¼·4 = 3; behind a NaN of the padding stands nothing, neither in the value nor in the gradient."""
    reward = torch.tensor([[1.0, 2.0, 4.0], [5.0, math.nan, math.inf]], dtype=torch.float64, requires_grad=True)
    discount = torch.tensor([[1.0, 0.5, 0.25], [1.0, 0.0, 0.0]], dtype=torch.float64)
    total = objectives.returns(reward, discount)
    assert total.tolist() == [3.0, 5.0]
    assert torch.autograd.grad(total.sum(), reward)[0].tolist() == discount.tolist()


def test_likelihood_by_hand():
    """−(1·(−1) + ½·(−3)) / 1½ = 5/3."""
    loss, metrics = objectives.negative_log_likelihood(vector(-1.0, -3.0), vector(1.0, 0.5), 1.5 * ONE)
    assert float(loss) == pytest.approx(5 / 3)
    assert float(metrics["demonstration_nll"]) == pytest.approx(5 / 3)


def test_linear_by_hand():
    """Shown: (3 + 1)/2 = 2. Did: ¼·1 + ¾·0 = ¼. (¼ − 2)/½ = −3½."""
    loss, metrics = objectives.linear(
        vector(3.0, 1.0), vector(1.0, 0.0), vector(1.0, 1.0), vector(0.25, 0.75), 2 * ONE, ONE, beta=0.5
    )
    assert float(loss) == pytest.approx(-3.5)
    assert {name: float(metric) for name, metric in metrics.items()} == pytest.approx(
        {"demonstration_return": 2.0, "own_return": 0.25, "demonstration_gap": 1.75}
    )


def test_pairwise_by_hand():
    """σ(ln 3) = ¾ and σ(0) = ½, so the loss is ½(ln 4/3 + ln 2) = ½ ln 8/3. A gap of 0 is no success."""
    loss, metrics = objectives.pairwise(vector(LN3, 1.0), vector(0.0, 1.0), vector(1.0, 1.0), 2 * ONE)
    assert float(loss) == pytest.approx(0.5 * math.log(8 / 3))
    assert {name: float(metric) for name, metric in metrics.items()} == pytest.approx(
        {
            "demonstration_return": (LN3 + 1) / 2,
            "own_return": 0.5,
            "demonstration_gap": LN3 / 2,
            "demonstration_accuracy": 0.5,
        }
    )


@pytest.mark.parametrize(
    ("label", "margin", "delta", "knobs", "expected"),
    [
        (1.0, 0.0, LN3, {}, math.log(4 / 3)),  # σ(ln 3) = 3/4
        (0.0, 0.0, LN3, {}, LN4),  # σ(−ln 3) = 1/4
        (0.5, 0.0, LN3, {}, 0.5 * math.log(16 / 3)),  # half of each
        (0.25, 0.0, LN3, {}, 0.25 * math.log(4 / 3) + 0.75 * LN4),
        (1.0, LN2, LN3 + LN2, {}, math.log(4 / 3)),  # Δ − m = ln 3
        (0.0, LN2, -LN3 - LN2, {}, math.log(4 / 3)),  # −Δ − m = ln 3
        (1.0, LN2, LN2, {}, LN2),  # exactly the margin is a coin flip
        (1.0, 0.0, LN3, {"smoothing": 0.25}, 0.75 * math.log(4 / 3) + 0.25 * LN4),
        (1.0, 0.0, LN3 / 2, {"sharpness": 2.0}, math.log(4 / 3)),  # κΔ = ln 3
        (1.0, LN2, LN3 / 2 + LN2, {"sharpness": 2.0}, math.log(4 / 3)),  # κ(Δ − m) = ln 3
    ],
)
def test_bradley_terry_by_hand(label: float, margin: float, delta: float, knobs: dict[str, float], expected: float):
    loss, metrics = compared(vector(5.0 + delta), vector(5.0), vector(label), vector(margin), **knobs)
    assert float(loss) == pytest.approx(expected)
    assert float(metrics["preference_loss"]) == pytest.approx(expected)


def test_bradley_terry_metrics_by_hand():
    """Δ = 2, −1, 3, 0 with labels 1, 1, 0, ½ and weights 1, 1, 2, 4, normalised by 8.

    Margins in favour of the preferred: 2, −1, −3, 0, weighted (2 − 1 − 6 + 0)/8 = −5/8.
    Agreement: 1, 0, 0, ½ (a tie counts half), weighted (1 + 0 + 0 + 2)/8 = 3/8.
    """
    _, metrics = compared(vector(2, -1, 3, 0), vector(0, 0, 0, 0), vector(1, 1, 0, 0.5), weight=vector(1, 1, 2, 4))
    assert float(metrics["rewards/margins"]) == pytest.approx(-5 / 8)
    assert float(metrics["rewards/accuracies"]) == pytest.approx(3 / 8)


def test_regularisers_by_hand():
    """Centring: (1·(1 + 2)² + 3·(−1 + 1)²)/4 = 9/4. Magnitude: (1·2² + 2·(−1)²)/3 = 2.

    Clamp at 2 of rewards 3, −5, 1 with γ = ½: 1² + ½·3² + ¼·0 = 5½, of weight 2 in 4.
    """
    centring, _ = objectives.centring(vector(1, -1), vector(2, 1), vector(1, 3), 4 * ONE)
    assert float(centring) == pytest.approx(9 / 4)
    magnitude, _ = objectives.magnitude(vector(2, -1), vector(1, 2), 3 * ONE)
    assert float(magnitude) == pytest.approx(2.0)
    reward, discount = vector(3, -5, 1)[None], vector(1, 0.5, 0.25)[None]
    clamp, _ = objectives.clamp_excess(reward, discount, 2.0, vector(2), 4 * ONE)
    assert float(clamp) == pytest.approx(5.5 * 2 / 4)


def test_finite_differences_agree_with_every_gradient():
    draw = torch.Generator().manual_seed(0)
    one, two, weight = (torch.randn(5, dtype=torch.float64, generator=draw) for _ in range(3))
    one, two, weight = one.requires_grad_(), two.requires_grad_(), weight.abs()
    label, margin, scale = torch.rand(5, dtype=torch.float64, generator=draw), weight * 0.3, weight.sum()
    reward = torch.randn(5, 3, dtype=torch.float64, generator=draw).mul(3.0).requires_grad_()
    discount = torch.tensor([[1.0, 0.9, 0.0]] * 5, dtype=torch.float64)
    for function, inputs in (
        (lambda x: objectives.returns(x, discount), (reward,)),
        (lambda x: objectives.negative_log_likelihood(x, weight, scale)[0], (one,)),
        (lambda x, y: objectives.linear(x, y, weight, weight, scale, scale, 0.3)[0], (one, two)),
        (lambda x, y: objectives.pairwise(x, y, weight, scale)[0], (one, two)),
        (lambda x, y: objectives.bradley_terry(x, y, label, margin, weight, scale, 0.1, 1.7)[0], (one, two)),
        (lambda x, y: objectives.centring(x, y, weight, scale)[0], (one, two)),
        (lambda x: objectives.magnitude(x, weight, scale)[0], (one,)),
        (lambda x: objectives.clamp_excess(x, discount, 1.0, weight, scale)[0], (reward,)),
    ):
        assert torch.autograd.gradcheck(function, inputs)


def test_metrics_carry_no_gradient():
    one, two = vector(1.0, 2.0).requires_grad_(), vector(0.5, 0.1).requires_grad_()
    weight = vector(1.0, 1.0)
    for _, metrics in (
        objectives.negative_log_likelihood(one, weight, ONE),
        objectives.linear(one, two, weight, weight, ONE, ONE, 1.0),
        objectives.pairwise(one, two, weight, ONE),
        compared(one, two, vector(1.0, 0.0)),
        objectives.centring(one, two, weight, ONE),
        objectives.magnitude(one, weight, ONE),
        objectives.clamp_excess(one[None], weight[None], 0.1, vector(1.0), ONE),
    ):
        assert metrics
        assert not any(metric.requires_grad for metric in metrics.values())


numbers = st.floats(-20.0, 20.0)
shares = st.floats(0.0, 1.0)


@given(numbers, numbers, shares, st.floats(0.0, 0.49), st.floats(0.0, 3.0))
@settings(deadline=None)
def test_smoothing_is_a_mixture_of_both_labels(first, second, label, smoothing, margin):
    """cDPO: the loss of a labeller who slips with probability ε is (1 − ε)·loss(p) + ε·loss(1 − p)."""
    sides = vector(first), vector(second)
    mixed = value(compared(*sides, vector(label), vector(margin), smoothing=smoothing))
    straight, flipped = (value(compared(*sides, vector(p), vector(margin))) for p in (label, 1.0 - label))
    assert mixed == pytest.approx((1 - smoothing) * straight + smoothing * flipped, abs=1e-12)


@given(numbers.filter(lambda delta: abs(delta) > 1e-3), st.floats(0.0, 3.0), st.floats(0.1, 3.0))
@settings(deadline=None)
def test_a_tie_is_least_at_no_difference(delta, margin, sharpness):
    def tie(of: float) -> Tensor:
        knobs = {"margin": vector(margin), "sharpness": sharpness}
        return compared(vector(of).requires_grad_(), vector(0.0), vector(0.5), **knobs)[0]

    assert tie(0.0).item() < tie(delta).item()
    at = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(compared(at, vector(0.0), vector(0.5), vector(margin))[0], at)
    assert float(slope) == pytest.approx(0.0, abs=1e-15)


@given(st.lists(st.tuples(numbers, numbers, st.floats(0.1, 5.0)), min_size=1, max_size=6))
@settings(deadline=None)
def test_pairwise_is_bradley_terry_with_label_one(rows):
    shown, did, weight = (vector(*column) for column in zip(*rows, strict=True))
    pairwise = objectives.pairwise(shown, did, weight, weight.sum())
    assert value(pairwise) == pytest.approx(value(compared(shown, did, torch.ones_like(shown), weight=weight)))


@given(numbers, numbers, shares, st.floats(0.0, 3.0), st.floats(0.0, 0.49))
@settings(deadline=None)
def test_sides_can_be_swapped_with_their_label(first, second, label, margin, smoothing):
    there = compared(vector(first), vector(second), vector(label), vector(margin), smoothing=smoothing)
    back = compared(vector(second), vector(first), vector(1.0 - label), vector(margin), smoothing=smoothing)
    assert value(there) == pytest.approx(value(back), abs=1e-12)
    for name in there[1]:
        assert float(there[1][name]) == pytest.approx(float(back[1][name]), abs=1e-12)


@given(st.lists(st.tuples(numbers, numbers, st.floats(0.1, 5.0)), min_size=1, max_size=6), st.floats(0.01, 100.0))
@settings(deadline=None)
def test_only_the_proportions_of_weights_count(rows, scale):
    """Twice the weight for everybody is nothing; a behaviour of weight 2 is the same behaviour seen twice."""
    one, two, weight = (vector(*column) for column in zip(*rows, strict=True))

    def all_losses(factor: float, repeat: bool = False) -> list[float]:
        a, b, w = ((torch.cat([x, x[:1]]) if repeat else x) for x in (one, two, factor * weight))
        if not repeat:
            w = torch.cat([2 * w[:1], w[1:]])
        return [
            value(objectives.negative_log_likelihood(a, w, w.sum())),
            value(objectives.linear(a, b, w, w, w.sum(), w.sum(), 0.5)),
            value(objectives.pairwise(a, b, w, w.sum())),
            value(compared(a, b, torch.sigmoid(a), weight=w)),
            value(objectives.centring(a, b, w, w.sum())),
            value(objectives.magnitude(a, w, w.sum())),
            value(objectives.clamp_excess(a[:, None], torch.ones_like(a)[:, None], 1.0, w, w.sum())),
        ]

    assert all_losses(scale) == pytest.approx(all_losses(1.0))
    assert all_losses(1.0, repeat=True) == pytest.approx(all_losses(1.0))


def test_infinite_certainty_has_a_finite_loss():
    """log σ(−1000) is −1000, not −inf."""
    assert value(compared(vector(-1000.0), vector(0.0), vector(1.0))) == pytest.approx(1000.0)
    assert value(objectives.pairwise(vector(-1000.0), vector(0.0), vector(1.0), ONE)) == pytest.approx(1000.0)


def test_staying_alive_is_rewarded():
    """Reward 1 per step; shown 3 steps, did 1. Linear, β = 1: 1 − 3 = −2, and its slope in the reward is −2.

    A mean over steps would see 1 against 1 and learn nothing.
    """
    phase = Phase(name="irl", demonstration="linear")
    batch = Batch(demonstrations=behaviours([[1.0] * 3]), own=behaviours([[1.0]]))
    assert joint(phase, batch, beta=1.0)[0] == pytest.approx(-2.0)

    alive = torch.ones((), dtype=torch.float64, requires_grad=True)
    loss = joint_loss(
        method(phase, beta=1.0),
        phase,
        log_prob=says,
        demonstration_reward=lambda one: alive * says(one),
        preference_reward=None,
    )(batch, batch.normaliser())[0]
    assert float(torch.autograd.grad(loss, alive)[0]) == pytest.approx(-2.0)


def test_joint_is_the_weighted_sum_of_its_terms():
    """γ = ½. Shown: 2 + ½·2 = 3. Did: 1. Linear at β = ½: (1 − 3)/½ = −4.

    Compared: ln 3 against 0, label 1: ln 4/3. With weights 3 and 5: −12 + 5 ln 4/3.
    """
    phase = Phase(name="joint", demonstration="linear", demonstration_weight=3.0, preference="bradley-terry",
                  preference_weight=5.0)  # fmt: skip
    batch = Batch(
        demonstrations=behaviours([[2.0, 2.0]]),
        own=behaviours([[1.0]]),
        preferences=preferences(behaviours([[LN3]]), behaviours([[0.0]]), vector(1.0)),
    )
    total, metrics = joint(phase, batch, beta=0.5, gamma=0.5)
    assert total == pytest.approx(-12 + 5 * math.log(4 / 3))
    assert metrics["demonstration_gap"] == pytest.approx(2.0)
    assert metrics["preference_loss"] == pytest.approx(math.log(4 / 3))


def test_cloning_reads_the_log_probability_and_discounts_it():
    """log π = −1, −2 with γ = ½: the loss is 1 + ½·2 = 2; the reward is not even looked at."""
    phase = Phase(name="clone", demonstration="likelihood")
    batch = Batch(demonstrations=behaviours([[-1.0, -2.0]]))
    assert joint(phase, batch, reward=None, gamma=0.5)[0] == pytest.approx(2.0)


def test_a_term_of_weight_zero_is_absent():
    """Neither its reward nor its data are touched: a reward that must not be asked is not asked."""

    def forbidden(trajectories: Trajectories) -> Tensor:
        raise AssertionError("asked")

    batch = Batch(
        demonstrations=behaviours([[1.0]]),
        own=behaviours([[0.0]]),
        preferences=preferences(behaviours([[LN3]]), behaviours([[0.0]]), vector(1.0)),
    )
    both = {"demonstration": "pairwise", "preference": "bradley-terry"}
    for weights, open_to in (({"demonstration_weight": 0.0}, "p"), ({"preference_weight": 0.0}, "d")):
        phase = Phase(name="one", **both, **weights)
        loss = joint_loss(
            method(phase),
            phase,
            log_prob=forbidden,
            demonstration_reward=says if open_to == "d" else forbidden,
            preference_reward=says if open_to == "p" else forbidden,
        )
        total, metrics = loss(batch, batch.normaliser())
        assert float(total) == pytest.approx(math.log(4 / 3) if open_to == "p" else math.log(1 + math.exp(-1)))
        assert ("preference_loss" in metrics) == (open_to == "p")


def test_a_reward_that_is_missing_is_an_invariant_broken():
    phase = Phase(name="irl", demonstration="linear")
    with pytest.raises(AssertionError, match="looks at a reward that method 'test' does not have"):
        joint_loss(method(phase), phase, log_prob=says, demonstration_reward=None, preference_reward=None)


def test_regularisers_reach_the_joint_loss():
    """Shown 3 (one step), did −1, β = 1, linear: −4. Magnitude ½·(3² + 1²) = 5; clamp at 2 with weight 10:
    10·(1² + 0) = 10. Together 11. Both sides count in the metrics.

    Compared 1 and 2, label 1, no smoothing: ln(1 + e); centring ½·3² = 4½.
    """
    batch = Batch(demonstrations=behaviours([[3.0]]), own=behaviours([[-1.0]]))
    kept = Regularisation(magnitude=0.5, clamp=10.0, clamp_bound=2.0)
    total, metrics = joint(Phase(name="irl", demonstration="linear"), batch, beta=1.0, regularisation=kept)
    assert total == pytest.approx(-4 + 5 + 10)
    assert metrics["reward_magnitude"] == pytest.approx(10.0)
    assert metrics["reward_clamp"] == pytest.approx(1.0)

    batch = Batch(preferences=preferences(behaviours([[1.0]]), behaviours([[2.0]]), vector(1.0)))
    phase = Phase(name="fit", preference="bradley-terry")
    total, metrics = joint(phase, batch, regularisation=Regularisation(centring=0.5))
    assert total == pytest.approx(math.log(1 + math.e) + 4.5)
    assert metrics["reward_centring"] == pytest.approx(9.0)
    smooth = joint(phase, batch, regularisation=Regularisation(label_smoothing=0.25))[0]
    assert smooth == pytest.approx(0.75 * math.log(1 + math.e) + 0.25 * math.log(1 + 1 / math.e))
    sharp = joint(replace(phase, preference_sharpness=2.0), batch)[0]
    assert sharp == pytest.approx(math.log(1 + math.exp(2)))


class Table:
    """A sampler of which only the log-probabilities matter: `scale` times what the data say."""

    def __init__(self, scale: float) -> None:
        self.scale = torch.tensor(scale, dtype=torch.float64, requires_grad=True)

    def log_prob(self, trajectories: Trajectories) -> Tensor:
        return self.scale * says(trajectories)


def test_dpo_by_hand():
    """log π = 3·x and log π_ref = x, β = ½: R = x. Preferred x = −½ − ½, other x = −1 − ln 3: Δ = ln 3, loss ln 4/3.

    The slope in the policy's scale s, R = ½(s − 1)·x: −σ(−Δ)·½·(x_w − x_l) = −¼·½·ln 3; none in the reference's.
    """
    policy, reference = Table(3.0), Table(1.0)
    phase = Phase(name="direct", preference="bradley-terry")
    one = Method(name="dpo", summary="", reward="implicit", phases=(phase,), beta=0.5)
    batch = Batch(preferences=preferences(behaviours([[-0.5, -0.5]]), behaviours([[-1.0 - LN3]]), vector(1.0)))
    reward = ImplicitReward(policy, reference, one.beta)
    loss = joint_loss(one, phase, log_prob=policy.log_prob, demonstration_reward=None, preference_reward=reward)
    total, _ = loss(batch, batch.normaliser())
    assert total.item() == pytest.approx(math.log(4 / 3))
    total.backward()
    assert float(policy.scale.grad) == pytest.approx(-0.25 * 0.5 * LN3)
    assert reference.scale.grad is None


def test_an_implicit_reward_is_zero_at_its_reference_and_blind_to_states_without_choice():
    trajectories = behaviours([[-1.0, -2.0], [-3.0]])
    assert not ImplicitReward(Table(2.0), Table(2.0), 0.7)(trajectories).any()


@given(st.integers(1, 7), st.integers(0, 9), st.booleans(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=25)
def test_micro_batches_add_up(num_rows, size, with_preferences, random):
    """Whatever the size of the pieces, and whatever the lengths and weights: loss, metrics and gradient add up."""

    def some(count: int) -> Trajectories:
        rows = [[random.uniform(-2, 2) for _ in range(random.randint(1, 4))] for _ in range(count)]
        return behaviours(rows, weight=vector(*(random.uniform(0.1, 2) for _ in range(count))))

    other = random.randint(1, 7)
    sides = some(other), some(other)
    label = vector(*(random.choice([0.0, 0.5, 1.0]) for _ in range(other)))
    batch = Batch(
        demonstrations=some(num_rows),
        own=some(num_rows),
        preferences=preferences(*sides, label) if with_preferences else None,
    )
    kept = Regularisation(magnitude=0.1, clamp=0.2, clamp_bound=1.0, centring=0.3, label_smoothing=0.05)
    for link in ("linear", "pairwise", "likelihood"):
        phase = Phase(name="joint", demonstration=link, preference="bradley-terry")
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)

        def reward(trajectories: Trajectories, scale: Tensor = scale) -> Tensor:
            return scale * says(trajectories)

        one = replace(method(replace(phase, demonstration="linear"), regularisation=kept, gamma=0.9), reward="implicit")
        loss = joint_loss(one, phase, log_prob=reward, demonstration_reward=reward, preference_reward=reward)
        whole, metrics = loss(batch, batch.normaliser())
        pieces = [loss(piece, batch.normaliser()) for piece in batch.micro_batches(size)]
        total = sum(piece[0] for piece in pieces)
        assert total.item() == pytest.approx(whole.item(), rel=1e-10, abs=1e-12)
        (slope,), (slope_of_pieces,) = (torch.autograd.grad(part, scale) for part in (whole, total))
        assert float(slope_of_pieces) == pytest.approx(float(slope), rel=1e-9, abs=1e-12)
        for name, metric in metrics.items():
            summed = sum(float(piece[1].get(name, 0.0)) for piece in pieces)
            assert summed == pytest.approx(float(metric), rel=1e-9, abs=1e-12), name


def test_pieces_of_a_batch_keep_rows_together_and_lose_none():
    """5 pairs and 3 comparisons in pieces of 2: rows 0-1, 2-3, 4 and comparisons 0-1, 2, none."""
    shown, own = behaviours([[0.0]] * 5), behaviours([[1.0]] * 5)
    compared_ = preferences(behaviours([[2.0]] * 3), behaviours([[3.0]] * 3), vector(1, 0, 1))
    pieces = list(Batch(demonstrations=shown, own=own, preferences=compared_).micro_batches(2))
    assert [piece.demonstrations.context_id.tolist() for piece in pieces] == [[0, 1], [2, 3], [4]]
    assert [piece.own.context_id.tolist() for piece in pieces] == [[0, 1], [2, 3], [4]]
    assert [None if piece.preferences is None else len(piece.preferences) for piece in pieces] == [2, 1, None]
    whole = Batch(demonstrations=shown)
    assert list(whole.micro_batches(0)) == [whole]
    assert list(whole.micro_batches(5)) == [whole]
    assert Batch().size == 0


def test_the_normaliser_is_the_weight_of_each_part():
    weighted = behaviours([[0.0], [0.0, 0.0, 0.0]], weight=vector(0.5, 2.0))
    normaliser = Batch(demonstrations=weighted, preferences=preferences(weighted, weighted, vector(1, 0))).normaliser()
    assert float(normaliser.demonstrations) == 2.5
    assert normaliser.own is None
    assert float(normaliser.preferences) == 2.5
