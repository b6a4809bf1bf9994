"""The labeller's habits and faults, against probabilities computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from envs.labeller import TEACHERS, LabellerConfig, label, seen_return
from envs.walks.config import WalksConfig
from envs.walks.domain import WalksDomain
from unified_irl.errors import UserError

torch.set_num_threads(1)

MANY = 40_000
LN3 = math.log(3)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def share_of_first(difference: float, who: LabellerConfig) -> float:
    """How often the first of many pairs is chosen, when it is better by this much."""
    first = torch.full((MANY,), 7.0 + difference, dtype=torch.float64)
    labels, answered = label(first, torch.full_like(first, 7.0), who, draw())
    assert set(labels.tolist()) <= {0.0, 1.0}
    assert answered.all()
    return float(labels.mean())


def near(chance: float) -> object:
    """Within 4½ standard deviations of a share of `MANY`: a false alarm once in 150,000."""
    return pytest.approx(chance, abs=max(1e-12, 4.5 * math.sqrt(chance * (1 - chance) / MANY)))


@pytest.mark.parametrize(
    ("difference", "knobs", "chance"),
    [
        (LN3, {"rationality": 1.0}, 0.75),  # σ(ln 3)
        (-LN3, {"rationality": 1.0}, 0.25),
        (LN3 / 5, {"rationality": 5.0}, 0.75),  # σ(5 · ln 3 / 5)
        (0.0, {"rationality": 5.0}, 0.5),
        (1.0, {"rationality": 1e-9}, 0.5),
        (0.01, {"rationality": math.inf}, 1.0),
        (-0.01, {"rationality": math.inf}, 0.0),
        (0.0, {"rationality": math.inf}, 0.5),  # nobody is better: a coin
        (1.0, {"rationality": math.inf, "mistake": 0.2}, 0.8),
        (-1.0, {"rationality": math.inf, "mistake": 0.2}, 0.2),
        (LN3, {"rationality": 1.0, "mistake": 0.2}, 0.65),  # ¾ · 0.8 + ¼ · 0.2
        (1.0, {"rationality": math.inf, "mistake": 0.999}, 0.001),
    ],
)
def test_choices_have_their_probabilities(difference: float, knobs: dict[str, float], chance: float):
    assert share_of_first(difference, LabellerConfig(**knobs)) == near(chance)


def test_choices_are_independent():
    """Among pairs of neighbours with chance ¾ each, both are chosen in 9/16."""
    first = torch.full((2 * MANY,), LN3, dtype=torch.float64)
    labels, _ = label(first, torch.zeros_like(first), LabellerConfig(rationality=1.0), draw(1))
    both = (labels.view(-1, 2).sum(1) == 2).double().mean()
    assert float(both) == near(9 / 16)


def test_a_mistake_flips_the_answer_that_would_have_been_given():
    """The same choices with and without mistakes: they differ in about a tenth of the answers, both ways."""
    first, second = torch.randn(2, MANY, generator=draw(2), dtype=torch.float64)
    plain, _ = label(first, second, LabellerConfig(rationality=1.0), draw(3))
    slipped, _ = label(first, second, LabellerConfig(rationality=1.0, mistake=0.1), draw(3))
    flipped = plain != slipped
    assert float(flipped.double().mean()) == near(0.1)
    assert float(plain[flipped].mean()) == pytest.approx(float(plain.mean()), abs=0.05)


def test_answers_depend_on_the_generator_alone():
    first, second = torch.randn(2, 50, generator=draw(4), dtype=torch.float64)
    who = LabellerConfig(rationality=0.5)
    one, again, other = (label(first, second, who, draw(seed))[0] for seed in (5, 5, 6))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("equal", "labels"), [(0.0, [0.0, 1.0]), (0.587, [0.0, 1.0]), (0.588, [0.5, 1.0])])
def test_ties_by_hand(equal: float, labels: list[float]):
    """Returns 0 against 1 and 4 against 1½: mean 1.625, squares 2.640625 + 0.390625 + 5.640625 + 0.015625 = 8.6875,
    divided by 3 = 2.8958, standard deviation 1.7017. The first difference, 1, is 0.5876 of it.
    """
    who = LabellerConfig(rationality=math.inf, equal=equal)
    given, answered = label(vector(0.0, 4.0), vector(1.0, 1.5), who, draw())
    assert given.tolist() == labels
    assert answered.all()


def test_a_tie_is_a_tie_even_after_a_mistake():
    first = torch.cat([torch.zeros(50), 10.0 * torch.ones(50)]).double()
    second = torch.zeros_like(first)
    labels, _ = label(first, second, LabellerConfig(rationality=math.inf, mistake=0.5, equal=0.1), draw())
    assert (labels[:50] == 0.5).all()
    assert set(labels[50:].tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(("skip", "answered"), [(0.0, 5), (0.5, 5), (0.6, 4), (0.7, 3), (0.9, 1)])
def test_skips_by_hand(skip: float, answered: int):
    """Shown returns 0 … 9, the better sides 5 … 9. The lowest share `skip` ends at 9·skip: at 0, 4.5, 5.4, 6.3, 8.1."""
    _, kept = label(vector(0, 1, 2, 3, 4), vector(5, 6, 7, 8, 9), LabellerConfig(skip=skip), draw())
    assert kept.tolist() == [False] * (5 - answered) + [True] * answered


def test_the_myopic_see_the_end_best():
    """3, 0, 0 is worth 3·0.81 = 2.43 at myopia 0.9, and 0, 0, 2.5 its 2.5; a walk of one step ends with it: 3.

    Steps without reward are no time at all, wherever they stand.
    """
    rewards = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 2.5], [3.0, 9.0, 9.0], [9.0, 3.0, 0.0]], dtype=torch.float64)
    counts = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 0, 0], [0, 1, 1]]).bool()
    assert seen_return(rewards, counts, 0.9).tolist() == pytest.approx([2.43, 2.5, 3.0, 2.7])
    assert seen_return(rewards, counts, 1.0).tolist() == pytest.approx([3.0, 2.5, 3.0, 3.0])
    assert seen_return(rewards, counts, 1e-12).tolist() == pytest.approx([0.0, 2.5, 3.0, 0.0], abs=1e-9)


def test_the_six_teachers_are_those_of_b_pref():
    """Deviations from the oracle: mistakes 0.1, rationality 1, skips 0.1, myopia 0.9, ties 0.1 (there with β = ∞)."""
    oracle = TEACHERS["oracle"]
    assert oracle == LabellerConfig(rationality=math.inf, myopia=1.0, mistake=0.0, skip=0.0, equal=0.0)
    expected = {
        "oracle": {},
        "mistake": {"mistake": 0.1},
        "noisy": {"rationality": 1.0},
        "skip": {"skip": 0.1},
        "myopic": {"myopia": 0.9},
        "equal": {"equal": 0.1},
    }
    assert {name: replace(oracle, **changes) for name, changes in expected.items()} == TEACHERS


def test_the_six_teachers_at_work():
    """Normal returns, so differences have the standard deviation √2 of a single return; by who is chosen:

    the oracle and the skipper never choose the worse; mistakes do in a tenth; the noisy one in E[σ(−|Δ|)];
    a difference below 0.1 of the spread is a tie, which P(|Δ| < 0.1) = erf(0.1/2) = 0.0564 of them are;
    a query is skipped when both returns are in the lowest tenth: a hundredth.
    """
    first, second = torch.randn(2, MANY, generator=draw(7), dtype=torch.float64)
    better = (first > second).double()
    wrong, tied, skipped = {}, {}, {}
    for name, who in TEACHERS.items():
        labels, answered = label(first, second, who, draw(8))
        wrong[name] = float(((labels - better).abs() == 1.0).double().mean())
        tied[name] = float((labels == 0.5).double().mean())
        skipped[name] = float((~answered).double().mean())
    noisy = float(torch.sigmoid(-(first - second).abs()).mean())
    assert wrong == {"oracle": 0, "skip": 0, "myopic": 0, "equal": 0, "mistake": near(0.1), "noisy": near(noisy)}
    assert tied == dict.fromkeys(TEACHERS, 0.0) | {"equal": near(math.erf(0.05))}
    assert skipped == dict.fromkeys(TEACHERS, 0.0) | {"skip": near(0.01)}


@pytest.mark.parametrize("name", TEACHERS)
def test_every_teacher_labels_walks(name: str):
    """In the graph world each gives as many answers as were asked for, with its name in the record."""
    config = WalksConfig(
        num_nodes=6, num_neighbours=2, horizon=5, num_preferences=120, labeller=TEACHERS[name],
        compared_temperatures=(0.2, 3.0),
    )  # fmt: skip
    domain = WalksDomain(config, seed=0)
    compared = domain.preferences.validated()
    assert len(compared) == 120
    assert compared.makers[0].labeller == TEACHERS[name].describe()
    gains = [
        seen_return(domain.world.true_rewards(side), side.rewarded, config.labeller.myopia)
        for side in (compared.first, compared.second)
    ]
    if name in ("oracle", "skip", "myopic"):
        clear = (gains[0] - gains[1]).abs() > 1e-9
        assert clear.any()
        assert torch.equal(compared.label[clear] > 0.5, (gains[0] > gains[1])[clear])
    if name == "equal":
        assert (compared.label == 0.5).any()


def test_a_skipped_query_is_replaced():
    """A labeller who answers only about the best walks: the better sides are better than those of the oracle."""
    config = WalksConfig(num_nodes=6, num_neighbours=2, horizon=5, num_preferences=150, compared_temperatures=(1.0,))
    best = {}
    for skip in (0.0, 0.8):
        domain = WalksDomain(replace(config, labeller=LabellerConfig(skip=skip)), seed=0)
        compared = domain.preferences
        assert len(compared) == 150
        gains = [
            domain.world.true_rewards(side).mul(side.rewarded).sum(1) for side in (compared.first, compared.second)
        ]
        best[skip] = float(torch.maximum(*gains).mean())
    assert best[0.8] > best[0.0] + 0.3


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"rationality": 0.0}, "labeller: rationality is 0.0; expected a number above 0, or inf."),
        ({"rationality": math.nan}, "labeller: rationality is nan; expected a number above 0, or inf."),
        ({"myopia": 0.0}, "labeller: myopia is 0.0; expected a discount above 0 and at most 1."),
        ({"myopia": 1.1}, "labeller: myopia is 1.1; expected a discount above 0 and at most 1."),
        ({"mistake": 1.0}, "labeller: mistake is 1.0; expected at least 0 and below 1."),
        ({"mistake": -0.1}, "labeller: mistake is -0.1; expected at least 0 and below 1."),
        ({"skip": 1.0}, "labeller: skip is 1.0; expected at least 0 and below 1."),
        ({"equal": -1.0}, "labeller: equal is -1.0; expected at least 0 and below inf."),
        ({"equal": math.nan}, "labeller: equal is nan; expected at least 0 and below inf."),
    ],
)
def test_impossible_labellers_get_a_sentence(knobs: dict[str, float], sentence: str):
    with pytest.raises(UserError) as caught:
        LabellerConfig(**knobs)
    assert str(caught.value) == sentence


def test_habits_are_described():
    assert LabellerConfig(rationality=2.0).describe() == "Bradley-Terry, rationality 2"
    everything = LabellerConfig(rationality=math.inf, myopia=0.9, mistake=0.1, skip=0.25, equal=0.5)
    assert everything.describe() == "Bradley-Terry, rationality inf, myopia 0.9, mistake 0.1, skip 0.25, equal 0.5"
