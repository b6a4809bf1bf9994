"""What can be set about labelling. No tensor library here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Generic, Literal

from experiments.train import TaskConfig
from unified_irl.errors import UserError

Mode = Literal["compare", "demonstrate"]


@dataclass(frozen=True, kw_only=True)
class LabelFlags:
    """A page on which a person compares two behaviours, or writes what should be said. The same command goes on where
    it stopped."""

    out: str = ""
    """The folder of queries, answers and the files made of them; by default labels/ and the name of what is shown."""
    rater: str = "me"
    """Who answers. Several people may answer the same queries, one after another."""
    mode: Mode = "compare"
    """Choose the better of two, or write an answer to each prompt (language)."""
    count: int = 50
    """Pairs to compare, or prompts to answer."""
    repeats: float = 0.1
    """Share of the pairs that is shown a second time, with sides swapped, to see how far the rater agrees with
    themselves."""
    seed: int = 0
    """Seed of what is shown, in which order, and on which side."""
    against: Literal["itself", "start"] = "itself"
    """Of a run: two behaviours of its policy, or one of it and one of the policy before it learnt."""
    which: Literal["latest", "best"] = "latest"
    """Of a run: the newest checkpoint, or the one with the best score."""
    episodes: int = 10
    """Of a robot's run: episodes of each policy that segments are cut from."""
    segment_length: int = 0
    """Of robots: steps of a compared segment; 0 takes what the task's settings say."""
    robot: str = ""
    """Of a file of episodes: the task that they were recorded in, so that they can be drawn."""
    split: str = "train"
    """Of a folder of rows: which part of it."""
    host: str = "127.0.0.1"
    """Where the page is served. Anything but this machine itself asks for a token, which stands in the printed
    address."""
    port: int = 8421
    """At which port; 0 takes any that is free."""
    export: bool = False
    """Write the files from the answers so far, and serve nothing."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^\s/\\][^/\\\x00-\x1f]{0,63}", self.rater):
            raise UserError(f"rater is '{self.rater}'; expected a name of 1 to 64 characters, without slashes.")
        for name, least in (("count", 1), ("seed", 0), ("episodes", 1), ("segment_length", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}; expected {least} or more.")
        if not 0.0 <= self.repeats <= 1.0:
            raise UserError(f"repeats is {self.repeats}; expected a share from 0 to 1.")
        if not 0 <= self.port <= 65535:
            raise UserError(f"port is {self.port}; expected 0 to 65535.")


@dataclass(frozen=True, kw_only=True)
class TaskLabelFlags(LabelFlags, Generic[TaskConfig]):
    """The same, with the task whose people or base model made what is shown."""

    task: TaskConfig = field()
    """The world, and whose behaviours are shown."""


SHOWN = ("mode", "count", "repeats", "seed", "against", "which", "episodes", "segment_length", "robot", "split", "task")
"""Settings that decide which queries there are; the others may change from one sitting to the next."""
