"""The graph world and its exact answers: who is optimal in it, and what any policy is worth.

Shape legend: H steps, G goals, N nodes, A actions.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from envs.walks.config import WalksConfig
from envs.walks.graph import build_graph, true_reward
from envs.walks.policy import Walker
from envs.walks.solve import soft_evaluation, soft_value_iteration
from unified_irl.errors import UserError
from unified_irl.feed import stream
from unified_irl.trajectories import Contexts, Trajectories


class World:
    """A graph with its true reward. Contexts are pairs of a start and another node as goal, in a seeded order."""

    def __init__(self, config: WalksConfig, seed: int) -> None:
        self.config = config
        self.graph = build_graph(config)
        self.reward_GNA = true_reward(self.graph, config)
        self.uniform_HGNA = self.graph.uniform().expand(config.horizon, len(self.graph.goal_G), -1, -1)
        pairs = torch.cartesian_prod(torch.arange(len(self.graph.goal_G)), torch.arange(config.num_nodes))
        pairs = pairs[self.graph.goal_G[pairs[:, 0]] != pairs[:, 1]]
        pairs = pairs[torch.randperm(len(pairs), generator=stream(seed, "contexts"))]
        self.pairs = Contexts(ids=torch.arange(len(pairs)), data={"start": pairs[:, 1], "goal": pairs[:, 0]})
        worst, best = self.scale(self.pairs)
        if not worst < best:
            raise UserError(
                f"walks: the expert's return of {best:g} is no better than the {worst:g} of a random walk, so there is "
                "nothing to learn; lower the temperature, raise goal_reward or the horizon."
            )

    def soft_optimal(self, temperature: float, foresight: float = 1.0) -> Tensor:
        """[H, G, N, A]: log-probabilities of the walker who is soft-optimal for the true reward."""
        return soft_value_iteration(
            self.graph, self.reward_GNA[None], self.uniform_HGNA, temperature, foresight, self.config.horizon
        )[0]

    @cached_property
    def expert(self) -> Walker:
        return Walker(self.graph, self.soft_optimal(self.config.temperature))

    def true_rewards(self, walks: Trajectories) -> Tensor:
        """[B, T]."""
        return self.reward_GNA[walks.data["goal"], walks.data["node"], walks.data["action"]]

    def starts(self, pairs: Contexts) -> Tensor:
        """[G, N]: the uniform distribution over the given contexts."""
        start_GN = self.reward_GNA.new_zeros(self.reward_GNA.shape[:2])
        start_GN[pairs.data["goal"], pairs.data["start"]] = 1.0 / len(pairs)
        return start_GN

    def true_value(self, log_policy_HGNA: Tensor, pairs: Contexts, beta: float = 0.0) -> float:
        """The expected undiscounted true return over the given contexts, less β KL to the uniform walker."""
        _, value_GN = soft_evaluation(
            self.graph, log_policy_HGNA, self.reward_GNA[None], self.uniform_HGNA, beta, gamma=1.0
        )
        return float((self.starts(pairs) * value_GN).sum())

    def scale(self, pairs: Contexts) -> tuple[float, float]:
        """The true returns of the uniform walker and of the expert over the given contexts."""
        worst, best = (self.true_value(one, pairs) for one in (self.uniform_HGNA, self.expert.log_policy_HGNA))
        return worst, best

    def normalised(self, value: float, pairs: Contexts) -> float:
        """A true return on the scale where the uniform walker has 0 and the expert 1."""
        worst, best = self.scale(pairs)
        return (value - worst) / (best - worst)
