"""What one step of descent sees, and the numbers its losses are divided by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from unified_irl.feedback import Preferences
from unified_irl.trajectories import Trajectories

Rows = TypeVar("Rows", Trajectories, Preferences)


@dataclass(frozen=True, kw_only=True)
class Normaliser:
    """Total weights of the whole batch, each a scalar tensor; what every micro-batch divides its sums by."""

    demonstrations: Tensor | None
    own: Tensor | None
    preferences: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Demonstrations, own samples that answer the same contexts (row by row where both are there), and comparisons.

    A pair, of demonstration and own sample or of two compared behaviours, counts as its first side does.
    """

    demonstrations: Trajectories | None = None
    own: Trajectories | None = None
    preferences: Preferences | None = None

    def normaliser(self) -> Normaliser:
        return Normaliser(
            demonstrations=None if self.demonstrations is None else self.demonstrations.weight.sum(),
            own=None if self.own is None else self.own.weight.sum(),
            preferences=None if self.preferences is None else self.preferences.first.weight.sum(),
        )

    def to(self, device: torch.device | str) -> Batch:
        return Batch(
            demonstrations=None if self.demonstrations is None else self.demonstrations.to(device),
            own=None if self.own is None else self.own.to(device),
            preferences=None if self.preferences is None else self.preferences.to(device),
        )

    @property
    def size(self) -> int:
        """The number of rows of its longest part."""
        return max(
            (len(part) for part in (self.demonstrations, self.own, self.preferences) if part is not None), default=0
        )

    def micro_batches(self, num_rows: int, *, alike_for: int = 0) -> Iterator[Batch]:
        """The batch in pieces of at most `num_rows` rows of each part (0: in one piece); paired rows stay together.

        Alike for so many processes, there is a piece for each of them in turn, and each piece has all parts: where a
        part has no rows left, one that weighs nothing.
        """
        if not alike_for and (num_rows == 0 or num_rows >= self.size):
            yield self
            return
        num_rows = num_rows or self.size
        count = -(-self.size // num_rows)
        if alike_for:
            count = -(-count // alike_for) * alike_for
        for begin in range(0, count * num_rows, num_rows):
            rows = slice(begin, begin + num_rows)
            yield Batch(
                demonstrations=_piece(self.demonstrations, rows, fill=alike_for > 0),
                own=_piece(self.own, rows, fill=alike_for > 0),
                preferences=_piece(self.preferences, rows, fill=alike_for > 0),
            )


def _piece(part: Rows | None, rows: slice, *, fill: bool) -> Rows | None:
    if part is None:
        return None
    if rows.start < len(part):
        return part[rows]
    return _weightless(part[:1]) if fill else None


def _weightless(some: Rows) -> Rows:
    if isinstance(some, Preferences):
        return replace(some, first=_weightless(some.first), second=_weightless(some.second))
    return replace(some, weight=torch.zeros_like(some.weight))
