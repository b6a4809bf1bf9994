"""chat RUN [flags]: talk in the terminal to what a language run has learnt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments import command


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Every line is said to the policy, which answers; an empty line begins anew, and Ctrl-D ends."""

    which: Literal["latest", "best"] = "latest"
    """The newest checkpoint, or the one with the best score."""
    greedy: bool = False
    """Always say the likeliest token."""
    system: str = ""
    """What a conversation begins with, where the model knows conversations."""
    seed: int = 0
    """Seed of what is said."""


def main(arguments: list[str]) -> None:
    (run,), rest = command.split_words(arguments, ("run",), "chat")
    config = command.flags(Flags, rest, "chat RUN")
    from experiments.language_runs import load_language_run
    from experiments.talk import Talk, talk

    learnt = load_language_run(Path(run), config.which)
    print(f"{learnt.title}. An empty line begins anew, Ctrl-D ends.")
    talk(Talk(learnt, config.greedy, config.system, config.seed))
