"""The comparisons of the control world. No tensor library here."""

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
}
"""Minutes per cell, and hours per cell.

One demonstration and few comparisons for every method, and the same number of simulated steps for all that climb a
reward. Other tasks and methods by flags: bench control --tasks ant humanoid.
"""
