"""Training: from a task and a method to a finished run directory, and back from a run directory to what was learnt."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from experiments.tasks import task
from unified_irl.errors import UserError
from unified_irl.methods import Method, method
from unified_irl.run_config import RunConfig
from unified_irl.tracking import TrackingConfig

if TYPE_CHECKING:
    from unified_irl.learner import Learner

TaskConfig = TypeVar("TaskConfig")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Generic[TaskConfig]):
    """Everything that decides what a run computes, and how it is kept."""

    task: TaskConfig
    """The world, its demonstrators and its labeller."""
    method: Method
    """The row of the method table."""
    seed: int = 0
    """Seed of the data, of what is learnt, and of every draw on the way."""
    run: RunConfig = field(default_factory=RunConfig)
    """Examinations and checkpoints."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Where progress is shown."""


def default_config(task_name: str, method_name: str) -> TrainConfig[Any]:
    """The settings that the command line starts from."""
    chosen = task(task_name)
    row = chosen.tuned(method(method_name))
    return TrainConfig(task=chosen.settings(), method=row, run=chosen.run(row))


def with_flags(task_name: str, config: TrainConfig[Any], arguments: list[str], prog: str) -> TrainConfig[Any]:
    """The same settings, changed by flags as `train` takes them."""
    from experiments.command import flags

    chosen = task(task_name)
    changed: TrainConfig[Any] = flags(TrainConfig[chosen.config], chosen.spelt_out(arguments), prog, config)  # type: ignore[name-defined]
    return changed


def config_to_json(task_name: str, config: TrainConfig[Any]) -> dict[str, Any]:
    from unified_irl.serialise import to_json

    parts = {name: getattr(config, name) for name in ("task", "method", "run", "tracking")}
    head: dict[str, Any] = {"task_name": task_name, "seed": config.seed}
    if files := fingerprints(config.task):
        head["files"] = files
    return head | {name: to_json(part) for name, part in parts.items()}


def fingerprints(settings: Any) -> dict[str, str]:
    """What the files and folders that a task reads hold (settings that end in `_file`, or are `files`): a run belongs
    to their content. The id of a dataset stands for itself."""
    from unified_irl.serialise import path_hash

    return {name: path_hash(Path(path)) for name, path in _files(settings).items()}


def _files(settings: Any) -> dict[str, str]:
    """The paths among the settings, those of their parts included, by dotted name."""
    found = {}
    for name, value in vars(settings).items():
        if name.endswith("_file") and value:
            found[name] = value
        elif name == "files":
            found |= {f"{name}.{place}": path for place, path in enumerate(value)}
        elif is_dataclass(value):
            found |= {f"{name}.{inner}": path for inner, path in _files(value).items()}
    return found


@dataclass(frozen=True, kw_only=True)
class _Head:
    """What a stored config holds beside its parts."""

    task_name: str
    seed: int


def config_from_json(data: dict[str, Any], where: str, *, with_files: bool = True) -> tuple[str, TrainConfig[Any]]:
    """The task's name and the settings. What goes on learning needs the files it began with; what only looks at what
    was learnt does without them (`with_files`)."""
    from unified_irl.serialise import from_json

    if not isinstance(data, dict):
        raise UserError(f"{where} holds no table of settings. Restore a copy, or start in a new directory.")
    for key in ("task_name", "seed", "task", "method", "run", "tracking"):
        if key not in data:
            raise UserError(f"{where}: '{key}' is missing; expected the config of a run as `train` writes it.")
    head = from_json(_Head, {key: data[key] for key in ("task_name", "seed")}, where)
    config: TrainConfig[Any] = TrainConfig(
        task=from_json(task(head.task_name).config, data["task"], f"{where}, task"),
        method=from_json(Method, data["method"], f"{where}, method"),
        seed=head.seed,
        run=from_json(RunConfig, data["run"], f"{where}, run"),
        tracking=from_json(TrackingConfig, data["tracking"], f"{where}, tracking"),
    )
    for name, fingerprint in fingerprints(config.task).items() if with_files else ():
        if data.get("files", {}).get(name, fingerprint) != fingerprint:
            raise UserError(
                f"{where}: {_files(config.task)[name]} is missing or no longer holds what the run began with; "
                "restore it, or start a new run."
            )
    return head.task_name, config


def build_learner(task_name: str, config: TrainConfig[Any]) -> Learner:
    import torch

    from unified_irl.learner import Learner

    torch.set_num_threads(config.run.threads)
    return Learner(task(task_name).build(config.task, config.seed), config.method, config.seed)


def train(task_name: str, config: TrainConfig[Any], path: Path, command: list[str]) -> dict[str, Any] | None:
    """A new run in a new directory; None in a process that only helped."""
    from unified_irl import run
    from unified_irl.rundir import RunDirectory

    if is_helper():
        return _help(task_name, config, path)
    with _met(task_name):
        learner = build_learner(task_name, config)
        with RunDirectory.create(path, config_to_json(task_name, config), command) as directory:
            return run.train(learner, directory, config.run, config.tracking)


def resume(path: Path) -> dict[str, Any] | None:
    """Go on with a run where its newest checkpoint left it; a finished run just gives its result."""
    from unified_irl import run
    from unified_irl.rundir import RunDirectory
    from unified_irl.serialise import read_json

    if is_helper():
        return None if (path / "result.json").exists() else _help(*stored_config(path, with_files=True), path)
    with RunDirectory.open(path) as directory:
        if directory.is_finished:
            result: dict[str, Any] = read_json(directory.path / "result.json")
            return result
        task_name, config = config_from_json(
            read_json(directory.path / "config.json"), str(directory.path / "config.json")
        )
        if config.method.name == "expert":  # its snapshots are taken by another command
            seed = f" --seed {config.seed}" if config.seed else ""
            raise UserError(
                f"{path} makes the experts of {task_name}: go on with `experts {task_name} --out {path}{seed}`."
            )
        with _met(task_name):
            return run.train(build_learner(task_name, config), directory, config.run, config.tracking)


def has_helpers() -> bool:
    """Whether several processes were started together."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def is_helper() -> bool:
    """Whether another of the processes that were started together writes the run down."""
    return os.environ.get("RANK", "0") != "0" and has_helpers()


def _help(task_name: str, config: TrainConfig[Any], path: Path) -> None:
    from unified_irl import run

    with _met(task_name):
        run.follow(build_learner(task_name, config), path / "checkpoints", config.run)


@contextmanager
def _met(task_name: str) -> Iterator[None]:
    """Together with the other processes of this run, where it has several."""
    from unified_irl import parallel

    world = parallel.join()
    try:
        if world.size > 1 and not task(task_name).shares_work:
            raise UserError(f"{task_name} runs in one process, but {world.size} were started; start one.")
        yield
    except RuntimeError as error:
        if parallel.is_loss(error):
            raise parallel.lost(error) from error
        raise
    finally:
        parallel.leave()


def run_cell(config: dict[str, Any], path: Path) -> None:
    """A run as one cell of a matrix: begun, or gone on with where it stopped."""
    if (path / "config.json").exists():
        resume(path)
    else:
        train(*config_from_json(config, str(path)), path, ["cell", str(path)])


def run_lean_cell(config: dict[str, Any], path: Path) -> None:
    """The same for matrices of thousands: once it has its result, its checkpoints go."""
    run_cell(config, path)
    shutil.rmtree(path / "checkpoints", ignore_errors=True)


def stored_config(path: Path, *, with_files: bool = False) -> tuple[str, TrainConfig[Any]]:
    """The task and the settings of a run."""
    from unified_irl.serialise import read_json

    file = path / "config.json"
    if not file.is_file():
        raise UserError(f"{path} holds no run (no config.json in it); give the directory that `train` wrote.")
    return config_from_json(read_json(file), str(file), with_files=with_files)


def load(path: Path, which: str = "latest") -> tuple[str, TrainConfig[Any], Learner]:
    """What a run had learnt at its newest or its best checkpoint."""
    from unified_irl import checkpoint, run

    task_name, config = stored_config(path, with_files=True)
    chosen = (checkpoint.best if which == "best" else checkpoint.latest)(path / "checkpoints")
    if chosen is None:
        raise UserError(f"{path} holds no {which} checkpoint yet; `resume {path}` goes on with the run.")
    learner = build_learner(task_name, config)
    run.load(learner, chosen)
    return task_name, config, learner
