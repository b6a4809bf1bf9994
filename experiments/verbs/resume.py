"""resume RUN: go on with a run where it was killed."""

from __future__ import annotations

from pathlib import Path

from experiments import command
from unified_irl.errors import UserError


def main(arguments: list[str]) -> None:
    (run,), rest = command.split_words(arguments, ("run",), "resume")
    command.refuse(rest, "resume RUN")
    from experiments.show import show_result
    from experiments.train import resume, stored_config

    task_name, config = stored_config(Path(run))
    if config.method.name == "expert":  # its snapshots are taken by another command
        seed = f" --seed {config.seed}" if config.seed else ""
        raise UserError(f"{run} makes the experts of {task_name}: go on with `experts {task_name} --out {run}{seed}`.")
    if (result := resume(Path(run))) is not None:
        show_result(run, result, Path(run))
