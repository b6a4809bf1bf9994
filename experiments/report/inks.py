"""How methods look: one colour and one dash each, the same in every figure, and told apart by the colour-blind.

Whole lines are methods with an explicit reward or none, dashed ones have an implicit reward, dotted ones are variants.
The colours themselves are in `page.css`, once for light and once for dark.
"""

from __future__ import annotations

from collections.abc import Sequence

from unified_irl.methods import METHODS

NUM_COLOURS = 10
COLOURS = {
    "bc": 0, "ml-irl": 1, "rft": 2, "irft": 3, "spin": 4, "rlhf": 5, "dpo": 6, "aihf": 7, "direct-aihf": 8,
    "self-play-aihf": 9,
}  # fmt: skip
DASHES = {"explicit": "", "implicit": "6 3", "variant": "1.5 3"}


def colour_of(method: str, methods: Sequence[str]) -> int:
    """The place in the palette; variants take the places that no other method on the page has."""
    if method in COLOURS:
        return COLOURS[method]
    taken = {COLOURS[name] for name in methods if name in COLOURS}
    free = [place for place in range(NUM_COLOURS) if place not in taken] or list(range(NUM_COLOURS))
    variants = [name for name in methods if name not in COLOURS]
    return free[variants.index(method) % len(free)]


def dash_of(method: str) -> str:
    """SVG's pattern of the line."""
    if method not in METHODS:
        return DASHES["variant"]
    return DASHES["implicit" if METHODS[method].reward == "implicit" else "explicit"]
