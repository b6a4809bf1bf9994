"""Log-probabilities of given tokens without a tensor of logits: chunks of the vocabulary pass by, in float32.

    log π(y|h) = h·w_y − log Σ_v exp(h·w_v)

Neither pass ever holds more than a block of rows × a chunk of the vocabulary. Where all logits fit into `KEPT_BYTES`,
those of the forward pass are kept instead of being computed again.

Shape legend: N rows, D hidden units, V words, C words of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

BLOCK_BYTES = 1 << 24
"""Size of one block of logits."""
KEPT_BYTES = 1 << 27
"""Logits up to this size may be kept for the backward pass."""
ROWS = 1024
"""Rows of a block."""


def logits(hidden_ND: Tensor, weight_VD: Tensor) -> Tensor:
    """float32[N, V]: what a model thinks of every word."""
    return _product(hidden_ND, weight_VD.T, half=_is_half(hidden_ND))


def token_log_prob(hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
    """float32[N], differentiable in the hidden states and the weights."""
    log_prob_N: Tensor = _TokenLogProb.apply(hidden_ND, weight_VD.to(hidden_ND.dtype), target_N)  # type: ignore[no-untyped-call]
    return log_prob_N


class _TokenLogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
        ctx.half = _is_half(hidden_ND)  # in the backward pass, nobody may say so any more
        needs_gradient = any(ctx.needs_input_grad[:2])
        keeps = needs_gradient and len(hidden_ND) * len(weight_VD) * 4 <= KEPT_BYTES
        chosen_N = (_factor(hidden_ND, ctx.half) * _factor(weight_VD[target_N], ctx.half)).sum(1)
        partition_N = torch.empty_like(chosen_N)
        kept: list[Tensor] = []
        for rows in _blocks(len(hidden_ND), ROWS):
            highest = running = None
            for chunk in _chunks(weight_VD, rows, whole=keeps):
                logit_NC = _product(hidden_ND[rows], weight_VD[chunk].T, ctx.half)
                top = logit_NC.amax(1)
                if highest is None or running is None:
                    highest, running = top, (logit_NC - top[:, None]).exp_().sum(1)
                    if keeps:
                        kept.append(logit_NC)
                else:
                    higher = torch.maximum(highest, top)
                    running = running * (highest - higher).exp_() + (logit_NC - higher[:, None]).exp_().sum(1)
                    highest = higher
            assert highest is not None
            assert running is not None
            partition_N[rows] = highest + running.log()
        ctx.save_for_backward(hidden_ND, weight_VD, target_N, partition_N, *kept)
        return chosen_N - partition_N

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        hidden_ND, weight_VD, target_N, partition_N, *kept = ctx.saved_tensors
        slope_N = slopes[0].float()
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        d_hidden = slope_N[:, None] * weight_VD[target_N].float() if wants_hidden else None
        d_weight = torch.zeros(weight_VD.shape, dtype=torch.float32, device=weight_VD.device) if wants_weight else None
        if d_weight is not None:
            d_weight.index_add_(0, target_N, slope_N[:, None] * hidden_ND.float())
        for number, rows in enumerate(_blocks(len(hidden_ND), ROWS)):
            for chunk in _chunks(weight_VD, rows, whole=bool(kept)):
                logit_NC = kept[number] if kept else _product(hidden_ND[rows], weight_VD[chunk].T, ctx.half)
                # −slope · softmax is the derivative by the logits, but for the chosen one; it takes their place.
                share_NC = logit_NC.sub_(partition_N[rows, None]).exp_().mul_(-slope_N[rows, None])
                if d_hidden is not None:
                    d_hidden[rows] += _product(share_NC, weight_VD[chunk], ctx.half)
                if d_weight is not None:
                    d_weight[chunk] += _product(share_NC.T, hidden_ND[rows], ctx.half)
        return (
            None if d_hidden is None else d_hidden.to(hidden_ND.dtype),
            None if d_weight is None else d_weight.to(weight_VD.dtype),
            None,
        )


def _is_half(hidden_ND: Tensor) -> bool:
    return hidden_ND.dtype == torch.bfloat16 or torch.is_autocast_enabled(hidden_ND.device.type)


def _product(left_NK: Tensor, right_KM: Tensor, half: bool) -> Tensor:
    """float32[N, M]. In half precision the factors are rounded to bfloat16, never what comes out: the logit of a chosen
    word, rounded away from those it is compared with, would give probabilities above one."""
    with torch.autocast(left_NK.device.type, enabled=False):
        if half and left_NK.is_cuda:
            return torch.mm(left_NK.bfloat16(), right_KM.bfloat16(), out_dtype=torch.float32)
        return _factor(left_NK, half) @ _factor(right_KM, half)


def _factor(one: Tensor, half: bool) -> Tensor:
    return one.bfloat16().float() if half else one.float()


def _blocks(count: int, size: int) -> Iterator[slice]:
    for begin in range(0, count, size):
        yield slice(begin, min(begin + size, count))


def _chunks(weight_VD: Tensor, rows: slice, *, whole: bool) -> Iterator[slice]:
    size = max(1, BLOCK_BYTES // (4 * (rows.stop - rows.start)))
    return _blocks(len(weight_VD), len(weight_VD) if whole else size)
