"""The inner step: the policy climbs E[Σ γ^t (r − β log π/π_ref)] by its own samples.

Shape legend: B completions, T columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Generator, Tensor

from llm.advantages import credited, leave_one_out, shifted, standardised
from llm.config import ImproveConfig
from unified_irl.batch import Batch, Normaliser
from unified_irl.contracts import LossFunction
from unified_irl.objectives import Loss, returns
from unified_irl.trajectories import Contexts, Trajectories

LogProb = Callable[[Trajectories], Tensor]


def sections(contexts: Contexts, num_updates: int, generator: Generator) -> list[Contexts]:
    """One part of the contexts for each update, so that every context is met at least once; where there are fewer
    contexts than updates, they are gone through several times."""
    order = torch.randperm(len(contexts), generator=generator)
    if len(contexts) >= num_updates:
        return [contexts[part] for part in order.tensor_split(num_updates)]
    return [contexts[order[k % len(order)][None]] for k in range(num_updates)]


def in_groups(contexts: Contexts, samples: int) -> Contexts:
    """Every context several times, side by side."""
    return contexts[torch.arange(len(contexts)).repeat_interleave(samples)]


def judged(
    own: Trajectories, reward_BT: Tensor, reference_BT: Tensor, config: ImproveConfig, beta: float, gamma: float
) -> tuple[Trajectories, dict[str, float]]:
    """The samples with what their tokens gained, for `climbing_loss`, and what is to be said of them."""
    mask_BT, old_BT = own.mask.to(reward_BT.device), own.behaviour_log_prob.to(reward_BT.device)
    ratio_BT = (old_BT - reference_BT) * mask_BT
    discount_BT = own.discount(gamma).to(reward_BT.device)
    missing_BT = _last(mask_BT) & own.truncated.to(reward_BT.device)[:, None]
    reward_BT = torch.where(mask_BT, reward_BT, 0.0) - config.missing_end * missing_BT
    pays_BT = reward_BT - beta * ratio_BT if config.kl == "k1 in reward" else reward_BT
    start_B = mask_BT.float().argmax(1)
    value_BT = credited(pays_BT, start_B, config.credit, gamma)
    if config.algorithm == "grpo":
        gain_BT = standardised(value_BT, returns(pays_BT, discount_BT), config.samples)
    else:
        gain_BT = leave_one_out(value_BT, config.samples)
    gain_BT = shifted(gain_BT, -start_B) * mask_BT
    reward_B, kl_B = returns(reward_BT, discount_BT), returns(ratio_BT, discount_BT)
    groups = reward_B.view(-1, config.samples)
    metrics = {
        "policy_loss": float((beta * kl_B - reward_B).mean()),
        "objective/scores": float(reward_B.mean()),
        "objective/spread": float(groups.std(1).mean()),
        "objective/kl": float(kl_B.mean()),
        "objective/kl_k3": float(returns(_k3(-ratio_BT), discount_BT).mean()),
        "objective/entropy": -float(returns(old_BT * mask_BT, discount_BT).mean()),
        "val/contain_eos_token": float(own.terminated.float().mean()),
        "val/length": float(own.mask.sum(1).float().mean()),
    }
    told = {"advantage": gain_BT.cpu(), "reference": (reference_BT * mask_BT).cpu()}
    return replace(own, data=own.data | told), metrics


def climbing_loss(log_prob: LogProb, config: ImproveConfig, beta: float, gamma: float) -> LossFunction:
    """−E[Σ_t A_t log π(a_t|s_t)], whose gradient is that of −J at the policy that made the samples; with ppo
    −E[Σ_t min(ρ_t A_t, clip(ρ_t, 1 ± ε) A_t)]. Sums over tokens, divided by the number of completions."""

    def loss(batch: Batch, normaliser: Normaliser) -> Loss:
        own = batch.own
        assert own is not None
        assert normaliser.own is not None
        now_BT, gain_BT = log_prob(own), own.data["advantage"]
        if config.algorithm == "ppo":
            moved_BT = (now_BT - own.behaviour_log_prob).exp()
            clipped_BT = moved_BT.clamp(1.0 - config.clip, 1.0 + config.clip)
            surrogate_BT = torch.minimum(moved_BT * gain_BT, clipped_BT * gain_BT)
        else:
            surrogate_BT = now_BT * gain_BT
        total_BT = -surrogate_BT * own.mask
        if config.kl == "k3 penalty":
            total_BT = total_BT + beta * _k3(own.data["reference"] - now_BT) * own.discount(gamma)
        value = (own.weight * total_BT.sum(1)).sum() / normaliser.own
        return value, {"surrogate": value.detach()}

    return loss


def _k3(log_ratio_BT: Tensor) -> Tensor:
    """π_ref/π − 1 − log π_ref/π, from log π_ref/π: never negative, and its mean under π is KL(π ‖ π_ref)."""
    return log_ratio_BT.exp() - 1.0 - log_ratio_BT


def _last(mask_BT: Tensor) -> Tensor:
    """bool[B, T]: the last chosen column."""
    count_BT = mask_BT.long().cumsum(1)
    return mask_BT & (count_BT == count_BT[:, -1:])
