"""What a comparison compares. No tensor library here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unified_irl.errors import UserError
from unified_irl.launch_config import Launch


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
    launcher: Literal["local", "ray"] = "local"
    """Who computes them: processes of this machine, or a Ray cluster (pip install 'unified-irl[ray]'). All its machines
    must see the directory of --out; a cell whose machine dies goes on from its checkpoint on another."""
    ray_address: str = ""
    """The Ray cluster: 'auto', HOST:PORT or ray://HOST:PORT. Empty for the one that RAY_ADDRESS names; where that names
    none, for one of our own on this machine, which ends with the cells."""
    cpus_per_cell: int = 1
    """Processors that Ray sets aside for a cell; local cells share what there is."""
    gpus_per_cell: float = 0
    """GPUs that a cell sees: its own, or less than 1 to share one. With 0, local cells see all, those of Ray none."""
    processes_per_cell: int = 1
    """Processes that share the work of one cell, one for each of its GPUs; language tasks can."""
    set: tuple[str, ...] = ()
    """Settings changed in every cell, as KEY=VALUE with the flags of `train`: task.num-demonstrations=16; or in those
    of one task, as TASK:KEY=VALUE."""
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
        self.launch  # noqa: B018  (its own checks)

    @property
    def launch(self) -> Launch:
        """Where the cells are computed, and what each needs."""
        return Launch(
            launcher=self.launcher,
            ray_address=self.ray_address,
            cpus_per_cell=self.cpus_per_cell,
            gpus_per_cell=self.gpus_per_cell,
            processes_per_cell=self.processes_per_cell,
        )
