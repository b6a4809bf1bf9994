"""The explicit reward: zero at first, paid where it is to be, bounded, scaled once, and learnt by head or by all."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from language import MANNER, adapters, gentle, said_by, stir
from speakers import END, model_of
from torch import Tensor

from llm.config import LoRAConfig, RewardConfig
from llm.reward import TextReward
from llm.roles import Role, Whole, hidden_states
from llm.speech import Speech
from unified_irl.batch import Batch, Normaliser
from unified_irl.errors import UserError
from unified_irl.objectives import bradley_terry, returns
from unified_irl.trajectories import Trajectories

torch.set_num_threads(1)
LEVELS = pytest.mark.parametrize("level", ["token", "sequence"])
OWN = said_by(Whole(model_of("llama")))
LENGTH = OWN.mask.sum(1)


def reward_of(role: Role | None = None, *, bias: float = 0.0, opinions: bool = False, **config: Any) -> TextReward:
    """A reward that pays the bias, and more that differs from token to token if it is to have opinions. One that pays
    for whole completions has no bias, since no comparison could tell it."""
    slow = replace(gentle(), learning_rate=1e-3)
    reward = TextReward(role or Whole(model_of("llama")), RewardConfig(**config), slow, 128)
    with torch.no_grad():
        if reward.head.bias is not None:
            reward.head.bias.fill_(bias)
        if opinions:
            reward.head.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return reward


@torch.no_grad()
def says(reward: TextReward, behaviours: Trajectories = OWN) -> Tensor:
    return reward(behaviours)


def loss_of(reward: TextReward) -> Any:
    """Longer completions are the better ones, pair by pair."""

    def loss(batch: Batch, normaliser: Normaliser) -> tuple[Tensor, dict[str, Tensor]]:
        assert batch.own is not None
        value = returns(reward(batch.own), batch.own.discount(1.0))
        longer = (batch.own.mask.sum(1)[::2] > batch.own.mask.sum(1)[1::2]).float()
        ones = torch.ones_like(longer)
        return bradley_terry(value[::2], value[1::2], longer, 0 * ones, ones, ones.sum())

    return loss


def descend(reward: TextReward, steps: int = 1) -> list[float]:
    batch = Batch(own=OWN)
    return [float(reward.descend(loss_of(reward), batch, batch.normaliser())["loss"]) for _ in range(steps)]


# Where it pays


@LEVELS
@pytest.mark.parametrize("kind", ["whole", "adapter"])
def test_it_is_zero_at_first(level: Any, kind: str) -> None:
    """Whatever its body says, so that the first policy is the reference; and it can learn all the same."""
    reward = reward_of(adapters()[2] if kind == "adapter" else None, level=level)
    assert not bool(says(reward).any())
    assert not bool(reward.for_policy()(OWN).any())
    losses = descend(reward, 3)
    assert losses[2] < losses[1] < losses[0]
    assert bool(says(reward).any())


def test_it_pays_for_tokens_or_for_the_last_of_them() -> None:
    """A reward of 2 for whatever is read goes to every chosen token; opinions to all of them, or to the last one."""
    last = OWN.mask & (OWN.mask.cumsum(1) == LENGTH[:, None])
    assert torch.equal(says(reward_of(bias=2.0)), 2.0 * OWN.mask)
    assert reward_of(level="sequence").head.bias is None
    every, once = says(reward_of(opinions=True)), says(reward_of(opinions=True, level="sequence"))
    assert len(every[OWN.mask].unique()) > 50
    torch.testing.assert_close(once, every * last)


@LEVELS
def test_it_reads_no_padding(level: Any) -> None:
    """Zeros, the end or anything else behind a row, a padding token that is the end: what is chosen alone counts."""
    reward = reward_of(opinions=True, level=level)
    expected = says(reward)
    behind = OWN.mask.flip(1).cumsum(1).flip(1) == 0
    for padding in (0, END, 17):
        token = torch.where(behind, padding, OWN.data["token"])
        torch.testing.assert_close(says(reward, replace(OWN, data={"token": token})), expected, atol=1e-5, rtol=0.0)
    reward.role.model.config.pad_token_id = END
    torch.testing.assert_close(says(reward), expected)
    wider = says(reward, OWN.padded(OWN.num_steps + 5))
    assert wider.shape == (12, OWN.num_steps + 5)
    torch.testing.assert_close(wider[:, : OWN.num_steps], expected, atol=1e-5, rtol=0.0)
    for row in range(len(OWN)):
        torch.testing.assert_close(says(reward, OWN[row : row + 1])[0], expected[row], atol=1e-5, rtol=0.0)


def test_a_token_is_judged_by_what_came_before_it() -> None:
    """The number read off the hidden state of the token itself: those after it change nothing."""
    reward = reward_of(opinions=True)
    with torch.no_grad(), reward.role.active():
        expected = reward.head(hidden_states(reward.role, OWN.data["token"])) * OWN.mask
    torch.testing.assert_close(says(reward), expected, atol=1e-5, rtol=0.0)
    first = OWN.mask & (OWN.mask.cumsum(1) == 1)
    short = replace(OWN, mask=first, rewarded=first)
    torch.testing.assert_close(says(reward, short), expected * first, atol=1e-5, rtol=0.0)


def test_with_a_gradient_it_says_the_same_as_without() -> None:
    reward = reward_of(opinions=True)
    with_gradient = reward(OWN)
    assert with_gradient.requires_grad
    torch.testing.assert_close(with_gradient.detach(), says(reward), atol=1e-5, rtol=0.0)
    assert not reward.for_policy()(OWN).requires_grad


@pytest.mark.parametrize("rank", [0, 4])
def test_half_precision_rounds_no_reward(rank: int) -> None:
    """With products in bfloat16 the body says what it says; the number read off it is exact to single precision."""
    more = {"dtype": "bfloat16", "lora": LoRAConfig(rank=rank)}
    role = adapters(**more)[2] if rank else Whole(model_of("llama", **more))
    reward = reward_of(role, bias=100.0, opinions=True)
    with_gradient = reward(OWN)
    assert with_gradient.dtype == torch.float32
    with torch.no_grad(), role.active():
        hidden = hidden_states(role, OWN.data["token"]).double()
    expected = (hidden @ reward.head.weight.detach().double().T).squeeze(-1) + 100.0
    assert float((with_gradient.detach() - expected)[OWN.mask].abs().max()) < 1e-4
    assert len(with_gradient[OWN.mask].unique()) > 100, "rounded to 8 bits there would be a few"


def test_segments_are_refused() -> None:
    reward = reward_of(opinions=True)
    piece = OWN.segment(torch.full((12,), 2), 3)
    for ask in (reward, reward.for_policy()):
        with pytest.raises(UserError, match=r"reads a completion from its prompt on.* let phase\.segment be 0\."):
            ask(piece)


# Bounds and scales


def test_a_bound_is_a_tanh() -> None:
    """2 tanh(r/2): 1 becomes 0.924234, a thousand 2, and small numbers stay what they are."""
    for bias, expected in ((1.0, 0.924234), (1000.0, 2.0), (-1000.0, -2.0), (1e-3, 1e-3)):
        assert says(reward_of(bias=bias, bound=2.0))[OWN.mask].unique().item() == pytest.approx(expected, rel=1e-6)
    free, bound = says(reward_of(opinions=True)), says(reward_of(opinions=True, bound=0.5))
    assert float(free.abs().max()) > 0.5 > float(bound.abs().max())
    torch.testing.assert_close(bound, 0.5 * torch.tanh(free / 0.5))


@LEVELS
def test_it_is_shifted_and_scaled_by_its_first_samples(level: Any) -> None:
    """From then on by the same numbers: what is paid to the first samples has mean 0 and deviation 1."""
    reward = reward_of(opinions=True, bias=3.0, level=level, normalise="at first")
    ask = reward.for_policy()
    paid = ask(OWN)
    value = says(reward).sum(1)
    torch.testing.assert_close(paid.sum(1), (value - value.mean()) / value.std(), atol=1e-4, rtol=0.0)
    assert not bool(paid[~OWN.mask].any())
    some = OWN[:3]
    for asked in (ask(some), reward.for_policy()(some)):
        torch.testing.assert_close(asked.sum(1), (value[:3] - value.mean()) / value.std(), atol=1e-4, rtol=0.0)
    with torch.no_grad():
        torch.testing.assert_close(reward(OWN).sum(1), value), "what is learnt is never scaled"
    plain = reward_of(opinions=True, bias=3.0, level=level)
    torch.testing.assert_close(plain.for_policy()(OWN), says(plain))


def test_a_scale_by_hand() -> None:
    """A reward of 2 for every token of completions of 1 and 3 tokens: returns 2 and 6, mean 4, deviation √8. A token
    then gets (2 − 4/1)/√8 = −0.70711 in the one, (2 − 4/3)/√8 = 0.23570 in the other."""
    two = OWN[LENGTH >= 3][:2]
    mask = two.mask & (two.mask.cumsum(1) <= torch.tensor([[1], [3]]))
    two = replace(two, mask=mask, rewarded=mask)
    paid = reward_of(bias=2.0, normalise="at first").for_policy()(two)
    assert paid[0][mask[0]].tolist() == pytest.approx([-0.7071068])
    assert paid[1][mask[1]].tolist() == pytest.approx([0.2357023] * 3)


def test_a_reward_that_collapses_looks_collapsed() -> None:
    """A thousandth of its opinions left, what it pays differs by a thousandth; also after a checkpoint."""
    reward = reward_of(opinions=True, normalise="at first")
    lively = reward.for_policy()(OWN).sum(1)
    with torch.no_grad():
        reward.head.weight.mul_(1e-3)
    other = reward_of(normalise="at first")
    assert other.scale.shift_scale is None
    other.load_state_dict(reward.state_dict())
    for one in (reward, other):
        paid = one.for_policy()(OWN).sum(1)
        assert float(paid.std()) == pytest.approx(1e-3 * float(lively.std()), rel=1e-3)
    other.load_state_dict(reward_of(normalise="at first").state_dict())
    assert other.scale.shift_scale is None


def test_where_all_is_paid_alike_there_is_nothing_to_scale_by() -> None:
    """The zero reward of the beginning stays zero, and is not scaled up later by what it lacked."""
    reward = reward_of(normalise="at first")
    assert not bool(reward.for_policy()(OWN).any())
    with torch.no_grad():
        reward.head.bias.fill_(2.0)
    assert torch.equal(reward.for_policy()(OWN), says(reward))


# What learns


@pytest.mark.parametrize("kind", ["whole", "adapter"])
def test_the_head_alone_learns_where_it_is_to(kind: str) -> None:
    for train in ("head", "all"):
        role = adapters()[2] if kind == "adapter" else Whole(model_of("llama"))
        reward = reward_of(role, opinions=True, train=train)
        body = {name: value.clone() for name, value in role.weights().items()}
        head = reward.head.weight.clone()
        losses = descend(reward, 3)
        assert losses[2] < losses[0]
        assert not torch.equal(reward.head.weight, head)
        moved = [not torch.equal(value, body[name]) for name, value in role.weights().items()]
        assert any(moved) == (train == "all")
        if train == "head":
            assert all(value.grad is None for value in role.parameters())


def test_it_moves_neither_policy_nor_base() -> None:
    _, policy, role = adapters()
    own, reward = said_by(policy), reward_of(role, opinions=True)
    with torch.no_grad():
        before = Speech(policy, MANNER).log_prob(own)
    started = says(reward)
    descend(reward, 2)
    with torch.no_grad():
        assert torch.equal(Speech(policy, MANNER).log_prob(own), before)
    learnt = says(reward)
    assert not torch.equal(learnt, started)
    stir(policy, 8)
    assert torch.equal(says(reward), learnt)


def test_measuring_learns_nothing() -> None:
    reward, batch = reward_of(opinions=True), Batch(own=OWN)
    before = says(reward)
    measured = [float(reward.measure(loss_of(reward), batch, batch.normaliser())["loss"]) for _ in range(2)]
    assert measured[0] == measured[1]
    assert torch.equal(says(reward), before)
    assert descend(reward)[0] == pytest.approx(measured[0], rel=1e-5)


@pytest.mark.parametrize("kind", ["whole", "adapter"])
def test_a_checkpoint_holds_body_head_and_steps(kind: str) -> None:
    def made(seed: int) -> TextReward:
        role = adapters()[2] if kind == "adapter" else Whole(model_of("llama", base_seed=seed))
        config = replace(gentle(), optimiser="adam", schedule="inverse-sqrt")
        return TextReward(role, RewardConfig(), config, 128)

    one, other = made(0), made(1)
    descend(one, 2)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert torch.equal(says(one), says(other))
    assert descend(one, 2) == descend(other, 2)
    assert torch.equal(says(one), says(other))
