"""How fast the exact world is beside the arithmetic it needs, and what the learner adds to the world's own work."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class BenchCoreConfig:
    """What is timed."""

    num_nodes: int = 2000
    """Size of the graph whose soft values are computed, for all goals."""
    horizon: int = 64
    """Steps of its value iteration."""
    rounds: int = 100
    """Rounds of the run whose overhead is measured."""
    repeats: int = 3
    """Runs of it; the median is printed."""
    out: str = ""
    """A JSON file for the numbers; by default nothing is kept."""


class Clock:
    """Wall-clock time by what was going on; what is begun inside something else is taken out of that."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._now = "learner"
        self._since = time.perf_counter()

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        outer = self._now
        self._turn_to(what)
        try:
            yield
        finally:
            self._turn_to(outer)

    def _turn_to(self, what: str) -> None:
        now = time.perf_counter()
        self.seconds[self._now] = self.seconds.get(self._now, 0.0) + now - self._since
        self._now, self._since = what, now

    def timed(self, function: Callable[..., Any], what: str) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            with self.during(what):
                return function(*arguments, **named)

        return wrapped

    def stop(self) -> dict[str, float]:
        self._turn_to("stopped")
        return self.seconds


@dataclass
class _Timed:
    """A policy or a reward whose own work is timed; the loss that runs inside its descent is the learner's."""

    inner: Any
    clock: Clock
    own_work: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("sample", "log_prob", "improve", "frozen", "for_policy"):
            if hasattr(self.inner, name):
                self.own_work[name] = self.clock.timed(getattr(self.inner, name), "world")

    def __getattr__(self, name: str) -> Any:
        return self.own_work[name] if name in self.own_work else getattr(self.inner, name)

    def __call__(self, trajectories: Any) -> Any:
        with self.clock.during("world"):
            return self.inner(trajectories)

    def descend(self, loss: Callable[..., Any], *given: Any) -> Any:
        with self.clock.during("world"):
            return self.inner.descend(self.clock.timed(loss, "learner"), *given)


def overhead(method_name: str, rounds: int) -> dict[str, float]:
    """Seconds of a whole run on a small graph, by what was going on."""
    from experiments.compare_config import CompareConfig
    from experiments.matrix import Matrix
    from experiments.train import build_learner, config_to_json
    from unified_irl import run
    from unified_irl.rundir import RunDirectory

    task_name = "walks"
    small = CompareConfig(set=("task.num-nodes=48", "task.horizon=16", "task.num-demonstrations=8"))
    config = Matrix(small).settings(task_name, method_name)
    config = replace(config, method=config.method.with_phases(rounds=rounds))
    learner = build_learner(task_name, config)
    learner.domain.evaluate(learner.policy, learner.learnt_reward)  # what is computed once is not part of a round
    with tempfile.TemporaryDirectory() as place:
        directory = RunDirectory.create(Path(place) / "run", config_to_json(task_name, config), ["bench"])
        clock = Clock()
        learner.policy = _Timed(learner.policy, clock)  # type: ignore[assignment]
        learner.reward = _Timed(learner.reward, clock)  # type: ignore[assignment]
        learner.domain.evaluate = clock.timed(learner.domain.evaluate, "examination")  # type: ignore[method-assign]
        save, run.save = run.save, clock.timed(run.save, "checkpoints")
        try:
            with directory:
                run.train(learner, directory, config.run, config.tracking)
        finally:
            run.save = save
        return clock.stop()


def soft_values(num_nodes: int, horizon: int) -> dict[str, float]:
    """Soft value iteration for all goals on one thread, and the same exponentials and additions on cached numbers."""
    import torch

    from envs.walks.config import WalksConfig
    from envs.walks.graph import build_graph, true_reward
    from envs.walks.solve import soft_values as solve

    torch.set_num_threads(1)
    config = WalksConfig(num_nodes=num_nodes, horizon=horizon)
    graph = build_graph(config)
    reward = true_reward(graph, config)
    began = time.perf_counter()
    value = solve(graph, reward, 0.1, 1.0, horizon)
    seconds = time.perf_counter() - began
    assert bool(value.isfinite().all())
    needed = horizon * reward.numel()
    cached = torch.full((16384,), -1.0, dtype=reward.dtype)
    out, total = torch.empty_like(cached), torch.zeros_like(cached)
    repeats = max(1, needed // cached.numel() // 20)
    began = time.perf_counter()
    for _ in range(repeats):
        torch.add(cached, cached, out=out)
        torch.exp(out, out=out)
        total.add_(out)
    floor = (time.perf_counter() - began) * needed / (repeats * cached.numel())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": seconds, "exponentials": float(needed), "floor_seconds": floor, "ratio": seconds / floor,
            "peak_gib": peak}  # fmt: skip


def run(config: BenchCoreConfig, report: Callable[[str], None]) -> dict[str, Any]:
    solved = soft_values(config.num_nodes, config.horizon)
    report(
        f"soft value iteration, {config.num_nodes} nodes, all goals, horizon {config.horizon}, float64, one thread: "
        f"{solved['seconds']:.2f} s for {solved['exponentials']:.3g} additions, exponentials and sums; the same on "
        f"cached ones {solved['floor_seconds']:.2f} s, ratio {solved['ratio']:.2f}, peak {solved['peak_gib']:.2f} GiB"
    )
    result: dict[str, Any] = {"soft_value_iteration": solved, "overhead": {}}
    for name in ("ml-irl", "aihf"):
        runs = sorted((overhead(name, config.rounds) for _ in range(config.repeats)), key=lambda one: one["learner"])
        middle = runs[len(runs) // 2]
        total = sum(middle.values())
        shares = {what: seconds / total for what, seconds in middle.items()}
        result["overhead"][name] = {"seconds": middle, "shares": shares}
        parts = ", ".join(f"{what} {share:.1%}" for what, share in sorted(shares.items(), key=lambda item: -item[1]))
        own = shares["learner"] + shares["checkpoints"]
        report(f"demo run of {name}, {config.rounds} rounds, {total:.2f} s: {parts}; learner and checkpoints {own:.1%}")
    return result
