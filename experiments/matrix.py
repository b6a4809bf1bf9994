"""The cells of a comparison: every task, method and seed with its settings."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.compare_config import CompareConfig
from experiments.tasks import task as task_called
from experiments.train import TrainConfig, config_to_json, default_config, with_flags
from unified_irl.cells import Cell
from unified_irl.errors import UserError
from unified_irl.serialise import to_json
from unified_irl.tracking import Labels


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One cell and where it stands."""

    task: str
    method: str
    seed: int
    cell: Cell


class Matrix:
    """What `compare`'s flags describe."""

    def __init__(self, config: CompareConfig) -> None:
        self.config = config
        self.variants = dict(map(_variant, config.variants))
        self.common = {task: as_flags(_meant_for(task, config), "compare --set") for task in config.tasks}
        if unused := [name for name in self.variants if name not in config.methods]:
            raise UserError(f"the variant {unused[0]} does not stand among the methods; add it to --methods.")
        if config.processes_per_cell > 1 and (
            alone := [name for name in config.tasks if not task_called(name).shares_work]
        ):
            raise UserError(
                f"{alone[0]} runs in one process, but processes_per_cell is {config.processes_per_cell}; leave it at 1."
            )

    def settings(self, task: str, method: str, changes: Sequence[str] = ()) -> TrainConfig[Any]:
        """Those of all seeds of one task and method. `changes` are flags, and have the last word."""
        row, own = self.variants.get(method, (method, []))
        flags = [*self.common[task], *as_flags(own, "compare --variants"), *changes]
        what = "compare --tune" if changes else "compare --variants" if own else "compare --set"
        base = with_flags(task, default_config(task, row), flags, what)
        if base.seed != 0:
            raise UserError(f"seed={base.seed} is set, but seeds are set by --seeds: it gives their number.")
        return replace(base, tracking=replace(base.tracking, progress="quiet"))

    def entries(
        self, task: str, method: str, seeds: Sequence[int], changes: Sequence[str] = (), label: str = ""
    ) -> list[Entry]:
        """One cell per seed. The label tells cells of one task, method and seed apart."""
        base = self.settings(task, method, changes)

        def cell(seed: int) -> Cell:
            name = f"{task}-{method}{label}-{seed}"
            group, tags = f"{task}/{Path(self.config.out).name}{label and '-tuning'}", (task, method, f"seed-{seed}")
            labels = to_json(Labels(name=name, group=group, kind=method, tags=tags))
            return Cell(name=name, config=config_to_json(task, replace(base, seed=seed)), labels=labels)

        return [Entry(task=task, method=method, seed=seed, cell=cell(seed)) for seed in seeds]


def _meant_for(task: str, config: CompareConfig) -> list[str]:
    """The settings of --set that a task is given: those of all tasks, and its own."""
    settings = []
    for change in config.set:
        of_task, colon, _ = change.partition("=")[0].rpartition(":")
        if colon and of_task not in config.tasks:
            raise UserError(
                f"compare --set {change}: {of_task} is none of the tasks compared ({', '.join(config.tasks)})."
            )
        if not colon or of_task == task:
            settings.append(change.removeprefix(f"{task}:"))
    return settings


def _variant(given: str) -> tuple[str, tuple[str, list[str]]]:
    """The name, and what it stands for: a method and changes to it."""
    name, _, meaning = given.partition("=")
    row, *changes = words(meaning) or [""]
    if not name or not row or "=" in row:
        raise UserError(
            "compare --variants takes 'NAME=METHOD KEY=VALUE …', as in 'longer-bc=bc method.phases.0.rounds=600'; "
            f"'{given}' was given."
        )
    return name, (row, changes)


def as_flags(changes: Sequence[str], what: str) -> list[str]:
    """Changes given as KEY=VALUE, as `train` takes them."""
    flags = []
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key:
            raise UserError(f"{what} takes KEY=VALUE, as in task.num-demonstrations=16; '{change}' was given.")
        flags += _as_flag(key.replace("_", "-"), value)
    return flags


def _as_flag(key: str, value: str) -> list[str]:
    """KEY=VALUE as `train` takes it: --key value, several values in a row, or --key / --no-key for true and false."""
    if value.lower() in ("true", "false"):
        *path, last = key.split(".")
        return ["--" + ".".join([*path, last if value.lower() == "true" else f"no-{last}"])]
    return [f"--{key}", *words(value)]


def words(text: str) -> list[str]:
    """The words of a setting given as one argument, quoted as in a shell."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"a quotation mark in '{text}' has no partner; close it, or leave it out.") from error
