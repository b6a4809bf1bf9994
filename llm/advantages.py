"""How much better a token did than it was to be expected: small strategies of the inner step.

Rows of one group answer the same prompt; every group has the same number of rows, side by side.

Shape legend: G groups, S samples of a group, B = G·S completions, T columns.
"""

from __future__ import annotations

import torch
from torch import Tensor


def to_go(pays_BT: Tensor, gamma: float) -> Tensor:
    """Σ_{s≥t} γ^{s−t} r_s."""
    if gamma == 1.0:
        return pays_BT.flip(1).cumsum(1).flip(1)
    running, columns = torch.zeros_like(pays_BT[:, 0]), []
    for column in pays_BT.flip(1).unbind(1):
        running = column + gamma * running
        columns.append(running)
    return torch.stack(columns[::-1], 1)


def leave_one_out(value_BT: Tensor, samples: int) -> Tensor:
    """Less the mean of the group's other samples, which do not depend on what this one chose (RLOO)."""
    value_GST = value_BT.view(-1, samples, value_BT.shape[1])
    others_GST = (value_GST.sum(1, keepdim=True) - value_GST) / (samples - 1)
    return (value_GST - others_GST).view_as(value_BT)


def standardised(value_BT: Tensor, return_B: Tensor, samples: int) -> Tensor:
    """Less the group's mean, divided by the standard deviation of its returns (GRPO); a group whose samples are all
    alike teaches nothing."""
    value_GST = value_BT.view(-1, samples, value_BT.shape[1])
    spread_G11 = return_B.view(-1, samples).std(1)[:, None, None]
    centred_GST = value_GST - value_GST.mean(1, keepdim=True)
    return torch.where(spread_G11 > 1e-6, centred_GST / spread_G11.clamp(min=1e-6), 0.0).view_as(value_BT)


def credited(pays_BT: Tensor, start_B: Tensor, credit: str, gamma: float) -> Tensor:
    """[B, T]: what each token answers for, in columns counted from a completion's first token, so that those of one
    group stand side by side; where a completion is over, nothing is left to come."""
    value_BT = to_go(shifted(pays_BT, start_B), gamma)
    if credit == "whole":
        return value_BT[:, :1].expand_as(value_BT)
    return value_BT * gamma ** torch.arange(value_BT.shape[1], device=value_BT.device)


def shifted(value_BT: Tensor, by_B: Tensor) -> Tensor:
    """Every row moved to the left by so many columns; zeros come in from the right."""
    place_BT = torch.arange(value_BT.shape[1], device=value_BT.device) + by_B[:, None]
    inside_BT = (place_BT >= 0) & (place_BT < value_BT.shape[1])
    return value_BT.gather(1, place_BT.clamp(0, value_BT.shape[1] - 1)) * inside_BT
