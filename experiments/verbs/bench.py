"""bench NAME [flags]: speed, as ratios to what the arithmetic needs and to what others reach; suites of comparisons."""

from __future__ import annotations

from experiments import bench_control_parity, bench_control_speed, bench_core, bench_llm_speed, command
from experiments.compare_config import CompareConfig
from experiments.suites import SUITES
from unified_irl.errors import unknown_name

BENCHES = {
    "core": (bench_core, bench_core.BenchCoreConfig),
    "control-speed": (bench_control_speed, bench_control_speed.BenchControlSpeedConfig),
    "llm-speed": (bench_llm_speed, bench_llm_speed.BenchLLMSpeedConfig),
    "control-parity": (bench_control_parity, bench_control_parity.BenchControlParityConfig),
}


def main(arguments: list[str]) -> int:
    (name,), rest = command.split_words(arguments, ("name",), "bench")
    if name in SUITES:
        from experiments.compare import run

        return run(command.flags(CompareConfig, rest, f"bench {name}", SUITES[name]), command.typed())
    if name not in BENCHES:
        raise unknown_name("benchmark", name, [*BENCHES, *SUITES])
    bench, kind = BENCHES[name]
    config = command.flags(kind, rest, f"bench {name}")
    from pathlib import Path

    from experiments.summary import origin
    from unified_irl.environment import describe_environment
    from unified_irl.serialise import write_json

    result = bench.run(config, print)
    if config.out:
        write_json(Path(config.out), origin(describe_environment(command.typed())) | {"result": result})
    return 0
