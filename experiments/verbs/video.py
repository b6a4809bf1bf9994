"""video RUN [flags]: a film of what a run's policy does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments import command
from unified_irl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Flags:
    """A film of the policy, acting by its mean. Where nothing can be drawn, a sentence says why, and that is no
    failure."""

    out: str = ""
    """The film; by default video-latest.mp4 or video-best.mp4 in the run directory. An earlier film is replaced."""
    episodes: int = 1
    """Episodes shown one after another."""
    which: Literal["latest", "best"] = "latest"
    """The newest checkpoint, or the one with the best score."""
    seed: int = 0
    """Where the first episode starts."""

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.seed < 0:
            raise UserError(f"episodes is {self.episodes} and seed {self.seed}; expected 1 and 0 or more.")
        if self.out and Path(self.out).suffix != ".mp4":
            raise UserError(f"out is {self.out}; films are mp4 files: expected a name that ends in .mp4.")


def main(arguments: list[str]) -> None:
    (run,), rest = command.split_words(arguments, ("run",), "video")
    config = command.flags(Flags, rest, "video RUN")
    import numpy as np

    from control.video import record
    from envs.robots.simulators import make
    from experiments.robot_runs import load_robot_run

    learnt = load_robot_run(
        Path(run), config.which, "Nothing moves there that could be filmed; `unified-irl evaluate` shows its scores."
    )
    act, never_ends = learnt.policy.acting(None), learnt.config.task.ends == "fixed horizon"
    made = record(
        lambda: make(learnt.robot, render_mode="rgb_array", never_ends=never_ends),
        lambda observation: act(np.asarray(observation, np.float32)[None])[0],
        Path(config.out) if config.out else learnt.path / f"video-{config.which}.mp4",
        config.episodes,
        config.seed,
        learnt.domain.helpers[0].horizon or 1000,
    )
    print(learnt.title)
    print(made.reason if made.path is None else f"film: {made.path}")
