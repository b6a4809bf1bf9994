"""What can be set about instructions on lists. No tensor library here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unified_irl.errors import UserError

OPERATIONS = ("reverse", "rotate", "swap", "double", "shorten", "drop", "begin", "end")
"""What can be asked for, by name."""
MOST_COMPOSED = 3
LEAST_PROMPTS = MOST_COMPOSED * len(OPERATIONS)
"""With as many prompts, every operation is asked for alone in one of them."""


@dataclass(frozen=True, kw_only=True)
class InstructionsConfig:
    """Operations on a short list of symbols, one after the other; the completion is the list they lead to."""

    num_symbols: int = 6
    """Symbols there are, a word each."""
    shortest: int = 3
    """Symbols of the shortest list."""
    longest: int = 5
    """Symbols of the longest list; no symbol occurs twice in it."""
    most_composed: int = 2
    """Operations of a prompt, at most; prompts of each number of them are about equally frequent."""
    max_words: int = 10
    """Words after which a completion is cut off."""
    num_prompts: int = 2000
    """Prompts there are."""
    shown_share: float = 0.5
    """Share of the prompts that may be demonstrated or compared; the learner is examined on the rest as well, which
    have other lists."""
    kept_share: float = 0.25
    """Share of the pairs of operations that are shown in no prompt together."""
    overlap: float = 0.5
    """Share of the operations that both demonstrations and comparisons cover; demonstrations alone cover one half of
    the others, comparisons alone the other half."""

    quality: float = 0.8
    """Probability that a demonstrator carries out an operation correctly."""
    length_bias: float = 0.0
    """What a labeller adds to the true reward for every word."""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("shortest", 3, self.longest),
            ("longest", 4, self.num_symbols),
            ("num_symbols", 4, 8),
            ("most_composed", 1, MOST_COMPOSED),
            ("num_prompts", 2 * LEAST_PROMPTS, 10_000),
        ):
            if not least <= getattr(self, name) <= most:
                raise UserError(f"instructions: {name} is {getattr(self, name)}; expected {least} to {most}.")
        if self.max_words <= self.longest + self.most_composed:
            raise UserError(
                f"instructions: max_words is {self.max_words}; expected {self.longest + self.most_composed + 1} or "
                "more, so that the longest answer fits and can be ended."
            )
        if not LEAST_PROMPTS <= self.num_shown <= self.num_prompts - LEAST_PROMPTS:
            raise UserError(
                f"instructions: shown_share is {self.shown_share}, which shows {self.num_shown} of {self.num_prompts} "
                f"prompts; expected at least {LEAST_PROMPTS} to be shown and {LEAST_PROMPTS} to be kept."
            )
        if not 0.0 <= self.kept_share < 1.0:
            raise UserError(f"instructions: kept_share is {self.kept_share}; expected at least 0 and below 1.")
        for name, what in (("overlap", "share"), ("quality", "probability")):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"instructions: {name} is {getattr(self, name)}; expected a {what} from 0 to 1.")
        if not math.isfinite(self.length_bias):
            raise UserError(f"instructions: length_bias is {self.length_bias}; expected a finite number, 0 for none.")

    @property
    def num_shown(self) -> int:
        return round(self.shown_share * self.num_prompts) if 0.0 <= self.shown_share <= 1.0 else 0
