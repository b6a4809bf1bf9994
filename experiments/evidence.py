"""Readings of stored results: a number with its 95 % interval, and whether it speaks for a claim.

Nothing is typed by hand: each kind of reading names a file, finds its numbers there, and compares them with what the
claim expects. The unit of replication is the seed; intervals are not corrected for how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

from experiments.summary import difference, origin_of, values
from unified_irl.serialise import read_json
from unified_irl.statistics import Interval, mean_interval

Side = Literal["for", "against", "undecided"]
SIDES: dict[Side, str] = {"for": "speaks for it", "against": "speaks against it", "undecided": "does not tell"}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a stored result says."""

    what: str
    interval: Interval
    side: Side

    def __str__(self) -> str:
        one = self.interval
        if one.method == "exact":
            return f"{self.what}: {one.estimate:.2g}, computed exactly; {SIDES[self.side]}"
        count = f"{one.num_seeds} {'numbers of samples' if one.method == 'fit' else 'seeds'}"
        return f"{self.what}: {one.estimate:.3f} [{one.low:.3f}, {one.high:.3f}], {count}; {SIDES[self.side]}"


class Evidence(Protocol):
    """Where a reading comes from."""

    @property
    def file(self) -> str: ...

    def read(self, results: Path) -> Reading: ...


METRICS = {"score": "score", "reward/return_spearman": "rank correlation of learnt and true return"}


def above_zero(interval: Interval) -> Side:
    return "for" if interval.low > 0 else "against" if interval.high < 0 else "undecided"


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """By how much one method of a comparison is ahead of another, paired by seed; expected to be above zero."""

    file: str
    task: str
    first: str
    second: str
    metric: str = "score"

    def read(self, results: Path) -> Reading:
        found = difference(stored(results / self.file), self.task, self.first, self.second, self.metric)
        assert found is not None, f"{self.file}: a seed of {self.first} or {self.second} failed"
        what = f"{self.task}, {METRICS[self.metric]} of `{self.first}` − `{self.second}`"
        return Reading(what=what, interval=found.interval, side=above_zero(found.interval))


@dataclass(frozen=True, kw_only=True)
class Level:
    """A metric's mean for one method of a comparison; expected to be above zero."""

    file: str
    task: str
    method: str
    metric: str

    def read(self, results: Path) -> Reading:
        per_seed = values(stored(results / self.file), self.task, self.method, "final", self.metric)
        interval = mean_interval(list(per_seed.values()))
        what = f"{self.task}, {METRICS[self.metric]} of `{self.method}`"
        return Reading(what=what, interval=interval, side=above_zero(interval))


@dataclass(frozen=True, kw_only=True)
class OverGrid:
    """By how much one method is ahead of another in `science joint`, in the mean over the places of its grid.

    Every seed is one graph at all places, so it has one mean. `where` picks places; with `less`, those elsewhere are
    subtracted: what the difference gains from one side of the grid to the other.
    """

    first: str
    second: str
    where: dict[str, float] = field(default_factory=dict)
    less: dict[str, float] = field(default_factory=dict)
    file: str = "joint.json"

    def read(self, results: Path) -> Reading:
        rows = [row for row in stored(results / self.file)["result"]["rows"] if row["kind"] != "free"]
        here = _differences(rows, self.first, self.second, self.where)
        there = _differences(rows, self.first, self.second, self.less) if self.less else dict.fromkeys(here, 0.0)
        interval = mean_interval([here[seed] - there[seed] for seed in sorted(here)])
        places = f" with {_said(self.where)}" if self.where else ""
        places += f", less the same with {_said(self.less)}" if self.less else ""
        what = f"exact world, score of `{self.first}` − `{self.second}`{places}"
        return Reading(what=what, interval=interval, side=above_zero(interval))


def _differences(rows: list[dict[str, Any]], first: str, second: str, where: dict[str, float]) -> dict[int, float]:
    """Per seed, the mean over the places that `where` picks. A run that failed has no score and is a KeyError."""
    picked = [row for row in rows if all(row[key] == value for key, value in where.items())]
    means = {}
    for seed in {row["seed"] for row in picked}:
        first_, second_ = (
            [row["score"] for row in picked if row["seed"] == seed and row["method"] == name]
            for name in (first, second)
        )
        means[seed] = (sum(first_) - sum(second_)) / len(first_)
    return means


def _said(where: dict[str, float]) -> str:
    names = {"num_preferences": "comparisons", "num_demonstrations": "demonstrations", "slips": "slips"}
    return " and ".join(f"{value:g} {names[key]}" for key, value in where.items())


@dataclass(frozen=True, kw_only=True)
class Slope:
    """A log-log slope; expected to be this steep or steeper, or not to be told from it while half of it is excluded."""

    file: str
    keys: tuple[str, ...]
    expected: float

    def read(self, results: Path) -> Reading:
        found: Any = stored(results / self.file)["result"]
        for key in self.keys:
            found = found[key]
        interval = Interval(**found)
        side: Side = (
            "against"
            if interval.low > self.expected
            else "for"
            if interval.high < HALF * self.expected
            else "undecided"
        )
        what = f"slope, {' '.join(self.keys[1:]).replace('_', ' ')} (theory {self.expected:g})"
        return Reading(what=what, interval=interval, side=side)


@dataclass(frozen=True, kw_only=True)
class FixedPoint:
    """A distance that `science fixed_points` computes without chance; expected to be next to nothing."""

    link: str
    beta: float
    to: Literal["distance", "kl_expert"] = "distance"
    file: str = "fixed_points.json"

    def read(self, results: Path) -> Reading:
        rows = stored(results / self.file)["result"]["rows"]
        row = next(row for row in rows if (row["link"], row["beta"]) == (self.link, self.beta))
        value = row[self.to]
        target = "KL from the demonstrator" if self.to == "kl_expert" else f"log-distance to {row['fixed_point']}"
        interval = Interval(estimate=value, low=math.nan, high=math.nan, num_seeds=1, method="exact")
        return Reading(
            what=f"{row['link']}, β = {row['beta']:g}: {target}",
            interval=interval,
            side="for" if value < NOTHING else "against",
        )


HALF = 0.5
"""Of the rate of theory: an interval that reaches as far as this is too wide to tell."""
NOTHING = 1e-4
"""Nats below which a solver's last digits are meant, and nothing else."""


@cache
def stored(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = read_json(path)
    return record


def commits_and_hardware(path: Path) -> str:
    """Where a stored result comes from; of a comparison, the commits of its cells too."""
    record = stored(path)
    cells = record.get("cells", [])
    commits = {row["commit"] for row in cells} | set(record.get("result", {}).get("cells_of_commits", ()))
    of_cells = f"; cells of {_short(commits)}" if commits else ""
    return origin_of(record.get("environment", record)) + of_cells


def _short(commits: Iterable[str]) -> str:
    return ", ".join(sorted({commit[:10] for commit in commits}))
