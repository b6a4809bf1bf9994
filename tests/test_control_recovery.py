"""The agreement of rewards: known correlations, the invariances of EPIC, and true rewards against the simulators."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from control.recovery import TRUE_REWARDS, Coverage, by_step, canonical, epic_distance, recovery
from envs.robots.episodes import Episode, trajectories, with_absorbing
from unified_irl.errors import Diverged
from unified_irl.trajectories import Trajectories

torch.set_num_threads(1)

GAMMA = 0.9
NUM_STATES, NUM_ACTIONS = 4, 2


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def behaviours(*rewards: list[float], terminated: bool = False) -> Trajectories:
    """Episodes that were paid these rewards; nothing else happens in them."""
    return trajectories(
        [
            Episode(
                observations=np.zeros((len(one) + 1, 1), np.float32),
                actions=np.zeros((len(one), 1), np.float32),
                rewards=np.array(one, np.float32),
                terminated=terminated,
                truncated=False,
            )
            for one in rewards
        ]
    )


def rolled_out(task: str, num_episodes: int, seed: int = 0) -> Trajectories:
    """Episodes of random actions."""
    env = gymnasium.make(task)
    env.action_space.seed(seed)
    episodes = []
    for number in range(num_episodes):
        observations, actions, rewards, over = [env.reset(seed=seed + number)[0]], [], [], False
        while not over and len(actions) < 200:
            actions.append(env.action_space.sample())
            observation, reward, terminated, truncated, _ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(float(reward))
            over = terminated or truncated
        episodes.append(
            Episode(
                observations=np.stack(observations).astype(np.float32),
                actions=np.stack(actions).astype(np.float32),
                rewards=np.array(rewards, np.float32),
                terminated=terminated,
                truncated=truncated,
            )
        )
    env.close()
    return trajectories(episodes)


# Correlations


def test_correlations_by_hand() -> None:
    """Paid 0, 1, 2 and judged 0, 1, 8: centred (−1, 0, 1) and (−3, −2, 5), so 8 / sqrt(2 · 38); the order is kept.

    The returns of single steps are these steps.
    """
    metrics = recovery(lambda shown: shown.data["true_reward"] ** 3, behaviours([0.0], [1.0], [2.0]), GAMMA, draw())
    expected = 8 / math.sqrt(2 * 38)
    assert metrics == pytest.approx(
        {"step_pearson": expected, "step_spearman": 1.0, "return_pearson": expected, "return_spearman": 1.0}
    )


def test_returns_are_discounted() -> None:
    """Returns at γ = 0.5 are 1, 2·0.5 = 1 and 4·0.25 = 1: constant, so their correlation is absent; steps vary."""
    metrics = recovery(
        lambda shown: shown.data["true_reward"],
        behaviours([1.0], [0.0, 2.0], [0.0, 0.0, 4.0]),
        0.5,
        draw(),
    )
    assert set(metrics) == {"step_pearson", "step_spearman"}


def test_only_chosen_steps_count_per_step_and_absorbing_ones_in_returns() -> None:
    """The reward is right on chosen steps and pays 100 for being dead; both episodes that end early are then best."""
    shown = with_absorbing(behaviours([1.0], [1.5, 1.0], [1.0, 2.0, 3.0, 4.0], terminated=True), horizon=4)

    def likes_death(trajectories: Trajectories) -> Tensor:
        return trajectories.data["true_reward"] + 100.0 * trajectories.data["absorbing"]

    metrics = recovery(likes_death, shown, 1.0, draw())
    assert metrics["step_pearson"] == pytest.approx(1.0)
    assert metrics["return_spearman"] == pytest.approx(-1.0)


def test_padding_is_never_read() -> None:
    def rubbish_in_padding(shown: Trajectories) -> Tensor:
        return torch.where(shown.rewarded, shown.data["true_reward"], torch.nan)

    metrics = recovery(rubbish_in_padding, behaviours([1.0], [2.0, 4.0], [3.0]), GAMMA, draw())
    assert metrics["step_pearson"] == pytest.approx(1.0)
    assert metrics["return_pearson"] == pytest.approx(1.0)


def test_what_cannot_be_computed_is_absent() -> None:
    shown = behaviours([1.0, 2.0], [3.0, 5.0], [1.0, 0.0])
    assert recovery(lambda one: torch.full(one.mask.shape, 0.1), shown, GAMMA, draw()).keys() == set()
    two = recovery(lambda one: one.data["true_reward"], shown[:2], GAMMA, draw())
    assert set(two) == {"step_pearson", "step_spearman"}
    nobody_knows = recovery(lambda one: torch.rand(one.mask.shape), behaviours([0.0, 0.0], [0.0]), GAMMA, draw())
    assert nobody_knows == {}


def test_a_reward_that_is_no_number_is_an_error() -> None:
    with pytest.raises(Diverged, match="NaN or infinite on 3 of 3 steps"):
        recovery(lambda one: one.data["true_reward"] / 0.0, behaviours([1.0, 2.0], [1.0]), GAMMA, draw())


# EPIC


def enumerated() -> Coverage:
    """Every transition of a world of four states and two actions, so that expectations are exact."""
    s, a, n = torch.meshgrid(
        torch.arange(NUM_STATES), torch.arange(NUM_ACTIONS), torch.arange(NUM_STATES), indexing="ij"
    )
    every = tuple(part.reshape(-1, 1).double() for part in (s, a, n))
    return Coverage(transitions=every, canonical=every)


class Table:
    """float64: scale · R(s, a, s') + γ Φ(s') − Φ(s)."""

    def __init__(self, reward: Tensor, scale: float = 1.0, potential: Tensor | None = None) -> None:
        self.reward, self.scale = reward, scale
        self.potential = torch.zeros(NUM_STATES, dtype=torch.float64) if potential is None else potential

    def __call__(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        s, a, n = (part.squeeze(-1).long() for part in (before, action, after))
        return self.scale * self.reward[s, a, n] + GAMMA * self.potential[n] - self.potential[s]


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=draw(seed), dtype=torch.float64)


def anything(seed: int) -> Tensor:
    return numbers(seed, NUM_STATES, NUM_ACTIONS, NUM_STATES)


@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
def test_scale_and_shaping_do_not_matter(scale: float) -> None:
    shaped = Table(anything(0), scale, potential=10.0 * numbers(1, NUM_STATES))
    assert epic_distance(Table(anything(0)), shaped, enumerated(), GAMMA) < 1e-5
    assert epic_distance(Table(anything(0)), Table(anything(0), -scale), enumerated(), GAMMA) == pytest.approx(1.0)


def test_a_distance_between_functions() -> None:
    """It is symmetric, obeys the triangle inequality, and tells different rewards apart."""
    a, b, c = (Table(anything(seed)) for seed in range(3))
    ab, ba, bc, ac = (epic_distance(*pair, enumerated(), GAMMA) for pair in ((a, b), (b, a), (b, c), (a, c)))
    assert ab == pytest.approx(ba)
    assert ac <= ab + bc
    assert min(ab, bc, ac) > 0.1


def test_distance_by_hand() -> None:
    """x = ±1 by action and y = ±1 by state times action have mean 0 over actions, so they are canonical already.

    They are orthogonal and of one length: ρ(x, y) = 0 and ρ(x, x + y) = 1/√2.
    """
    by_action = torch.tensor([1.0, -1.0]).double()[None, :, None].expand(NUM_STATES, -1, NUM_STATES)
    by_both = by_action * torch.tensor([1.0, 1.0, -1.0, -1.0]).double()[:, None, None]
    x, y, sum_of_both = Table(by_action), Table(by_both), Table(by_action + by_both)
    assert epic_distance(x, y, enumerated(), GAMMA) == pytest.approx(math.sqrt(1 / 2))
    assert epic_distance(x, sum_of_both, enumerated(), GAMMA) == pytest.approx(math.sqrt((1 - math.sqrt(1 / 2)) / 2))


def test_canonical_form_by_enumeration() -> None:
    """Against the formula, with means taken over the whole table."""
    reward = anything(5)
    from_state = reward.mean((1, 2))
    expected = reward + GAMMA * from_state[None, None, :] - from_state[:, None, None] - GAMMA * reward.mean()
    torch.testing.assert_close(canonical(Table(reward), enumerated(), GAMMA), expected.reshape(-1))


def test_a_reward_that_asks_for_nothing_has_no_distance() -> None:
    constant = Table(torch.full((NUM_STATES, NUM_ACTIONS, NUM_STATES), 0.3, dtype=torch.float64))
    only_shaping = Table(torch.zeros_like(constant.reward), potential=numbers(1, NUM_STATES))
    for nothing in (constant, only_shaping):
        assert epic_distance(nothing, Table(anything(0)), enumerated(), GAMMA) is None
        assert epic_distance(Table(anything(0)), nothing, enumerated(), GAMMA) is None


def test_shaping_cancels_with_drawn_coverage_too() -> None:
    shown = rolled_out("Pendulum-v1", 3)
    true = TRUE_REWARDS["Pendulum-v1"]

    def shaped(before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        return 0.2 * true(before, action, after) + GAMMA * after[:, 2].square() - before[:, 2].square()

    coverage = Coverage.drawn(shown, draw(), 100, 50)
    double = Coverage(
        transitions=tuple(part.double() for part in coverage.transitions),
        canonical=tuple(part.double() for part in coverage.canonical),
    )
    assert epic_distance(true, shaped, double, GAMMA) < 1e-5
    assert epic_distance(true, lambda *step: true(*step) + 4.0 * step[0][:, 0], double, GAMMA) > 0.05


def test_recovery_asks_a_learnt_reward_about_single_steps() -> None:
    """A reward of behaviours in 32 bits, which shapes the true one; drawn the same way twice, it is the same number."""
    shown = rolled_out("Pendulum-v1", 3)
    true = TRUE_REWARDS["Pendulum-v1"]

    def learnt(trajectories: Trajectories) -> Tensor:
        seen, after = trajectories.data["observation"], trajectories.data["next_observation"]
        return true(seen, trajectories.data["action"], after) + GAMMA * after[..., 2] - seen[..., 2]

    metrics = recovery(learnt, shown, GAMMA, draw(), TRUE_REWARDS["Pendulum-v1"])
    assert metrics["epic_distance"] < 1e-5
    assert metrics["step_pearson"] < 0.999
    opposite = recovery(lambda one: -learnt(one), shown, GAMMA, draw(), TRUE_REWARDS["Pendulum-v1"])
    assert opposite["epic_distance"] == pytest.approx(1.0)
    assert "epic_distance" not in recovery(learnt, shown, GAMMA, draw())


def test_steps_one_by_one_are_the_steps_of_behaviours() -> None:
    shown = rolled_out("Pendulum-v1", 2)

    def reward(trajectories: Trajectories) -> Tensor:
        return trajectories.data["observation"].sum(-1) - trajectories.data["next_observation"].prod(-1)

    steps = (shown.data[name][shown.mask] for name in ("observation", "action", "next_observation"))
    torch.testing.assert_close(by_step(reward)(*steps), reward(shown)[shown.mask])


# True rewards


@pytest.mark.parametrize("task", sorted(TRUE_REWARDS))
def test_true_rewards_are_those_of_the_simulator(task: str) -> None:
    """At least 200 random steps; the pole falls often enough to see both of its rewards."""
    shown = rolled_out(task, 1)
    while int(shown.mask.sum()) < 200:
        shown = Trajectories.cat([shown, rolled_out(task, 5, seed=1 + len(shown))])
    steps = [shown.data[name][shown.mask] for name in ("observation", "action", "next_observation")]
    paid = shown.data["true_reward"][shown.mask]
    assert float((TRUE_REWARDS[task](*steps) - paid).abs().max()) < 1e-4
    if task == "InvertedPendulum-v5":
        assert set(paid.tolist()) == {0.0, 1.0}


def test_the_mountain_car_is_paid_at_the_flag() -> None:
    """Pushing the way it rolls brings the car there."""
    env = gymnasium.make("MountainCarContinuous-v0")
    observation, _ = env.reset(seed=0)
    terminated = False
    while not terminated:
        action = np.array([0.7 if observation[1] >= 0 else -0.7], np.float32)
        following, paid, terminated, truncated, _ = env.step(action)
        said = TRUE_REWARDS["MountainCarContinuous-v0"](
            *(torch.from_numpy(part)[None] for part in (observation, action, following))
        )
        assert float(said) == pytest.approx(float(paid), abs=1e-4)
        observation = following
        assert not truncated
    assert paid > 99.0
