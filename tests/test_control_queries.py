"""Which segments are asked about: rewards made so that the right choice is obvious, and every place equally likely."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from control.config import ControlConfig
from control.domain import ControlDomain
from control.queries import Ensemble, QueryConfig, pick
from control.reward import MLPReward
from control.reward_config import RewardConfig
from envs.labeller import LabellerConfig
from envs.robots.config import PeopleConfig
from envs.robots.episodes import Episode, trajectories, with_absorbing
from envs.robots.people import judged
from unified_irl.batch import Batch
from unified_irl.descent_config import DescentConfig
from unified_irl.errors import UserError
from unified_irl.feedback import Preferences, Provenance
from unified_irl.joint import joint_loss
from unified_irl.methods import Method, Phase
from unified_irl.objectives import returns
from unified_irl.trajectories import Trajectories

torch.set_num_threads(1)

UNIFORM = QueryConfig(scheme="uniform", segment_length=3, num_queries=6000)


def ask(first: Trajectories, second: Trajectories, **who: float) -> Preferences:
    """The answers of a labeller who sees every difference, but for the given habits."""
    labeller = LabellerConfig(**{"rationality": math.inf, **who})
    people = PeopleConfig(teacher="custom", labeller=labeller)
    return judged(first, second, people, draw(), (Provenance(maker="somebody"),)).validated()


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def steady(*features: tuple[float, float], length: int = 4) -> Trajectories:
    """Episodes that show two numbers, always the same; the first is what the task pays."""
    return trajectories(
        [
            Episode(
                observations=np.tile(np.array(pair, np.float32), (length + 1, 1)),
                actions=np.zeros((length, 1), np.float32),
                rewards=np.full(length, pair[0], np.float32),
                terminated=False,
                truncated=True,
            )
            for pair in features
        ]
    )


def counting(*lengths: int, terminated: bool = True) -> Trajectories:
    """Episodes that show (number of the episode, number of the step), both from 1; paid the number of the step."""
    return trajectories(
        [
            Episode(
                observations=np.array([(row + 1, step + 1) for step in range(length + 1)], np.float32),
                actions=np.ones((length, 1), np.float32),
                rewards=np.arange(1, length + 1, dtype=np.float32),
                terminated=terminated,
                truncated=False,
            )
            for row, length in enumerate(lengths)
        ]
    )


class Linear:
    """Members that weigh the two numbers of an observation differently."""

    def __init__(self, *weights: tuple[float, float]) -> None:
        self.weights = torch.tensor(weights)

    def member_rewards(self, shown: Trajectories) -> Tensor:
        return torch.einsum("bto,eo->ebt", shown.data["observation"], self.weights)

    def __call__(self, shown: Trajectories) -> Tensor:
        return self.member_rewards(shown).mean(0)


class Plain:
    """A reward without members."""

    def __call__(self, shown: Trajectories) -> Tensor:
        return shown.data["observation"].sum(-1)


def chosen(pool: Trajectories, reward: object, config: QueryConfig, seed: int = 0, **more: float) -> list[set[tuple]]:
    first, second = pick(pool, reward, config, **{"gamma": 1.0, "sharpness": 1.0, **more}, generator=draw(seed))
    return [
        {tuple(one.data["observation"][query, 0].tolist()) for one in (first, second)} for query in range(len(first))
    ]


def test_disagreement_asks_about_what_members_see_differently() -> None:
    """Members agree on the first number and take the second for good or for bad; one episode has any of it.

    With it there are exactly three different pairs, and each of them is asked once.
    """
    pool = steady((1.0, 0.0), (-1.0, 0.0), (0.0, 0.0), (0.0, 1.0))
    config = QueryConfig(scheme="disagreement", segment_length=4, num_queries=3, candidates=20)
    pairs = chosen(pool, Linear((0.1, 1.0), (0.1, -1.0)), config)
    odd = (0.0, 1.0)
    assert sorted(map(sorted, pairs)) == sorted(sorted([other, odd]) for other in [(1.0, 0.0), (-1.0, 0.0), (0.0, 0.0)])


def test_disagreement_is_about_probabilities_and_not_about_returns() -> None:
    """Returns of the first two episodes differ by 400 or 200, both a sure choice; of the others by 4 or −4.

    With a sharpness near 0 every choice is a coin flip for every member, and what counts is the difference again.
    """
    pool = steady((100.0, 0.0), (0.0, 0.0), (50.0, 1.0), (50.0, 0.0))
    config = QueryConfig(scheme="disagreement", segment_length=4, num_queries=1, candidates=60)
    members = Linear((1.0, 1.0), (0.5, -1.0))
    assert chosen(pool, members, config) == [{(50.0, 1.0), (50.0, 0.0)}]
    assert chosen(pool, members, config, sharpness=1e-4) == [{(100.0, 0.0), (0.0, 0.0)}]


@pytest.mark.parametrize("reward", [Plain(), Linear((2.0, 2.0), (0.5, 0.5))])
def test_entropy_asks_where_the_mean_cannot_tell(reward: object) -> None:
    """Returns are proportional to 0, 10, 10⅛ and 30; a segment is never compared with itself, which would be a tie."""
    pool = steady((0.0, 0.0), (10.0, 0.0), (10.0, 0.125), (30.0, 0.0))
    config = QueryConfig(scheme="entropy", segment_length=4, num_queries=1, candidates=60)
    assert chosen(pool, reward, config) == [{(10.0, 0.0), (10.0, 0.125)}]


def test_returns_are_discounted_within_a_segment() -> None:
    """Two steps pay (0, 8), (4, 0) and (9, 0): at γ = ½ returns are 4, 4 and 9, at γ = 1 they are 8, 4 and 9."""
    pool = steady((0.0, 0.0), (4.0, 0.0), (9.0, 0.0), length=2)
    pool.data["observation"][0, 1, 0] = 8.0
    pool.data["observation"][1:, 1, 0] = 0.0
    config = QueryConfig(scheme="entropy", segment_length=2, num_queries=1, candidates=60)
    assert chosen(pool, Plain(), config, gamma=0.5) == [{(0.0, 0.0), (4.0, 0.0)}]
    assert chosen(pool, Plain(), config, gamma=1.0) == [{(0.0, 0.0), (9.0, 0.0)}]


def test_uniform_is_uniform_over_the_places_where_a_segment_fits() -> None:
    """Episodes of 12, 3 and 2 steps have 10, 1 and 1 places for 3 steps.

    6,000 draws over 12 places: χ² with 11 degrees of freedom is above 31.3 once in a thousand times.
    """
    for side in pick(counting(12, 3, 2), Plain(), UNIFORM, gamma=1.0, sharpness=1.0, generator=draw()):
        begins, counts = side.data["observation"][:, 0].unique(dim=0, return_counts=True)
        assert begins.tolist() == [[1, step] for step in range(1, 11)] + [[2, 1], [3, 1]]
        assert float((counts - 500).square().sum() / 500) < 31.3


def test_segments_run_on_where_episodes_do() -> None:
    """A segment of an episode that the world ended is as long as any other: what is left of it is an absorbing column,
    and it may begin at any step."""
    pool = with_absorbing(counting(12, 3, 2), horizon=12)
    many = QueryConfig(scheme="uniform", segment_length=3, num_queries=200)
    sides = pick(pool, Plain(), many, gamma=1.0, sharpness=1.0, generator=draw(), runs_on=True)
    for side in (sides[0].validated("first"), sides[1].validated("second")):
        lengths = torch.tensor([12, 3, 2])[side.data["observation"][:, 0, 0].long() - 1]
        shown = (lengths - side.start_step).clamp(max=3)
        assert torch.equal(side.mask.sum(1), shown)
        assert torch.equal(side.data["absorbing"].sum(1).long(), 3 - shown)
        assert torch.equal(side.rewarded.sum(1), shown + (shown < 3))
        assert {int(one) for one in side.start_step[lengths == 3]} == {0, 1, 2}


def test_segments_end_where_their_episode_ends() -> None:
    """A short episode is used whole, and the absorbing column behind it is not shown."""
    pool = with_absorbing(counting(12, 3, 2), horizon=12)
    assert pool.data["absorbing"].any()
    first, second = pick(pool, Plain(), UNIFORM, gamma=1.0, sharpness=1.0, generator=draw())
    for side in (first.validated("first"), second.validated("second")):
        assert torch.equal(side.rewarded, side.mask)
        assert not side.data["absorbing"].any()
        lengths = torch.tensor([12, 3, 2])[side.data["observation"][:, 0, 0].long() - 1]
        assert torch.equal(side.mask.sum(1), lengths.clamp(max=3))
        assert torch.equal(side.data["action"].squeeze(-1) > 0, side.mask)
        assert torch.equal(side.terminated, side.start_step + 3 >= lengths)
        assert torch.equal(side.start_step, side.data["observation"][:, 0, 1].long() - 1)
    same = (first.data["observation"] == second.data["observation"]).flatten(1).all(1)
    assert not same.any()


@pytest.mark.parametrize("scheme", ["uniform", "disagreement", "entropy"])
def test_as_many_as_asked_for_and_the_same_ones_again(scheme: str) -> None:
    """More queries than are cut at once, from more steps than a segment has; every query counts the same."""
    pool = counting(30, 20, 5)
    pool = Trajectories(**{**pool.state_dict(), "weight": torch.tensor([0.1, 3.0, 0.0])})
    config = QueryConfig(scheme=scheme, segment_length=7, num_queries=150)
    members = Linear((1.0, 0.0), (0.0, 1.0), (0.3, -1.0))
    one, again, other = (
        pick(pool, members, config, gamma=0.9, sharpness=1.0, generator=draw(seed)) for seed in (0, 0, 1)
    )
    assert [len(side) for side in one] == [150, 150]
    assert [side.num_steps for side in one] == [7, 7]
    assert torch.equal(one[0].data["observation"], again[0].data["observation"])
    assert not torch.equal(one[0].data["observation"], other[0].data["observation"])
    assert one[0].weight.unique().tolist() == [1.0]


def test_what_cannot_be_asked() -> None:
    ways = {"gamma": 1.0, "sharpness": 1.0, "generator": draw()}
    assert pick(counting(20), Plain(), QueryConfig(), **ways) is None, "a single segment of 20 steps"
    informed = QueryConfig(segment_length=5)
    with pytest.raises(UserError, match="Plain has none"):
        pick(counting(20), Plain(), informed, **ways)
    with pytest.raises(UserError, match="one member"):
        pick(counting(20), Linear((1.0, 1.0)), informed, **ways)
    with pytest.raises(UserError, match="'best'; expected one of uniform, disagreement, entropy"):
        QueryConfig(scheme="best")
    with pytest.raises(UserError, match="num_queries is 0"):
        QueryConfig(num_queries=0)
    assert isinstance(Linear((1.0, 1.0)), Ensemble)
    assert not isinstance(Plain(), Ensemble)


def test_answers_go_by_what_the_task_paid() -> None:
    """Segments of 3 steps from step k are paid 3k + 3; a short-sighted labeller feels (k + 2) + (k + 1)/2 + k/4."""
    first, second = pick(
        counting(12, 3, 2),
        Plain(),
        QueryConfig(scheme="uniform", segment_length=3, num_queries=200),
        gamma=1.0,
        sharpness=1.0,
        generator=draw(),
    )
    answers = ask(first, second)
    paid = [side.data["true_reward"].sum(1) for side in (first, second)]
    tie = paid[0] == paid[1]
    assert torch.equal(answers.label[~tie], (paid[0] > paid[1])[~tie].float())
    assert answers.level == "segment"


def test_a_myopic_labeller_counts_back_from_the_end() -> None:
    """Paid (8, 0) against (0, 5): 8 > 5 in sum, but 8 · ½ < 5 for who halves each step back."""
    pair = steady((0.0, 0.0), (0.0, 0.0), length=2)
    pair.data["true_reward"][:] = torch.tensor([[8.0, 0.0], [0.0, 5.0]])
    for myopia, label in ((1.0, 1.0), (0.5, 0.0)):
        assert ask(pair[:1], pair[1:], myopia=myopia).label.tolist() == [label]


def test_skipped_queries_are_dropped_on_all_sides() -> None:
    """Of the returns 1 | 2, 3 | 4 and 6 | 5 the median is 3.5; only the first pair, with 2 at best, lies below it."""
    sides = [steady(*((value, 0.0) for value in values), length=1) for values in ((1.0, 3.0, 6.0), (2.0, 4.0, 5.0))]
    answers = ask(*sides, skip=0.5)
    assert answers.first.data["true_reward"].flatten().tolist() == [3.0, 6.0]
    assert answers.second.data["true_reward"].flatten().tolist() == [4.0, 5.0]
    assert answers.label.tolist() == [0.0, 1.0]


def test_no_pair_is_asked_about_twice_when_it_matters() -> None:
    """Two segments make one pair, however many were asked for."""
    pool, members = steady((1.0, 0.0), (0.0, 1.0)), Linear((1.0, 0.0), (0.0, 1.0))
    for scheme in ("disagreement", "entropy"):
        pairs = pick(
            pool, members, QueryConfig(scheme=scheme, segment_length=4, num_queries=5),
            gamma=1.0, sharpness=1.0, generator=draw(),
        )  # fmt: skip
        assert [len(side) for side in pairs] == [1, 1]


# What the domain makes of it: pendulum's shapes (3 observations, 1 action), episodes from a script.

LENGTH = 10
ROW = Method(
    name="fit", summary="", reward="explicit",
    phases=(Phase(name="fit", preference="bradley-terry", practice=1, queries=1),),
)  # fmt: skip


def pendulum(**people: object) -> ControlDomain:
    who = PeopleConfig(**{"num_demonstrations": 0, "num_preferences": 0, "segment_length": LENGTH, **people})
    return ControlDomain(ControlConfig(robot="pendulum", people=who), seed=0)


def scripted(*features: tuple[float, float]) -> Trajectories:
    """Episodes that always show two numbers (and a zero); the task pays the first less twice the second."""
    return trajectories(
        [
            Episode(
                observations=np.tile(np.array([one, other, 0.0], np.float32), (LENGTH + 1, 1)),
                actions=np.zeros((LENGTH, 1), np.float32),
                rewards=np.full(LENGTH, one - 2.0 * other, np.float32),
                terminated=False,
                truncated=True,
            )
            for one, other in features
        ]
    )


def ensemble(seed: int, num_members: int = 4) -> MLPReward:
    """Linear members, of whom some take the second number for good and some for bad: by their mean it is nothing."""
    config = RewardConfig(
        inputs="s", hidden=(), bounding="none", num_members=num_members, gradient_penalty=0.0, normalise_inputs=False
    )
    reward = MLPReward(3, 1, [-2.0], [2.0], config, DescentConfig(learning_rate=0.05), draw(seed))
    reward.model.perceptrons.weights[0].data[:, 1, 0] = torch.linspace(-0.5, 0.5, num_members)
    return reward


def fit(reward: MLPReward, compared: Preferences) -> None:
    loss = joint_loss(ROW, ROW.phases[0], log_prob=reward, demonstration_reward=reward, preference_reward=reward)
    batch = Batch(preferences=compared)
    for _ in range(50):
        reward.descend(loss, batch, batch.normaliser())


def accuracy(reward: MLPReward, compared: Preferences) -> float:
    with torch.no_grad():
        first, second = (returns(reward(side), side.discount(1.0)) for side in (compared.first, compared.second))
    return float(((first > second).float() == compared.label).float().mean())


RARE = ((0.0, 1.0), (0.1, -1.0), (-0.1, 0.5))


def accuracies(seed: int, num_queries: int) -> dict[str, float]:
    """By scheme, of a reward that knew what the first number is worth and was then given some answers.

    Of 60 episodes 57 differ in the first number alone; the other three are all that shows what the second is worth.
    Held-out comparisons are about both.
    """
    domain, reward = pendulum(), ensemble(seed)
    usual = [(one, 0.0) for one in torch.linspace(-1.0, 1.0, 57).tolist()]
    given = domain.ask(scripted(*usual), reward, 20, ROW.phases[0], 1.0, draw(seed + 1))
    fit(reward, given)
    knew, found = reward.state_dict(), {}
    fresh = scripted(*map(tuple, (2.0 * torch.rand(400, 2, generator=draw(99)) - 1.0).tolist()))
    held_out = ask(fresh[:200], fresh[200:])
    for scheme in ("disagreement", "uniform"):
        reward = ensemble(seed)
        reward.load_state_dict(copy.deepcopy(knew))
        phase = replace(ROW.phases[0], queries=num_queries, query=scheme)
        answers = domain.ask(scripted(*usual, *RARE), reward, num_queries, phase, 1.0, draw(seed + 2))
        assert len(answers) == num_queries
        fit(reward, Preferences.cat([answers, given]))
        found[scheme] = accuracy(reward, held_out)
    return found


def test_asking_where_members_disagree_pays() -> None:
    """Four answers each. A pair shows a rare episode with probability 1 − (57/60)² ≈ 0.1: four pairs show none in two
    cases of three, the forty that disagreement chooses from in one of seventy. It is there that the members differ
    most, and a linear reward that knows the first number alone is right on about two thirds of the held-out
    comparisons."""
    found = [accuracies(seed, num_queries=4) for seed in range(0, 60, 10)]
    informed, blind = (np.array([one[scheme] for one in found]) for scheme in ("disagreement", "uniform"))
    assert informed.mean() > blind.mean() + 0.1
    assert (informed > 0.75).mean() > 0.8
    assert (blind > 0.75).mean() < 0.6


def test_the_domain_asks_its_teacher_about_pieces_of_what_was_done() -> None:
    """Answers carry who made them; where the episodes hold a single segment there is nothing to ask."""
    domain, reward, pool = pendulum(), ensemble(0), scripted((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    answers = domain.ask(pool, reward, 9, ROW.phases[0], 1.0, draw()).validated()
    assert len(answers) == 9
    paid = [side.data["true_reward"].sum(1) for side in (answers.first, answers.second)]
    assert torch.equal(answers.label, (paid[0] > paid[1]).float())
    assert (answers.makers[0].maker, answers.makers[0].labeller, answers.level) == (
        "the policy while learning", "Bradley-Terry, rationality inf", "segment",
    )  # fmt: skip
    assert domain.ask(pool[:1], reward, 9, ROW.phases[0], 1.0, draw()) is None
    skipping = pendulum(teacher="skip").ask(pool, reward, 200, ROW.phases[0], 1.0, draw())
    assert 0 < len(skipping) <= 200


def test_a_single_member_cannot_disagree() -> None:
    phase = Phase(name="ask", preference="bradley-terry", practice=1, queries=1, query="disagreement")
    with pytest.raises(UserError, match="one member"):
        pendulum().ask(scripted((0.0, 0.0), (1.0, 0.0)), ensemble(0, 1), 1, phase, 1.0, draw())


def test_the_config_loads_no_tensor_library() -> None:
    code = "import sys, control.queries; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
