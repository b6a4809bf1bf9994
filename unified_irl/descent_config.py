"""How something descends: optimiser, step size and its schedule. No tensor library here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from unified_irl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DescentConfig:
    """One optimiser."""

    optimiser: Literal["adam", "sgd", "rmsprop"] = "adam"
    """The rule: Adam (decoupled weight decay), plain SGD or RMSprop."""
    learning_rate: float = 1e-2
    """The step size at its highest."""
    schedule: Literal["constant", "linear", "cosine", "inverse-sqrt"] = "constant"
    """How the step size falls after the warm-up: to zero at `total_steps`, or as 1/√step."""
    warmup_steps: int = 0
    """Steps over which the step size first rises from zero."""
    total_steps: int = 0
    """Where linear and cosine schedules reach zero."""
    weight_decay: float = 0.0
    """Pull of the parameters toward zero."""
    max_grad_norm: float = 0.0
    """The gradient is scaled down to this norm where it is longer; 0 never."""
    micro_batch_size: int = 0
    """Rows per backward pass; 0 takes the batch in one piece. The result is the same."""

    def __post_init__(self) -> None:
        if not 0.0 < self.learning_rate < math.inf:
            raise UserError(f"learning_rate is {self.learning_rate}; expected a finite number above 0.")
        for name in ("warmup_steps", "total_steps", "weight_decay", "max_grad_norm", "micro_batch_size"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} is {getattr(self, name)}; expected 0 or more.")
        if self.weight_decay == math.inf:
            raise UserError("weight_decay is inf; expected a finite number.")
        if self.schedule in ("linear", "cosine") and self.total_steps <= self.warmup_steps:
            raise UserError(
                f"a {self.schedule} schedule needs total_steps above warmup_steps ({self.warmup_steps}); "
                f"total_steps is {self.total_steps}."
            )

    def factor(self, step: int) -> float:
        """The share of `learning_rate` that the step numbered `step` (from 0) takes."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        beyond = step - self.warmup_steps
        if self.schedule == "inverse-sqrt":
            return 1.0 / math.sqrt(1.0 + beyond)
        if self.schedule == "constant":
            return 1.0
        done = min(1.0, beyond / (self.total_steps - self.warmup_steps))
        return 1.0 - done if self.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
