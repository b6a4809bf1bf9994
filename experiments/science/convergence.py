"""How fast the single loop becomes stationary: one soft policy iteration and one reward step per round.

Theory bounds the mean over a run's T rounds of the squared norm of the exact gradient by O(T^(−1/2)) when every reward
step has size α₀/√T and own samples are drawn afresh. It is an upper bound: a slope below −1/2 does not contradict it.
Part of it is tight by arithmetic: a run whose likelihood rises by Δ in total has Σ α‖∇‖² ≈ Δ, that is a mean of
Δ/(α₀ √T).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from envs.walks.domain import WalksDomain
from envs.walks.policy import TabularReward
from experiments.science import exact
from experiments.science.configs import ConvergenceConfig
from unified_irl.descent_config import DescentConfig
from unified_irl.learner import Learner
from unified_irl.methods import method


@exact.one_thread()
def run(config: ConvergenceConfig, report: Callable[[str], None]) -> dict[str, Any]:
    """Mean squared gradient norms of runs of every length, their log-log slopes, and what the last rounds hold."""
    points = []
    for kind in config.kinds:
        for rounds in config.rounds:
            for seed in range(config.seeds):
                points.append(_run(config, kind, rounds, seed))
            report(f"{kind}: {rounds} rounds of step size {config.step_size / rounds**0.5:.3g}")
    slopes, slopes_of_long_runs, verdicts = {}, {}, {}
    longest = sorted(config.rounds)[-3:]
    for kind in config.kinds:
        own = [point for point in points if point["kind"] == kind]
        slopes[kind] = exact.fitted(own, "rounds", "mean_squared_gradient")
        long_runs = [point for point in own if point["rounds"] in longest]
        slopes_of_long_runs[kind] = exact.fitted(long_runs, "rounds", "mean_squared_gradient")
        verdicts[kind] = _verdict(slopes[kind])
        report(f"{kind}: slope {exact.shown(slopes[kind])}, {verdicts[kind]}")
        report(f"{kind}: slope over the three longest {exact.shown(slopes_of_long_runs[kind])}")
    return {
        "points": points,
        "slopes": slopes,
        "slopes_of_long_runs": slopes_of_long_runs,
        "verdicts": verdicts,
        "expected_slope": -0.5,
        "step_size": f"{config.step_size:g}/sqrt(T)",
    }


def _run(config: ConvergenceConfig, kind: str, rounds: int, seed: int) -> dict[str, Any]:
    """One run of T rounds by the learner itself; the exact gradient is taken at the reward that each round meets."""
    domain = WalksDomain(replace(config.world, reward=kind), seed)  # type: ignore[arg-type]
    descent = DescentConfig(optimiser="sgd", learning_rate=config.step_size / rounds**0.5)
    row = replace(
        method("ml-irl").with_phases(rounds=rounds, policy_updates=1, reward_steps=1),
        beta=config.world.temperature,
        reward_descent=descent,
    )
    learner = Learner(domain, row, seed)
    assert isinstance(learner.reward, TabularReward)
    assert learner.demonstrations is not None
    moves = exact.shown_moves(domain, learner.demonstrations.trajectories)
    num_measured = min(rounds, config.num_measured)
    measured = {(2 * index + 1) * rounds // (2 * num_measured) for index in range(num_measured)}
    squares = []
    for number in range(rounds):
        if number in measured:
            gradient = exact.nll_gradient(domain, learner.reward.scores, moves, row.beta)
            squares.append(float(gradient @ gradient))
        learner.round()
    return {
        "kind": kind,
        "rounds": rounds,
        "seed": seed,
        "step_size": descent.learning_rate,
        "num_measured": len(squares),
        "mean_squared_gradient": fmean(squares),
        "first_squared_gradient": squares[0],
        "last_squared_gradient": squares[-1],
    }


def _verdict(fit: dict[str, Any]) -> str:
    if fit["high"] < -0.5:
        return "steeper than -1/2 (the bound holds with room to spare)"
    if fit["low"] > -0.5:
        return "shallower than -1/2 (over these lengths the start still weighs; see the longest runs)"
    return "not distinguishable from -1/2"


def table(result: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The slope of every kind of reward, over all lengths and over the longest."""
    headings = ("reward", "step size", "slope [95 % interval]", "over the three longest", "theory: at most", "verdict")
    return headings, [
        (
            kind,
            result["step_size"],
            exact.shown(fit),
            exact.shown(result["slopes_of_long_runs"][kind]),
            f"{result['expected_slope']:g}",
            result["verdicts"][kind],
        )
        for kind, fit in result["slopes"].items()
    ]


def plot(result: dict[str, Any], path: Path) -> Path:
    """Every run, their geometric means per length, and the slope −1/2."""
    from experiments.science.figures import log_log

    size = result["step_size"].replace("sqrt(T)", "√T")
    return log_log(
        result["points"],
        group="kind",
        x="rounds",
        y="mean_squared_gradient",
        slopes=result["slopes"],
        references={-0.5: "slope −1/2 (upper bound)"},
        labels=(f"rounds T, every step of size {size}", "mean over rounds of ‖∇ log-likelihood‖²"),
        title="ML-IRL, single loop: how fast it becomes stationary",
        path=path,
    )
