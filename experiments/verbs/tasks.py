"""tasks: the table of tasks."""

from __future__ import annotations

from experiments import command
from experiments.tasks import TASKS


def main(arguments: list[str]) -> None:
    command.refuse(arguments, "tasks")
    from experiments.show import table

    table("Tasks", ("task", "what it is"), [(name, one.summary) for name, one in TASKS.items()])
    print("\nAll methods run on all tasks: unified-irl train TASK METHOD --help shows every setting.")
