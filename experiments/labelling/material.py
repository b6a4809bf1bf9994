"""What a page needs of whatever is compared, and what becomes of the answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from experiments.labelling.book import Answer

Shown = list[dict[str, str]]
"""Messages, each with a role (empty where nobody is named) and a text."""


class Material(Protocol):
    """Queries that can be shown, and files that can be made of their answers."""

    is_filmed: bool
    """Whether the sides are films instead of texts."""
    words: Sequence[str]
    """All words that may be written, where only some may."""

    def __len__(self) -> int: ...

    def shown(self, pair: int) -> dict[str, Any]:
        """The prompt, if there is one, and both sides, first and second; films are asked for by themselves."""
        ...

    def expect(self, pairs: Iterable[int]) -> None:
        """These will be looked at soon."""
        ...

    def film(self, pair: int, side: int) -> Path:
        """The film of a side (0 or 1); waits until there is one."""
        ...

    def fault(self, text: str) -> str:
        """Why this cannot be learnt from, in a sentence; empty where it can."""
        ...

    def export(self, answers: Sequence[Answer]) -> list[str]:
        """Write the files that methods read; a sentence on each."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What one person makes of one pair, all their answers to it taken together."""

    rater: str
    pair: int
    label: float
    """The probability that the first side is better."""


def comparisons(answers: Iterable[Answer]) -> list[Comparison]:
    """One for each rater and pair: who contradicts themselves has said that it is a tie."""
    said: dict[tuple[str, int], list[float]] = {}
    for one in answers:
        if one.label is not None:
            said.setdefault((one.rater, one.pair), []).append(one.label)
    return [
        Comparison(rater=rater, pair=pair, label=sum(labels) / len(labels)) for (rater, pair), labels in said.items()
    ]
