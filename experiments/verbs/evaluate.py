"""evaluate RUN [flags]: examine what a run has learnt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments import command


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Which of a run's checkpoints to examine."""

    which: Literal["latest", "best"] = "latest"
    """The newest checkpoint, or the one with the best score."""


def main(arguments: list[str]) -> None:
    (run,), rest = command.split_words(arguments, ("run",), "evaluate")
    config = command.flags(Flags, rest, "evaluate RUN")
    from experiments.show import metric_table
    from experiments.train import load
    from unified_irl.run import evaluate

    task_name, trained, learner = load(Path(run), config.which)
    title = f"{task_name} {trained.method.name}, seed {trained.seed}, {config.which}: round {learner.num_rounds}"
    metric_table(title, evaluate(learner))
