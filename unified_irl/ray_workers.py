"""Cells as tasks of a Ray cluster. All its machines must see the directory of the matrix."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unified_irl.cell import Cell, Death, Outcome, Work, compute, python_path
from unified_irl.errors import UserError
from unified_irl.launch_config import Launch
from unified_irl.rundir import LOCK

_STORE_BYTES = 100 * 2**20
"""Configs and results are small."""
_HANDED_ON = ("HF_HOME", "HF_HUB_OFFLINE", "UNIFIED_IRL_CACHE")
"""What of our environment decides where cells find things. No keys: anybody in the cluster could read them."""
_SECONDS_TO_END = 10.0
_SECONDS_TO_ANSWER = 10.0


class RayWorkers:
    """One task per cell. Ray itself repeats nothing: what died is told, and begun again by who counts the deaths."""

    def __init__(self, root: Path, work: Work, num_workers: int, launch: Launch) -> None:
        self._ray = _ray()
        self._root, self._work = root.resolve(), work
        self._is_guest = bool(self._ray.is_initialized())
        if not self._is_guest:
            _join(self._ray, num_workers, launch)
        handed_on = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
        self._task = self._ray.remote(_compute_there)
        self._options = {
            "num_cpus": launch.cpus_per_cell,
            "num_gpus": launch.gpus_per_cell,
            "max_retries": 0,
            "runtime_env": {"env_vars": {"PYTHONPATH": python_path(), **handed_on}},
        }
        self._running: dict[Any, Cell] = {}

    def begin(self, cell: Cell) -> None:
        task = self._task.options(name=cell.name, **self._options)
        self._running[task.remote(cell, self._root, self._work, Path.cwd())] = cell

    def ended(self) -> Sequence[Outcome | Death]:
        ready, _ = self._ray.wait(list(self._running), num_returns=1)
        return [self._end_of(task) for task in ready]

    def _end_of(self, task: Any) -> Outcome | Death:
        cell = self._running.pop(task)
        try:
            end: Outcome | Death = self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            return Outcome(cell=cell, result=None, failure=f"{type(error.cause).__name__}: {error.cause}")
        except self._ray.exceptions.RayError as error:
            return Death(cell=cell, cause=f"{type(error).__name__} ({str(error).splitlines()[0]})")
        return end

    def close(self) -> None:
        for task in self._running:
            self._ray.cancel(task, force=True)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=_SECONDS_TO_END)
        if not self._is_guest:
            self._ray.shutdown()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "Ray is not installed. Run: pip install 'unified-irl[ray]'. Or use --launcher local."
        ) from error
    return ray


def _join(ray: Any, num_workers: int, launch: Launch) -> None:
    """Meet the cluster, or start one for as many cells at a time as there are workers."""
    address = launch.ray_address or os.environ.get("RAY_ADDRESS") or "local"
    is_own = address == "local"
    size = {"num_cpus": num_workers * launch.cpus_per_cell, "include_dashboard": False,
            "object_store_memory": _STORE_BYTES} if is_own else {}  # fmt: skip
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        _knock(address)
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **size)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"The Ray cluster '{address}' cannot be reached: {why}. Check --ray-address and RAY_ADDRESS, or leave both "
            "out for a cluster on this machine."
        ) from error
    _check_needs(ray, launch, is_own)


def _knock(address: str) -> None:
    """Ray itself goes on trying for minutes where nobody answers."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()


def _check_needs(ray: Any, launch: Launch, is_own: bool) -> None:
    """Ray waits for ever for a machine that has what a cell needs; another's cluster may yet start one."""
    needs = {"CPU": launch.cpus_per_cell, "GPU": launch.gpus_per_cell}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(one.get(name, 0) >= count for name, count in needs.items()) for one in machines):
        return
    wanted = f"a cell needs {needs['CPU']} CPUs and {needs['GPU']:g} GPUs, and no machine of the Ray cluster has them"
    if is_own:
        ray.shutdown()
        raise UserError(f"{wanted}. Lower --cpus-per-cell or --gpus-per-cell, or name a cluster with --ray-address.")
    print(f"{wanted} yet; cells wait for one", file=sys.stderr, flush=True)


def _compute_there(cell: Cell, root: Path, work: Work, place: Path) -> Outcome | Death:
    """In the cluster, from the folder where the matrix was started, so that relative paths mean the same."""
    if not (root / LOCK).exists():
        why = (
            f"{root} of the machine that started the matrix is not to be seen on {socket.gethostname()}. Let --out be "
            "in a directory that all machines share."
        )
        return Outcome(cell=cell, result=None, failure=why)
    if place.is_dir():
        os.chdir(place)
    return compute(cell, root, work)
