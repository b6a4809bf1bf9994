"""demo: a comparison of a minute, with plots."""

from __future__ import annotations

from experiments import command
from experiments.compare_config import CompareConfig

DEMO = CompareConfig(out="runs/demo")


def main(arguments: list[str]) -> None:
    config = command.flags(CompareConfig, arguments, "demo", DEMO)
    from experiments.compare import compare, finish

    finish(config, compare(config, command.typed()))
