"""What a comparison compares. No tensor library here."""

from __future__ import annotations

from dataclasses import dataclass

from unified_irl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What is compared."""

    tasks: tuple[str, ...] = ("walks",)
    """The tasks."""
    methods: tuple[str, ...] = ("bc", "dpo", "ml-irl", "rlhf", "direct-aihf", "aihf")
    """The methods; the last one is the one that the others are paired against."""
    variants: tuple[str, ...] = ()
    """Methods under other settings, each as 'NAME=METHOD KEY=VALUE …' with the flags of `train`; NAME then stands
    among the methods: 'longer-bc=bc method.phases.0.rounds=600'."""
    tune: tuple[str, ...] = ()
    """Settings to try on other seeds first, as many for every method, each as 'NAME KEY=VALUE … / KEY=VALUE … / …'; the
    method goes on with those of the best mean final score: 'dpo method.beta=0.1 / method.beta=1'."""
    tuning_seeds: int = 1
    """Seeds that each of these values is tried on, 1000, 1001, …"""
    seeds: int = 5
    """Seeds per cell, 0, 1, 2, …; every method sees the same data under the same seed."""
    workers: int = 2
    """Cells computed at the same time."""
    set: tuple[str, ...] = ()
    """Settings changed in every cell, as KEY=VALUE with the flags of `train`: task.num-demonstrations=16."""
    out: str = "runs/compare"
    """Where the cells, the tables and the plots go. The same command again goes on with what is missing."""
    report: bool = True
    """Whether report.html and report.md are written too: the page without films and completions, which
    `unified-irl report` adds."""
    redraw: str = ""
    """A stored results.json: compute nothing, write its table and plots anew."""

    def __post_init__(self) -> None:
        for name in ("seeds", "tuning_seeds", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected 1 or more.")
        if not self.tasks or not self.methods:
            raise UserError("name at least one task and one method to compare.")
