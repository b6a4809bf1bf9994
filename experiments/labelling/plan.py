"""In which order a rater sees the queries, on which side what stands, and which come a second time."""

from __future__ import annotations

import random
from dataclasses import dataclass

GAP = 10
"""Other queries between the two times that a pair is shown, where there are as many."""


@dataclass(frozen=True, kw_only=True)
class Showing:
    """One place in a rater's list."""

    pair: int
    swapped: bool
    """Whether the pair's first side stands on the right."""
    repeat: bool
    """Whether the pair was shown before."""


def showings(num_pairs: int, repeats: float, seed: int, rater: str, *, blind: bool = True) -> list[Showing]:
    """A function of its arguments: whoever comes back finds the list as it was.

    A repeated pair has its sides swapped, so that whoever always presses the same key disagrees with themselves.
    Without `blind` nothing has sides, and everything is shown once.
    """
    chance = random.Random(f"{seed} {rater}")
    order = sorted(range(num_pairs), key=lambda _: chance.random())
    first = [Showing(pair=pair, swapped=blind and chance.random() < 0.5, repeat=False) for pair in order]
    if not blind:
        return first
    again = sorted(range(num_pairs), key=lambda _: chance.random())[: round(repeats * num_pairs)]
    placed: list[tuple[float, Showing]] = [(float(place), one) for place, one in enumerate(first)]
    for place in again:
        earliest = min(place + min(GAP, num_pairs // 2), num_pairs - 1)
        later = earliest + chance.random() * (num_pairs - earliest)
        one = first[place]
        placed.append((later, Showing(pair=one.pair, swapped=not one.swapped, repeat=True)))
    return [one for _, one in sorted(placed, key=lambda both: both[0])]
