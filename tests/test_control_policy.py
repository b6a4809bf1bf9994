"""The trainer, step by step, and the policy as the core sees it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from robots import TINY, Line, Paid, noise_episodes, seeded, tiny_config, trainer
from stable_baselines3 import SAC
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from torch import Tensor

from control.acting import Speaker
from control.ground_truth import GroundTruth, TrueSteps
from control.policy import Anchored, ControlPolicy
from control.processor import vanishing_numbers_as_zero
from control.sac_config import SACConfig
from control.trainer import Trainer
from envs.robots.episodes import trajectories, with_absorbing
from envs.robots.simulators import Simulator
from unified_irl.batch import Batch
from unified_irl.conformance_bench import reloaded, same
from unified_irl.descent_config import DescentConfig
from unified_irl.errors import UserError
from unified_irl.joint import joint_loss
from unified_irl.methods import CLONE, METHODS
from unified_irl.trajectories import Contexts, Trajectories

torch.set_num_threads(1)
ONE = Contexts(ids=torch.zeros(1, dtype=torch.long), data={})


def train(one: Trainer, num_updates: int, reward: Paid | None = None, seed: int = 1) -> dict[str, float]:
    return one.train(reward or Paid(), 0.1, 0.99, num_updates, seeded(seed))[0]


def steps_of(one: Trainer) -> tuple[int, int]:
    """Steps that the optimisers of actor and critics have made since they were last cleared."""
    networks = one.networks
    pairs = ((networks.actor_optimiser, networks.actor), (networks.critic_optimiser, networks.critic))
    found = [optimiser.state.get(stack.flat, {}).get("step", 0) for optimiser, stack in pairs]
    return int(found[0]), int(found[1])


# The trainer


@pytest.mark.parametrize(
    ("num_simulators", "updates_per_step", "calls", "steps"),
    [
        (1, 1.0, [10], 10),
        (1, 0.5, [10], 20),
        (1, 2.0, [10], 5),
        (2, 0.5, [10], 20),  # ten steps of two simulators, one update after each
        (2, 1.0, [5, 5], 10),  # what the fifth pair of steps left over is done first in the second call
        (1, 4.0, [1] * 9, 3),
        (1, 0.5, [1] * 3, 6),
    ],
)
def test_updates_keep_pace_with_steps(
    num_simulators: int, updates_per_step: float, calls: list[int], steps: int
) -> None:
    one = trainer("pendulum", num_simulators, updates_per_step=updates_per_step)
    for number, num_updates in enumerate(calls):
        told = train(one, num_updates, seed=number)
    assert told["env_steps"] == 50 + steps
    assert told["updates"] == sum(calls)
    assert steps_of(one) == (sum(calls), sum(calls))


def test_no_updates_are_no_steps_after_the_random_ones() -> None:
    assert train(trainer("pendulum"), 0) == {"env_steps": 50.0, "updates": 0.0}


def test_the_actor_moves_more_rarely_if_told_to() -> None:
    one = trainer("pendulum", actor_every=3)
    train(one, 9)
    assert steps_of(one) == (3, 9)


def test_the_learning_rate_comes_to_rest() -> None:
    """Whole before, a twentieth after, and on a straight line in between."""
    one = trainer("pendulum", settling=(10, 30), learning_rate=1e-3)
    rates = []
    for _ in range(8):
        train(one, 5)
        rates.append(one.networks.actor_optimiser.param_groups[0]["lr"])
        assert one.networks.critic_optimiser.param_groups[0]["lr"] == rates[-1]
    slope = 0.95e-3 / 20  # the last update of five began one update earlier
    assert rates == pytest.approx(
        [1e-3, 1e-3, 1e-3 - 4 * slope, 1e-3 - 9 * slope, 1e-3 - 14 * slope, 1e-3 - 19 * slope, 5e-5, 5e-5]
    )


def test_critics_learn_alone_at_first() -> None:
    """Two calls of five updates, the first seven for the critics alone."""
    one = trainer("pendulum", critic_warmup=7)
    one.warm_up()
    actor = one.networks.actor.flat.clone()
    train(one, 5)
    assert torch.equal(actor, one.networks.actor.flat)
    train(one, 5)
    assert steps_of(one) == (3, 10)


def test_a_policy_that_was_taught_takes_the_first_steps_itself() -> None:
    """One whose mean is far beyond the upper bound; another's first steps are spread evenly."""
    for is_taught in (True, False):
        one = trainer("pendulum")
        one.sac.actor.mu.bias.data.fill_(20.0)
        if is_taught:
            one.warm_up()
        train(one, 0)
        actions = one.replay.rows[:50, 3]
        assert bool((actions > 0.99).all()) == is_taught


def test_a_memory_smaller_than_the_random_steps_is_refused() -> None:
    with pytest.raises(UserError, match="learning_starts is 1500, but only buffer_size = 1000 steps are remembered"):
        trainer("pendulum", learning_starts=1_500, buffer_size=1_000)


def test_critics_are_forgotten_when_the_reward_moved() -> None:
    """Rewards of the pendulum vary by a few units; a factor of 1.01 moves them little, one of −5 by much."""
    one = trainer("pendulum", reset_critics_above=1.0, critic_warmup=4)
    train(one, 6)
    train(one, 6, Paid(factor=1.01))
    assert steps_of(one) == (12, 12)
    assert one.num_warmup == 0
    train(one, 6, Paid(factor=-5.0))
    assert steps_of(one) == (14, 6), "four updates of fresh critics alone, then two of both"
    train(one, 6, Paid(factor=-5.0))
    assert steps_of(one) == (20, 12)

    never = trainer("pendulum")
    train(never, 6)
    train(never, 6, Paid(factor=-5.0))
    assert steps_of(never) == (12, 12)


def test_forgotten_critics_are_fresh_and_their_targets_too() -> None:
    one, other = (trainer("pendulum", precision="bfloat16", hidden=(16, 16, 16)) for _ in range(2))
    train(one, 5)
    actor, critic = one.networks.actor.flat.clone(), one.networks.critic.flat.clone()
    for each in (one, other):
        each.forget_critics(seeded(3))
    assert torch.equal(actor, one.networks.actor.flat)
    assert not torch.equal(critic, one.networks.critic.flat)
    assert torch.equal(one.networks.critic.flat, other.networks.critic.flat)
    for stack in (one.networks.critic, one.networks.target):
        assert torch.equal(stack.flat, other.networks.critic.flat)
        assert torch.equal(stack.low, other.networks.critic.flat.bfloat16())
    weights, again = (one.networks.critic.weights[0][e] for e in range(2))
    assert not torch.equal(weights, again), "the critics must differ"


def shown(count: int, place: float, paid: float = 0.0) -> tuple[dict[str, Tensor], Tensor]:
    """Steps at one place, each the end of its world."""
    here = torch.full((count, 3), place)
    steps = {"observation": here, "action": torch.full((count, 1), 2.0), "next_observation": here}
    return steps | {"true_reward": torch.full((count,), paid)}, torch.ones(count)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 8), (0.5, 16), (0.99, 32)])
def test_batches_hold_a_share_of_what_was_demonstrated(share: float, expected: int) -> None:
    one = trainer("pendulum", demonstrated_share=share)
    train(one, 0)
    one.show(*shown(5, 100.0))
    batch = one._batch(Paid(after=1.0), 0.9, seeded())
    is_shown = batch.observation[:, 0] == 100.0
    assert (len(batch.reward), int(is_shown.sum())) == (32, expected)
    assert batch.reward[is_shown].tolist() == pytest.approx([9.0] * expected, rel=1e-5)  # absorbing: 1 · 0.9 / 0.1
    assert not bool(batch.discount[is_shown].any())
    assert bool((batch.seen[is_shown, 3] == 1.0).all()), "the bound of the actions is 1 for the networks"
    assert batch.discount[~is_shown].tolist() == pytest.approx([0.9] * (32 - expected))


def test_any_number_of_demonstrated_steps_can_be_shown() -> None:
    one = trainer("pendulum", demonstrated_share=0.5)
    one.show(*shown(70_000, 100.0))
    assert one.shown is not None
    assert one.shown.size == 70_000
    train(one, 2)


@pytest.mark.parametrize("is_demonstrated", [False, True])
def test_observations_are_standardised_once(is_demonstrated: bool) -> None:
    """By the demonstrations, or by the random steps at the start; never by both, or a clone would not know itself."""
    one = trainer("pendulum", normalise_observations=True)
    given = torch.tensor([[1.0, 5.0, 0.0], [3.0, 5.0, 4.0]])
    if is_demonstrated:
        one.normalise_by(given)
    train(one, 1)
    mean, std = one.scales.observation_mean, one.scales.observation_std
    if is_demonstrated:
        assert mean.tolist() == [2.0, 5.0, 2.0]
        assert std.tolist() == pytest.approx([2.0**0.5, 0.01, 8.0**0.5])  # what never varied is not blown up at will
    else:
        rows = one.replay.rows[:50, :3]
        torch.testing.assert_close(mean, rows.mean(0))
        torch.testing.assert_close(std, rows.std(0))
    before = mean.clone()
    train(one, 20)
    assert torch.equal(mean, before)
    batch = one._batch(Paid(), 0.9, seeded())
    raw = one.replay.transitions(one.replay.draw(32, seeded()), Paid(), 0.9, 1)
    torch.testing.assert_close(batch.observation, (raw.observation - mean) / std)
    torch.testing.assert_close(batch.following, (raw.following - mean) / std)
    torch.testing.assert_close(batch.seen, torch.cat([batch.observation, raw.seen[:, 3:]], 1))


def test_temperatures_stay_or_move() -> None:
    """fixed: what each call is given. auto: learnt, whatever is given; a policy too random to its taste cools it."""
    fixed, auto = trainer("pendulum"), trainer("pendulum", temperature="auto")
    assert fixed.train(Paid(), 0.3, 0.9, 5, seeded())[0]["alpha"] == pytest.approx(0.3)
    assert fixed.train(Paid(), 0.2, 0.9, 5, seeded())[0]["alpha"] == pytest.approx(0.2)
    assert fixed.networks.alpha_optimiser is None
    told = auto.train(Paid(), 0.3, 0.9, 20, seeded())[0]
    # Target entropy −1; Adam's steps of 3e-4 down from α = 1, the last of which is not told any more.
    assert told["alpha"] == pytest.approx(np.exp(-19 * 3e-4), abs=2e-4)


def test_discounts_are_those_of_the_call() -> None:
    one = trainer("pendulum")
    train(one, 0)
    assert one._batch(Paid(), 0.7, seeded()).discount.unique().tolist() == pytest.approx([0.7])


FULL: dict[str, Any] = {
    "temperature": "auto", "n_step": 3, "normalise_observations": True, "reset_critics_above": 0.5,
    "demonstrated_share": 0.25, "critic_warmup": 10, "updates_per_step": 0.7, "actor_every": 2, "precision": "bfloat16",
}  # fmt: skip


@pytest.mark.parametrize(("name", "sac"), [("pendulum", {}), ("pendulum", FULL), ("hopper", FULL)])
def test_training_goes_on_from_a_checkpoint_to_the_bit(name: str, sac: dict[str, Any]) -> None:
    """Saved amid episodes, with memories, probes, warm-ups and updates that are owed."""

    def fresh() -> Trainer:
        one = trainer(name, 2, **sac)
        if sac:
            episode = noise_episodes(name, 1)[0]
            behaviour = trajectories([episode]).data
            ends = torch.zeros(len(episode))
            one.show({name: value[0] for name, value in behaviour.items()}, ends)
        return one

    one, other = fresh(), fresh()
    train(one, 33)
    train(one, 7, Paid(factor=-3.0), seed=2)
    (state,) = reloaded([one.state_dict()])
    other.load_state_dict(state)
    told = [train(each, 40, Paid(factor=-3.0), seed=3) for each in (one, other)]
    assert told[0] == told[1]
    assert same(one.state_dict(), other.state_dict())


class Engine(Line):
    """With a part that no checkpoint can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = object()


def registered(kind: type[gymnasium.Env], **kwargs: Any) -> str:
    name = f"{kind.__name__}{len(gymnasium.registry)}-v0"
    gymnasium.register(id=name, entry_point=kind, max_episode_steps=20, kwargs=kwargs)
    return f"gym:{name}"


def test_simulators_that_cannot_be_saved_begin_new_episodes() -> None:
    """What is remembered of the old ones is kept, and no sum runs over the seam."""
    name = registered(Engine)
    one, other = trainer(name, 2, n_step=3), trainer(name, 2, n_step=3)
    train(one, 3)
    (state,) = reloaded([one.state_dict()])
    other.load_state_dict(state)
    assert other.replay.size == one.replay.size == 54
    assert other.replay.rows[52:54, -1].tolist() == [1.0, 1.0]
    assert one.replay.rows[52:54, -1].tolist() == [0.0, 0.0]
    assert train(other, 3)["env_steps"] == 56


def test_actions_of_double_precision_are_taken() -> None:
    name = registered(Line, dtype="float64")
    one = trainer(name)
    policy = ControlPolicy(one, [Simulator(name)], DescentConfig(), 0)
    metrics, own = policy.improve(GroundTruth(), policy.frozen(), 0.1, 1.0, ONE, 5, seeded())
    assert own.data["action"].dtype == own.behaviour_log_prob.dtype == torch.float32
    assert np.isfinite(metrics["policy_loss"])


# The policy


def policy_of(name: str, absorbing_horizon: int = 0, **sac: Any) -> ControlPolicy:
    return ControlPolicy(trainer(name, **sac), [Simulator(name) for _ in range(2)], DescentConfig(), absorbing_horizon)


def noise(name: str, count: int = 3, horizon: int = 0) -> Trajectories:
    behaviours = trajectories(noise_episodes(name, count), torch.zeros(count, dtype=torch.long))
    return with_absorbing(behaviours, horizon)


@pytest.mark.parametrize("name", ["pendulum", "hopper"])
def test_log_probabilities_are_those_of_stable_baselines3(name: str) -> None:
    """For actions inside the margin, in units of half the action range."""
    policy, behaviours = policy_of(name), noise(name)
    policy.actor.log_std.bias.data.fill_(-0.5)
    observation, mask = behaviours.data["observation"], behaviours.mask
    inward = (behaviours.data["action"] / (2.0 if name == "pendulum" else 1.0)).clamp(-0.99, 0.99)
    scaled = replace(behaviours, data={**behaviours.data, "action": inward * (2.0 if name == "pendulum" else 1.0)})
    ours = policy.log_prob(scaled)
    with torch.no_grad():
        mean, log_std, _ = policy.actor.get_action_dist_params(observation[mask])
        size = inward.shape[-1]
        dist = SquashedDiagGaussianDistribution(size).proba_distribution(mean, log_std)
        theirs = dist.log_prob(inward[mask])
    torch.testing.assert_close(ours[mask].detach(), theirs, rtol=1e-4, atol=1e-4)
    assert not bool(ours[~mask].any())
    ours.sum().backward()
    assert all(bool(one.grad.isfinite().all()) for one in policy.actor.parameters())


@pytest.mark.parametrize("margin", [0.005, 0.1])
def test_log_probabilities_at_the_bounds_are_finite_and_those_of_the_margin(margin: float) -> None:
    """An action at its bound, or a rounding beyond it, is taken to lie the margin inside; so is its gradient finite."""
    policy = policy_of("pendulum", action_margin=margin)
    behaviours = noise("pendulum", 1)

    def said(action: float) -> Tensor:
        data = {**behaviours.data, "action": torch.full_like(behaviours.data["action"], action)}
        return policy.log_prob(replace(behaviours, data=data))

    for sign in (1.0, -1.0):
        at, beyond, inside = said(2.0 * sign), said(2.0001 * sign), said(2.0 * (1.0 - margin) * sign)
        assert torch.equal(at, beyond)
        torch.testing.assert_close(at, inside, rtol=1e-4, atol=1e-3)
        assert bool(at.isfinite().all())
        policy.actor.zero_grad()
        at.sum().backward()
        assert all(bool(one.grad.isfinite().all()) for one in policy.actor.parameters())


def test_standard_deviations_have_a_floor_in_acting_and_speaking() -> None:
    """At e^−3, a density of one action is at most 3 − ½ log 2π + what the squashing adds, here none: a = 0."""
    policy = policy_of("pendulum")
    for module in (policy.actor.mu, policy.actor.log_std):
        module.weight.data.zero_()
        module.bias.data.zero_()
    policy.actor.log_std.bias.data.fill_(-15.0)
    behaviours = noise("pendulum", 1)
    still = replace(behaviours, data={**behaviours.data, "action": torch.zeros_like(behaviours.data["action"])})
    expected = 3.0 - 0.5 * np.log(2 * np.pi)
    assert policy.log_prob(still)[still.mask].tolist() == pytest.approx([expected] * 200, abs=1e-4)
    own = policy.sample(ONE, seeded())
    assert float(own.data["action"].std()) == pytest.approx(2.0 * np.exp(-3.0), rel=0.2)


def test_absorbing_columns_are_rewarded_but_not_chosen() -> None:
    """A hopper falls soon; one column stands for all the steps that were left until 1,000."""
    policy = policy_of("hopper", 1000)
    own = policy.sample(ONE[torch.zeros(3, dtype=torch.long)], seeded()).validated("own")
    steps = own.mask.sum(1)
    assert bool(own.terminated.all())
    assert bool((steps < 900).all())
    assert torch.equal(own.rewarded.sum(1), steps + 1)
    rows = torch.arange(3)
    assert torch.equal(own.data["absorbing"][rows, steps], (1000 - steps).float())
    for name in ("observation", "action", "next_observation", "true_reward"):
        assert not bool(own.data[name][rows, steps].any())
    assert not bool(own.behaviour_log_prob[rows, steps].any())
    assert not bool(policy.log_prob(own)[rows, steps].any())
    assert not bool(policy_of("hopper").sample(ONE, seeded()).data["absorbing"].any())


def test_samples_know_their_log_probability() -> None:
    for normalise in (False, True):
        policy = policy_of("pendulum", normalise_observations=normalise)
        policy.trainer.normalise_by(torch.randn(20, 3, generator=seeded()) * 5)
        for who in (policy, policy.frozen()):
            own = who.sample(ONE, seeded())
            torch.testing.assert_close(who.log_prob(own).detach(), own.behaviour_log_prob)


def test_improving_hands_back_what_was_practised() -> None:
    """Whole episodes that ended on the way, spoken of by the policy as it is now; where none did, one that is new."""
    policy = policy_of("hopper", 1000)
    metrics, own = policy.improve(GroundTruth(), policy.frozen(), 0.1, 1.0, ONE, 60, seeded())
    assert metrics["env_steps"] == 110
    assert len(own.validated("own")) > 1
    assert int(own.mask.sum()) <= 110
    assert bool((own.context_id == 0).all())
    torch.testing.assert_close(policy.log_prob(own).detach(), own.behaviour_log_prob)
    uniform = -3.0 * math.log(2.0) * own.mask  # the density of acting at random, of three actions within [−1, 1]
    discounted = (own.data["true_reward"] - 0.1 * (own.behaviour_log_prob - uniform)) * own.discount(0.99)
    assert metrics["policy_loss"] == pytest.approx(-float(discounted.sum(1).mean()), rel=1e-4)
    assert metrics["own_return"] == pytest.approx(float(own.data["true_reward"].sum(1).mean()), rel=1e-4)

    slow = policy_of("pendulum")
    _, own = slow.improve(GroundTruth(), slow.frozen(), 0.1, 1.0, ONE, 5, seeded())
    assert (len(own), int(own.mask.sum())) == (1, 200)
    assert slow.trainer.practice.num_steps == 255, "what is simulated to be handed back counts too"


def test_what_practice_hands_back_is_what_it_did() -> None:
    """The remembered rows, cut into episodes, each of which begins where the simulator began it."""
    policy = policy_of("hopper", learning_starts=0)
    _, own = policy.improve(GroundTruth(), policy.frozen(), 0.1, 1.0, ONE, 100, seeded())
    rows, count = policy.trainer.replay.rows, int(own.mask.sum())
    torch.testing.assert_close(rows[:count, :11], own.data["observation"][own.mask])
    torch.testing.assert_close(rows[:count, 11:14], own.data["action"][own.mask])
    torch.testing.assert_close(rows[:count, 14:25], own.data["next_observation"][own.mask])
    torch.testing.assert_close(rows[:count, 25], own.data["true_reward"][own.mask])
    ends = rows[:count, 27].nonzero().squeeze(1)
    assert torch.equal(ends, own.mask.sum(1).cumsum(0) - 1)
    assert torch.equal(rows[ends, 26] > 0, own.terminated)


def test_cloning_makes_critics_catch_up_before_the_policy_climbs() -> None:
    policy = policy_of("pendulum", critic_warmup=5)
    batch = Batch(demonstrations=noise("pendulum"))
    loss = joint_loss(METHODS["bc"], CLONE, log_prob=policy.log_prob, demonstration_reward=None, preference_reward=None)
    before = policy.trainer.networks.actor.flat.clone()
    first = policy.descend(loss, batch, batch.normaliser())["loss"]
    assert not torch.equal(before, policy.trainer.networks.actor.flat), "cloning moves the very tensor that SAC moves"
    for _ in range(20):
        last = policy.descend(loss, batch, batch.normaliser())["loss"]
    assert last < first
    cloned = policy.trainer.networks.actor.flat.clone()
    for num_updates, moves in ((5, False), (5, True), (5, True)):
        policy.improve(GroundTruth(), policy.frozen(), 0.1, 1.0, ONE, num_updates, seeded())
        assert torch.equal(cloned, policy.trainer.networks.actor.flat) != moves
    assert steps_of(policy.trainer) == (10, 15)


def test_a_backup_pays_once_for_the_one_entropy_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """β A log 2, over however many steps it looks ahead: one's own over four, those of demonstrations over one."""
    policy = policy_of("hopper", n_step=4, demonstrated_share=0.5)
    shown = trajectories(noise_episodes("hopper", 2))
    steps = {name: value[shown.mask] for name, value in shown.data.items()}
    policy.trainer.show(steps, torch.zeros(len(steps["true_reward"])))
    policy.trainer.train(Paid(), 0.1, 0.99, 5, seeded())
    batches, given = [], policy.trainer._batch

    def batch(reward: Any, gamma: float, generator: Any, toll: float) -> Any:
        batches.extend(given(reward, gamma, seeded(3), one) for one in (0.0, toll))
        return batches[-1]

    monkeypatch.setattr(policy.trainer, "_batch", batch)
    policy.improve(GroundTruth(), policy.frozen(), 0.1, 1.0, ONE, 1, seeded())
    free, paid = batches[:2]
    torch.testing.assert_close(free.reward - paid.reward, torch.full((32,), 0.1 * 3 * math.log(2.0)))


def test_what_follows_an_end_fades_in_what_is_told() -> None:
    """One absorbing column that pays 2 a step stands for γ^L + γ^(L + 1) + … until the horizon."""
    policy = policy_of("hopper", 1000)

    class Ends(GroundTruth):
        def __call__(self, behaviours: Trajectories) -> Tensor:
            return 2.0 * behaviours.data["absorbing"]

    behaviours = with_absorbing(noise("hopper"), 1000)
    told = policy._objective(behaviours, Ends(), None, 0.0, 0.99)["policy_loss"]
    lived = behaviours.mask.sum(1)
    written_out = [sum(2.0 * 0.99**t for t in range(int(steps), 1000)) for steps in lived]
    assert told == pytest.approx(-float(np.mean(written_out)), rel=1e-4)


def test_a_reference_anchors_in_the_units_of_the_environment() -> None:
    """r + β log π_ref(a|s), the density that the reference itself tells of the same steps; the pendulum's go to ±2."""
    policy, behaviours = policy_of("pendulum"), noise("pendulum")
    reference, mask = policy.frozen(), behaviours.mask
    anchored = Anchored(Paid(after=0.5), reference, 0.3)
    data = {name: value[mask] for name, value in behaviours.data.items()}
    judged = anchored(data["observation"], data["action"], data["next_observation"], data["true_reward"])
    expected = data["true_reward"] + 0.3 * reference.log_prob(behaviours)[mask]
    torch.testing.assert_close(judged, expected)
    assert float(anchored.absorbing()) == 0.5


def test_an_anchored_policy_climbs_and_tells_another_objective() -> None:
    """r − β log π/π_ref, for a reference or for acting at random: two policies end up different though everything else
    is the same."""
    ends = []
    for anchor in ("uniform", "reference"):
        policy = policy_of("pendulum", anchor=anchor)
        reference = policy.frozen()
        metrics, own = policy.improve(GroundTruth(), reference, 0.5, 1.0, ONE, 20, seeded())
        known = reference.log_prob(own) if anchor == "reference" else -math.log(2.0) * own.mask
        ratio = own.behaviour_log_prob - known
        per_step = own.data["true_reward"] - 0.5 * ratio
        assert metrics["policy_loss"] == pytest.approx(-float((per_step * own.discount(0.99)).sum(1).mean()), rel=1e-4)
        ends.append(policy.trainer.networks.critic.flat.clone())
    assert not torch.allclose(*ends)


def test_frozen_policies_keep_their_scales() -> None:
    """The policy's own change when its first random steps are in; a reference that followed would be another policy."""
    policy, behaviours = policy_of("pendulum", normalise_observations=True), noise("pendulum", 1)
    frozen = policy.frozen()
    before = frozen.log_prob(behaviours)
    train(policy.trainer, 1)
    assert torch.equal(frozen.log_prob(behaviours), before)
    later = policy.frozen()
    other = policy_of("pendulum", normalise_observations=True).frozen()
    other.load_state_dict(reloaded([later.state_dict()])[0])
    assert torch.equal(other.log_prob(behaviours), later.log_prob(behaviours))
    assert isinstance(other, Speaker)


@pytest.mark.parametrize("normalise", [False, True])
def test_saved_policies_act_alike_in_stable_baselines3(normalise: bool, tmp_path: Any) -> None:
    policy = policy_of("hopper", normalise_observations=normalise)
    train(policy.trainer, 30)
    policy.save(tmp_path / "policy.zip")
    seen = noise("hopper").data["observation"][0].numpy()
    theirs = SAC.load(tmp_path / "policy.zip", device="cpu").predict(seen, deterministic=True)[0]
    np.testing.assert_allclose(policy.acting(None)(seen), theirs, rtol=0.0, atol=1e-5)


def test_the_true_reward_does_not_learn() -> None:
    behaviours = noise("hopper", 1, 1000)
    assert torch.equal(GroundTruth()(behaviours), behaviours.data["true_reward"])
    with pytest.raises(UserError, match="set reward_steps to 0 in its phases, or learn_from to 'feedback'"):
        GroundTruth().descend(None, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("num_critics", 0), ("learning_rate", 0.0), ("discount", 1.0), ("tau", 1.5), ("demonstrated_share", 1.0),
     ("action_margin", 0.0), ("log_std_floor", 0.5), ("hidden", ()), ("updates_per_step", float("nan")),
     ("buffer_size", 10), ("n_step", 0), ("settling", (5, 5)), ("settling", (9, 5)), ("settling", (-1, 5))],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(setting: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"sac: {setting} is .*; expected"):
        SACConfig(**{**TINY, setting: value})
    assert tiny_config("pendulum").sac.hidden == (16, 16)


def test_demonstrated_steps_are_paid_what_the_task_paid() -> None:
    """Under the ground truth: 5 for each of them, though nobody simulated it here."""
    one = trainer("pendulum", demonstrated_share=0.5)
    train(one, 0)
    one.show(*shown(5, 100.0, paid=5.0))
    batch = one._batch(TrueSteps(), 0.9, seeded())
    assert batch.reward[batch.observation[:, 0] == 100.0].tolist() == [5.0] * 16


def test_other_computations_keep_their_smallest_numbers() -> None:
    """Training treats vanishing numbers as zero; whoever computes before or after it does not."""
    smallest = math.nextafter(0.0, 1.0)
    train(trainer("pendulum"), 3)
    assert smallest * 1.0 > 0.0
    with vanishing_numbers_as_zero():
        assert smallest * 1.0 == 0.0
        with vanishing_numbers_as_zero():
            assert smallest * 1.0 == 0.0
        assert smallest * 1.0 == 0.0, "what was on stays on"
    assert smallest * 1.0 > 0.0


@pytest.mark.parametrize("has_units", [False, True])
def test_the_precision_is_what_the_processor_is_fast_with(has_units: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of its products are in bfloat16 where there are matrix units for it, none where there are none, whatever
    the settings of another processor were; and a named precision is taken anywhere."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": has_units})
    kinds = {kind: trainer("pendulum", precision=kind).sac.half for kind in ("auto", "float32", "bfloat16")}
    assert kinds == {"auto": has_units, "float32": False, "bfloat16": True}
