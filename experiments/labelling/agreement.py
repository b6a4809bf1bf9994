"""How far people agree, with themselves and with each other."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from scipy import special

from experiments.labelling.book import Answer
from unified_irl.statistics import Interval

Both = tuple[float, float]
"""Two labels of one pair."""


def share(agreed: int, count: int, confidence: float = 0.95) -> Interval:
    """Wilson's interval of a proportion: all p with |p − k/n| ≤ z √(p (1 − p) / n)."""
    z = float(special.ndtri((1 + confidence) / 2))
    centre = (agreed + z**2 / 2) / (count + z**2)
    half = z / (count + z**2) * math.sqrt(agreed * (count - agreed) / count + z**2 / 4)
    return Interval(
        estimate=agreed / count, low=max(0.0, centre - half), high=min(1.0, centre + half), num_seeds=count,
        method="Wilson",
    )  # fmt: skip


def kappa(labels: Sequence[Both]) -> float:
    """Cohen's κ = (p_o − p_e) / (1 − p_e): 0 where they agree as often as two would who know nothing of the pair, with
    the same habits. NaN where both always say the same one thing, so that nothing could be told."""
    count = len(labels)
    observed = sum(one == other for one, other in labels) / count
    habits = [Counter(side) for side in zip(*labels, strict=True)]
    by_chance = sum(habits[0][label] * habits[1][label] for label in habits[0]) / count**2
    return math.nan if by_chance == 1.0 else (observed - by_chance) / (1.0 - by_chance)


def with_oneself(answers: Iterable[Answer], rater: str) -> list[Both]:
    """The two labels of each pair that the rater judged twice."""
    seen: dict[int, dict[bool, float]] = {}
    for one in answers:
        if one.rater == rater and one.label is not None:
            seen.setdefault(one.pair, {})[one.repeat] = one.label
    return [(labels[False], labels[True]) for labels in seen.values() if len(labels) == 2]


def between(answers: Iterable[Answer], one: str, other: str) -> list[Both]:
    """What each of two raters said of the pairs that both judged, when they first saw them."""
    said: dict[str, dict[int, float]] = {one: {}, other: {}}
    for answer in answers:
        if answer.rater in said and answer.label is not None and not answer.repeat:
            said[answer.rater][answer.pair] = answer.label
    return [(label, said[other][pair]) for pair, label in said[one].items() if pair in said[other]]


def sentences(answers: Sequence[Answer]) -> list[str]:
    """What can be said of everybody's agreement so far."""
    raters = list(dict.fromkeys(one.rater for one in answers))
    told = []
    for rater in raters:
        if both := with_oneself(answers, rater):
            told.append(f"{rater} twice on the same pair: {_told(both)}.")
        sides = Counter(one.said for one in answers if one.rater == rater and one.said in ("left", "right"))
        if total := sides.total():
            told.append(
                f"{rater} chose the left in {sides['left']} of {total} choices ({_percent(sides['left'], total)})."
            )
    for one, other in itertools.combinations(raters, 2):
        if both := between(answers, one, other):
            told.append(f"{one} and {other}: {_told(both)}.")
    return told


def _told(both: Sequence[Both]) -> str:
    agreed, chance = sum(one == other for one, other in both), kappa(both)
    beyond = "" if math.isnan(chance) else f", Cohen's kappa {chance:.2f}"
    return f"the same answer to {agreed} of {len(both)} ({_percent(agreed, len(both))}){beyond}"


def _percent(part: int, whole: int) -> str:
    interval = share(part, whole)
    estimate, low, high = (round(100 * one) for one in (interval.estimate, interval.low, interval.high))
    return f"{estimate} %, 95 % interval {low} to {high} %"
