"""Comparisons of methods, ready to run. No tensor library here."""

from __future__ import annotations

from experiments.compare_config import CompareConfig

STEPS = "method.phases.0.step-size=0.01 / method.phases.0.step-size=0.1 / method.phases.0.step-size=1"
ANCHORS = "method.beta=0.03 / method.beta=0.1 / method.beta=0.3"
LENGTHS = "method.phases.0.rounds=30 / method.phases.0.rounds=60 / method.phases.0.rounds=120"
RATES = " / ".join(f"method.policy-descent.learning-rate={rate}" for rate in (1e-4, 3e-4, 1e-3))
"""What methods in language are tried with: ratios by their step, learnt rewards by their KL weight, cloning by how long
it lasts, long cloning by its step."""
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
        tune=(
            f"bc {LENGTHS}",
            *(f"{name} {STEPS}" for name in ("spin", "irft", "dpo", "direct-aihf", "self-play-aihf")),
            *(f"{name} {ANCHORS}" for name in ("ml-irl", "rft", "rlhf", "aihf")),
        ),
        seeds=5,
        out="runs/language-walks",
    ),
    "language": CompareConfig(
        tasks=("reviews", "instructions"),
        methods=("bc", "longer-bc", "spin", "rft", "dpo", "rlhf", "direct-aihf", "aihf"),
        variants=("longer-bc=bc method.phases.0.rounds=2600",),
        tune=(
            f"bc {LENGTHS}",
            f"longer-bc {RATES}",
            *(f"{name} {STEPS}" for name in ("spin", "dpo", "direct-aihf")),
            *(f"{name} {ANCHORS}" for name in ("rft", "rlhf", "aihf")),
        ),
        seeds=3,
        out="runs/language",
    ),
}
"""Minutes per cell; hours per cell; a minute per cell; minutes per cell.

One demonstration and few comparisons for every method, and the same number of simulated steps for all that climb a
reward. Other tasks and methods by flags: bench control --tasks ant humanoid.
"""
