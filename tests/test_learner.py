"""Algorithm 1 at work in a small graph world: every row learns, resumes to the last bit, and keeps its own rules."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from envs.walks.config import WalksConfig
from envs.walks.domain import WalksDomain, log_policy_of
from envs.walks.solve import soft_value_iteration
from unified_irl import checkpoint
from unified_irl.conformance_bench import same
from unified_irl.descent_config import DescentConfig
from unified_irl.errors import UserError
from unified_irl.learner import Learner
from unified_irl.methods import METHODS, Method, Phase
from unified_irl.plateau import Plateau

torch.set_num_threads(1)

SMALL = WalksConfig(num_nodes=6, num_neighbours=2, horizon=5, num_demonstrations=24, num_preferences=48, reward_width=8)
TINY = replace(SMALL, num_demonstrations=7, num_preferences=9, reward_width=4)


def learner(row: Method | str, config: WalksConfig = TINY, seed: int = 0) -> Learner:
    return Learner(WalksDomain(config, seed), METHODS[row] if isinstance(row, str) else row, seed)


def rounds(one: Learner) -> Iterator[dict[str, float]]:
    while not one.finished:
        yield one.round()


def scores(one: Learner) -> dict[str, float]:
    return one.domain.evaluate(one.policy, one.learnt_reward)


@pytest.mark.parametrize(
    ("name", "least", "closer"),
    [
        ("bc", 0.9, 0.3),
        ("ml-irl", 0.9, 0.3),
        ("rft", 0.9, 0.4),
        ("irft", 0.8, 0.3),
        ("spin", 0.8, 0.3),
        ("rlhf", 0.8, 0.9),
        ("dpo", 0.4, 0.9),
        ("aihf", 0.9, 0.6),
        ("direct-aihf", 0.9, 0.4),
        ("self-play-aihf", 0.8, 0.4),
    ],
)
def test_every_row_learns(name: str, least: float, closer: float):
    """The uniform walker scores 0 and the expert 1. Each row as it stands in the table gets to `least`, also where
    nobody demonstrated, and its KL from the expert falls below the share `closer` of the uniform walker's.

    An explicit reward is measured by what it says of fresh comparisons: a coin is right in half of them. A labeller of
    rationality 5 contradicts the true reward in about a quarter.
    """
    kind = "linear" if name == "rlhf" else "network"  # 48 comparisons do not pin a network down.
    one = learner(name, replace(SMALL, reward=kind))
    assert scores(one)["score"] == pytest.approx(0.0, abs=1e-9)
    for metrics in rounds(one):
        assert all(isinstance(value, float) for value in metrics.values())
    after = scores(one)
    assert after["score"] > least
    assert after["unseen/score"] > least - 0.1
    assert after["kl_expert"] < closer * after["kl_expert_uniform"]
    if name != "bc":
        assert after["reward_accuracy"] > 0.65


def short(name: str, **changes: Any) -> Method:
    """The row with a few small rounds per phase, in several batches, while the step size rises and falls."""
    row, descent = METHODS[name], DescentConfig(schedule="inverse-sqrt", warmup_steps=5, max_grad_norm=1.0)
    size = {"rounds": 4, "reward_steps": 3, "batch_size": 3}
    phases = tuple(replace(one, **(size | changes if one.reward_steps else {"rounds": 3})) for one in row.phases)
    warm_start = replace(row.warm_start, rounds=3)
    return replace(row, phases=phases, warm_start=warm_start, policy_descent=descent, reward_descent=descent)


ROWS = [
    *((name, {}) for name in METHODS),
    ("spin", {"refresh_every": 2, "own_memory": 3}),
    ("irft", {"prompts": 0.4, "own_memory": 2}),
    ("aihf", {"practice": 5, "prompts": 0.5}),
    ("rlhf", {"patience": 2, "rounds": 8}),
    ("dpo", {"until": "held-out preferences", "patience": 2, "rounds": 6}),
]


@pytest.mark.parametrize(("name", "changes"), ROWS, ids=[f"{name} {changes or ''}" for name, changes in ROWS])
@pytest.mark.parametrize("kind", ["free", "network"])
def test_resuming_is_to_the_last_bit(name: str, changes: dict[str, Any], kind: Any, tmp_path: Path):
    """Stopped after any of its rounds, through a checkpoint and in a fresh process' place, a run ends as it would."""
    row, config = short(name, **changes), replace(TINY, policy=kind, reward="network")
    whole = learner(row, config)
    states, said = [], []
    while not whole.finished:
        states.append(checkpoint.save(tmp_path, whole.state_dict(), len(states), keep=99))
        said.append(whole.round())
    assert len(said) >= 3
    stages = set()
    for number, saved in enumerate(states):
        if kind == "network" and number % 2:
            continue
        resumed = learner(row, config)
        resumed.load_state_dict(checkpoint.load(saved))
        assert resumed.num_rounds == number
        stages.add((resumed.stage, resumed.round_of_stage > 0))
        assert list(rounds(resumed)) == said[number:]
        assert same(resumed.state_dict(), whole.state_dict())
        assert scores(resumed) == scores(whole)
    assert {stage for stage, _ in stages} == set(range(len(row.stages)))
    assert {True, False} == {middle for _, middle in stages}


def test_a_run_is_a_function_of_its_seed():
    ends = [learner(short("self-play-aihf"), seed=seed) for seed in (0, 0, 1)]
    said = [list(rounds(one)) for one in ends]
    assert said[0] == said[1] != said[2]
    assert same(ends[0].state_dict(), ends[1].state_dict())


@pytest.mark.parametrize(
    ("name", "off", "plain"),
    [
        ("aihf", "preference_weight", "ml-irl"),
        ("direct-aihf", "preference_weight", "bc"),
        ("direct-aihf", "demonstration_weight", "dpo"),
        ("self-play-aihf", "preference_weight", "spin"),
    ],
)
def test_a_joint_row_without_one_term_is_the_plain_row(name: str, off: str, plain: str):
    """To the last bit: switching one kind of feedback off changes no draw of the other."""
    joint, alone = learner(short(name).with_phases(**{off: 0.0})), learner(short(plain))
    assert list(rounds(joint)) == list(rounds(alone))
    assert same(joint.policy.state_dict(), alone.policy.state_dict())


def test_weights_that_are_tiny_count_for_little():
    """The way from both terms to one is continuous: w_p = 1e-9 ends next to w_p = 0."""
    tables = []
    for weight in (0.0, 1e-9, 1.0):
        one = learner(short("direct-aihf").with_phases(preference_weight=weight))
        list(rounds(one))
        tables.append(log_policy_of(one.policy))
    torch.testing.assert_close(tables[1], tables[0], rtol=1e-6, atol=1e-6)
    assert (tables[2] - tables[0]).abs().max() > 1e-3


def fitting(**changes: Any) -> Method:
    """rlhf that overfits: free numbers per step, a large step size, and few comparisons."""
    row = METHODS["rlhf"]
    reward, policy = row.phases
    reward = replace(reward, **({"rounds": 60, "patience": 4, "tolerance": 0.0} | changes))
    descent = replace(row.reward_descent, learning_rate=0.3)
    return replace(row, phases=(reward, policy), warm_start=replace(row.warm_start, rounds=5), reward_descent=descent)


def test_rlhf_fits_until_held_out_loss_stops_falling_and_puts_the_best_back():
    one = learner(fitting(), replace(TINY, reward="free", num_preferences=40))
    while one.stage == 0:
        one.round()
    losses, states = [], []
    while one.stage == 1:
        reward = copy.deepcopy(one.reward.state_dict())
        metrics = one.round()
        losses.append(metrics["held_out_preference_loss"])
        states.append(reward)
    best = losses.index(min(losses))
    assert best > 0
    assert len(losses) == best + 1 + 4 < 60, "four rounds without progress end the phase"
    assert losses[-1] > losses[best]
    assert same(one.reward.state_dict(), states[best + 1]), "the reward after the best round is back"
    assert len(one.set_aside) == 8
    assert len(one.preferences) == 32
    at_best = one._loss(one.method.phases[0])
    aside = feed_batch(one)
    assert float(one.reward.measure(at_best, *aside)["preference_loss"]) == pytest.approx(losses[best])


def feed_batch(one: Learner) -> tuple[Any, Any]:
    from unified_irl.batch import Batch

    batch = Batch(preferences=one.set_aside)
    return batch, batch.normaliser()


def test_a_phase_ends_with_its_best_even_when_its_rounds_run_out():
    one = learner(fitting(patience=99, rounds=30), replace(TINY, reward="free", num_preferences=40))
    losses = []
    while one.stage < 2:
        metrics = one.round()
        losses += [metrics["held_out_preference_loss"]] if "held_out_preference_loss" in metrics else []
    assert len(losses) == 30
    assert float(one.reward.measure(one._loss(one.method.phases[0]), *feed_batch(one))["preference_loss"]) == min(
        losses
    )
    assert min(losses) < losses[-1]


def test_the_policy_climbs_until_it_stops():
    """The last phase of rlhf ends once the loss has not fallen for `patience` rounds, and before its last round."""
    one = learner(fitting(rounds=3), TINY)
    losses = [metrics["policy_loss"] for metrics in rounds(one) if "policy_loss" in metrics]
    phase = one.method.phases[1]
    assert phase.patience < len(losses) < phase.rounds
    lowest, since = losses[0], 0
    for loss in losses[1:-1]:
        lowest, since = (loss, 0) if loss < lowest - phase.tolerance else (lowest, since + 1)
        assert since < phase.patience
    assert losses[-1] >= lowest - phase.tolerance


def test_most_rounds_shrinks_when_a_phase_ends_early():
    row = fitting()
    one = learner(row, replace(TINY, reward="free", num_preferences=40))
    most = 5 + 60 + row.phases[1].rounds
    assert one.most_rounds == most
    before = most
    for _ in rounds(one):
        assert one.num_rounds <= one.most_rounds <= before
        before = one.most_rounds
    assert one.most_rounds == one.num_rounds < most


def test_plateau_counts_what_does_not_fall():
    """2, 1, 0.95 (less than 0.1 better), NaN, 0.5: 0, 0, 1, 2, 0 rounds since."""

    class Learnt:
        def __init__(self) -> None:
            self.numbers = {"count": [0]}

        def state_dict(self) -> dict[str, Any]:
            return self.numbers

    plateau, learnt, since = Plateau(), Learnt(), []
    for value in (2.0, 1.0, 0.95, float("nan"), 0.5):
        learnt.numbers["count"][0] += 1
        plateau.saw(value, 0.1, {"it": learnt})
        since.append(plateau.rounds_since)
        assert plateau.lowest <= 2.0
    assert since == [0, 0, 1, 2, 0]
    assert plateau.best == {"it": {"count": [5]}}
    learnt.numbers["count"][0] = 99
    assert plateau.best == {"it": {"count": [5]}}, "a copy, not the living state"
    other = Plateau()
    other.load_state_dict(copy.deepcopy(plateau.state_dict()))
    assert other == plateau


def test_cloning_first_moves_the_start():
    """The reference is the walker of the domain while cloning, and the clone ever after."""
    one = learner(fitting(rounds=3))
    given = one.given
    for _ in range(5):
        assert one.stage == 0
        assert one.references["start"] is given
        one.round()
    clone = log_policy_of(one.policy).clone()
    assert not torch.equal(clone, log_policy_of(given))
    for _ in rounds(one):
        assert torch.equal(log_policy_of(one.references["start"]), clone)
    assert not torch.equal(log_policy_of(one.policy), clone)


def test_without_cloning_the_start_stays():
    for name in ("aihf", "self-play-aihf"):
        one = learner(short(name))
        for _ in rounds(one):
            assert one.references["start"] is one.given


@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_previous_self_is_refreshed_on_time(every: int):
    one = learner(short("spin", refresh_every=every, rounds=6))
    for number in range(6):
        before = log_policy_of(one.policy).clone()
        one.round()
        if number % every == 0:
            expected = before
        assert torch.equal(log_policy_of(one.references["previous"]), expected)


def watch_own_samples(one: Learner) -> list[list[int]]:
    """Notes the contexts of the own samples of every descent step."""
    seen: list[list[int]] = []
    descend = one.reward.descend

    def noting(loss: Any, batch: Any, *given: Any) -> Any:
        seen.append(batch.own.context_id.tolist())
        count = len(one.domain.contexts)
        sides = (batch.demonstrations, batch.own)
        weights = [torch.bincount(side.context_id, weights=side.weight, minlength=count) for side in sides]
        torch.testing.assert_close(*weights)
        return descend(loss, batch, *given)

    one.reward.descend = noting
    return seen


def test_a_stage_has_steps_of_its_own_length():
    """What was cloned with the usual steps stays nearly where it was when the next stage takes tiny ones."""
    rows = [short("dpo", step_size=size) for size in (1.0, 1e-6)]
    moved = []
    for row in rows:
        one = learner(row)
        while not one.finished:
            if one.stage == len(row.stages) - 1 and one.round_of_stage == 0:
                before = one.policy.log_prob(one.preferences.first).detach()
            one.round()
        moved.append(float((one.policy.log_prob(one.preferences.first).detach() - before).abs().max()))
    assert moved[1] < 1e-4 * moved[0]


@pytest.mark.parametrize(("memory", "expected"), [(1, [7, 7, 7, 7]), (2, [7, 14, 14, 14]), (3, [7, 14, 21, 21])])
def test_own_samples_are_remembered(memory: int, expected: list[int]):
    """7 demonstrations, so 7 own samples a round: those of the last `memory` rounds meet the demonstrations."""
    one = learner(short("ml-irl", own_memory=memory, reward_steps=1, batch_size=0))
    seen = watch_own_samples(one)
    list(rounds(one))
    assert [len(ids) for ids in seen] == expected


def test_practice_does_not_meet_demonstrations():
    one = learner(short("ml-irl", practice=40, reward_steps=1, batch_size=0))
    seen = watch_own_samples(one)
    list(rounds(one))
    shown = set(one.demonstrations.trajectories.context_id.tolist())
    assert all(set(ids) == shown for ids in seen)


def test_the_last_word_is_the_policys():
    """After the last descent the policy still climbs: as many updates as the horizon has steps reach the optimum."""
    one = learner(short("ml-irl", policy_updates=TINY.horizon), replace(TINY, reward="linear"))
    list(rounds(one))
    world, row = one.domain.world, one.method
    best, _ = soft_value_iteration(
        world.graph, one.reward.scores.table().detach(), world.uniform_HGNA, row.beta, row.gamma, TINY.horizon
    )
    possible = world.graph.possible_NA.expand_as(best)
    torch.testing.assert_close(log_policy_of(one.policy)[possible], best[possible])


def test_metrics_are_means_over_the_steps_of_a_round():
    """Steps of a vanishing size: the mean over the batches of one pass is the loss on all comparisons."""
    row = short("dpo", batch_size=3, reward_steps=3)
    tiny_steps = replace(row, policy_descent=replace(row.policy_descent, optimiser="sgd", learning_rate=1e-300))
    one, whole = learner(tiny_steps), learner(tiny_steps.with_phases(batch_size=0, reward_steps=1))
    walk = log_policy_of(one.policy).clone()
    for metrics, expected in zip(rounds(one), rounds(whole), strict=True):
        assert metrics == pytest.approx(expected)
    torch.testing.assert_close(log_policy_of(one.policy), walk)


@pytest.mark.parametrize("name", METHODS)
def test_missing_data_are_refused_with_a_sentence(name: str):
    row = METHODS[name]
    for kind, uses in (("demonstrations", row.uses_demonstrations), ("preferences", row.uses_preferences)):
        bare = replace(TINY, **{f"num_{kind}": 0})
        if not uses:
            learner(row, bare).round()
            continue
        with pytest.raises(UserError) as caught:
            learner(row, bare)
        assert str(caught.value) == (
            f"Method '{name}' learns from {kind}, but the task holds none; give it some, or choose a method that does "
            "without (see the table of methods)."
        )


class Guarded(WalksDomain):
    """A world whose data must not be touched."""

    forbidden = ""

    @property
    def demonstrations(self) -> Any:
        assert self.forbidden != "demonstrations"
        return super().demonstrations

    @property
    def preferences(self) -> Any:
        assert self.forbidden != "preferences"
        return super().preferences


@pytest.mark.parametrize(("row", "kind"), [*itertools.product(METHODS.values(), ["demonstrations", "preferences"])],
                         ids=lambda value: getattr(value, "name", value))  # fmt: skip
def test_data_without_weight_are_never_touched(row: Method, kind: str):
    if row.uses_demonstrations if kind == "demonstrations" else row.uses_preferences:
        return
    domain = Guarded(TINY, 0)
    domain.forbidden = kind
    Learner(domain, row, 0).round()


def test_a_reward_that_is_explicit_does_not_depend_on_references_and_an_implicit_one_does():
    one = learner(short("aihf"))
    assert one.reward_against("start") is one.reward_against("previous") is one.learnt_reward is one.reward
    one = learner(short("self-play-aihf"))
    one.round()
    walks = one.demonstrations.trajectories
    assert torch.equal(one.reward_against("start")(walks), one.learnt_reward(walks))
    one.round()
    assert not torch.equal(one.reward_against("start")(walks), one.reward_against("previous")(walks))
    assert learner(short("bc")).learnt_reward is None


def test_two_stages_of_ones_own_run_in_order():
    """A row that nobody named: clone, then self-play, with memories and references of their own."""
    row = Method(
        name="mine",
        summary="",
        reward="implicit",
        beta=1.0,
        phases=(
            Phase(name="first", demonstration="likelihood", rounds=2),
            Phase(name="second", demonstration="pairwise", demonstration_reference="previous", own_memory=2, rounds=3),
        ),
    )
    one = learner(row)
    names = []
    while not one.finished:
        names.append(one.phase.name)
        one.round()
    assert names == ["first"] * 2 + ["second"] * 3
    assert len(one.own) == 0
    assert one.most_rounds == one.num_rounds == 5


def test_all_that_is_left_can_be_learnt_at_once():
    one, other = learner("bc"), learner("bc")
    one.round()
    assert one.learn() is one
    assert one.num_rounds == len(list(rounds(other)))
    assert torch.equal(log_policy_of(one.policy), log_policy_of(other.policy))
