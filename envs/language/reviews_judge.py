"""What a review is truly worth: sentiment, relevance, grammar, repetition, length, and whether it came to an end.

    worth = 2 σ(sentiment) · relevance · grammatical · 0.8^repeats · 0.95^excess · (½ if cut off) − 1

It lies between −1 and 1 and is a product, so no part makes up for another: praise alone saturates, and praise that is
repeated, broken or beside the question takes more than it gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from envs.language.reviews_grammar import ASPECTS, MANY, PRODUCTS, VALUES, Prompt, meaning, sentences, well_formed

SCALE = 3.0
"""Polarity that counts as one unit of sentiment: one superb thing."""
ASIDE = 0.5
"""How much a sentence counts that is about the product, but not about the prompted aspect."""
STRAY, SILENT, REPEATED, BEYOND, CUT = 0.7, 0.5, 0.8, 0.95, 0.5
"""Shares of its worth that a review keeps: for each mention of something foreign, if the prompted aspect is not
mentioned, for each repetition, for each word beyond the soft limit, if it was cut off."""

NOUNS = frozenset((*ASPECTS, *PRODUCTS, "it", "they", "them"))


def own_nouns(product: str) -> frozenset[str]:
    """What a review of the product may be about."""
    pronouns = ("they", "them") if product in MANY else ("it",)
    return frozenset((product, *PRODUCTS[product], *pronouns))


OWN = {product: own_nouns(product) for product in PRODUCTS}


@dataclass(frozen=True, slots=True)
class Parts:
    """What the worth of a review is made of."""

    sentiment: float
    """Sum of the sentences' polarities, weighted by what they are about; unbounded."""
    praise: float
    """The same word by word: what somebody sees who only looks for adjectives. No part of the worth."""
    relevance: float
    """From 0 to 1."""
    grammatical: float
    """Share of the sentences that are well formed and in their place."""
    repeats: int
    """Words with a polarity that were used before, and sentences that were said before."""
    num_words: int
    num_exclamations: int
    ended: bool

    def worth(self, soft_limit: int) -> float:
        kept = self.relevance * self.grammatical * REPEATED**self.repeats * (1.0 if self.ended else CUT)
        kept *= BEYOND ** max(0, self.num_words - soft_limit)
        # 2σ(x) is 1 + tanh(x/2), which does not overflow.
        return kept * (1.0 + math.tanh(0.5 * self.sentiment)) - 1.0


def judge(prompt: Prompt, words: Sequence[str], ended: bool) -> Parts:
    """The parts of a review whose opening the prompt has written and whose other words are these."""
    own, whole = OWN[prompt.product], [*prompt.opening, *words]
    sentiment, strays, num_good, closed = 0.0, 0, 0, False
    said = list(sentences(whole))
    for sentence, finished in said:
        formed, closes = well_formed(sentence)
        polarity, agrees = meaning(sentence)
        num_good += finished and formed and agrees and not closed
        closed = closed or closes
        foreign = sum(word in NOUNS and word not in own for word in sentence)
        strays += foreign
        if not foreign:
            sentiment += polarity * (1.0 if prompt.aspect in sentence else ASIDE)
    polar = [word for word in whole if word in VALUES]
    repeats = len(polar) - len(set(polar)) + len(said) - len({tuple(sentence) for sentence, _ in said})
    return Parts(
        sentiment=sentiment / SCALE,
        praise=float(sum(VALUES[word] for word in polar)),
        relevance=STRAY**strays * (1.0 if prompt.aspect in whole else SILENT),
        grammatical=num_good / len(said) if said else 0.0,
        repeats=repeats,
        num_words=len(words),
        num_exclamations=words.count("!"),
        ended=ended,
    )
