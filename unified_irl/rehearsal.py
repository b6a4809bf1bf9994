"""What a run will need, told before it begins: every stage does a little of its work, and is seen at it.

A learner that has rehearsed has learnt something; it is thrown away, best together with its process.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from unified_irl import checkpoint, run
from unified_irl.feed import stream
from unified_irl.learner import Learner
from unified_irl.rows import Phase
from unified_irl.run_config import RunConfig
from unified_irl.trajectories import Trajectories

MOST_CONTEXTS = 256
"""Contexts in which the policy acts when it only acts."""
MOST_STEPS = 3
"""Descent steps of a stage."""
LONG_ENOUGH = 1.0
"""Seconds of work that tell how long it takes: briefer work is repeated."""
REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What all of a run needs, if none of its stages ends early."""

    seconds: float
    """Without what comes before the first round."""
    memory_bytes: int
    """At the most: of the GPU, where there is one; otherwise of the process."""

    def __str__(self) -> str:
        return f"about {_time(self.seconds)}, and {self.memory_bytes / 2**30:.2f} GiB of memory"


def rehearse(learner: Learner, config: RunConfig) -> Forecast:
    """A forecast from a learner that has just been built."""
    method = learner.method
    rounds = sum(phase.rounds for phase in method.stages)
    first = _timed(partial(run.evaluate, learner), repeats=1)  # which also computes what is computed once
    examination = _timed(partial(run.evaluate, learner))
    seconds = 0.0
    for phase in method.stages:
        seconds += _stage(learner, phase)
        learner.enter_next_stage()
    num_examinations = math.ceil(rounds / config.evaluate_every) if config.evaluate_every else 1
    seconds += first + (num_examinations - 1) * examination
    seconds += _saving(learner) * _num_checkpoints(config, rounds, seconds)
    return Forecast(seconds=seconds, memory_bytes=_most_memory())


def _stage(learner: Learner, phase: Phase) -> float:
    """Seconds of all rounds of a stage."""
    shown = learner.shown(phase)
    acting, per_context = _acting(learner, phase, shown)
    seconds = phase.rounds * (acting + _learning(learner, phase, shown, per_context))
    if "previous" in phase.references:
        began = _clock()
        learner.references["previous"] = learner.policy.frozen()
        refresh = _clock() - began
        seconds += refresh * math.ceil(phase.rounds / phase.refresh_every)
    if phase.until != "rounds":  # a copy of the best round is kept
        learner.plateau.saw(0.0, 0.0, learner.moved(phase))
    return seconds


def _acting(learner: Learner, phase: Phase, shown: Trajectories | None) -> tuple[float, int]:
    """Seconds of a round, and how many behaviours it makes in each context. Of the round's contexts only those of one
    update are tried, or so many as say how long all of them take."""
    count = phase.practice + (0 if shown is None else len(shown))
    if not (phase.policy_updates or phase.needs_own_samples or phase.queries):
        return 0.0, 1
    few = math.ceil(count / phase.policy_updates) if phase.policy_updates else min(count, MOST_CONTEXTS)
    some = None if shown is None else shown[: min(few, len(shown))]
    one = replace(phase, policy_updates=min(phase.policy_updates, 1),
                  practice=few - (0 if some is None else len(some)))  # fmt: skip
    per_context = 1
    if phase.policy_updates:  # also an optimiser's first step, which takes longer than all others
        _, own = learner.act(one, some)
        per_context = 1 if own is None else max(1, round(len(own) / few))
    seconds = _timed(partial(learner.act, one, some))
    return seconds * count / few, per_context


def _learning(learner: Learner, phase: Phase, shown: Trajectories | None, per_context: int) -> float:
    """Some of the round's descent steps, on as many rows as they take."""
    if not (phase.learns_demonstrations or phase.learns_preferences):
        return 0.0
    steps = min(phase.reward_steps, MOST_STEPS)
    if shown is not None and phase.batch_size:
        shown = shown[: min(len(shown), phase.batch_size * steps)]
    few, seconds = replace(phase, reward_steps=steps), 0.0
    for attempt in range(2):  # again, an optimiser's first step
        own = None
        if shown is not None and phase.needs_own_samples:  # new ones, about which no reference has been asked before
            contexts = learner.domain.contexts[shown.context_id.clamp(min=0).repeat_interleave(per_context)]
            own = learner.policy.sample(contexts, stream(learner.seed, "rehearsal", attempt))
        seconds = _timed(partial(learner.descend, few, shown, own), repeats=REPEATS if own is None else 1)
    return seconds * phase.reward_steps / steps


def _saving(learner: Learner) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return _timed(lambda: checkpoint.save(Path(folder), learner.state_dict(), 0), repeats=1)


def _num_checkpoints(config: RunConfig, rounds: int, seconds: float) -> int:
    by_rounds = rounds // config.checkpoint_every if config.checkpoint_every else 0
    return 2 + max(by_rounds, int(seconds // max(config.checkpoint_seconds, 1.0)))  # the first round's and the last


def _timed(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Mean seconds of some work."""
    spent: list[float] = []
    while len(spent) < repeats and sum(spent) < LONG_ENOUGH:
        began = _clock()
        work()
        spent.append(_clock() - began)
    return sum(spent) / len(spent)


def _clock() -> float:
    """Seconds, once a GPU has done all that it was given; of a program on the CPU those that it was at work, since
    others may use the machine while it rehearses."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def _most_memory() -> int:
    """Bytes held at the same time so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _time(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
