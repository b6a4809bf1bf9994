"""What the joint-beats-separate experiment sweeps. No tensor library here."""

from __future__ import annotations

from dataclasses import dataclass

from unified_irl.errors import UserError

METHODS = ("bc", "dpo", "direct-aihf", "ml-irl", "rlhf", "rlhf from base", "aihf")
"""Rows compared; the last one is the one that the others are paired against."""


@dataclass(frozen=True, kw_only=True)
class JointConfig:
    """Does learning from demonstrations and preferences together beat learning from either, or from one after the
    other? And where does it not?"""

    seeds: int = 20
    """Seeds; each draws its own graph, data and initial networks, the same for every method."""
    num_demonstrations: tuple[int, ...] = (4, 32, 256)
    """Numbers of demonstrations."""
    num_preferences: tuple[int, ...] = (16, 128)
    """Numbers of comparisons."""
    kinds: tuple[str, ...] = ("linear", "network")
    """Function classes: of the reward for methods that learn one, of the policy for those that do not."""
    slips: tuple[float, ...] = (0.0, 0.3)
    """Qualities of the demonstrator: probabilities of a random move at each step."""
    theorem_case: bool = True
    """Also the case where everything is a free table, and reward learning can win nothing by theorem."""
    learning_rates: tuple[float, ...] = (0.3, 1.0, 3.0)
    """Multiples of the default step size that every method is tuned over, on seeds of their own."""
    tuning_seeds: int = 5
    """Seeds of the tuning, none of which is used again."""
    workers: int = 2
    """Cells computed at the same time."""
    out: str = "runs/science/joint"
    """Where the cells are; the same command again goes on with what is missing."""

    def __post_init__(self) -> None:
        if min(self.seeds, self.tuning_seeds, self.workers) < 1:
            raise UserError("seeds, tuning_seeds and workers must be 1 or more.")
        if not (self.num_demonstrations and self.num_preferences and self.kinds and self.slips and self.learning_rates):
            raise UserError("every list of the sweep needs at least one entry.")


QUICK = JointConfig(
    seeds=2,
    num_demonstrations=(4,),
    num_preferences=(16,),
    kinds=("linear",),
    slips=(0.0,),
    theorem_case=False,
    learning_rates=(1.0,),
    tuning_seeds=1,
    out="runs/science/joint-quick",
)
