"""Roles: adapters that add nothing are the base to the bit, and whoever learns moves nobody else."""

from __future__ import annotations

import copy
import gc
import math
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from language import FAMILIES, MANNER, TINY, adapters, domain, gentle, gpt2, gradients, said_by, short, stir, tiny
from speakers import PROMPT, model_of
from torch import Tensor

from llm.config import ImproveConfig, LoRAConfig
from llm.policy import LanguagePolicy
from llm.roles import Adapter, Base, Role, Shared, Whole, head_of, hidden_states
from llm.speech import Speech
from unified_irl.batch import Batch, Normaliser
from unified_irl.descent import Descent
from unified_irl.learner import Learner
from unified_irl.trajectories import Trajectories

torch.set_num_threads(1)
KINDS = (*FAMILIES, "gpt2")


@torch.no_grad()
def heard(role: Role) -> Tensor:
    with role.active():
        return hidden_states(role, PROMPT)


def policy_of(role: Role) -> LanguagePolicy:
    return LanguagePolicy(role, MANNER, gentle(), ImproveConfig())


def train(role: Role, behaviours: Trajectories) -> None:
    """Two steps towards some behaviours."""
    policy = policy_of(role)

    def loss(batch: Batch, normaliser: Normaliser) -> tuple[Tensor, dict[str, Tensor]]:
        assert batch.own is not None
        return -policy.log_prob(batch.own).sum(), {}

    for _ in range(2):
        policy.descend(loss, Batch(own=behaviours), Batch(own=behaviours).normaliser())


# Nothing is added


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_with_adapters_off_or_new_it_is_the_base_to_the_bit(kind: str, dtype: str) -> None:
    """Weights, hidden states, log-probabilities and completions: before there were adapters, with new ones, off, and
    beside others that have learnt."""
    model = tiny(kind, dtype=dtype, lora=LoRAConfig(rank=4))
    plain = Whole(copy.deepcopy(model).requires_grad_(False))
    shared = Shared(model, LoRAConfig(rank=4), 0)
    policy, reward, base = Adapter(shared, "policy"), Adapter(shared, "reward"), Base(shared)
    stir(reward, 0)
    own = said_by(plain)
    for role in (base, policy, policy.still()):
        assert torch.equal(heard(role), heard(plain))
        assert torch.equal(head_of(role), head_of(plain))
        with torch.no_grad():
            assert torch.equal(Speech(role, MANNER).log_prob(own), Speech(plain, MANNER).log_prob(own))
        assert torch.equal(said_by(role).data["token"], own.data["token"])
    assert not torch.allclose(heard(reward).float(), heard(plain).float(), atol=1e-2)
    stir(policy, 1)
    assert torch.equal(heard(base), heard(plain))
    assert {value.dtype for value in policy.parameters()} == {torch.float32}


def test_every_linear_layer_but_the_head_is_adapted() -> None:
    """Llama has 7 in each of 2 blocks, each with two small matrices; GPT-2 has 4, called otherwise."""
    for kind, count in (("llama", 28), ("gpt2", 16), ("gpt-neox", 16)):
        shared, policy, _ = adapters(kind)
        assert len(policy.parameters()) == count
        assert not any(one.requires_grad for one in shared.model.parameters() if one is head_of(policy))


def test_new_adapters_are_a_function_of_seed_and_name() -> None:
    before = torch.get_rng_state()
    (_, policy, reward), (_, again, _) = adapters(opinions=False), adapters(opinions=False)
    other = Adapter(Shared(model_of("llama"), LoRAConfig(rank=4), 1), "policy")
    assert torch.equal(torch.get_rng_state(), before)
    ups = [[value for name, value in one.weights().items() if "lora_A" in name] for one in (policy, again)]
    assert all(torch.equal(one, two) for one, two in zip(*ups, strict=True))
    for one in (reward, other):
        assert not any(
            torch.equal(value, policy.weights()[name]) for name, value in one.weights().items() if "A" in name
        )


def test_the_scale_of_an_adapter_is_alpha_over_its_rank() -> None:
    """Rank 4: no alpha is 8, a scale of 2; alpha 4 halves it."""
    shared, policy, _ = adapters()
    other = Adapter(Shared(model_of("llama"), LoRAConfig(rank=4, alpha=4.0), 0), "policy")
    assert {layer.scaling["policy"] for layer in shared.layers} == {2.0}
    assert {layer.scaling["policy"] for layer in other.shared.layers} == {1.0}
    weights = policy.weights()
    other.load({name: value * (2.0 if "lora_B" in name else 1.0) for name, value in weights.items()})
    torch.testing.assert_close(heard(other), heard(policy))


# Whoever learns


@pytest.mark.parametrize("kind", KINDS)
def test_training_one_adapter_moves_nobody_else(kind: str) -> None:
    shared, policy, reward = adapters(kind)
    base, still = Base(shared), policy.still()
    own = said_by(policy)
    others = (base, reward, still)
    before, started = [heard(one) for one in others], heard(policy)
    whole = {name: value.detach().clone() for name, value in shared.model.named_parameters() if ".policy." not in name}
    train(policy, own)
    assert not torch.equal(heard(policy), started)
    assert all(torch.equal(heard(one), was) for one, was in zip(others, before, strict=True))
    after = dict(shared.model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in whole.items() if ".still." not in name)


def test_training_a_model_moves_no_copy_of_it() -> None:
    model = model_of("qwen")
    role, other = Whole(model), Whole(copy.deepcopy(model))
    still, started = role.still(), heard(role)
    train(role, said_by(role))
    assert not torch.equal(heard(role), started)
    assert all(torch.equal(heard(one), started) for one in (other, still))
    assert not any(value.requires_grad for value in still.model.parameters())


def test_adapters_of_two_times_hold_different_weights() -> None:
    """They take turns in one spare adapter, also while their weights are given anew."""
    shared, policy, reward = adapters()
    first, started = policy.still(), heard(policy)
    train(policy, said_by(policy))
    second, moved = policy.still(), heard(policy)
    train(policy, said_by(policy))
    for _ in range(2):
        assert torch.equal(heard(first), started)
        assert torch.equal(heard(second), moved)
    assert not torch.equal(heard(policy), moved)
    assert first.still() is first
    second.load(reward.weights())
    assert torch.equal(heard(second), heard(reward))
    assert torch.equal(heard(first), started)
    train(reward, said_by(policy))
    assert not torch.equal(heard(second), heard(reward)), "loaded weights must be copies"
    assert len(shared.layers[0].lora_A) == 3


@pytest.mark.parametrize("kind", ["whole", "adapter"])
def test_weights_go_around(kind: str) -> None:
    if kind == "whole":
        one, other = (Whole(model_of("llama", base_seed=seed)) for seed in (0, 1))
    else:
        _, one, other = adapters()
    assert not torch.equal(heard(one), heard(other))
    given = {name: value.clone() for name, value in one.weights().items()}
    other.load(given)
    assert torch.equal(heard(other), heard(one))
    assert {name: value.shape for name, value in other.weights().items()} == {n: v.shape for n, v in given.items()}
    stir(other, 5)
    assert all(torch.equal(value, given[name]) for name, value in one.weights().items())
    assert not any(value.requires_grad for value in one.weights().values())


def test_a_base_holds_nothing_of_its_own() -> None:
    base = Base(adapters()[0])
    base.load({})
    assert base.weights() == {}
    assert base.parameters() == []
    assert base.still() is base


# Taking turns


def test_roles_are_active_one_within_the_other() -> None:
    shared, policy, reward = adapters()
    base, still = Base(shared), policy.still()
    stir(policy, 3)
    alone = {role: heard(role) for role in (policy, reward, base, still)}
    stack: list[Role] = [policy, base, reward, still, policy, reward, reward, base]

    def dive(depth: int) -> None:
        with torch.no_grad(), stack[depth].active():
            assert torch.equal(hidden_states(policy, PROMPT), alone[stack[depth]])
            if depth + 1 < len(stack):
                dive(depth + 1)
            assert torch.equal(hidden_states(policy, PROMPT), alone[stack[depth]])

    dive(0)
    with torch.no_grad():
        assert torch.equal(hidden_states(policy, PROMPT), alone[base])


def test_after_a_failure_the_one_before_speaks() -> None:
    _, policy, reward = adapters()
    with policy.active():
        with pytest.raises(RuntimeError, match="on purpose"), reward.active():
            raise RuntimeError("on purpose")
        with torch.no_grad():
            now = hidden_states(policy, PROMPT)
    assert torch.equal(now, heard(policy))


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_finds_its_way_back_whoever_is_active_by_then(kind: str) -> None:
    """Between forward and backward pass others speak, learn and are added."""
    shared, policy, reward = adapters(kind)
    own = said_by(policy)
    with policy.active():
        expected = gradients(policy, own)
    loss = Speech(policy, MANNER).log_prob(own).sum()
    heard(policy.still())
    heard(Base(shared))
    gradients(reward, own)
    with reward.active():
        loss.backward()
    for value, slope in zip(policy.parameters(), expected, strict=True):
        assert value.grad is not None
        torch.testing.assert_close(value.grad, slope)
        assert bool(slope.any())
    assert all(value.grad is None for value in shared.model.parameters() if value not in set(policy.parameters()))


def test_gradients_are_those_of_finite_differences() -> None:
    """A step of 0.01 along a random direction in all of an adapter's weights, to either side."""
    _, policy, _ = adapters("gpt-neox")
    own, draw = said_by(policy), torch.Generator().manual_seed(9)
    slopes = gradients(policy, own)
    ways = [torch.randn(value.shape, generator=draw) for value in policy.parameters()]
    sides = []
    for sign in (1.0, -2.0, 1.0):
        with torch.no_grad():
            for value, way in zip(policy.parameters(), ways, strict=True):
                value.add_(0.003 * sign * way)
        sides.append(float(Speech(policy, MANNER).log_prob(own).detach().double().sum()))
    expected = sum(float((slope * way).sum()) for slope, way in zip(slopes, ways, strict=True))
    assert abs(expected) > 1.0
    assert (sides[0] - sides[1]) / 0.006 == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("kind", FAMILIES)
def test_activations_computed_twice_give_the_same_gradients(kind: str) -> None:
    for made in ("whole", "adapter"):
        sides = []
        for checkpointing in (False, True):
            if made == "whole":
                role: Role = Whole(model_of(kind, gradient_checkpointing=checkpointing))
            else:
                role = adapters(kind, gradient_checkpointing=checkpointing)[1]
            assert role.model.is_activation_checkpointing == checkpointing
            with role.active():  # where a descent takes its gradients, too
                sides.append(gradients(role, said_by(role)))
        for one, other in zip(*sides, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
            assert bool(one.any())


# What it costs


def size(tensors: list[Tensor]) -> int:
    """Bytes of all storages behind them, each counted once."""
    return sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}.values())


def test_three_roles_on_one_base_take_hardly_more_than_one() -> None:
    """Policy, reward, reference and a policy that was frozen: at most a fifth more than the base and the adapters."""
    world = domain(model=replace(TINY, layers=2, width=64, documents=64, lora=LoRAConfig(rank=4)))
    base = size(list(world.voices.base.parameters()))
    parts = world.build(short("aihf"))
    assert parts.reward is not None
    frozen = parts.policy.frozen()
    roles: list[Role] = [parts.policy.role, parts.reward.role, parts.reference.role, frozen.role]
    for one in (parts.policy, parts.reference, frozen):
        one.sample(world.contexts, torch.Generator().manual_seed(0))
    adapter = size(parts.policy.role.parameters())
    assert 0 < adapter < 0.2 * base
    held = [value for role in roles for value in (*role.model.parameters(), *role.weights().values())]
    assert size(held) <= 1.2 * base + 4 * adapter
    assert size(held) == base + 4 * adapter, "two that learn, one that is remembered, and the spare one it speaks in"
    whole = domain(model=replace(TINY, layers=2, width=64, documents=64)).build(short("aihf"))
    assert whole.reward is not None
    separate = [one.role.model for one in (whole.policy, whole.reward, whole.reference)]
    assert size([value for model in separate for value in model.parameters()]) == 3 * base


def test_no_step_of_a_run_holds_a_second_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is alive while somebody takes a step and is shaped like a matrix of the base is one, through cloning,
    climbing and learning a reward."""
    world = domain(model=replace(TINY, layers=2, width=64, documents=64, lora=LoRAConfig(rank=4)))
    base = [one for one in world.voices.base.parameters() if one.dim() == 2]
    shapes, most, step = {one.shape for one in base}, [], Descent.step

    def alive() -> list[Tensor]:
        return [one for one in gc.get_objects() if issubclass(type(one), Tensor) and one.shape in shapes]

    # Held, so that none of them goes meanwhile.
    others = [one for one in alive() if not any(one is own for own in base)]

    def looking(descent: Descent, *given: Any, **more: Any) -> None:
        most.append(size(alive()) - size(others))
        step(descent, *given, **more)

    monkeypatch.setattr(Descent, "step", looking)
    Learner(world, short("aihf"), 0).learn()
    assert len(most) > 3
    assert size(base) <= max(most) <= 1.2 * size(base)


def test_no_warning_is_left_to_the_user() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("gpt2", "llama"):
            _, policy, _ = adapters(kind)
            heard(policy.still())


def test_dropout_is_off() -> None:
    """A new model in training mode says the same twice."""
    model = gpt2()
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}
    model.train()
    one, two = (heard(Whole(model)) for _ in range(2))
    assert torch.equal(one, two)
    assert math.isfinite(float(one.sum()))
