"""forecast TASK METHOD [flags]: how long a run will take and how much memory it needs, by doing a little of it."""

from __future__ import annotations

from typing import Any

from experiments import command
from experiments.train import TrainConfig, default_config, with_flags


def main(arguments: list[str]) -> None:
    (task_name, method_name), rest = command.split_words(arguments, ("task", "method"), "forecast")
    default, prog = default_config(task_name, method_name), f"forecast {task_name} {method_name}"
    config: TrainConfig[Any] = with_flags(task_name, default, rest, prog)
    from experiments.forecast import rehearsed

    print(f"{task_name} {method_name} needs {rehearsed(task_name, config)}, in one process")
