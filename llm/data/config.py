"""What people wrote, and how much of it is learnt from. No tensor library here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unified_irl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Rows of one kind, from one place or several."""

    files: tuple[str, ...] = ()
    """Files (.jsonl, .jsonl.gz, .json, .parquet), folders that `datasets` saved, or names of datasets on the hub."""
    split: str = "train"
    """Which part of a dataset that has several."""
    shares: tuple[float, ...] = ()
    """How much of each place's rows is taken, chosen at random; all of them where nothing is said."""
    most: int = 0
    """Rows at most, of all places together; 0 sets no limit."""

    def __post_init__(self) -> None:
        if self.shares and len(self.shares) != len(self.files):
            raise UserError(
                f"{len(self.shares)} shares are given for {len(self.files)} files; expected one for each, or none."
            )
        if wrong := [share for share in self.shares if not 0.0 < share <= 1.0]:
            raise UserError(f"shares hold {wrong[0]}; expected numbers above 0 and at most 1.")
        if self.most < 0:
            raise UserError(f"most is {self.most}; expected 0 or more.")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is learnt from."""

    demonstrations: SourceConfig = SourceConfig()
    """Answers that somebody gave: rows with prompt and completion, messages, real (SPIN's layout), or text."""
    preferences: SourceConfig = SourceConfig()
    """Pairs of answers: rows with chosen and rejected, and a prompt or one that both begin with."""
    prompts: SourceConfig = SourceConfig()
    """Prompts to practise on besides those that are answered: rows with a prompt, or any of the above."""
    held_out: float = 0.05
    """Share of the prompts that is set aside, with all that answers them, for examinations."""
    answers: Literal["last", "all"] = "last"
    """Which answers of a conversation are demonstrated; own samples answer for the last one only."""
    max_tokens: int = 1024
    """Rows of more tokens are left out; 0 leaves out what is longer than the model's context."""
    completion_tokens: int = 256
    """Tokens of an own sample at most, its end included."""
    chat_template_file: str = ""
    """A chat template (Jinja) instead of the tokenizer's own."""
    allow_download: bool = False
    """Ask the hub for datasets that are not on this machine."""
    stream: bool = False
    """Take rows of the hub as they arrive and keep nothing but their tokens; with `most`, no more than is needed."""
    data_seed: int = -1
    """Seed of what is taken and set aside; -1 takes the run's."""

    def __post_init__(self) -> None:
        if not 0.0 < self.held_out < 1.0:
            raise UserError(f"held_out is {self.held_out}; expected a share above 0 and below 1.")
        if self.max_tokens < 0 or self.completion_tokens < 1:
            raise UserError(
                f"max_tokens is {self.max_tokens} and completion_tokens {self.completion_tokens}; expected 0 or more, "
                "and 1 or more."
            )
