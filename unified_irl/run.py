"""A run: the learner's rounds, examined, written down and saved, so that a kill at any moment costs little.

Everything that a round depends on is in the checkpoint, and the metrics file is cut back to the checkpoint on resume;
so a run that was killed and resumed ends with the same files as one that was not.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from unified_irl import checkpoint, parallel
from unified_irl.contracts import Metrics, State
from unified_irl.errors import Diverged, UserError
from unified_irl.learner import Learner
from unified_irl.run_config import RunConfig
from unified_irl.rundir import RunDirectory
from unified_irl.tracking import Tracker, TrackingConfig


@dataclass
class Progress:
    """What a run remembers beside its learner."""

    best_score: float = -math.inf
    best_round: int = 0
    last_score: float = math.nan
    seconds: float = 0.0
    """Wall-clock time spent in all sessions of the run."""

    def saw(self, scores: Metrics, round_: int) -> bool:
        """Take note of an examination, if there was one; whether it is the best so far."""
        if not scores:
            return False
        self.last_score = scores["score"]
        if not self.last_score > self.best_score:
            return False
        self.best_score, self.best_round = self.last_score, round_
        return True


def train(learner: Learner, directory: RunDirectory, config: RunConfig, tracking: TrackingConfig) -> dict[str, Any]:
    """Run the learner to its end, from the last checkpoint if there is one, and return the result as stored."""
    progress = restore(learner, directory)
    began, saved = time.monotonic() - progress.seconds, progress.seconds
    scores: Metrics = {}
    with Tracker(tracking, directory, first_step=learner.num_rounds + 1) as tracker:
        while not learner.finished:
            metrics, scores = _round(learner, config)
            tracker.log(metrics | {f"eval/{name}": value for name, value in scores.items()}, learner.num_rounds)
            is_best = progress.saw(scores, learner.num_rounds)
            known = {"score": progress.last_score} if math.isfinite(progress.last_score) else {}
            tracker.progress(learner.num_rounds, learner.most_rounds, known | metrics)
            progress.seconds = time.monotonic() - began
            if scores:
                directory.append_clock(learner.num_rounds, progress.seconds)
            if parallel.first_says(is_best or learner.finished or _due(learner, config, progress.seconds - saved)):
                save(learner, directory, progress, keep=config.keep, is_best=is_best)
                saved = progress.seconds
    result = {
        "final": scores or evaluate(learner),
        "best": {"score": progress.best_score, "round": progress.best_round},
        "rounds": learner.num_rounds,
        "seconds": progress.seconds,
    }
    directory.write_result(result)
    return result


def follow(learner: Learner, checkpoints: Path, config: RunConfig) -> None:
    """Go through the rounds of a run that another process writes down."""
    newest = checkpoint.latest(checkpoints)
    if newest is not None:
        load(learner, newest)
    scores: Metrics = {}
    while not learner.finished:
        _, scores = _round(learner, config)
        if parallel.first_says(False):
            with parallel.giving():  # of weights that are shared, a checkpoint needs everybody's part
                learner.state_dict()
    if not scores:
        evaluate(learner)


def _due(learner: Learner, config: RunConfig, seconds: float) -> bool:
    """Whether it is time for a checkpoint, the first time at once, so that whatever breaks leaves one; when it is taken
    decides nothing of what is learnt."""
    by_rounds = config.checkpoint_every and learner.num_rounds % config.checkpoint_every == 0
    return learner.num_rounds == 1 or bool(by_rounds) or seconds >= config.checkpoint_seconds


def _round(learner: Learner, config: RunConfig) -> tuple[Metrics, Metrics]:
    """One round's metrics and, where it is due, its scores; a run whose numbers went wrong ends here, unsaved."""
    stage, phase = learner.stage, learner.phase.name
    metrics = {"stage": stage, **learner.round()}
    due = learner.finished or (config.evaluate_every and learner.num_rounds % config.evaluate_every == 0)
    for name, value in metrics.items():
        if not math.isfinite(value) or (name == "loss" and abs(value) > config.explodes_above):
            raise _diverged(learner, f" (phase '{phase}'): {name} is {value:g}")
    scores = evaluate(learner) if due else {}
    for name, value in scores.items():
        if not math.isfinite(value):
            raise _diverged(learner, f" (phase '{phase}'): {name} is {value:g} in the examination")
    return metrics, scores


def _diverged(learner: Learner, what: str) -> Diverged:
    return Diverged(
        f"Round {learner.num_rounds}{what}. The run stops; its checkpoints hold the rounds before. "
        "Try a lower learning rate, a larger beta, max_grad_norm or a regulariser."
    )


def _nan_in(state: Any, place: str = "") -> str | None:
    """Where the first tensor with a NaN is in a state."""
    if isinstance(state, torch.Tensor):
        return place if bool(state.isnan().any()) else None
    parts = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else ()
    found = (_nan_in(part, f"{place}/{name}".lstrip("/")) for name, part in parts)
    return next((one for one in found if one), None)


def evaluate(learner: Learner) -> Metrics:
    """The domain's examination of what the learner has."""
    return learner.domain.evaluate(learner.policy, learner.learnt_reward)


def save(learner: Learner, directory: RunDirectory, progress: Progress, *, keep: int, is_best: bool) -> None:
    learnt = learner.state_dict()
    if place := _nan_in({name: learnt[name] for name in ("policy", "reward")}):
        raise _diverged(learner, f": the last step made NaN of {place}")
    state = {
        "learner": learnt,
        "progress": asdict(progress),
        "metrics_offset": directory.metrics_offset(),
    }
    checkpoint.save(directory.checkpoints, state, learner.num_rounds, keep=keep, is_best=is_best)


def restore(learner: Learner, directory: RunDirectory) -> Progress:
    """Put the learner where the newest checkpoint left it, and forget what was written down since."""
    newest = checkpoint.latest(directory.checkpoints)
    if newest is None:
        directory.truncate_metrics(0)
        return Progress()
    state = load(learner, newest)
    directory.truncate_metrics(state["metrics_offset"])
    return Progress(**state["progress"])


def load(learner: Learner, path: Path) -> State:
    """Put the learner where this checkpoint left it; the whole of what the checkpoint holds."""
    state: State = checkpoint.load(path)
    try:
        learner.load_state_dict(state["learner"])
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise UserError(
            f"The checkpoint {path} is of another task or method than the run's config.json says: {why} "
            "Restore the config that the run was started with."
        ) from error
    return state
