"""samples RUN [flags]: a page of what a language run's policy says, beside what it said at first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments import command
from unified_irl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Prompts that were kept for examinations, and completions of them with their true and learnt rewards."""

    out: str = ""
    """The page; by default samples-latest.md or samples-best.md in the run directory."""
    count: int = 20
    """Prompts shown."""
    which: Literal["latest", "best"] = "latest"
    """The newest checkpoint, or the one with the best score."""
    seed: int = 0
    """Which prompts, and which samples."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"count is {self.count}; expected 1 or more.")


def main(arguments: list[str]) -> None:
    (run,), rest = command.split_words(arguments, ("run",), "samples")
    config = command.flags(Flags, rest, "samples RUN")
    from experiments.language_samples import page
    from unified_irl.serialise import write_text

    text = page(Path(run), config.which, config.count, config.seed)
    out = Path(config.out) if config.out else Path(run) / f"samples-{config.which}.md"
    write_text(out, text)
    print(f"page: {out}")
