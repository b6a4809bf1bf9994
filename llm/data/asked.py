"""The prompts of some data: told apart by their tokens, and which of them nobody learns from."""

from __future__ import annotations

import hashlib
from functools import cached_property

import torch
from torch import Generator, Tensor

from llm.data.rows import Answers, Prompts, Rows
from unified_irl.errors import UserError
from unified_irl.feed import stream

ANSWERED = ("demonstrations", "preferences")
"""The kinds of rows that answer prompts."""


class Asked:
    """All prompts of the data, each once, and which of them are set aside."""

    def __init__(self, rows: dict[str, Rows], held_out: float, seed: int) -> None:
        self.rows = rows
        number: dict[bytes, int] = {}
        self.of_row = {
            kind: torch.tensor([number.setdefault(_key(some.prompt(row)), len(number)) for row in range(len(some))])
            for kind, some in rows.items()
        }
        if "preferences" in rows:  # both sides of a comparison answer what its first side does
            self.of_row["preferences"] = self.of_row["preferences"][::2].repeat_interleave(2)
        self.is_aside = torch.zeros(len(number), dtype=torch.bool)
        for kind in ANSWERED:
            if kind in rows:
                self.is_aside[_apart(self.of_row[kind].unique(), held_out, stream(seed, "set aside", kind))] = True
        learnt = ~self.is_aside
        self.id = torch.where(learnt, learnt.cumsum(0) - 1, learnt.sum() + self.is_aside.cumsum(0) - 1)
        """long[P]: the context of each prompt. Those set aside come after all others."""

    def answers(self, kind: str, *, aside: bool, side: slice = slice(None)) -> Answers:
        """The rows of a kind that answer prompts set aside, or the others; of comparisons those of one side."""
        row = torch.arange(len(self.rows[kind]))[side]
        row = row[self.is_aside[self.of_row[kind][row]] == aside]
        if not len(row):
            raise UserError(
                f"None of the {kind} are {'set aside for examinations' if aside else 'left to learn from'}; give more "
                f"rows with different prompts, or let data.held_out be {'larger' if aside else 'smaller'}."
            )
        return Answers(self.rows[kind], row, self.id[self.of_row[kind][row]])

    @cached_property
    def num_learnt(self) -> int:
        """Prompts that are not set aside."""
        return int((~self.is_aside).sum())

    @cached_property
    def prompts(self) -> Prompts:
        """All of them in the order of their contexts."""
        of_all = torch.cat(list(self.of_row.values()))
        source = torch.cat([torch.full_like(one, place) for place, one in enumerate(self.of_row.values())])
        row = torch.cat([torch.arange(len(one)) for one in self.of_row.values()])
        order = of_all.flip(0)
        first = torch.zeros(len(self.id), dtype=torch.long)
        first[order] = torch.arange(len(of_all)).flip(0)  # the earliest row that asks it is written last
        which = first[self.id.argsort()]
        return Prompts(tuple(self.rows.values()), source[which], row[which])


def _key(prompt: Tensor) -> bytes:
    return hashlib.blake2b(prompt.numpy().tobytes(), digest_size=16).digest()


def _apart(prompts: Tensor, share: float, draw: Generator) -> Tensor:
    """Some of these prompts: at least one, and never all."""
    count = min(max(1, round(share * len(prompts))), len(prompts) - 1)
    return prompts[torch.randperm(len(prompts), generator=draw)[:count]]
