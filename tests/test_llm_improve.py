"""The inner step: advantages by hand, the exact gradient by enumeration, and a policy that climbs."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from language import TASK, domain, short
from language import settings as language_settings
from torch import Tensor
from transformers import PreTrainedModel

from llm.advantages import credited, leave_one_out, shifted, standardised, to_go
from llm.config import ImproveConfig, ModelConfig
from llm.improve import climbing_loss, in_groups, judged, sections
from llm.models import small_model
from llm.policy import LanguagePolicy
from llm.references import Remembering
from llm.roles import Whole
from llm.sizes import Shape
from llm.speech import Manner, Speech
from unified_irl.batch import Batch
from unified_irl.descent_config import DescentConfig
from unified_irl.errors import UserError
from unified_irl.trajectories import Contexts, Trajectories

torch.set_num_threads(1)
END, VOCABULARY = 2, 5
ROOT2 = 2.0**0.5


def table(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)


# Advantages


def test_what_is_still_to_come_by_hand() -> None:
    """Pays of 1, 2, 4: all of them 7, 6, 4; at γ = ½, 1 + 2/2 + 4/4 = 3, 2 + 4/2 = 4, and 4."""
    pays = table([1.0, 2.0, 4.0], [0.0, 8.0, 0.0])
    assert to_go(pays, 1.0).tolist() == [[7.0, 6.0, 4.0], [8.0, 8.0, 0.0]]
    assert to_go(pays, 0.5).tolist() == [[3.0, 4.0, 4.0], [4.0, 8.0, 0.0]]


def test_less_the_mean_of_the_others_by_hand() -> None:
    """1 − (2 + 6)/2 = −3, 2 − 7/2 = −1.5, 6 − 3/2 = 4.5; groups know nothing of each other."""
    assert leave_one_out(table([1.0], [2.0], [6.0], [5.0], [5.0], [8.0]), 3).tolist() == [
        [-3.0], [-1.5], [4.5], [-1.5], [-1.5], [3.0]
    ]  # fmt: skip
    assert leave_one_out(table([1.0, 4.0], [3.0, 0.0]), 2).tolist() == [[-2.0, 4.0], [2.0, -4.0]]


def test_standardised_by_hand() -> None:
    """Returns 1 and 3: mean 2, deviation √2. A group that is all alike teaches nothing, whatever its steps."""
    value = table([1.0, 0.0], [3.0, 1.0], [5.0, 1.0], [5.0, 3.0])
    gain = standardised(value, torch.tensor([1.0, 3.0, 5.0, 5.0]), 2)
    expected = table([-1 / ROOT2, -0.5 / ROOT2], [1 / ROOT2, 0.5 / ROOT2], [0.0, 0.0], [0.0, 0.0])
    torch.testing.assert_close(gain, expected)


def test_rows_are_shifted_by_hand() -> None:
    rows = table([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0])
    by = torch.tensor([0, 1, 2])
    assert shifted(rows, by).tolist() == [[1.0, 2.0, 3.0], [5.0, 6.0, 0.0], [9.0, 0.0, 0.0]]
    assert shifted(rows, -by).tolist() == [[1.0, 2.0, 3.0], [0.0, 4.0, 5.0], [0.0, 0.0, 7.0]]


def test_what_a_token_answers_for_by_hand() -> None:
    """Prompts of 1 and 2 tokens, pays of 1, 2 and of 4, 8, γ = ½. What is to come, in columns of the completion: 2, 2
    and 8, 8; discounted to the start 2, 1 and 8, 4. A whole completion's 2 and 8 stand in every column."""
    pays, start = table([0.0, 1.0, 2.0, 0.0], [0.0, 0.0, 4.0, 8.0]), torch.tensor([1, 2])
    assert credited(pays, start, "to go", 0.5).tolist() == [[2.0, 1.0, 0.0, 0.0], [8.0, 4.0, 0.0, 0.0]]
    assert credited(pays, start, "whole", 0.5).tolist() == [[2.0] * 4, [8.0] * 4]
    assert credited(pays, start, "to go", 1.0).tolist() == [[3.0, 2.0, 0.0, 0.0], [12.0, 8.0, 0.0, 0.0]]


def pair() -> tuple[Trajectories, Tensor, Tensor]:
    """Two completions of one prompt of one token, the second cut off; their rewards and what the reference says."""
    mask = torch.tensor([[False, True, True, False], [False, True, True, True]])
    own = Trajectories(
        data={"token": torch.zeros(2, 4, dtype=torch.long)}, mask=mask, rewarded=mask, context_id=torch.tensor([0, 0]),
        weight=torch.ones(2), behaviour_log_prob=-table([0.0, 1.0, 2.0, 0.0], [0.0, 1.0, 1.0, 1.0]),
        start_step=torch.zeros(2, dtype=torch.long), terminated=torch.tensor([True, False]),
        truncated=torch.tensor([False, True]),
    )  # fmt: skip
    reward = table([9.0, 1.0, 3.0, 9.0], [9.0, 1.0, 0.0, 1.0])
    return own, reward, -table([7.0, 2.0, 2.0, 7.0], [7.0, 1.0, 2.0, 3.0])


def test_samples_are_judged_by_hand() -> None:
    """β = 2. Log ratios: 1, 0 and 0, 1, 2. Pays: 1 − 2, 3 and 1, −2, 1 − 4 less 5 for the missing end: −1, 3 and 1, −2,
    −8. To come: 2, 3 and −9, −10, −8; less the other's: 11, 13 and −11, −13, −8, where the other is over."""
    own, reward, reference = pair()
    config = ImproveConfig(samples=2, missing_end=5.0)
    told, metrics = judged(own, reward, reference, config, 2.0, 1.0)
    assert told.data["advantage"].tolist() == [[0.0, 11.0, 13.0, 0.0], [0.0, -11.0, -13.0, -8.0]]
    assert told.data["reference"].tolist() == (reference * own.mask).tolist()
    # Returns 4 and 2 − 5, divergences 1 and 3: the objective is ((4 − 2·1) + (−3 − 2·3))/2 = −3.5.
    assert metrics["policy_loss"] == pytest.approx(3.5)
    assert metrics["objective/scores"] == pytest.approx(0.5)
    assert metrics["objective/spread"] == pytest.approx(7 / ROOT2)
    assert metrics["objective/kl"] == pytest.approx(2.0)
    e = [1.0, 2.718281828, 7.389056099]
    assert metrics["objective/kl_k3"] == pytest.approx((1 / e[1] + (1 / e[1]) + (1 / e[2] + 1)) / 2)
    assert metrics["objective/entropy"] == pytest.approx(3.0)
    assert metrics["val/contain_eos_token"] == pytest.approx(0.5)
    assert metrics["val/length"] == pytest.approx(2.5)


def test_other_ways_of_judging_by_hand() -> None:
    """Rewards 1, 3 and 1, 0, 1. All of it 4 and 2: whole, 2 and −2 for every token. Standardised by what is to come:
    4 − 3 = 1, 3 − 2 = 1 and −1, −1, ½ (the other is over), divided by the returns' deviation √2."""
    own, reward, reference = pair()
    whole = ImproveConfig(samples=2, credit="whole", kl="k3 penalty")
    told, _ = judged(own, reward, reference, whole, 2.0, 1.0)
    assert told.data["advantage"].tolist() == [[0.0, 2.0, 2.0, 0.0], [0.0, -2.0, -2.0, -2.0]]
    grpo = replace(whole, algorithm="grpo", credit="to go")
    told, _ = judged(own, reward, reference, grpo, 2.0, 1.0)
    expected = table([0.0, 1.0, 1.0, 0.0], [0.0, -1.0, -1.0, 0.5]) / ROOT2
    torch.testing.assert_close(told.data["advantage"], expected)


def test_a_reward_outside_of_a_completion_is_never_read() -> None:
    own, reward, reference = pair()
    junk = torch.where(own.mask, reward, float("nan"))
    one, other = (judged(own, given_, reference, ImproveConfig(samples=2), 2.0, 0.9) for given_ in (reward, junk))
    assert torch.equal(one[0].data["advantage"], other[0].data["advantage"])
    assert one[1] == other[1]


# The gradient


def slopes(config: ImproveConfig, now: list[float], gain: list[float], **more: Any) -> list[float]:
    """The loss's derivative by the log-probability of each of some completions of one token, of which it was −1."""
    count = len(now)
    mask = torch.tensor([[False, True]]).expand(count, -1)
    log_prob = (table([0.0, 1.0]) * torch.tensor(now)[:, None]).requires_grad_()
    told = Trajectories(
        data={"token": mask.long(), "advantage": table([0.0, 1.0]) * torch.tensor(gain)[:, None],
              "reference": -1.0 * mask},
        mask=mask, rewarded=mask, context_id=torch.zeros(count, dtype=torch.long), weight=torch.ones(count),
        behaviour_log_prob=-1.0 * mask, start_step=torch.zeros(count, dtype=torch.long),
        terminated=mask[:, 1], truncated=mask[:, 0],
    )  # fmt: skip
    batch = Batch(own=told)
    loss, _ = climbing_loss(lambda _: log_prob, config, more.get("beta", 0.0), 1.0)(batch, batch.normaliser())
    (slope,) = torch.autograd.grad(loss, log_prob)
    assert not bool(slope[:, 0].any())
    return (slope[:, 1] * count).tolist()


def test_clipped_ratios_by_hand() -> None:
    """Ratios of 1.5 and 0.5, bounds 0.8 and 1.2: beyond a bound only the way back has a slope, −ρA."""
    up, down = (torch.tensor(ratio).log().item() - 1.0 for ratio in (1.5, 0.5))
    config = ImproveConfig(samples=2, algorithm="ppo")
    now, gain = [up, up, down, down, -1.0, -1.0], [2.0, -2.0, 2.0, -2.0, 2.0, -2.0]
    assert slopes(config, now, gain) == pytest.approx([0.0, 3.0, -1.0, 0.0, -2.0, 2.0])
    wide = replace(config, clip=0.9)
    assert slopes(wide, now, gain) == pytest.approx([-3.0, 3.0, -1.0, 1.0, -2.0, 2.0])
    assert slopes(replace(config, algorithm="rloo"), now, gain) == pytest.approx([-2.0, 2.0] * 3)


def test_the_penalty_by_hand() -> None:
    """β (1 − π_ref/π): with π half of the reference 3 (1 − 2) = −3, with π as the reference nothing."""
    config = ImproveConfig(samples=2, kl="k3 penalty")
    half = torch.tensor(0.5).log().item() - 1.0
    assert slopes(config, [half, -1.0], [0.0, 0.0], beta=3.0) == pytest.approx([-3.0, 0.0], abs=1e-6)


class Small:
    """A model of five tokens, of which completions of at most two of one prompt are enumerated: the end, or one of four
    others and any token: 21 of them."""

    def __init__(self) -> None:
        shape = Shape(layers=1, width=8, heads=2, documents=1, passes=1)
        self.model, self.other = (small_model(ModelConfig(base_seed=seed), shape, VOCABULARY, 16) for seed in (0, 1))
        with torch.no_grad():
            for model in (self.model, self.other):
                model.get_output_embeddings().weight.mul_(10.0)
        self.speech = Speech(Whole(self.model), Manner(end=END, max_tokens=2, rows=9, tokens_per_pass=4096))
        said = [(END,), *itertools.product((0, 1, 3, 4), range(VOCABULARY))]
        tokens = torch.tensor([[1, 3, *one, *[0] * (2 - len(one))] for one in said])
        mask = torch.tensor([[False, False, True, len(one) > 1] for one in said])
        ended = torch.tensor([one[-1] == END for one in said])
        self.every = Trajectories(
            data={"token": tokens}, mask=mask, rewarded=mask, context_id=torch.zeros(21, dtype=torch.long),
            weight=torch.ones(21), behaviour_log_prob=torch.zeros(21, 4), start_step=torch.zeros(21, dtype=torch.long),
            terminated=ended, truncated=~ended,
        )  # fmt: skip
        draw = torch.Generator().manual_seed(3)
        first, second = (2.0 * torch.randn(shape, generator=draw) for shape in ((5,), (5, 5)))
        # What a token is paid depends on what came before it, not on what will.
        self.reward = torch.stack([*[torch.zeros(21)] * 2, first[tokens[:, 2]], second[tokens[:, 2], tokens[:, 3]]], 1)
        with torch.no_grad():
            log_prob = self.speech.log_prob(self.every)
            self.reference = Speech(Whole(self.other), self.speech.manner).log_prob(self.every)
        self.every = replace(self.every, behaviour_log_prob=log_prob)
        self.chance = log_prob.sum(1).exp()

    def gradient_of(self, value: Tensor) -> Tensor:
        parts = torch.autograd.grad(value, list(self.model.parameters()), materialize_grads=True)
        return torch.cat([part.flatten() for part in parts])

    def expected(self, config: ImproveConfig, beta: float, gamma: float) -> Tensor:
        """The mean gradient of the loss over all groups of two samples, each as likely as it is."""
        first, second = torch.cartesian_prod(torch.arange(21), torch.arange(21)).unbind(1)
        rows = torch.stack([first, second], 1).flatten()
        told, _ = judged(self.every[rows], self.reward[rows], self.reference[rows], config, beta, gamma)
        weight = (self.chance[first] * self.chance[second]).repeat_interleave(2)
        batch = Batch(own=replace(told, weight=weight))
        return self.gradient_of(climbing_loss(self.speech.log_prob, config, beta, gamma)(batch, batch.normaliser())[0])

    def exact(self, beta: float, gamma: float, missing: float = 0.0) -> Tensor:
        """−∇ Σ_y π(y) Σ_t γ^t (r_t − β log π/π_ref)."""
        log_prob = self.speech.log_prob(self.every)
        discount = self.every.discount(gamma)
        last = self.every.mask & (self.every.mask.cumsum(1) == self.every.mask.sum(1, keepdim=True))
        pays = self.reward - beta * (log_prob - self.reference) - missing * (last & self.every.truncated[:, None])
        return self.gradient_of(-(log_prob.sum(1).exp() * (pays * discount).sum(1)).sum())


@pytest.fixture(scope="module")
def small() -> Small:
    return Small()


def must_agree(one: Tensor, other: Tensor) -> None:
    assert float(other.norm()) > 0.1
    assert float((one - other).norm()) < 1e-4 * float(other.norm())


def test_completions_are_enumerated(small: Small) -> None:
    assert float(small.chance.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(small.chance.max()) < 0.5


@pytest.mark.parametrize("gamma", [1.0, 0.7])
@pytest.mark.parametrize("beta", [1e-9, 0.5])
@pytest.mark.parametrize("credit", ["to go", "whole"])
@pytest.mark.parametrize("algorithm", ["rloo", "ppo"])
def test_the_mean_gradient_is_that_of_the_objective(
    small: Small, algorithm: Any, credit: Any, beta: float, gamma: float
) -> None:
    """Over all 441 groups of two samples, weighted by how likely they are, estimate and gradient are the same: leaving
    oneself out of the mean costs no bias, and at the policy that made the samples a ratio is 1 and unclipped."""
    config = ImproveConfig(samples=2, algorithm=algorithm, credit=credit)
    must_agree(small.expected(config, beta, gamma), small.exact(beta, gamma))


def test_a_missing_end_is_part_of_the_objective(small: Small) -> None:
    config = ImproveConfig(samples=2, missing_end=3.0)
    must_agree(small.expected(config, 0.5, 0.7), small.exact(0.5, 0.7, missing=3.0))


def test_a_biased_mean_would_be_seen(small: Small) -> None:
    """GRPO divides by the spread, and so climbs another hill."""
    one, other = small.expected(ImproveConfig(samples=2, algorithm="grpo"), 0.5, 1.0), small.exact(0.5, 1.0)
    assert float((one - other).norm()) > 0.1 * float(other.norm())


def test_the_penalty_is_a_divergence_the_other_way_round(small: Small) -> None:
    """The gradient of π_ref/π − 1 − log π_ref/π, samples as they are, is in the mean that of KL(π_ref ‖ π) at the
    prefixes where the policy gets to."""
    config, beta = ImproveConfig(samples=2, kl="k3 penalty"), 0.5
    prefixes = [(1, 3), *((1, 3, word) for word in (0, 1, 3, 4))]
    with torch.no_grad():
        first = small.model(torch.tensor([prefixes[0]])).logits[0, -1].softmax(-1)
    divergence = torch.zeros(())
    for prefix in prefixes:
        reach = 1.0 if len(prefix) == 2 else float(first[prefix[-1]])
        now, then = (_next(model, prefix) for model in (small.model, small.other))
        divergence = divergence + reach * (then.exp() * (then - now)).sum()
    must_agree(small.expected(config, beta, 1.0), small.exact(0.0, 1.0) + beta * small.gradient_of(divergence))


def _next(model: PreTrainedModel, prefix: tuple[int, ...]) -> Tensor:
    return model(torch.tensor([prefix])).logits[0, -1].log_softmax(-1)


# Contexts


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 5))
def test_sections_meet_every_context(count: int, num_updates: int, seed: int) -> None:
    """One part for each update, of even sizes; each context once, or as often as any other to within one."""
    contexts = Contexts(ids=torch.arange(count), data={"length": torch.arange(count) + 7})
    parts = sections(contexts, num_updates, torch.Generator().manual_seed(seed))
    sizes, met = [len(part) for part in parts], torch.cat([part.ids for part in parts]).bincount(minlength=count)
    assert len(parts) == num_updates
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    assert int(met.max()) - int(met.min()) <= (0 if count >= num_updates else 1)
    assert all(torch.equal(part.data["length"], part.ids + 7) for part in parts)
    again = sections(contexts, num_updates, torch.Generator().manual_seed(seed))
    assert all(torch.equal(one.ids, two.ids) for one, two in zip(parts, again, strict=True))


def test_groups_stand_side_by_side() -> None:
    assert in_groups(Contexts(ids=torch.tensor([4, 2]), data={}), 3).ids.tolist() == [4, 4, 4, 2, 2, 2]


# Climbing


class PaysGood:
    """One for every 'good', and how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[Trajectories] = []
        self.good = 4 + TASK.words.index("good")

    def for_policy(self) -> Any:
        def ask(behaviours: Trajectories) -> Tensor:
            self.asked.append(behaviours)
            return (behaviours.data["token"] == self.good).float() * behaviours.mask

        return ask


def climber(**config: Any) -> tuple[LanguagePolicy, Remembering, Contexts]:
    """A policy that takes brave steps, its reference, and all contexts."""
    improve = replace(language_settings().improve, **{"samples": 4} | config)
    world = domain(improve=improve)
    row = replace(short("aihf"), policy_descent=DescentConfig(learning_rate=1e-2, max_grad_norm=1.0))
    parts = world.build(row)
    assert isinstance(parts.policy, LanguagePolicy)
    assert isinstance(parts.reference, Remembering)
    return parts.policy, parts.reference, world.contexts


@pytest.mark.parametrize(
    "config",
    [{}, {"algorithm": "grpo"}, {"algorithm": "ppo"}, {"kl": "k3 penalty"}, {"credit": "whole"}],
    ids=lambda config: "-".join(config.values()) or "rloo",
)
def test_a_policy_climbs(config: dict[str, Any]) -> None:
    """From less than one 'good' per completion to more than two, in 40 updates on a few samples each."""
    policy, reference, contexts = climber(**config)
    reward: Any = PaysGood()
    draw = torch.Generator().manual_seed(0)
    told = []
    for _ in range(8):
        metrics, own = policy.improve(reward, reference, 0.05, 1.0, contexts, 5, draw)
        told.append(metrics)
        assert own.validated("own").context_id.bincount().tolist() == [4] * 10
    assert told[0]["objective/scores"] < 1.0
    assert told[-1]["objective/scores"] > 2.0
    assert told[-1]["policy_loss"] < told[0]["policy_loss"] - 1.0
    assert told[-1]["objective/kl"] > 0.1
    for one in told:
        assert one["policy_loss"] == pytest.approx(0.05 * one["objective/kl"] - one["objective/scores"], abs=1e-5)


def test_an_update_is_one_section_and_its_samples_are_handed_back() -> None:
    policy, reference, contexts = climber()
    reward: Any = PaysGood()
    _, own = policy.improve(reward, reference, 0.05, 1.0, contexts[:7], 3, torch.Generator().manual_seed(0))
    assert [len(asked) for asked in reward.asked] == [12, 8, 8]
    assert len(own) == 28
    assert sorted(own.context_id.tolist()) == sorted([*range(7)] * 4)
    assert policy.climb.num_steps == 3
    assert policy.descent.num_steps == 0
    assert not reference.known, "own samples will not be asked about again"
    _, few = policy.improve(reward, reference, 0.05, 1.0, contexts[:2], 5, torch.Generator().manual_seed(0))
    assert sorted(few.context_id.bincount(minlength=2).tolist()) == [8, 12]


def test_first_samples_are_those_of_the_policy_as_it_was() -> None:
    """The first section's completions do not depend on how many steps are taken, and are made by who is asked."""
    both = []
    for num_updates in (1, 2):
        policy, reference, contexts = climber()
        still = policy.frozen()
        draw = torch.Generator().manual_seed(5)
        reward: Any = PaysGood()
        policy.improve(reward, reference, 0.05, 1.0, contexts[:1], num_updates, draw)
        first = reward.asked[0]
        both.append(first)
        torch.testing.assert_close(first.behaviour_log_prob, still.log_prob(first), atol=1e-4, rtol=0.0)
    assert torch.equal(both[0].data["token"], both[1].data["token"])


def test_several_epochs_take_several_steps() -> None:
    policy, reference, contexts = climber(algorithm="ppo", epochs=3)
    policy.improve(PaysGood(), reference, 0.05, 1.0, contexts, 2, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    assert policy.climb.num_steps == 6


def test_the_climb_has_a_step_size_of_its_own_that_does_not_fall() -> None:
    """Weight decay and clipping are those of the other steps."""
    row = DescentConfig(learning_rate=1e-2, schedule="linear", total_steps=3, max_grad_norm=0.5)
    for given_, expected in ((0.0, 1e-2), (3e-4, 3e-4)):
        world = domain(improve=ImproveConfig(samples=2, learning_rate=given_))
        policy = world.build(replace(short("aihf"), policy_descent=row)).policy
        assert isinstance(policy, LanguagePolicy)
        assert policy.climb.config == replace(row, schedule="constant", learning_rate=expected)
        assert policy.descent.config == row


def test_micro_batches_climb_like_one_batch() -> None:
    """Plain steps on pieces of 3 rows, and on all 40 at once."""
    sides = []
    for size in (0, 3):
        world = domain(improve=ImproveConfig(samples=4, kl="k3 penalty"))
        descent = DescentConfig(optimiser="sgd", learning_rate=1e-2, micro_batch_size=size)
        parts = world.build(replace(short("aihf"), policy_descent=descent))
        reward: Any = PaysGood()
        parts.policy.improve(reward, parts.reference, 0.1, 0.9, world.contexts, 1, torch.Generator().manual_seed(0))
        sides.append(torch.cat([value.flatten() for value in parts.policy.role.weights().values()]))  # type: ignore[attr-defined]
    assert float((sides[0] - sides[1]).abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"samples": 1}, "improve: samples is 1; expected 2 or more"),
        ({"clip": 1.0}, "improve: clip is 1.0; expected above 0 and below 1"),
        ({"epochs": 0}, "improve: epochs is 0; expected 1 or more"),
        ({"missing_end": -1.0}, "improve: missing_end is -1.0; expected 0 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ImproveConfig(**wrong)
