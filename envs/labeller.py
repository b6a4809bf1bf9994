"""A labeller that compares behaviours by their true reward, with the habits and faults people have.

The knobs are those of the B-Pref benchmark: rationality, myopia, mistakes, skipped queries, ties.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unified_irl.errors import UserError

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True, kw_only=True)
class LabellerConfig:
    """Who compares."""

    rationality: float = 5.0
    """Inverse temperature of the Bradley-Terry choice between two true returns; inf always picks the better one."""
    myopia: float = 1.0
    """Discount per step counted back from the end: below 1, what came last weighs more."""
    mistake: float = 0.0
    """Probability that the answer is flipped."""
    skip: float = 0.0
    """Queries whose better side falls into this lowest share of all shown returns get no answer."""
    equal: float = 0.0
    """Differences below this share of the returns' standard deviation are called a tie."""

    def __post_init__(self) -> None:
        if not self.rationality > 0:
            raise UserError(f"labeller: rationality is {self.rationality}; expected a number above 0, or inf.")
        if not 0.0 < self.myopia <= 1.0:
            raise UserError(f"labeller: myopia is {self.myopia}; expected a discount above 0 and at most 1.")
        for name, limit in (("mistake", 1.0), ("skip", 1.0), ("equal", math.inf)):
            if not 0.0 <= getattr(self, name) < limit:
                raise UserError(f"labeller: {name} is {getattr(self, name)}; expected at least 0 and below {limit:g}.")

    def describe(self) -> str:
        faults = [f"{name} {getattr(self, name):g}" for name in ("myopia", "mistake", "skip", "equal")]
        shown = [
            text
            for text, off in zip(faults, ("myopia 1", "mistake 0", "skip 0", "equal 0"), strict=True)
            if text != off
        ]
        return ", ".join([f"Bradley-Terry, rationality {self.rationality:g}", *shown])


def seen_return(reward_BT: Tensor, rewarded_BT: Tensor, myopia: float, steps_BT: Tensor | None = None) -> Tensor:
    """float[B]: the return as the labeller feels it. A column takes as many steps as `steps_BT` says, else one."""
    if myopia == 1.0:
        return (reward_BT * rewarded_BT).sum(1)
    taken_BT = rewarded_BT if steps_BT is None else rewarded_BT * steps_BT
    steps_left_BT = taken_BT.flip(1).cumsum(1).flip(1) - taken_BT.to(reward_BT.dtype)
    return (reward_BT * rewarded_BT * myopia**steps_left_BT).sum(1)


def label(first_B: Tensor, second_B: Tensor, config: LabellerConfig, draw: Generator) -> tuple[Tensor, Tensor]:
    """Labels float[B] (1 first, 0 second, ½ tie) and bool[B], whether the query was answered at all."""
    import torch

    uniform_2B = torch.rand(2, len(first_B), generator=draw, dtype=first_B.dtype)
    if math.isinf(config.rationality):
        chance_B = 0.5 * (1.0 + (first_B - second_B).sign())
    else:
        chance_B = torch.sigmoid(config.rationality * (first_B - second_B))
    label_B = (uniform_2B[0] < chance_B).to(first_B.dtype)
    label_B = torch.where(uniform_2B[1] < config.mistake, 1.0 - label_B, label_B)
    everything = torch.cat([first_B, second_B])
    if config.equal:
        label_B = torch.where((first_B - second_B).abs() < config.equal * everything.std(), 0.5, label_B)
    answered_B = torch.ones_like(label_B, dtype=torch.bool)
    if config.skip:
        answered_B = torch.maximum(first_B, second_B) >= torch.quantile(everything, config.skip)
    return label_B, answered_B


TEACHERS: dict[str, LabellerConfig] = {
    "oracle": LabellerConfig(rationality=math.inf),
    "mistake": LabellerConfig(rationality=math.inf, mistake=0.1),
    "noisy": LabellerConfig(rationality=1.0),
    "skip": LabellerConfig(rationality=math.inf, skip=0.1),
    "myopic": LabellerConfig(rationality=math.inf, myopia=0.9),
    "equal": LabellerConfig(rationality=math.inf, equal=0.1),
}
"""The six teachers of B-Pref, by name."""
