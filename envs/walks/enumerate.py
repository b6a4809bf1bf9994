"""Every walk there is. In a small world an expectation is a sum over all walks, each weighted by its probability.

Shape legend: B behaviours, T steps, N nodes, A actions.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from envs.walks.graph import Graph
from envs.walks.policy import Walker
from unified_irl.trajectories import Contexts, Trajectories


def every_walk(graph: Graph, horizon: int, contexts: Contexts, walker: Walker) -> Trajectories:
    """Every possible walk of at most `horizon` steps from each context, weighted by its probability under the walker
    times the context's share, 1/len(contexts).

    The rows and their order depend on the contexts alone, so that the walks of two walkers can be compared row by row.
    There are up to A^horizon of them per context.
    """
    num_nodes = len(graph.next_NA)
    row, node = torch.arange(len(contexts)), contexts.data["start"]
    nodes = actions = row.new_zeros(len(row), 0)
    walks, rows = [], []
    for step in range(horizon):
        which, action = graph.possible_NA[node].nonzero(as_tuple=True)
        row = row[which]
        nodes = torch.cat([nodes[which], node[which, None]], dim=1)
        actions = torch.cat([actions[which], action[:, None]], dim=1)
        node = graph.next_NA[node[which], action]
        over = (node == num_nodes) | torch.tensor(step == horizon - 1)
        walks.append(_walks(contexts[row[over]], nodes[over], actions[over], node[over] == num_nodes))
        rows.append(row[over])
        row, node, nodes, actions = row[~over], node[~over], nodes[~over], actions[~over]
    ordered = Trajectories.cat(walks)[torch.cat(rows).argsort(stable=True)]
    log_prob_BT = walker.log_prob(ordered)
    return replace(ordered, weight=log_prob_BT.sum(1).exp() / len(contexts), behaviour_log_prob=log_prob_BT)


def every_pair(first: Trajectories, second: Trajectories) -> tuple[Trajectories, Trajectories]:
    """Each walk of the first beside each walk of the second that has the same context, as two batches of equal length.

    Both carry the weight of the pair: that of the first times the share of the second within its context.
    """
    together = first.context_id[:, None] == second.context_id
    left, right = together.nonzero(as_tuple=True)
    total_B = (together * second.weight).sum(1)
    weight = first.weight[left] * second.weight[right] / total_B[left]
    return replace(first[left], weight=weight), replace(second[right], weight=weight)


def _walks(contexts: Contexts, nodes: torch.Tensor, actions: torch.Tensor, stopped: torch.Tensor) -> Trajectories:
    mask = torch.ones_like(nodes, dtype=torch.bool)
    unknown_BT = torch.zeros(nodes.shape, dtype=torch.float64)
    return Trajectories(
        data={"node": nodes, "action": actions, "goal": contexts.data["goal"][:, None].expand_as(nodes)},
        mask=mask,
        rewarded=mask,
        context_id=contexts.ids,
        weight=unknown_BT[:, 0],
        behaviour_log_prob=unknown_BT,
        start_step=torch.zeros_like(contexts.ids),
        terminated=stopped,
        truncated=~stopped,
    )
