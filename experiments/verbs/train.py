"""train TASK METHOD [flags]: learn, in a run directory."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic

from experiments import command
from experiments.tasks import task
from experiments.train import TaskConfig, TrainConfig, default_config


@dataclass(frozen=True, kw_only=True)
class Flags(TrainConfig[TaskConfig], Generic[TaskConfig]):
    """A run's settings, and where it goes."""

    out: str = ""
    """The run directory; by default runs/TASK-METHOD-SEED."""
    forecast: bool = False
    """Do a little of everything first, to say how long the run will take and how much memory it needs."""


def main(arguments: list[str]) -> None:
    (task_name, method_name), rest = command.split_words(arguments, ("task", "method"), "train")
    chosen, default = task(task_name), default_config(task_name, method_name)
    config: Flags[Any] = command.flags(
        Flags[chosen.config],  # type: ignore[name-defined]
        chosen.spelt_out(rest),
        f"train {task_name} {method_name}",
        Flags(**{field.name: getattr(default, field.name) for field in fields(default)}, forecast=chosen.is_long),
    )
    from experiments.forecast import foretold
    from experiments.show import show_result
    from experiments.train import has_helpers, is_helper, train

    if (remark := chosen.note(config.method)) and not is_helper():
        print(f"note: {remark}")
    if config.forecast and not is_helper():
        if has_helpers():  # together they may do what none of them could rehearse alone
            print("note: runs of several processes are not foretold; `forecast` does it for a single one", flush=True)
        else:
            print(f"this needs {foretold(task_name, config)}", flush=True)
    path = Path(config.out or f"runs/{task_name}-{method_name}-{config.seed}")
    result = train(task_name, config, path, command.typed())
    if result is not None:
        show_result(f"{task_name} {method_name}, seed {config.seed}", result, path)
