"""The comparisons of the control world. No tensor library here."""

from __future__ import annotations

from experiments.compare_config import CompareConfig

METHODS = ("bc", "dpo", "ml-irl", "rlhf", "direct-aihf", "aihf")

SUITES: dict[str, tuple[str, CompareConfig]] = {
    "control-quick": (
        "the methods on pendulums and an arm: minutes per cell",
        CompareConfig(
            tasks=("pendulum", "inverted-double-pendulum", "reacher"),
            methods=METHODS,
            seeds=5,
            out="runs/control-quick",
        ),
    ),
    "control": (
        "the methods on a hopper, a half-cheetah and a walker: hours per cell",
        CompareConfig(tasks=("hopper", "halfcheetah", "walker2d"), methods=METHODS, seeds=3, out="runs/control"),
    ),
}
"""One demonstration and few comparisons for every method, and the same number of simulated steps for all that climb a
reward. Other tasks and methods by flags: bench control --tasks ant humanoid."""
