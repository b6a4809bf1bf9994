"""What can be set about product reviews. No tensor library here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unified_irl.errors import UserError

LONGEST_SENTENCE = 16
"""No sentence of an author has more words than this."""


@dataclass(frozen=True, kw_only=True)
class ReviewsConfig:
    """Reviews of products: praise what was asked about, in whole sentences, without repeating yourself."""

    max_words: int = 28
    """Words after which a review is cut off."""
    soft_limit: int = 20
    """Words up to which length costs nothing; each one beyond takes a twentieth of what the review is worth."""
    shown_share: float = 0.5
    """Share of the prompts that may be demonstrated and compared; the learner is examined on the rest as well."""

    quality: float = 0.8
    """Probability that a demonstration is the best of several drafts; otherwise it is like any text of the corpus."""
    best_of: int = 16
    """Drafts that the demonstrator chooses from."""
    expert_best_of: int = 64
    """Drafts that the expert chooses from, against whom scores are measured; as many as best_of, or more."""

    length_bias: float = 0.0
    """What a labeller adds to the true reward for every word."""
    exclamation_bias: float = 0.0
    """What a labeller adds to the true reward for every exclamation mark."""

    def __post_init__(self) -> None:
        for name, least, why in (
            ("max_words", LONGEST_SENTENCE, ", so that the longest sentence fits"),
            ("soft_limit", 0, ""),
            ("best_of", 1, ""),
            ("expert_best_of", self.best_of, " as best_of is, so that nobody is better than the expert"),
        ):
            if getattr(self, name) < least:
                raise UserError(f"reviews: {name} is {getattr(self, name)}; expected {least} or more{why}.")
        if not 0.0 < self.shown_share < 1.0:
            raise UserError(
                f"reviews: shown_share is {self.shown_share}; expected above 0 and below 1, so that some prompts are "
                "never demonstrated."
            )
        if not 0.0 <= self.quality <= 1.0:
            raise UserError(f"reviews: quality is {self.quality}; expected a probability from 0 to 1.")
        for name in ("length_bias", "exclamation_bias"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"reviews: {name} is {getattr(self, name)}; expected a finite number, 0 for none.")
