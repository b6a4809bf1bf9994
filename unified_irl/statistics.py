"""From scores to claims: what is printed with an interval, how the interval is made, and how often it covers the truth.

The seed is the unit of replication everywhere: two tasks run with one seed are not two seeds. Scores are matrices
`scores_SK` of seeds x tasks, finite and complete; a failed run is a score too, and dropping it would be a claim.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from unified_irl.errors import UserError

FloatArray: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Callable[[FloatArray], FloatArray | np.float64]
"""Reduces the last two axes (seeds, tasks) of an array and leaves the others: the bootstrap passes `resamples_BSK`."""

MIN_BOOTSTRAP_SEEDS = 20
"""Below this many seeds a bootstrap has too few distinct values to draw from, and a t-interval is printed instead."""

_MAX_CHUNK_ELEMENTS = 2**20


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and its confidence limits; nan limits say that so few seeds support no claim about the spread."""

    estimate: float
    low: float
    high: float
    num_seeds: int
    method: str

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.estimate:.4g} (no interval, n = {self.num_seeds})"
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}] ({self.method}, n = {self.num_seeds})"


class PairedDifference(NamedTuple):
    """The mean difference of two methods over matched seeds, and the two-sided p-value of "there is none"."""

    interval: Interval
    p_value: float


def normalised_scores(scores: ArrayLike, random: float, expert: float) -> FloatArray:
    """Scores on the scale where a random policy has 0 and the expert 1: (score - random) / (expert - random)."""
    if expert == random:
        raise UserError(
            f"The random and the expert score are both {expert:g}, so no scale lies between them. "
            "Give the task two different reference scores."
        )
    return (_finite(scores, "scores") - random) / (expert - random)


def interquartile_mean(scores: ArrayLike) -> FloatArray | np.float64:
    """Mean of what is left when a quarter of all runs (rounded down) is cut off at each end: scores_..SK -> [..].

    Fewer than four runs are too few to cut, and the result is their mean.
    """
    scores_SK = np.atleast_2d(_finite(scores, "scores"))
    sorted_N = np.sort(scores_SK.reshape(*scores_SK.shape[:-2], -1), axis=-1)
    num_runs = sorted_N.shape[-1]
    num_cut = num_runs // 4
    mean: FloatArray | np.float64 = sorted_N[..., num_cut : num_runs - num_cut].mean(axis=-1)
    return mean


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """The t-interval of the mean over seeds: mean +- t_{n-1} s / sqrt(n). One seed gives nan limits: no claim."""
    values_S = _vector(values, "values")
    half = _t_quantile(values_S.size - 1, confidence) * _standard_error(values_S)
    mean = float(values_S.mean())
    return Interval(estimate=mean, low=mean - half, high=mean + half, num_seeds=values_S.size, method="t")


def paired_difference(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> PairedDifference:
    """The t-interval of mean(a - b) and the p-value of the paired t-test, where a[i] and b[i] share seed i.

    One seed is no evidence (p = 1), and neither are differences within rounding, which count as zero. Any other
    difference that is the same for every seed gets width zero and p = 0: check that the seeds really differ.
    """
    a_S, b_S = _vector(a, "scores of the first method"), _vector(b, "scores of the second method")
    if a_S.size != b_S.size:
        raise UserError(
            f"The first method has {a_S.size} seeds and the second {b_S.size}. "
            "A paired comparison needs the same seeds in the same order for both."
        )
    difference_S = np.where(np.isclose(a_S, b_S, rtol=1e-12, atol=0), 0.0, a_S - b_S)
    interval = mean_interval(difference_S, confidence)
    standard_error = _standard_error(difference_S)
    if a_S.size == 1 or interval.estimate == 0:
        return PairedDifference(interval, 1.0)
    t = abs(interval.estimate) / standard_error if standard_error > 0 else math.inf
    return PairedDifference(interval, 2 * float(special.stdtr(a_S.size - 1, -t)))


def stratified_bootstrap(
    scores_SK: ArrayLike,
    statistic: Statistic = interquartile_mean,
    *,
    rng: np.random.Generator,
    num_resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Expanded percentile interval of statistic(scores_SK), seeds resampled with replacement within each task.

    A plain percentile interval is too narrow for few seeds, because resamples have variance (n - 1)/n s^2 and because
    it uses normal where t is due. Hesterberg (2015) mends both at once: alpha/2 becomes
    Phi(sqrt(n / (n - 1)) t_{n-1, alpha/2}). Runs of different tasks are taken to be independent: where a seed moves all
    its tasks together (one base model per seed, say), use `mean_interval` of each seed's statistic at any number of
    seeds, because with a correlation of 0.5 between four tasks these limits cover 85 %.
    """
    matrix_SK = _matrix(scores_SK, "scores")
    num_seeds, num_tasks = matrix_SK.shape
    estimate = float(_apply(statistic, matrix_SK))
    if num_seeds == 1:
        return Interval(estimate=estimate, low=math.nan, high=math.nan, num_seeds=num_seeds, method="bootstrap")
    tail = special.ndtr(-math.sqrt(num_seeds / (num_seeds - 1)) * _t_quantile(num_seeds - 1, confidence))
    chunk = max(1, _MAX_CHUNK_ELEMENTS // matrix_SK.size)
    resampled: list[FloatArray] = []
    for done in range(0, num_resamples, chunk):
        picks_BSK = rng.integers(num_seeds, size=(min(chunk, num_resamples - done), num_seeds, num_tasks))
        resampled.append(_apply(statistic, matrix_SK[picks_BSK, np.arange(num_tasks)]))
    low, high = np.quantile(np.concatenate(resampled), [tail, 1 - tail])
    return Interval(estimate=estimate, low=float(low), high=float(high), num_seeds=num_seeds, method="bootstrap")


def aggregate_interval(
    scores_SK: ArrayLike,
    statistic: Statistic = interquartile_mean,
    *,
    rng: np.random.Generator,
    num_resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """The interval we print: t over each seed's statistic across tasks, and from 20 seeds on the stratified bootstrap.

    The two estimate nearly, not exactly, the same number: the first the expected statistic of one seed's K scores
    (with fewer than four tasks an interquartile mean of it is a plain mean), the second that of all S x K scores.
    Compare methods with equal numbers of seeds only.
    """
    matrix_SK = _matrix(scores_SK, "scores")
    if matrix_SK.shape[0] < MIN_BOOTSTRAP_SEEDS:
        return mean_interval(_apply(statistic, matrix_SK[:, None, :]), confidence)
    return stratified_bootstrap(matrix_SK, statistic, rng=rng, num_resamples=num_resamples, confidence=confidence)


def performance_profile(scores_SK: ArrayLike, thresholds: ArrayLike) -> FloatArray:
    """The fraction of runs that score strictly above each threshold, every task weighing the same."""
    runs_N = _matrix(scores_SK, "scores").ravel()
    thresholds_T = _vector(thresholds, "thresholds")
    return np.asarray(np.mean(runs_N > thresholds_T[:, None], axis=1), dtype=np.float64)


def probability_of_improvement(a_SK: ArrayLike, b_SK: ArrayLike, confidence: float = 0.95) -> Interval:
    """How likely a run of a beats a run of b on a random task: mean over tasks of U / (n m), where a tie counts half.

    The limits are all probabilities theta with |estimate - theta| <= t_{n+m-2} sd(theta), where sd is Hanley and
    McNeil's for a single task (Newcombe 2006, method 5, with t for z). Averaging over tasks can only shrink the spread,
    by how much depends on whether a seed's runs rise and fall together; nothing is claimed from it, so with several
    tasks the interval is wide rather than wrong. Neither a t-interval over seeds nor a bootstrap will do: where a wins
    nearly always they have width zero, and cover 11 % (3 seeds, t) or 75 % (20 seeds, bootstrap) at theta = 0.98.
    """
    a, b = _matrix(a_SK, "scores of the first method"), _matrix(b_SK, "scores of the second method")
    if a.shape[1] != b.shape[1]:
        raise UserError(f"The first method has scores for {a.shape[1]} tasks, the second for {b.shape[1]}; match them.")
    num_a, num_b = a.shape[0], b.shape[0]
    estimate = float(np.mean(np.sign(a[:, None, :] - b[None, :, :]) + 1) / 2)
    low = high = math.nan
    t = _t_quantile(num_a + num_b - 2, confidence)
    if min(num_a, num_b) > 1:
        theta = np.append(np.linspace(0, 1, 10001), estimate)
        excess = (num_a + num_b) / 2 - 1
        correlated = 1 + excess * (1 - theta) / (2 - theta) + excess * theta / (1 + theta)
        inside = np.abs(estimate - theta) <= t * np.sqrt(theta * (1 - theta) * correlated / (num_a * num_b))
        low, high = float(theta[inside].min()), float(theta[inside].max())
    return Interval(estimate=estimate, low=low, high=high, num_seeds=min(num_a, num_b), method="score")


def holm(p_values: ArrayLike) -> FloatArray:
    """Holm's step-down adjustment in the given order: the k-th smallest p times m - k + 1, kept rising, at most 1."""
    p_M = _vector(p_values, "p-values")
    if p_M.min() < 0 or p_M.max() > 1:
        raise UserError(f"The p-values range from {p_M.min():g} to {p_M.max():g}; a p-value lies between 0 and 1.")
    order_M = np.argsort(p_M)
    adjusted_M = np.empty_like(p_M)
    adjusted_M[order_M] = np.minimum(np.maximum.accumulate(p_M[order_M] * np.arange(p_M.size, 0, -1)), 1)
    return adjusted_M


def slope(x: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None, confidence: float = 0.95) -> Interval:
    """The exponent b of y = c x^b by least squares on the logarithms, with the t-interval of n - 2 degrees of freedom.

    Weights are inverse variances of log y up to a factor; `num_seeds` counts points. Points along one run's curve are
    correlated and make the interval too narrow: fit each seed's curve and give the slopes to `mean_interval`.
    """
    x_N, y_N = _vector(x, "x values"), _vector(y, "y values")
    weights_N = np.ones_like(x_N) if weights is None else _vector(weights, "weights")
    if not x_N.size == y_N.size == weights_N.size:
        raise UserError(f"A slope needs one y and one weight per x; got {x_N.size}, {y_N.size} and {weights_N.size}.")
    if min(x_N.min(), y_N.min(), weights_N.min()) <= 0 or x_N.min() == x_N.max():
        raise UserError("A log-log slope needs x, y and weights above zero (drop T = 0) and at least two different x.")
    share_N = weights_N / weights_N.sum()
    log_x_N = np.log(x_N) - share_N @ np.log(x_N)
    log_y_N = np.log(y_N) - share_N @ np.log(y_N)
    spread = float(share_N @ log_x_N**2)
    estimate = float(share_N @ (log_x_N * log_y_N)) / spread
    residual = float(share_N @ (log_y_N - estimate * log_x_N) ** 2)
    num_free = x_N.size - 2
    half = _t_quantile(num_free, confidence) * math.sqrt(residual / (max(num_free, 1) * spread))
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half, num_seeds=x_N.size, method="fit")


def _apply(statistic: Statistic, scores_SK: FloatArray) -> FloatArray:
    values = np.asarray(statistic(scores_SK), dtype=np.float64)
    if values.shape != scores_SK.shape[:-2]:
        raise UserError(
            f"The statistic turned shape {scores_SK.shape} into {values.shape}; it has to reduce the last two axes "
            "(seeds, tasks) only. Write np.mean as lambda s: s.mean(axis=(-2, -1)), or wrap a function of one "
            "matrix as np.vectorize(function, signature='(s,k)->()')."
        )
    return values


def _standard_error(values_S: FloatArray) -> float:
    return float(values_S.std(ddof=1)) / math.sqrt(values_S.size) if values_S.size > 1 else math.nan


def _t_quantile(num_free: int, confidence: float) -> float:
    """The two-sided t factor, nan without a degree of freedom."""
    if not 0 < confidence < 1:
        raise UserError(f"The confidence is {confidence:g}; it has to lie between 0 and 1, such as 0.95.")
    return float(special.stdtrit(num_free, (1 + confidence) / 2)) if num_free > 0 else math.nan


def _matrix(values: ArrayLike, name: str) -> FloatArray:
    return _vector(values, name, num_axes=2)


def _vector(values: ArrayLike, name: str, num_axes: int = 1) -> FloatArray:
    array = _finite(values, name)
    if array.ndim != num_axes:
        expected = "a matrix of seeds x tasks" if num_axes == 2 else "a plain list of numbers"
        raise UserError(f"The {name} have shape {array.shape}; expected {expected}.")
    return array


def _finite(values: ArrayLike, name: str) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    num_bad = array.size - int(np.isfinite(array).sum())
    if array.size == 0:
        raise UserError(f"There are no {name}; a statistic needs the result of one seed at least.")
    if num_bad:
        raise UserError(
            f"{num_bad} of the {array.size} {name} are not finite. Leaving them out would hide runs that failed: "
            "run them again, or give them the score of a failure."
        )
    return array
