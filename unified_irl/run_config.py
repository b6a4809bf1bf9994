"""How a run is kept: how often it is examined and saved. No tensor library here."""

from __future__ import annotations

from dataclasses import dataclass

from unified_irl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What surrounds the learning."""

    evaluate_every: int = 10
    """Rounds between examinations under the ground truth; 0 examines only the end."""
    checkpoint_seconds: float = 30.0
    """Seconds between checkpoints, at the most a round longer: what a killed run can lose."""
    checkpoint_every: int = 0
    """Rounds after which there is a checkpoint in any case, as there is after the first; 0 leaves it to the clock."""
    keep: int = 2
    """Checkpoints kept, beside the best one."""
    explodes_above: float = 1e6
    """A loss larger than this ends the run."""
    threads: int = 1
    """Torch threads; for small tensors one is fastest, and results can depend on their number in the last digits."""

    def __post_init__(self) -> None:
        for name, least in (
            ("evaluate_every", 0),
            ("checkpoint_seconds", 0),
            ("checkpoint_every", 0),
            ("keep", 1),
            ("threads", 1),
        ):
            if not getattr(self, name) >= least:
                raise UserError(f"{name} is {getattr(self, name)}; expected {least} or more.")
        if not self.explodes_above > 0:
            raise UserError(f"explodes_above is {self.explodes_above}; expected a number above 0.")
