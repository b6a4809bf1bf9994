"""demo: a comparison of a minute, with plots."""

from __future__ import annotations

from experiments import command
from experiments.compare_config import CompareConfig

DEMO = CompareConfig(set=("task.num-nodes=48", "task.horizon=16", "task.num-demonstrations=8"), out="runs/demo")
"""Few demonstrations: that is where methods differ."""


def main(arguments: list[str]) -> int:
    config = command.flags(CompareConfig, arguments, "demo", DEMO)
    from experiments.compare import run

    return run(config, command.typed())
