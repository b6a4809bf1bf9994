"""What people gave us: behaviours they showed and comparisons they made, with who gave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unified_irl.errors import UserError
from unified_irl.trajectories import Index, Trajectories

LEVELS = ("step", "segment", "whole")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Who made a piece of feedback."""

    maker: str
    """Who behaved: 'expert', 'person 7', a policy's name."""
    quality: float | None = None
    """How good the maker is, on the task's normalised scale (0 = the start policy, 1 = the expert), if known."""
    labeller: str = ""
    """Who compared, and with which habits; empty for demonstrations."""
    source: str = ""
    """Where the record comes from: a file, a dataset, a command."""


def _check_makers(what: str, count: int, maker: Tensor, makers: tuple[Provenance, ...]) -> None:
    if maker.shape != (count,):
        raise UserError(f"{what}: 'maker' has shape {list(maker.shape)}; expected [{count}], one entry per record.")
    wrong = maker[(maker < 0) | (maker >= len(makers))]
    if maker.is_floating_point() or len(wrong):
        named = f"names entry {int(wrong[0])}" if len(wrong) else "holds fractions, not entries,"
        raise UserError(
            f"{what}: 'maker' {named} of a list of {len(makers)} makers; every record must point into the list."
        )


@dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """Behaviours that somebody showed."""

    trajectories: Trajectories
    maker: Tensor
    """long[B]: which of `makers` showed it."""
    makers: tuple[Provenance, ...]

    @staticmethod
    def by(maker: str, trajectories: Trajectories) -> Demonstrations:
        """All of them shown by one maker."""
        everyone = torch.zeros(len(trajectories), dtype=torch.long)
        return Demonstrations(trajectories=trajectories, maker=everyone, makers=(Provenance(maker=maker),))

    def __len__(self) -> int:
        return len(self.trajectories)

    def __getitem__(self, index: Index) -> Demonstrations:
        return replace(self, trajectories=self.trajectories[index], maker=self.maker[index])

    def to(self, device: torch.device | str) -> Demonstrations:
        return replace(self, trajectories=self.trajectories.to(device), maker=self.maker.to(device))

    def validated(self, what: str = "demonstrations") -> Demonstrations:
        self.trajectories.validated(what)
        _check_makers(what, len(self), self.maker, self.makers)
        return self


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """Comparisons of two behaviours (steps, segments or whole ones), the first against the second.

    A comparison weighs what its first side weighs.
    """

    first: Trajectories
    second: Trajectories
    label: Tensor
    """float[B]: the probability that the first is better; 1 or 0 for a choice, ½ for a tie."""
    margin: Tensor
    """float[B]: by how much return the better one was said to be better, at least; 0 when nothing was said."""
    maker: Tensor
    """long[B]: which of `makers` made the comparison."""
    makers: tuple[Provenance, ...]
    level: str = "whole"
    """What was compared: 'step', 'segment' or 'whole' behaviours."""

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: Index) -> Preferences:
        return replace(
            self,
            first=self.first[index],
            second=self.second[index],
            label=self.label[index],
            margin=self.margin[index],
            maker=self.maker[index],
        )

    def to(self, device: torch.device | str) -> Preferences:
        return replace(
            self,
            first=self.first.to(device),
            second=self.second.to(device),
            label=self.label.to(device),
            margin=self.margin.to(device),
            maker=self.maker.to(device),
        )

    @staticmethod
    def cat(parts: Sequence[Preferences]) -> Preferences:
        """One set of all comparisons, and of all who made them; the parts share their level."""
        assert all(part.level == parts[0].level for part in parts)
        makers = tuple(dict.fromkeys(one for part in parts for one in part.makers))
        places = [part.maker.new_tensor([makers.index(one) for one in part.makers]) for part in parts]
        return replace(
            parts[0],
            first=Trajectories.cat([part.first for part in parts]),
            second=Trajectories.cat([part.second for part in parts]),
            label=torch.cat([part.label for part in parts]),
            margin=torch.cat([part.margin for part in parts]),
            maker=torch.cat([place[part.maker] for place, part in zip(places, parts, strict=True)]),
            makers=makers,
        )

    def validated(self, what: str = "preferences") -> Preferences:
        self.first.validated(f"{what}, first side")
        self.second.validated(f"{what}, second side")
        count = len(self.label)
        if len(self.first) != count or len(self.second) != count:
            raise UserError(
                f"{what}: {len(self.first)} first sides, {len(self.second)} second sides and {count} labels; "
                "expected the same number of each."
            )
        if self.label.shape != (count,) or not self.label.is_floating_point():
            raise UserError(
                f"{what}: 'label' has shape {list(self.label.shape)} of {self.label.dtype}; expected one float per "
                "comparison."
            )
        if not bool(((self.label >= 0) & (self.label <= 1)).all()):
            raise UserError(
                f"{what}: a label is not between 0 and 1; write 1 for the first, 0 for the second, 0.5 for a tie."
            )
        if self.margin.shape != (count,) or not bool((self.margin.isfinite() & (self.margin >= 0)).all()):
            raise UserError(f"{what}: 'margin' must hold one finite number of 0 or more per comparison.")
        if self.level not in LEVELS:
            raise UserError(f"{what}: level '{self.level}' is unknown; expected one of {', '.join(LEVELS)}.")
        if self.level == "whole" and not torch.equal(self.first.context_id, self.second.context_id):
            raise UserError(
                f"{what}: the two sides of a comparison answer different contexts; whole behaviours can only be "
                "compared within one context (compare segments otherwise)."
            )
        _check_makers(what, count, self.maker, self.makers)
        return self
