"""Settings tried on other seeds before a comparison: every method goes on with those it scored best with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.compare_config import CompareConfig
from experiments.matrix import Matrix, as_flags, words
from experiments.watching import run_watched
from unified_irl.cells import Outcome
from unified_irl.errors import UserError, unknown_name
from unified_irl.methods import METHODS

TRIES = "tuning"
"""The folder of what was tried, beside the cells."""
FIRST_TUNING_SEED = 1000
Tries = tuple[tuple[str, ...], ...]
"""Settings to choose between, each a few KEY=VALUE."""


def tries_of(config: CompareConfig) -> dict[str, Tries]:
    """The tries of each method that is compared; nothing where nothing is tuned. A method with more tries than another
    is no fair rival."""
    given = [_tries(text) for text in config.tune]
    if len(dict(given)) < len(given):
        raise UserError("compare --tune names a method twice; name each once, with all its tries.")
    for name, _ in given:
        if name not in config.methods and name not in METHODS:
            raise unknown_name("method", name, [*config.methods, *METHODS])
    found = {name: tries for name, tries in given if name in config.methods}
    if given and (missing := [name for name in config.methods if name not in found]):
        raise UserError(f"compare --tune says nothing of {missing[0]}; tune every method, or none.")
    if len(set(map(len, found.values()))) > 1:
        sizes = ", ".join(f"{name} {len(tries)}" for name, tries in found.items())
        raise UserError(f"compare --tune gives unequal numbers of tries ({sizes}); give every method as many.")
    return found


def _tries(given: str) -> tuple[str, Tries]:
    name, *rest = words(given) or [""]
    tries = tuple(tuple(part) for stop, part in groupby(rest, "/".__eq__) if not stop)
    if not name or "=" in name or len(tries) < 2 or len(set(tries)) < len(tries):
        raise UserError(
            "compare --tune takes 'NAME KEY=VALUE … / KEY=VALUE … / …' with different tries, as in "
            f"'dpo method.beta=0.1 / method.beta=1'; '{given}' was given."
        )
    return name, tries


def flags_of(settings: Sequence[str]) -> list[str]:
    return as_flags(settings, "compare --tune")


def tune(matrix: Matrix) -> list[dict[str, Any]]:
    """For every task and method its tries with their mean final scores, and the one it goes on with."""
    config = matrix.config
    seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + config.tuning_seeds)
    pairs = [(task, method, tries) for task in config.tasks for method, tries in tries_of(config).items()]
    if not pairs:
        return []
    cells = [
        entry.cell
        for task, method, tries in pairs
        for number, settings in enumerate(tries, 1)
        for entry in matrix.entries(task, method, seeds, flags_of(settings), f"-try-{number}")
    ]
    outcomes = iter(run_watched(cells, Path(config.out) / TRIES, config))
    rows = []
    for task, method, tries in pairs:
        scores = [_mean_score([next(outcomes) for _ in seeds]) for _ in tries]
        best = max(range(len(tries)), key=lambda one: -math.inf if (score := scores[one]) is None else score)
        tried = [{"settings": list(settings), "score": score} for settings, score in zip(tries, scores, strict=True)]
        rows.append({"task": task, "method": method, "tried": tried, "chosen": list(tries[best])})
    return rows


def _mean_score(outcomes: Sequence[Outcome]) -> float | None:
    """None where a seed failed."""
    scores = [outcome.result["final"]["score"] for outcome in outcomes if outcome.result is not None]
    return fmean(scores) if len(scores) == len(outcomes) else None
