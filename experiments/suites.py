"""Comparisons of methods, ready to run. No tensor library here."""

from __future__ import annotations

from experiments.compare_config import CompareConfig


def _tries(key: str, *values: float) -> str:
    return " / ".join(f"{key}={value:g}" for value in values)


TRIES = {
    "bc": _tries("method.phases.0.rounds", 30, 60, 120),
    "direct-aihf": _tries("method.phases.0.step-size", 0.1, 0.3, 1),
    **dict.fromkeys(("spin", "irft", "dpo", "self-play-aihf"), _tries("method.phases.0.step-size", 0.01, 0.1, 1)),
    **dict.fromkeys(("ml-irl", "rft", "rlhf", "aihf"), _tries("method.beta", 0.03, 0.1, 0.3)),
}
"""What methods in language are tried with: cloning by how long it lasts; long cloning, and cloning that compares, by
the length of its steps; ratios after cloning too, which bear only shorter ones; learnt rewards by their KL weight."""
TUNED = tuple(f"{name} {tries}" for name, tries in TRIES.items())
METHODS = ("bc", "dpo", "ml-irl", "rlhf", "direct-aihf", "aihf")


def _irft(sections: int, epochs: int) -> str:
    """IRFT in so many sections of the 50,000 conversations (T), so many epochs on each (K)."""
    steps = max(1, round(epochs * 50_000 / sections / 64))
    return (
        f"irft-t{sections}-k{epochs}=irft method.phases.0.rounds={sections} method.phases.0.prompts={1 / sections:.6g} "
        f"method.phases.0.reward-steps={steps}"
    )


GRID = tuple(_irft(sections, epochs) for sections in (1, 2, 5, 8, 10, 16) for epochs in (1, 2))

SUITES: dict[str, CompareConfig] = {
    "control-quick": CompareConfig(
        tasks=("pendulum", "inverted-double-pendulum", "reacher"),
        methods=METHODS,
        seeds=5,
        out="runs/control-quick",
    ),
    "control": CompareConfig(tasks=("hopper", "halfcheetah", "walker2d"), methods=METHODS, seeds=3, out="runs/control"),
    "language-walks": CompareConfig(
        tasks=("walks-text",),
        methods=("bc", "spin", "irft", "ml-irl", "rft", "dpo", "rlhf", "direct-aihf", "self-play-aihf", "aihf"),
        tune=TUNED,
        seeds=5,
        out="runs/language-walks",
    ),
    "language": CompareConfig(
        tasks=("reviews", "instructions"),
        methods=("bc", "longer-bc", "spin", "rft", "dpo", "rlhf", "direct-aihf", "aihf"),
        variants=("longer-bc=bc method.phases.0.rounds=2600",),
        tune=(*TUNED, f"longer-bc {TRIES['direct-aihf']}"),
        seeds=3,
        out="runs/language",
    ),
    "two-worlds": CompareConfig(
        tasks=("pendulum", "inverted-double-pendulum", "walks-text", "reviews"),
        methods=METHODS,
        seeds=3,
        set=("pendulum:task.num-examined=5", "inverted-double-pendulum:task.num-examined=5"),
        out="runs/two-worlds",
    ),
    "irft-grid": CompareConfig(
        tasks=("ultrachat",),
        methods=("bc", *(variant.partition("=")[0] for variant in GRID)),
        variants=GRID,
        seeds=1,
        workers=1,
        out="runs/irft-grid",
    ),
}
"""Minutes per cell; hours per cell; a minute per cell; minutes per cell; a minute per cell; GPU hours per cell.

One demonstration and few comparisons for every method, and the same number of steps of practice for all that climb a
reward. Other tasks and methods by flags: bench control --tasks ant humanoid.
"""
