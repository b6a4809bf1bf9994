"""The exact answers: soft values, optimal policies, visitation, returns and divergences, all by backward and forward
sweeps over the finite horizon.

Shape legend: H steps, G goals, N nodes, A actions. A leading 1 in place of H means "the same at every step".
"""

from __future__ import annotations

import torch
from torch import Tensor

from envs.walks.graph import Graph


def _at(table_HGNA: Tensor, step: int) -> Tensor:
    return table_HGNA[step if len(table_HGNA) > 1 else 0]


def next_value(graph: Graph, value_GN: Tensor) -> Tensor:
    """[G, N, A]: the value of where each action leads; zero after the end."""
    ended = torch.cat([value_GN, value_GN.new_zeros(len(value_GN), 1)], dim=1)
    return ended.index_select(1, graph.next_NA.flatten()).view(len(value_GN), *graph.next_NA.shape)


def soft_value_iteration(
    graph: Graph, reward_HGNA: Tensor, reference_HGNA: Tensor, beta: float, gamma: float, horizon: int
) -> tuple[Tensor, Tensor]:
    """log π* [H, G, N, A] and V_0 [G, N] of max_π E[Σ γ^t (r − β log π/π_ref)].

    V_t = β log Σ_a π_ref exp((r_t + γ V_{t+1}) / β), so that for γ = 1 V_0/β is the log-partition over whole walks.
    Differentiable in the reward.
    """
    value_GN = reward_HGNA.new_zeros(graph.shape[:2])
    log_policy = []
    for step in reversed(range(horizon)):
        q_GNA = _at(reward_HGNA, step) + gamma * next_value(graph, value_GN)
        logit_GNA = _at(reference_HGNA, step) + q_GNA / beta
        log_partition_GN = logit_GNA.logsumexp(-1)
        log_policy.append(logit_GNA - log_partition_GN[..., None])
        value_GN = beta * log_partition_GN
    return torch.stack(log_policy[::-1]), value_GN


@torch.no_grad()
def soft_values(
    graph: Graph, reward_GNA: Tensor, beta: float, gamma: float, horizon: int, goals_per_block: int = 32
) -> Tensor:
    """V_0 [G, N] alone, against the uniform reference, for graphs whose policies would not fit into memory.

    Goals know nothing of each other, so a block of them runs through all steps while it is in the cache; with the goals
    innermost, every gather copies whole rows and every reduction over actions is vectorised over goals.
    """
    num_goals, num_nodes, _ = graph.shape
    lead_to = graph.next_NA.T.flatten()
    value_GN = reward_GNA.new_empty(num_goals, num_nodes)
    for block in torch.arange(num_goals).split(goals_per_block):
        stay_ANg = ((graph.uniform() + reward_GNA[block] / beta).permute(2, 1, 0)).contiguous()
        value_Ng = reward_GNA.new_zeros(num_nodes + 1, len(block))  # in units of β; the last row is the end
        logit_ANg = torch.empty_like(stay_ANg)
        for _ in range(horizon):
            torch.index_select(value_Ng, 0, lead_to, out=logit_ANg.view(-1, len(block)))
            logit_ANg.mul_(gamma).add_(stay_ANg)
            highest_Ng = logit_ANg.amax(0)
            logit_ANg.sub_(highest_Ng).exp_()
            torch.sum(logit_ANg, 0, out=value_Ng[:num_nodes])
            value_Ng[:num_nodes].log_().add_(highest_Ng)
        value_GN[block] = beta * value_Ng[:num_nodes].T
    return value_GN


def soft_evaluation(
    graph: Graph, log_policy_HGNA: Tensor, reward_HGNA: Tensor, reference_HGNA: Tensor, beta: float, gamma: float
) -> tuple[Tensor, Tensor]:
    """Q^π [H, G, N, A] and V^π_0 [G, N] of E_π[Σ γ^t (r − β log π/π_ref)]; β = 0 gives the plain return."""
    value_GN = reward_HGNA.new_zeros(graph.shape[:2])
    q_values = []
    for step in reversed(range(len(log_policy_HGNA))):
        q_GNA = _at(reward_HGNA, step) + gamma * next_value(graph, value_GN)
        q_values.append(q_GNA)
        log_policy_GNA = log_policy_HGNA[step]
        pays_GNA = q_GNA if beta == 0.0 else q_GNA - beta * (log_policy_GNA - _at(reference_HGNA, step))
        value_GN = (log_policy_GNA.exp() * pays_GNA).sum(-1)
    return torch.stack(q_values[::-1]), value_GN


def visitation(graph: Graph, log_policy_HGNA: Tensor, start_GN: Tensor) -> Tensor:
    """[H, G, N]: the probability of standing at a node at a step, from the distribution start_GN over contexts."""
    num_goals, num_nodes, _ = graph.shape
    here_GN, visits = start_GN, []
    for log_policy_GNA in log_policy_HGNA:
        visits.append(here_GN)
        flow = (here_GN[..., None] * log_policy_GNA.exp()).view(num_goals, -1)
        arrived = here_GN.new_zeros(num_goals, num_nodes + 1).index_add(1, graph.next_NA.flatten(), flow)
        here_GN = arrived[:, :num_nodes]
    return torch.stack(visits)


def divergence(log_p_HGNA: Tensor, log_q_HGNA: Tensor, visits_HGN: Tensor) -> Tensor:
    """Mean KL(p ‖ q) per decision, in nats, over the given visits."""
    kl_HGN = (log_p_HGNA.exp() * (log_p_HGNA - log_q_HGNA)).sum(-1)
    return (visits_HGN * kl_HGN).sum() / visits_HGN.sum()


def total_variation(log_p_HGNA: Tensor, log_q_HGNA: Tensor, visits_HGN: Tensor) -> Tensor:
    """Mean total variation between p and q per decision, over the given visits."""
    distance_HGN = 0.5 * (log_p_HGNA.exp() - log_q_HGNA.exp()).abs().sum(-1)
    return (visits_HGN * distance_HGN).sum() / visits_HGN.sum()


def weighted_correlation(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """Pearson's correlation under weights."""
    share = weight / weight.sum()
    first, second = first - (share * first).sum(), second - (share * second).sum()
    spread = ((share * first.square()).sum() * (share * second.square()).sum()).sqrt()
    return (share * first * second).sum() / spread.clamp(min=torch.finfo(spread.dtype).tiny)
