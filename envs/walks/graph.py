"""The graph, its features and its true reward.

Shape legend: G goals, N nodes, A actions (one per neighbour slot, the last one stops), F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse.csgraph
import scipy.spatial
import torch
from torch import Tensor

from envs.walks.config import WalksConfig

IMPOSSIBLE = -1e9
"""Log-probability of a move that does not exist: finite, so that 0 · log 0 is 0, and far below any real one."""
FEATURES = ("length", "toll", "stop at goal", "stop elsewhere", "move", "approach")


@dataclass(frozen=True)
class Graph:
    """Where one can walk, and what it costs. Index N stands for the end of a walk."""

    position_N2: Tensor
    toll_N: Tensor
    goal_G: Tensor
    """The node of each goal."""
    next_NA: Tensor
    """The node that each action leads to; N for stopping, and for slots without a neighbour."""
    possible_NA: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """G, N, A."""
        return len(self.goal_G), *self.next_NA.shape  # type: ignore[return-value]

    def uniform(self) -> Tensor:
        """[N, A]: log-probabilities of the walker who takes any possible action alike."""
        return torch.where(
            self.possible_NA, -self.possible_NA.sum(1, keepdim=True).to(self.toll_N.dtype).log(), IMPOSSIBLE
        )

    def features(self) -> Tensor:
        """[G, N, A, F]: what the shared features say of each move (`FEATURES`)."""
        num_goals, num_nodes, num_actions = self.shape
        here = torch.arange(num_nodes)
        there_NA = torch.where(self.next_NA < num_nodes, self.next_NA, here[:, None])
        moves_NA = (self.next_NA < num_nodes) & self.possible_NA
        length_NA = (self.position_N2[there_NA] - self.position_N2[:, None]).norm(dim=-1)
        goal_distance_GN = (self.position_N2[self.goal_G][:, None] - self.position_N2).norm(dim=-1)
        approach_GNA = goal_distance_GN[:, :, None] - goal_distance_GN[:, there_NA]
        stops_A = torch.arange(num_actions) == num_actions - 1
        at_goal_GN = here == self.goal_G[:, None]
        columns = (
            length_NA.expand(num_goals, -1, -1),
            (self.toll_N[there_NA] * moves_NA).expand(num_goals, -1, -1),
            at_goal_GN[:, :, None] & stops_A,
            ~at_goal_GN[:, :, None] & stops_A,
            moves_NA.expand(num_goals, -1, -1),
            approach_GNA,
        )
        return torch.stack([column.to(self.toll_N.dtype) for column in columns], dim=-1) * self.possible_NA[..., None]

    def inputs(self) -> Tensor:
        """[G, N, A, F + 6]: what a network sees: the features and where one is, goes, and wants to go."""
        num_goals, num_nodes, num_actions = self.shape
        there_NA = torch.where(self.next_NA < num_nodes, self.next_NA, torch.arange(num_nodes)[:, None])
        shape = (num_goals, num_nodes, num_actions, 2)
        places = (
            self.position_N2[:, None].expand(shape),
            self.position_N2[there_NA].expand(shape),
            self.position_N2[self.goal_G][:, None, None].expand(shape),
        )
        return torch.cat([self.features(), *(place - 0.5 for place in places)], dim=-1)


def build_graph(config: WalksConfig) -> Graph:
    """Points in the unit square, an edge to each of the nearest ones, and the edges of a spanning tree beside them."""
    rng = np.random.default_rng([config.graph_seed, config.num_nodes])
    position = rng.random((config.num_nodes, 2))
    _, nearest = scipy.spatial.cKDTree(position).query(position, k=config.num_neighbours + 1)
    linked = np.zeros((config.num_nodes, config.num_nodes), dtype=bool)
    linked[np.arange(config.num_nodes)[:, None], nearest] = True
    distance = scipy.spatial.distance.squareform(scipy.spatial.distance.pdist(position))
    tree = scipy.sparse.csgraph.minimum_spanning_tree(distance).toarray() > 0
    linked |= tree | tree.T
    np.fill_diagonal(linked, False)
    taxed = rng.random(config.num_nodes) < config.toll_share
    toll = taxed * config.toll * rng.uniform(0.5, 1.5, config.num_nodes)
    num_actions = int(linked.sum(1).max()) + 1
    next_NA = np.full((config.num_nodes, num_actions), config.num_nodes)
    for node, row in enumerate(linked):
        neighbours = np.flatnonzero(row)
        next_NA[node, : len(neighbours)] = neighbours
    possible = next_NA < config.num_nodes
    possible[:, -1] = True
    goals = rng.permutation(config.num_nodes)[: config.num_goals or config.num_nodes]
    dtype = getattr(torch, config.dtype)
    return Graph(
        position_N2=torch.from_numpy(position).to(dtype),
        toll_N=torch.from_numpy(toll).to(dtype),
        goal_G=torch.from_numpy(np.sort(goals)),
        next_NA=torch.from_numpy(next_NA),
        possible_NA=torch.from_numpy(possible),
    )


def true_reward(graph: Graph, config: WalksConfig) -> Tensor:
    """[G, N, A]: the goal's reward on stopping there, minus lengths and tolls; linear in the shared features."""
    num_goals, num_nodes, num_actions = graph.shape
    moves_NA = (graph.next_NA < num_nodes) & graph.possible_NA
    there_NA = torch.where(moves_NA, graph.next_NA, torch.arange(num_nodes)[:, None])
    length_NA = (graph.position_N2[there_NA] - graph.position_N2[:, None]).norm(dim=-1)
    reward_GNA = (-(length_NA + graph.toll_N[there_NA]) * moves_NA).repeat(num_goals, 1, 1)
    reward_GNA[torch.arange(num_goals), graph.goal_G, num_actions - 1] = config.goal_reward
    return reward_GNA


TRUE_WEIGHT = (-1.0, -1.0, 1.0, 0.0, 0.0, 0.0)
"""The true reward as weights of `FEATURES`, the third one in units of the goal's reward."""
