"""bench NAME [flags]: speed, as ratios to what the arithmetic needs."""

from __future__ import annotations

from experiments import command
from experiments.bench_core import BenchCoreConfig
from unified_irl.errors import unknown_name

BENCHES = {"core": "soft value iteration, and the learner's own overhead"}


def main(arguments: list[str]) -> None:
    (name,), rest = command.split_words(arguments, ("name",), "bench")
    if name not in BENCHES:
        raise unknown_name("benchmark", name, BENCHES)
    config = command.flags(BenchCoreConfig, rest, f"bench {name}")
    from pathlib import Path

    from experiments.bench_core import run
    from experiments.summary import origin
    from unified_irl.environment import describe_environment
    from unified_irl.serialise import write_json

    result = run(config, print)
    if config.out:
        write_json(Path(config.out), origin(describe_environment(command.typed())) | {"result": result})
