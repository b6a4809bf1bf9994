"""collect TASK DIRECTORY [flags]: write a task's demonstrations and preferences to files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal

from experiments import command
from experiments.tasks import task
from experiments.train import TaskConfig
from unified_irl.errors import UserError

if TYPE_CHECKING:
    from unified_irl.feedback import Demonstrations


@dataclass(frozen=True, kw_only=True)
class Flags(Generic[TaskConfig]):
    """Whose feedback to write down."""

    task: TaskConfig
    """The world, its demonstrators and its labeller."""
    seed: int = field(default=0)
    """Seed of the data."""
    format: Literal["safetensors", "npz", "hdf5", "imitation", "minari"] = "safetensors"
    """How demonstrations of a robot are written: for this project, in D4RL's layout, or as `imitation` and Minari keep
    them."""
    comparisons: Literal["safetensors", "parquet"] = "safetensors"
    """How comparisons are written: for this project, or, those of a robot, as a table that refers to the segments of
    episodes, which lie beside it in compared.npz."""


def _written(shown: Demonstrations, directory: Path, format: str, *, is_robot: bool) -> Path | str:
    """Demonstrations of a robot in a format of others, under the name that their readers expect."""
    if not is_robot:
        raise UserError(f"--format {format} is for robots; the demonstrations of this world are safetensors files.")
    from control.files.demonstrations import write_demonstrations

    endings = {"npz": ".npz", "hdf5": ".hdf5", "imitation": ""}
    if format == "minari":
        name = f"unified-irl/{directory.name}-v0"
        write_demonstrations(name, shown, format)
        return f"minari:{name}"
    path = directory / f"demonstrations{endings[format]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_demonstrations(path, shown, format)
    return path


def _write_table(domain: Any, directory: Path, *, is_robot: bool) -> None:
    """Comparisons of a robot as parquet, and the episodes that they refer to."""
    if not is_robot:
        raise UserError("--comparisons parquet is for robots; the comparisons of this world are a safetensors file.")
    from control.files.demonstrations import write_demonstrations
    from control.files.preferences import write_preferences
    from unified_irl.feedback import Demonstrations

    if domain.config.people.preferences_file:
        raise UserError("--comparisons parquet writes the task's own comparisons; leave preferences_file out.")
    table, episodes = domain.comparisons()
    write_demonstrations(directory / "compared.npz", Demonstrations.by("compared", episodes), "npz")
    write_preferences(directory / "preferences.parquet", table, episodes, directory / "compared.npz")
    print(f"{len(table)} preferences written to {directory / 'preferences.parquet'}, of {directory / 'compared.npz'}")


def main(arguments: list[str]) -> None:
    (task_name, directory), rest = command.split_words(arguments, ("task", "directory"), "collect")
    chosen = task(task_name)
    config: Flags[Any] = command.flags(
        Flags[chosen.config],  # type: ignore[name-defined]
        rest,
        f"collect {task_name} {directory}",
        Flags(task=chosen.settings()),
    )
    from unified_irl.feedback_files import save_demonstrations, save_preferences

    domain, is_robot = chosen.build(config.task, config.seed), hasattr(config.task, "robot")
    if config.format != "safetensors" and domain.demonstrations is not None:
        path = _written(domain.demonstrations, Path(directory), config.format, is_robot=is_robot)
        print(f"{len(domain.demonstrations)} demonstrations written to {path}")
    if config.comparisons == "parquet" and domain.preferences is not None:
        _write_table(domain, Path(directory), is_robot=is_robot)
    for name, feedback, save in (
        ("demonstrations", domain.demonstrations if config.format == "safetensors" else None, save_demonstrations),
        ("preferences", domain.preferences if config.comparisons == "safetensors" else None, save_preferences),
    ):
        if feedback is not None:
            path = Path(directory) / f"{name}.safetensors"
            save(path, feedback)  # type: ignore[operator]
            print(f"{len(feedback)} {name} written to {path}")
