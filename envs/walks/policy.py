"""Tabular policies: how a walker acts, and how it learns.

Shape legend: B behaviours, T steps, H horizon, G goals, N nodes, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Generator, Tensor

from envs.walks.graph import IMPOSSIBLE, Graph
from envs.walks.scores import Corrected, Scores, Shared
from envs.walks.solve import soft_evaluation, soft_value_iteration
from unified_irl.batch import Batch, Normaliser
from unified_irl.contracts import LossFunction, Metrics, Reward, Sampler, State
from unified_irl.descent import Descent
from unified_irl.descent_config import DescentConfig
from unified_irl.trajectories import Contexts, Trajectories


def steps_of(trajectories: Trajectories, horizon: int) -> Tensor:
    """long[B, T]: the time of each step; padding stays inside the table."""
    return (trajectories.start_step[:, None] + torch.arange(trajectories.num_steps)).clamp(max=horizon - 1)


class Walker:
    """A table of log-probabilities that walks: any policy of this world, frozen."""

    def __init__(self, graph: Graph, log_policy_HGNA: Tensor) -> None:
        self.graph = graph
        self.log_policy_HGNA = log_policy_HGNA

    def walker(self) -> Walker:
        return self

    def sample(self, contexts: Contexts, generator: Generator) -> Trajectories:
        horizon, _, num_nodes, num_actions = self.log_policy_HGNA.shape
        node, goal = contexts.data["start"], contexts.data["goal"]
        walking = torch.ones_like(node, dtype=torch.bool)
        nodes, actions, masks, log_probs = [], [], [], []
        uniform_HB = torch.rand(horizon, len(node), generator=generator, dtype=self.log_policy_HGNA.dtype)
        for step in range(horizon):
            log_prob_BA = self.log_policy_HGNA[step, goal, node]
            passed_BA = log_prob_BA.exp().cumsum(-1) <= uniform_HB[step, :, None]
            action = passed_BA.sum(-1).clamp(max=num_actions - 1)
            nodes.append(node * walking)
            actions.append(action * walking)
            masks.append(walking)
            log_probs.append(log_prob_BA.gather(1, action[:, None]).squeeze(1) * walking)
            arrived = self.graph.next_NA[node, action]
            walking = walking & (arrived < num_nodes)
            if not bool(walking.any()):
                break
            node = torch.where(walking, arrived, 0)
        mask = torch.stack(masks, 1)
        return Trajectories(
            data={
                "node": torch.stack(nodes, 1),
                "action": torch.stack(actions, 1),
                "goal": goal[:, None] * mask,
            },
            mask=mask,
            rewarded=mask,
            context_id=contexts.ids,
            weight=self.log_policy_HGNA.new_ones(len(goal)),
            behaviour_log_prob=torch.stack(log_probs, 1),
            start_step=torch.zeros_like(goal),
            terminated=~walking,
            truncated=walking,
        )

    def log_prob(self, trajectories: Trajectories) -> Tensor:
        horizon, num_goals, num_nodes, num_actions = self.log_policy_HGNA.shape
        step, data = steps_of(trajectories, horizon), trajectories.data
        index = ((step * num_goals + data["goal"]) * num_nodes + data["node"]) * num_actions + data["action"]
        return self.log_policy_HGNA.flatten()[index] * trajectories.mask

    def state_dict(self) -> State:
        return {"log_policy": self.log_policy_HGNA}

    def load_state_dict(self, state: State) -> None:
        self.log_policy_HGNA = state["log_policy"]


class TabularPolicy:
    """A walker whose log-probabilities are the log-softmax of learnable numbers."""

    def __init__(
        self, graph: Graph, horizon: int, scores: Scores | Corrected, descent: DescentConfig, policy_step: float
    ) -> None:
        self.graph, self.horizon, self.scores, self.policy_step = graph, horizon, scores, policy_step
        learnt = scores.shared if isinstance(scores, Corrected) else scores
        self.descent = Descent(learnt.parameters(), descent)
        self._walker: Walker | None = None

    def log_policy(self) -> Tensor:
        """[H, G, N, A], differentiable."""
        table = torch.where(self.graph.possible_NA, self.scores.table(), IMPOSSIBLE).log_softmax(-1)
        return table.expand(self.horizon, -1, -1, -1)

    def walker(self) -> Walker:
        """The policy as it stands, as a table."""
        if self._walker is None:
            with torch.no_grad():
                self._walker = Walker(self.graph, self.log_policy().contiguous())
        return self._walker

    def frozen(self) -> Walker:
        return Walker(self.graph, self.walker().log_policy_HGNA)

    def sample(self, contexts: Contexts, generator: Generator) -> Trajectories:
        return self.walker().sample(contexts, generator)

    def log_prob(self, trajectories: Trajectories) -> Tensor:
        data = trajectories.data
        rows = self.scores.rows(steps_of(trajectories, self.horizon), data["goal"], data["node"])
        log_prob_BTA = torch.where(self.graph.possible_NA[data["node"]], rows, IMPOSSIBLE).log_softmax(-1)
        return log_prob_BTA.gather(-1, data["action"][..., None]).squeeze(-1) * trajectories.mask

    def descend(
        self, loss: LossFunction, batch: Batch, normaliser: Normaliser, step_size: float = 1.0
    ) -> dict[str, Tensor]:
        metrics = self.descent.descend(loss, batch, normaliser, step_size)
        self._walker = None  # Afterwards, because the loss may have looked at the walker.
        return metrics

    def measure(self, loss: LossFunction, batch: Batch, normaliser: Normaliser) -> dict[str, Tensor]:
        return self.descent.measure(loss, batch, normaliser)

    def improve(
        self,
        reward: Reward,
        reference: Sampler,
        beta: float,
        gamma: float,
        contexts: Contexts,
        num_updates: int,
        generator: Generator,
    ) -> tuple[Metrics, Trajectories]:
        """Exact updates: nothing is estimated from samples. The behaviours handed back are of the policy afterwards."""
        with torch.no_grad():
            reward_HGNA = reward.for_policy()()
        log_reference = cast(Walker, reference).walker().log_policy_HGNA
        climb = self._policy_gradient if isinstance(self.scores, Shared) else self._soft_policy_iteration
        climb(reward_HGNA, log_reference, beta, gamma, contexts, num_updates)
        with torch.no_grad():
            _, value_GN = soft_evaluation(
                self.graph, self.walker().log_policy_HGNA, reward_HGNA, log_reference, beta, gamma
            )
        metrics = {"policy_loss": -float(value_GN[contexts.data["goal"], contexts.data["start"]].mean())}
        return metrics, self.sample(contexts, generator)

    def _soft_policy_iteration(
        self, reward: Tensor, reference: Tensor, beta: float, gamma: float, contexts: Contexts, num_updates: int
    ) -> None:
        """π ← π_ref exp(Q^π/β)/Z, everywhere at once; as many updates as the horizon has steps reach the optimum."""
        del contexts  # Every state of the world is improved, whatever contexts are practised on.
        with torch.no_grad():
            if num_updates >= self.horizon and self.policy_step == 1.0:
                table, _ = soft_value_iteration(self.graph, reward, reference, beta, gamma, self.horizon)
            else:
                table = self.walker().log_policy_HGNA
                for _ in range(num_updates):
                    q_HGNA, _ = soft_evaluation(self.graph, table, reward, reference, beta, gamma)
                    greedy = reference + q_HGNA / beta
                    table = ((1.0 - self.policy_step) * table + self.policy_step * greedy).log_softmax(-1)
            assert not isinstance(self.scores, Shared)
            self.scores.become(table)
        self._walker = None  # Read back from the weights, as a resumed run does: normalising twice changes last bits.

    def _policy_gradient(
        self, reward: Tensor, reference: Tensor, beta: float, gamma: float, contexts: Contexts, num_updates: int
    ) -> None:
        """Ascent on the exact objective over the given contexts."""
        for _ in range(num_updates):
            self.descent.optimiser.zero_grad(set_to_none=True)
            _, value_GN = soft_evaluation(self.graph, self.log_policy(), reward, reference, beta, gamma)
            (-value_GN[contexts.data["goal"], contexts.data["start"]].mean()).backward()
            self.descent.step()
        self._walker = None

    def state_dict(self) -> State:
        return {"scores": self.scores.state_dict(), "descent": self.descent.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self.scores.load_state_dict(state["scores"])
        self.descent.load_state_dict(state["descent"])
        self._walker = None


class TabularReward:
    """A reward of any of the three kinds."""

    def __init__(self, horizon: int, scores: Scores, descent: DescentConfig) -> None:
        self.horizon, self.scores = horizon, scores
        self.descent = Descent(scores.parameters(), descent)

    def __call__(self, trajectories: Trajectories) -> Tensor:
        data = trajectories.data
        return self.scores.at(steps_of(trajectories, self.horizon), data["goal"], data["node"], data["action"])

    def for_policy(self) -> Callable[[], Tensor]:
        """The whole table [H or 1, G, N, A], detached: this world's policies ask for every transition at once."""
        return lambda: self.scores.table().detach()

    def descend(
        self, loss: LossFunction, batch: Batch, normaliser: Normaliser, step_size: float = 1.0
    ) -> dict[str, Tensor]:
        return self.descent.descend(loss, batch, normaliser, step_size)

    def measure(self, loss: LossFunction, batch: Batch, normaliser: Normaliser) -> dict[str, Tensor]:
        return self.descent.measure(loss, batch, normaliser)

    def state_dict(self) -> State:
        return {"scores": self.scores.state_dict(), "descent": self.descent.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self.scores.load_state_dict(state["scores"])
        self.descent.load_state_dict(state["descent"])
