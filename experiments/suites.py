"""Comparisons of methods, ready to run. No tensor library here."""

from __future__ import annotations

from experiments.compare_config import CompareConfig

METHODS = ("bc", "dpo", "ml-irl", "rlhf", "direct-aihf", "aihf")

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
        seeds=5,
        out="runs/language-walks",
    ),
    "language": CompareConfig(
        tasks=("reviews", "instructions"),
        methods=("bc", "longer-bc", "spin", "rft", "dpo", "rlhf", "direct-aihf", "aihf"),
        variants=("longer-bc=bc method.phases.0.rounds=2600",),
        seeds=3,
        out="runs/language",
    ),
}
"""Minutes per cell; hours per cell; a minute per cell; minutes per cell.

One demonstration and few comparisons for every method, and the same number of simulated steps for all that climb a
reward. Other tasks and methods by flags: bench control --tasks ant humanoid.
"""
