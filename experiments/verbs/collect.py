"""collect TASK DIRECTORY [flags]: write a task's demonstrations and preferences to files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from experiments import command
from experiments.tasks import task
from experiments.train import TaskConfig


@dataclass(frozen=True, kw_only=True)
class Flags(Generic[TaskConfig]):
    """Whose feedback to write down."""

    task: TaskConfig
    """The world, its demonstrators and its labeller."""
    seed: int = field(default=0)
    """Seed of the data."""


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

    domain = chosen.build(config.task, config.seed)
    for name, feedback, save in (
        ("demonstrations", domain.demonstrations, save_demonstrations),
        ("preferences", domain.preferences, save_preferences),
    ):
        if feedback is not None:
            path = Path(directory) / f"{name}.safetensors"
            save(path, feedback)  # type: ignore[operator]
            print(f"{len(feedback)} {name} written to {path}")
