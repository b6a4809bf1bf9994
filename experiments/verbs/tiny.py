"""tiny DIRECTORY [flags]: a tiny model, and small files in the layouts of the papers' datasets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments import command
from llm.config import Family


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What is made."""

    family: Family = "llama"
    """Architecture of the model."""
    rows: int = 200
    """Rows of each file."""
    seed: int = 0
    """Seed of the texts and of the model's weights."""


def main(arguments: list[str]) -> int:
    (directory,), rest = command.split_words(arguments, ("directory",), "tiny")
    config = command.flags(Flags, rest, "tiny DIRECTORY")
    from experiments.tiny import make

    for path in make(Path(directory), config.family, config.rows, config.seed):
        print(path)
    return 0
