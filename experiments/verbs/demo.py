"""demo: four methods on a robot and in a language, and the page that compares them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from experiments import command
from experiments.compare_config import CompareConfig

DEMO = CompareConfig(
    tasks=("pendulum", "walks-text"),
    methods=("bc", "dpo", "ml-irl", "aihf"),
    variants=tuple(f"{name}={name} method.phases.0.rounds=30" for name in ("ml-irl", "aihf")),
    seeds=2,
    set=("walks-text:task.model.size=seconds", "pendulum:task.num-examined=3"),
    out="runs/demo",
)
"""Minutes on two cores: half the usual rounds. Two seeds show what a comparison looks like, and prove nothing."""
NUM_PROMPTS = 6


def main(arguments: list[str]) -> int:
    config = command.flags(CompareConfig, arguments, "demo", DEMO)
    from experiments.compare import run
    from experiments.report.making import write_rich
    from experiments.report.sources import gather

    kept = tuple(one for one in config.variants if one not in DEMO.variants or one.partition("=")[0] in config.methods)
    code = run(replace(config, report=False, variants=kept), command.typed())
    if config.report:
        page = Path(config.out) / "report.html"
        print("drawing films and writing completions …", file=sys.stderr, flush=True)
        comparisons = gather([Path(config.out)])
        for sentence in write_rich(comparisons, page, "Demo", _tell, with_films=True, num_prompts=NUM_PROMPTS):
            print(sentence)
        print(f"page: {page.resolve()}")
    return code


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
