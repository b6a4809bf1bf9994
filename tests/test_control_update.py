"""The update against Stable-Baselines3's own, number by number, and against autograd."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import gymnasium as gym
import pytest
import torch
from robots import TINY, seeded
from stable_baselines3 import SAC
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor, nn
from torch.optim import Adam

from control.ground_truth import TrueSteps
from control.sac import FastSAC
from control.sac_config import SACConfig
from control.stack import Stack, linears
from control.trainer import Trainer
from control.update import LOG_STD_MAX, LOG_STD_MIN, squash
from envs.robots.simulators import Simulator

torch.set_num_threads(1)
NUM_ROWS = 64


class OneBatch:
    """A replay that always gives the same batch."""

    def __init__(self, samples: ReplayBufferSamples) -> None:
        self.samples = samples

    def sample(self, batch_size: int, env: object = None) -> ReplayBufferSamples:
        return self.samples


@pytest.fixture
def samples() -> ReplayBufferSamples:
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    done = (torch.rand(NUM_ROWS, 1, generator=draw) < 0.2).float()
    return ReplayBufferSamples(
        observations=normal(NUM_ROWS, 3),
        actions=torch.tanh(normal(NUM_ROWS, 1)),
        next_observations=normal(NUM_ROWS, 3),
        dones=done,
        rewards=normal(NUM_ROWS, 1),
    )


def with_noise(noise: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both libraries draw this noise: first for the observations, then for those that follow."""
    parts: Iterator[Tensor] = iter(noise.chunk(2))
    monkeypatch.setattr("torch.distributions.normal._standard_normal", lambda *_, **__: next(parts))
    monkeypatch.setattr("torch.randn", lambda *_, **__: noise)


@pytest.mark.parametrize("ent_coef", ["auto", 0.2])
@pytest.mark.parametrize("net_arch", [[32, 32], [16], [24, 16, 8]])
def test_updates_equal_those_of_stable_baselines3(
    samples: ReplayBufferSamples, monkeypatch: pytest.MonkeyPatch, ent_coef: str | float, net_arch: list[int]
) -> None:
    """Ten updates on one batch with the same noise move every weight alike."""
    env = gym.make("Pendulum-v1")
    options = {"ent_coef": ent_coef, "policy_kwargs": {"net_arch": net_arch}, "buffer_size": 10, "device": "cpu"}
    theirs, ours = (kind("MlpPolicy", env, **options) for kind in (SAC, FastSAC))
    assert isinstance(ours, FastSAC)
    assert ours.networks is not None
    ours.set_parameters(theirs.get_parameters())
    noises = [torch.randn(2 * NUM_ROWS, 1, generator=torch.Generator().manual_seed(k)) for k in range(10)]
    for model in (theirs, ours):
        model.replay_buffer = OneBatch(samples)
        model.set_logger(Logger(None, []))
        for noise in noises:
            with monkeypatch.context() as patch:
                with_noise(noise, patch)
                model.train(1, NUM_ROWS)
    for name, value in theirs.policy.state_dict().items():
        torch.testing.assert_close(ours.policy.state_dict()[name], value, rtol=1e-4, atol=2e-6, msg=name)
    if ent_coef == "auto":
        torch.testing.assert_close(ours.log_ent_coef, theirs.log_ent_coef)


# Stacks


def perceptron(sizes: list[int], heads: int, seed: int) -> tuple[nn.Sequential, list[nn.Linear]]:
    """Hidden layers with ReLU behind each, and the heads that stand on the last."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for deep, wide in itertools.pairwise(sizes[:-1]):
            layers += [nn.Linear(deep, wide), nn.ReLU()]
        return nn.Sequential(*layers), [nn.Linear(sizes[-2], sizes[-1]) for _ in range(heads)]


def stacked(
    sizes: list[int], count: int, heads: int, half: bool
) -> tuple[Stack, list[tuple[nn.Sequential, list[nn.Linear]]]]:
    members = [perceptron(sizes, heads, seed) for seed in range(count)]
    return Stack([[*linears(body), tops] for body, tops in members], half), members


def said(members: list[tuple[nn.Sequential, list[nn.Linear]]], inputs: Tensor) -> Tensor:
    """[E, B, O] by the modules themselves."""
    rows = inputs.expand(len(members), -1, -1)
    return torch.stack(
        [torch.cat([top(body(row)) for top in tops], 1) for row, (body, tops) in zip(rows, members, strict=True)]
    )


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("hidden", [[9], [8, 24], [24, 16, 8]])
def test_a_stack_says_and_passes_back_what_autograd_does(hidden: list[int], count: int, heads: int, half: bool) -> None:
    """Widths that grow and shrink take both ways of the products.

    bfloat16 has 8 bits, an error of 1 in 256 for a product; over all numbers they stay below a tenth,
    though a single unit that its error carries over zero changes a row's gradient. First and last layer stay exact.
    """
    stack, members = stacked([5, *hidden, 1], count, heads, half)
    inputs = torch.randn(1, 40, 5, generator=torch.Generator().manual_seed(7)).requires_grad_()
    slope = torch.randn(count, 40, heads, generator=torch.Generator().manual_seed(8))
    expected = said(members, inputs)
    expected.backward(slope)
    with torch.no_grad():
        seen = stack.forward(inputs)
        d_inputs = stack.backward(seen, slope, weights=True, inputs=True)
    assert d_inputs is not None
    assert inputs.grad is not None
    is_exact = not half or len(hidden) == 1

    def must_agree(ours: Tensor, theirs: Tensor) -> None:
        if is_exact:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        else:
            assert float(torch.linalg.vector_norm(ours - theirs)) < 0.1 * float(torch.linalg.vector_norm(theirs))

    must_agree(seen[-1], expected.detach())
    must_agree(d_inputs.sum(0, keepdim=True), inputs.grad)
    parts = [parameter.grad for parameter in stack.parameters()]
    ours, theirs = (torch.cat([part.flatten() for part in of]) for of in (stack.spread(stack.grad), parts))
    must_agree(ours, theirs)
    if half and len(hidden) > 1:
        assert not torch.equal(seen[-1], expected), "nothing was computed in half precision"
    assert stack.backward(seen, slope, weights=False, inputs=False) is None


def test_gradients_of_the_inputs_alone_leave_those_of_the_weights() -> None:
    stack, _ = stacked([5, 8, 1], 2, 1, half=False)
    stack.grad.fill_(3.0)
    with torch.no_grad():
        stack.backward(stack.forward(torch.ones(1, 4, 5)), torch.ones(2, 4, 1), weights=False, inputs=True)
    assert bool((stack.grad == 3.0).all())


@pytest.mark.parametrize("half", [False, True])
def test_modules_are_views_of_the_flat_tensor(half: bool) -> None:
    """What either side changes, the other sees: an optimiser's step here, a file loaded there."""
    stack, members = stacked([5, 8, 6, 1], 2, 2, half)
    inputs = torch.randn(1, 10, 5, generator=torch.Generator().manual_seed(1))
    before = said(members, inputs).detach()
    stack.grad.fill_(1.0)
    Adam([stack.flat], lr=0.1, fused=True).step()
    stack.refresh()
    assert not torch.allclose(said(members, inputs), before)
    with torch.no_grad():
        torch.testing.assert_close(stack.forward(inputs)[-1], said(members, inputs), rtol=0.0, atol=0.05)

    body, tops = members[1]
    for module in (body, *tops):
        module.load_state_dict({name: torch.full_like(value, 0.5) for name, value in module.state_dict().items()})
    one, other = (sum(part.numel() for part in stack.spread(stack.flat.data)[k * 8 : k * 8 + 8]) for k in range(2))
    assert one == other == stack.flat.numel() / 2
    assert int((stack.flat == 0.5).sum()) == other
    stack.refresh()
    # Every hidden unit of the second is ½ (1 + its inputs' sum): 5 ones give 3, 8 threes 12.5, 6 of those 38.
    with torch.no_grad():
        assert stack.forward(torch.ones(1, 1, 5))[-1][1].tolist() == [[38.0, 38.0]]


def test_a_flat_tensor_is_spread_in_the_order_of_the_parameters() -> None:
    stack, members = stacked([5, 8, 1], 2, 2, half=False)
    parameters = [one for body, tops in members for module in (body, *tops) for one in module.parameters()]
    assert [id(one) for one in stack.parameters()] == [id(one) for one in parameters]
    for part, parameter in zip(stack.spread(stack.flat.data), parameters, strict=True):
        assert part.data_ptr() == parameter.data_ptr()
        assert torch.equal(part, parameter)


# Squashed Gaussians


@pytest.mark.parametrize("floor", [LOG_STD_MIN, -1.0])
def test_squashed_gaussians_are_those_of_stable_baselines3(floor: float) -> None:
    """Values and gradients; a third of the deviations lie outside the bounds, where the gradient ends."""
    draw = torch.Generator().manual_seed(3)
    output = torch.cat([torch.randn(50, 2, generator=draw), torch.empty(50, 2).uniform_(-4, 4, generator=draw)], 1)
    output[0, 2:] = torch.tensor([-30.0, 5.0])
    output, noise = output.double(), torch.randn(50, 2, generator=draw).double()
    given = output.clone().requires_grad_()
    mean, raw = given.chunk(2, 1)
    log_std = raw.clamp(floor, LOG_STD_MAX)
    theirs = SquashedDiagGaussianDistribution(2).proba_distribution(mean, log_std)
    before = mean + log_std.exp() * noise
    action = torch.tanh(before)
    log_prob = theirs.log_prob(action, before)

    ours = squash(output, noise, floor)
    torch.testing.assert_close(ours.action, action.detach())
    torch.testing.assert_close(ours.log_prob, log_prob.detach(), rtol=1e-6, atol=1e-6)
    assert torch.equal(ours.inside, ((raw >= floor) & (raw <= LOG_STD_MAX)).float())
    assert 0.1 < float(ours.inside.mean()) < 0.9

    d_action, d_log_prob = torch.randn(50, 2, generator=draw), 0.37
    ((action * d_action).sum() + d_log_prob * log_prob.sum()).backward()
    assert given.grad is not None
    torch.testing.assert_close(ours.slope(d_action, d_log_prob), given.grad, rtol=1e-5, atol=1e-6)


def test_squashed_gaussians_stay_finite_at_the_bounds() -> None:
    ours = squash(torch.tensor([[50.0, 2.0], [-50.0, -20.0]]), torch.zeros(2, 1))
    assert ours.action.tolist() == [[1.0], [-1.0]]
    assert bool(ours.log_prob.isfinite().all())
    assert bool(ours.slope(torch.ones(2, 1), 1.0).isfinite().all())


def test_the_slope_of_one_squashed_gaussian_by_hand() -> None:
    """μ = 0, log σ = 0, ε = 1: a = tanh 1, 1 − a² = 0.41997, log π = −½ − ½ log 2π + 0.86756 = −0.55138.

    ∂ log π/∂μ = 2a = 1.52319, so with slopes (1, 1) by action and log π: 0.41997 + 1.52319 = 1.94316 by μ, and by log σ
    the same times ε, less 1.
    """
    ours = squash(torch.zeros(1, 2), torch.ones(1, 1))
    assert ours.action.item() == pytest.approx(0.761594, abs=1e-6)
    assert ours.log_prob.item() == pytest.approx(-0.551377, abs=1e-5)
    assert ours.slope(torch.ones(1, 1), 1.0).tolist()[0] == pytest.approx([1.943163, 0.943163], abs=1e-5)


def test_an_update_in_half_precision_goes_the_same_way(
    samples: ReplayBufferSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adam's first step is the gradient's sign times the learning rate, so nearly all weights move alike."""
    env = gym.make("Pendulum-v1")
    options = {"policy_kwargs": {"net_arch": [32, 32]}, "buffer_size": 10, "device": "cpu", "seed": 0}
    theirs, ours = SAC("MlpPolicy", env, **options), FastSAC("MlpPolicy", env, half=True, **options)
    ours.set_parameters(theirs.get_parameters())
    start = {name: value.clone() for name, value in theirs.policy.state_dict().items()}
    noise = torch.randn(2 * NUM_ROWS, 1, generator=torch.Generator().manual_seed(0))
    for model in (theirs, ours):
        model.replay_buffer = OneBatch(samples)
        model.set_logger(Logger(None, []))
        with monkeypatch.context() as patch:
            with_noise(noise, patch)
            model.train(1, NUM_ROWS)
    moved = [(model.policy.state_dict()[name] - start[name]).sign() for name in start for model in (theirs, ours)]
    alike = torch.cat([(one == other).flatten() for one, other in zip(moved[::2], moved[1::2], strict=True)])
    assert 0.95 < float(alike.float().mean()) < 1.0


@pytest.mark.gpu
def test_a_captured_update_does_what_the_update_does() -> None:
    """As a CUDA graph and without one, the same batches and noise leave the same networks."""
    ends = []
    for graph in (False, True):
        simulators = [Simulator("pendulum")]
        config = SACConfig(**TINY, graph=graph, precision="float32")
        made = Trainer(simulators[0].env, simulators, config, seeded(), "cuda")
        made.train(TrueSteps(), 0.1, 0.99, 50, seeded(1))
        ends.append([one.flat.detach().cpu() for one in (made.networks.actor, made.networks.critic)])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
