"""Rounds of `unified-irl train TASK METHOD` with its default settings, but for a warm start, by their phases."""

from __future__ import annotations

import statistics as plain
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from serving import Turns, forget_peak, options, peak_mib

from experiments.train import build_learner, default_config
from llm.policy import LanguagePolicy
from llm.references import Remembering
from llm.reward import TextReward
from unified_irl.learner import Learner


class Stopwatch:
    """Seconds by phase; what one phase does within another counts for the inner one alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.tokens = 0
        self.open = ["the rest"]
        self.since = time.perf_counter()

    def _turn(self) -> None:
        now = time.perf_counter()
        self.seconds[self.open[-1]] = self.seconds.get(self.open[-1], 0.0) + now - self.since
        self.since = now

    @contextmanager
    def phase(self, name: str):
        self._turn()
        self.open.append(name)
        try:
            yield
        finally:
            self._turn()
            self.open.pop()

    def over(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            with self.phase(name):
                return function(*given, **named)

        return timed

    def lap(self) -> dict[str, float]:
        self._turn()
        seconds, self.seconds = self.seconds, {}
        return seconds


def watched(learner: Learner) -> Stopwatch:
    """The learner's parts tell a watch what they are at."""
    watch = Stopwatch()
    policy, reward = learner.policy, learner.reward
    assert isinstance(policy, LanguagePolicy)
    assert isinstance(reward, TextReward)
    sample, for_policy = watch.over("sampling", policy.sample), reward.for_policy

    def counted(*given: Any) -> Any:
        own = sample(*given)
        watch.tokens += int(own.mask.sum())
        return own

    policy.sample = counted  # type: ignore[method-assign]
    policy.climb.descend = watch.over("policy steps", policy.climb.descend)  # type: ignore[method-assign]
    reward.descend = watch.over("reward steps", reward.descend)  # type: ignore[method-assign]
    reward.for_policy = lambda: watch.over("rewards of samples", for_policy())  # type: ignore[method-assign]
    for one in set(learner.references.values()):
        assert isinstance(one, Remembering)
        one.log_prob = watch.over("reference", one.log_prob)  # type: ignore[method-assign]
        one.fresh = watch.over("reference", one.fresh)  # type: ignore[method-assign]
    return watch


def main() -> None:
    turns, told = Turns(), options()
    config = default_config(told["task"], told["method"])
    task = replace(config.task, model=replace(config.task.model, size=told["size"]))
    run = replace(config.run, threads=told["first_threads"])
    method = replace(config.method, init="base")
    learner = build_learner(told["task"], replace(config, task=task, run=run, method=method))
    watch, laps, tokens = watched(learner), [], []
    forget_peak()
    for number in range(1 + told["rounds"]):
        watch.lap()
        watch.tokens = 0
        learner.round()
        if number:
            laps.append(watch.lap())
            tokens.append(watch.tokens)
    phases = {name: plain.median(lap.get(name, 0.0) for lap in laps) for name in laps[0]}
    turns.ready(
        {
            "seconds": plain.median(sum(lap.values()) for lap in laps),
            "phases": phases,
            "sampled_tokens": plain.median(tokens),
            "parameters": sum(one.numel() for one in learner.policy.role.parameters()),
            "peak_mib": peak_mib(),
        }
    )


if __name__ == "__main__":
    main()
