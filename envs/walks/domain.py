"""The graph world as a domain: its data, what it builds for a method, and the exact examination of what was learnt."""

from __future__ import annotations

from functools import cached_property
from typing import cast

import torch
from torch import Generator, Tensor

from envs.walks.config import WalksConfig
from envs.walks.feedback import ask, checked, compare, demonstrate
from envs.walks.policy import TabularPolicy, TabularReward, Walker
from envs.walks.scores import Corrected, Free, Shared, build_scores
from envs.walks.solve import divergence, visitation, weighted_correlation
from envs.walks.world import World
from unified_irl.contracts import Metrics, Parts, RewardFunction, Sampler
from unified_irl.feed import stream
from unified_irl.feedback import Demonstrations, Preferences
from unified_irl.feedback_files import load_demonstrations, load_preferences
from unified_irl.methods import Method, Phase
from unified_irl.objectives import returns
from unified_irl.trajectories import Contexts, Trajectories

NUM_EXAMINED = 512
"""Fresh comparisons on which a learnt reward's accuracy is measured."""


class WalksDomain:
    """Contexts are all start/goal pairs; only a share of them is ever demonstrated, the others are the examination."""

    def __init__(self, config: WalksConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.data_seed = seed if config.data_seed < 0 else config.data_seed
        self.world = World(config, self.data_seed)
        num_shown = min(len(self.contexts) - 1, max(1, round(config.demonstrated_share * len(self.contexts))))
        self.shown, self.unseen = self.contexts[:num_shown], self.contexts[num_shown:]

    @property
    def contexts(self) -> Contexts:
        return self.world.pairs

    @cached_property
    def demonstrations(self) -> Demonstrations | None:
        config = self.config
        if config.demonstrations_file:
            path = config.demonstrations_file
            return checked(self.world, load_demonstrations(path), path)
        if config.num_demonstrations == 0:
            return None
        return demonstrate(self.world, self.shown, config.num_demonstrations, stream(self.data_seed, "demonstrations"))

    @cached_property
    def preferences(self) -> Preferences | None:
        config = self.config
        if config.preferences_file:
            return checked(self.world, load_preferences(config.preferences_file), config.preferences_file)
        if config.num_preferences == 0:
            return None
        return compare(self.world, config.num_preferences, stream(self.data_seed, "preferences"))

    @cached_property
    def examination(self) -> Preferences:
        """Comparisons that nobody learns from."""
        return compare(self.world, NUM_EXAMINED, stream(self.data_seed, "examination"))

    def build(self, method: Method) -> Parts:
        config, graph = self.config, self.world.graph
        shape = (graph, config.horizon, config.reward_width)
        kind = config.reward if config.policy == "auto" else config.policy
        logits = build_scores(kind, *shape, stream(self.seed, "policy"))
        exact = config.policy == "auto" and method.reward == "explicit" and isinstance(logits, Shared)
        policy = TabularPolicy(
            graph,
            config.horizon,
            Corrected(logits, Free(graph, config.horizon)) if exact else logits,
            method.policy_descent,
            config.policy_step,
        )
        reward = None
        if method.reward == "explicit":
            numbers = build_scores(config.reward, *shape, stream(self.seed, "reward"))
            reward = TabularReward(config.horizon, numbers, method.reward_descent)
        return Parts(policy, reward, Walker(graph, self.world.uniform_HGNA.contiguous()))

    def ask(
        self, own: Trajectories, reward: RewardFunction, count: int, phase: Phase, gamma: float, generator: Generator
    ) -> Preferences | None:
        return ask(self.world, own, reward, count, phase, gamma, generator)

    @torch.no_grad()
    def evaluate(self, policy: Sampler, reward: RewardFunction | None) -> Metrics:
        """Everything exact except the reward's accuracy, which is measured on fresh comparisons."""
        log_policy = log_policy_of(policy)
        everywhere = self._examine(log_policy, self.contexts)
        unseen = {f"unseen/{name}": value for name, value in self._examine(log_policy, self.unseen).items()}
        metrics = everywhere | unseen
        if self.demonstrations is not None:
            shown = self.demonstrations.trajectories
            metrics["demonstration_nll"] = -float(policy.log_prob(shown).sum() / shown.mask.sum())
        if reward is not None:
            fresh = self.examination
            first, second = (returns(reward(side), side.discount(1.0)) for side in (fresh.first, fresh.second))
            agreement = (fresh.label - 0.5).sign() * (first - second).sign()
            metrics["reward_accuracy"] = float((0.5 * (1.0 + agreement)).mean())  # a tie on either side counts ½
        return metrics

    def _examine(self, log_policy: Tensor, pairs: Contexts) -> Metrics:
        """Score, true return, regret and divergences over the given contexts, under the expert's own visits."""
        world, graph = self.world, self.world.graph
        expert, beta = world.expert.log_policy_HGNA, self.config.temperature
        expert_visits = visitation(graph, expert, world.starts(pairs))
        true_return = world.true_value(log_policy, pairs)
        weight = (expert_visits[..., None] * graph.possible_NA).flatten()
        return {
            "score": world.normalised(true_return, pairs),
            "true_return": true_return,
            "regret": world.true_value(expert, pairs, beta) - world.true_value(log_policy, pairs, beta),
            "kl_expert": float(divergence(expert, log_policy, expert_visits)),
            "kl_to_expert": float(divergence(log_policy, expert, visitation(graph, log_policy, world.starts(pairs)))),
            "kl_expert_uniform": float(divergence(expert, world.uniform_HGNA, expert_visits)),
            "advantage_correlation": float(
                weighted_correlation(
                    (expert - world.uniform_HGNA).flatten(), (log_policy - world.uniform_HGNA).flatten(), weight
                )
            ),
        }


def log_policy_of(policy: Sampler) -> Tensor:
    """[H, G, N, A]: the table behind any policy of this world."""
    return cast(TabularPolicy | Walker, policy).walker().log_policy_HGNA
