"""Where the cells of a matrix are computed, and what each of them needs. No tensor library here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unified_irl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How cells are launched."""

    launcher: Literal["local", "ray"] = "local"
    """Processes of this machine, or tasks of Ray."""
    ray_address: str = ""
    """The Ray cluster; empty for RAY_ADDRESS, and without that for one of our own on this machine."""
    cpus_per_cell: int = 1
    """Processors that Ray sets aside for a cell."""
    gpus_per_cell: float = 0
    """GPUs that a cell sees; below 1, several cells share one."""
    processes_per_cell: int = 1
    """Processes that share a cell's work."""

    def __post_init__(self) -> None:
        for name in ("cpus_per_cell", "processes_per_cell"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected 1 or more.")
        gpus = self.gpus_per_cell
        if not 0 <= gpus < float("inf") or (gpus > 1 and gpus != int(gpus)):
            raise UserError(f"gpus_per_cell is {gpus:g}; expected a part of one GPU (0 to 1), or a whole number.")
        if self.processes_per_cell > 1 and 0 < gpus < self.processes_per_cell:
            raise UserError(
                f"gpus_per_cell is {gpus:g}, but {self.processes_per_cell} processes share a cell; expected a GPU for "
                "each of them."
            )
        if self.ray_address and self.launcher != "ray":
            raise UserError("ray_address is set, but the launcher is local; add --launcher ray, or leave it out.")
