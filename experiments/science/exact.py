"""The exact answers that measurements are held against.

Everything here is linear in the frequencies w of moves, [H, G, N, A]: the expected, discounted number of times that a
behaviour makes each move at each step. The likelihood of the behaviours is E[Σ γ^t log π] = Σ w log π.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from envs.walks.domain import WalksDomain
from envs.walks.policy import Walker, steps_of
from envs.walks.solve import soft_value_iteration, visitation
from unified_irl.statistics import mean_interval, slope
from unified_irl.trajectories import Trajectories


@contextmanager
def one_thread() -> Iterator[None]:
    """These tensors are small: more threads would only wait for one another, and take five times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def shown_moves(domain: WalksDomain, walks: Trajectories, gamma: float = 1.0) -> Tensor:
    """w of the given walks, by their weights."""
    count_HGNA = domain.world.reward_GNA.new_zeros(domain.config.horizon, *domain.world.graph.shape)
    weight_BT = walks.discount(gamma) * (walks.weight / walks.weight.sum())[:, None]
    where = (steps_of(walks, domain.config.horizon), walks.data["goal"], walks.data["node"], walks.data["action"])
    return count_HGNA.index_put(where, weight_BT, accumulate=True)


def expected_moves(domain: WalksDomain, walker: Walker, gamma: float = 1.0) -> Tensor:
    """w of a walker that starts anywhere."""
    visits_HGN = visitation(domain.world.graph, walker.log_policy_HGNA, domain.world.starts(domain.contexts))
    discount_H = gamma ** torch.arange(domain.config.horizon, dtype=visits_HGN.dtype)
    return (visits_HGN * discount_H[:, None, None])[..., None] * walker.log_policy_HGNA.exp()


def optimal(domain: WalksDomain, reward_HGNA: Tensor, beta: float, gamma: float = 1.0) -> Walker:
    """The policy that is optimal for a reward, the uniform walker being its reference; differentiable in the reward."""
    world = domain.world
    return Walker(
        world.graph,
        soft_value_iteration(world.graph, reward_HGNA, world.uniform_HGNA, beta, gamma, domain.config.horizon)[0],
    )


def nll(domain: WalksDomain, reward_HGNA: Tensor, moves_HGNA: Tensor, beta: float, gamma: float = 1.0) -> Tensor:
    """−E[Σ γ^t log π_θ], π_θ optimal for the reward."""
    return -(moves_HGNA * optimal(domain, reward_HGNA, beta, gamma).log_policy_HGNA).sum()


def nll_gradient(domain: WalksDomain, scores: nn.Module, moves_HGNA: Tensor, beta: float, gamma: float = 1.0) -> Tensor:
    """Its gradient in the reward's parameters, flat."""
    loss = nll(domain, scores.table(), moves_HGNA, beta, gamma)  # type: ignore[operator]
    return flat(torch.autograd.grad(loss, list(scores.parameters())))


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def fitted(points: Sequence[dict[str, Any]], x: str, y: str) -> dict[str, Any]:
    """The slope of log y against log x: fitted to each seed's points, then averaged over seeds with a t-interval."""
    slopes = []
    for seed in sorted({point["seed"] for point in points}):
        own = [point for point in points if point["seed"] == seed]
        slopes.append(slope([point[x] for point in own], [point[y] for point in own]).estimate)
    return asdict(mean_interval(slopes))


def shown(fit: dict[str, Any]) -> str:
    """A stored slope, for people."""
    return f"{fit['estimate']:.3f} [{fit['low']:.3f}, {fit['high']:.3f}]"
