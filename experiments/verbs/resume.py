"""resume RUN: go on with a run where it was killed."""

from __future__ import annotations

from pathlib import Path

from experiments import command


def main(arguments: list[str]) -> None:
    (run,), rest = command.split_words(arguments, ("run",), "resume")
    command.refuse(rest, "resume RUN")
    from experiments.show import show_result
    from experiments.train import resume

    if (result := resume(Path(run))) is not None:
        show_result(run, result, Path(run))
