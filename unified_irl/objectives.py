"""The losses, as pure functions of returns. Each returns (loss, metrics); nothing here knows a model or a domain.

R is a discounted return Σ_t γ^t r_t of one behaviour. Every loss is a weighted sum over the given behaviours divided by
an explicit normaliser, the total weight of the *whole* batch, so that micro-batches add up exactly to the batch. It is
never a mean over steps: such a mean divides a reward for staying alive by the very length it lengthens.

Shape legend: B behaviours or pairs, T steps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TensorMetrics = dict[str, Tensor]
Loss = tuple[Tensor, TensorMetrics]


def returns(reward_BT: Tensor, discount_BT: Tensor) -> Tensor:
    """R_B = Σ_t γ^t r_t. Steps without discount contribute exactly zero, whatever stands in their padding."""
    return torch.where(discount_BT > 0, reward_BT * discount_BT, 0.0).sum(1)


def negative_log_likelihood(log_prob_B: Tensor, weight_B: Tensor, normaliser: Tensor) -> Loss:
    """−E_demos[Σ_t γ^t log π(a_t|s_t)], the log-probabilities already summed over each behaviour (cloning, SFT)."""
    loss = -(weight_B * log_prob_B).sum() / normaliser
    return loss, {"demonstration_nll": loss.detach()}


def linear(
    demonstration_B: Tensor,
    own_B: Tensor,
    demonstration_weight_B: Tensor,
    own_weight_B: Tensor,
    demonstration_normaliser: Tensor,
    own_normaliser: Tensor,
    beta: float,
) -> Loss:
    """(1/β)(E_own[R] − E_demos[R]).

    Its gradient is that of the negative log-likelihood of the demonstrations under the policy that is optimal for R
    with KL weight β (maximum-likelihood inverse RL), provided the own samples come from that policy and begin where the
    demonstrations begin; with finitely many demonstrations it is exact only where the dynamics are deterministic.
    """
    demonstration = (demonstration_weight_B * demonstration_B).sum() / demonstration_normaliser
    own = (own_weight_B * own_B).sum() / own_normaliser
    loss = (own - demonstration) / beta
    return loss, {
        "demonstration_return": demonstration.detach(),
        "own_return": own.detach(),
        "demonstration_gap": (demonstration - own).detach(),
    }


def pairwise(demonstration_B: Tensor, own_B: Tensor, weight_B: Tensor, normaliser: Tensor) -> Loss:
    """−E[log σ(R(demo) − R(own))] over pairs that share a context (RFT; SPIN when R = β log π/π_previous).

    With an explicit reward and an exact policy its equilibrium is π ∝ π_ref^{β/(1+β)} π_E^{1/(1+β)}, not π_E.
    """
    gap_B = demonstration_B - own_B
    loss = -(weight_B * F.logsigmoid(gap_B)).sum() / normaliser
    with torch.no_grad():
        metrics = {
            "demonstration_return": (weight_B * demonstration_B).sum() / normaliser,
            "own_return": (weight_B * own_B).sum() / normaliser,
            "demonstration_gap": (weight_B * gap_B).sum() / normaliser,
            "demonstration_accuracy": (weight_B * (gap_B > 0)).sum() / normaliser,
        }
    return loss, metrics


def bradley_terry(
    first_B: Tensor,
    second_B: Tensor,
    label_B: Tensor,
    margin_B: Tensor,
    weight_B: Tensor,
    normaliser: Tensor,
    smoothing: float = 0.0,
    sharpness: float = 1.0,
) -> Loss:
    """−E[p log σ(κ(Δ − m)) + (1 − p) log σ(κ(−Δ − m))],  Δ = R(first) − R(second), p the smoothed label, m the margin.

    A label of ½ is a tie: its loss is least at Δ = 0. Smoothing ε replaces p by (1 − ε)p + ε(1 − p), the likelihood of
    a labeller who slips with probability ε; κ is how sharply labellers are taken to choose. With R = β log π/π_ref
    this is DPO on whole behaviours, and contrastive preference learning on segments. A tie counts ½ in the accuracy.
    """
    delta_B = first_B - second_B
    target_B = label_B * (1.0 - 2.0 * smoothing) + smoothing
    for_first_B = F.logsigmoid(sharpness * (delta_B - margin_B))
    for_second_B = F.logsigmoid(sharpness * (-delta_B - margin_B))
    likelihood_B = target_B * for_first_B + (1.0 - target_B) * for_second_B
    loss = -(weight_B * likelihood_B).sum() / normaliser
    with torch.no_grad():
        sign_B = label_B.sub(0.5).sign()
        agreement_B = 0.5 * (1.0 + (sign_B * delta_B).sign())
        metrics = {
            "preference_loss": loss.detach(),
            "rewards/margins": (weight_B * sign_B * delta_B).sum() / normaliser,
            "rewards/accuracies": (weight_B * agreement_B).sum() / normaliser,
        }
    return loss, metrics


def centring(first_B: Tensor, second_B: Tensor, weight_B: Tensor, normaliser: Tensor) -> Loss:
    """E[(R(first) + R(second))²]: comparisons leave the reward's level free; this keeps it at zero."""
    loss = (weight_B * (first_B + second_B).square()).sum() / normaliser
    return loss, {"reward_centring": loss.detach()}


def magnitude(return_B: Tensor, weight_B: Tensor, normaliser: Tensor) -> Loss:
    """E[R²]: a reward that separates its data perfectly would otherwise grow without bound."""
    loss = (weight_B * return_B.square()).sum() / normaliser
    return loss, {"reward_magnitude": loss.detach()}


def clamp_excess(reward_BT: Tensor, discount_BT: Tensor, bound: float, weight_B: Tensor, normaliser: Tensor) -> Loss:
    """E[Σ_t γ^t max(|r_t| − c, 0)²]: a soft wall, so that a reward pressed against its bound still gets a gradient."""
    excess_BT = (reward_BT.abs() - bound).clamp(min=0.0).square()
    loss = (weight_B * returns(excess_BT, discount_BT)).sum() / normaliser
    return loss, {"reward_clamp": loss.detach()}
