"""compare: methods × tasks × seeds, with intervals."""

from __future__ import annotations

from experiments import command
from experiments.compare_config import CompareConfig


def main(arguments: list[str]) -> int:
    config = command.flags(CompareConfig, arguments, "compare")
    from experiments.compare import run

    return run(config, command.typed())
