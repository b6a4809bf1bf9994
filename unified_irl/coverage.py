"""Do the intervals that we print hold what they promise? A simulation in which the truth is known.

Shape legend: S seeds, K tasks.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np

from unified_irl.errors import unknown_name
from unified_irl.statistics import (
    MIN_BOOTSTRAP_SEEDS,
    FloatArray,
    Interval,
    aggregate_interval,
    interquartile_mean,
    mean_interval,
    paired_difference,
)

ScoreKind: TypeAlias = Literal["normal", "skewed", "bimodal"]
IntervalKind: TypeAlias = Literal["mean", "paired", "aggregate"]
_TASK_LEVELS_K = np.array([-1.5, -0.5, 0.5, 1.5])


def simulate_coverage(
    num_seeds: int,
    num_trials: int,
    rng: np.random.Generator,
    kind: ScoreKind = "normal",
    what: IntervalKind = "mean",
    num_resamples: int = 2000,
) -> float:
    """The fraction of printed 95 % intervals that cover the truth when the scores are drawn from a known distribution.

    "skewed" is exponential; "bimodal" lets a quarter of the runs fail outright.
    """
    truth = _true_value(num_seeds, rng, kind, what)
    intervals = (_simulated_interval(num_seeds, rng, kind, what, num_resamples) for _ in range(num_trials))
    return sum(interval.low <= truth <= interval.high for interval in intervals) / num_trials


def _simulated_interval(num_seeds: int, rng: np.random.Generator, kind: str, what: str, num_resamples: int) -> Interval:
    if what == "mean":
        return mean_interval(_centred_scores(kind, (num_seeds,), rng))
    if what == "paired":
        b_S = rng.standard_normal(num_seeds)
        return paired_difference(b_S + _centred_scores(kind, (num_seeds,), rng), b_S).interval
    if what == "aggregate":
        scores_SK = _TASK_LEVELS_K + _centred_scores(kind, (num_seeds, _TASK_LEVELS_K.size), rng)
        return aggregate_interval(scores_SK, rng=rng, num_resamples=num_resamples)
    raise unknown_name("interval to simulate", what, get_args(IntervalKind))


def _true_value(num_seeds: int, rng: np.random.Generator, kind: str, what: str) -> float:
    """Zero by symmetry, but for the interquartile mean of lopsided scores, which a large sample has to tell."""
    if what != "aggregate" or kind == "normal":
        return 0.0
    scores_SK = _TASK_LEVELS_K + _centred_scores(kind, (2**18, _TASK_LEVELS_K.size), rng)
    if num_seeds >= MIN_BOOTSTRAP_SEEDS:
        return float(interquartile_mean(scores_SK))
    return float(np.mean(interquartile_mean(scores_SK[:, None, :])))


def _centred_scores(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    if kind == "normal":
        return rng.standard_normal(shape)
    if kind == "skewed":
        return rng.standard_exponential(shape) - 1
    if kind == "bimodal":
        return (rng.random(shape) < 0.75) - 0.75 + 0.1 * rng.standard_normal(shape)
    raise unknown_name("kind of scores", kind, get_args(ScoreKind))
