"""Which segments to ask about while learning, as in the B-Pref benchmark. Importing this loads no tensor library.

Shape legend: E members, S segments, T steps, Q queries, C candidate pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, get_args, runtime_checkable

from unified_irl.errors import UserError
from unified_irl.rows import Query

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from unified_irl.contracts import RewardFunction
    from unified_irl.trajectories import Trajectories

CUT_AT_ONCE = 64
"""Cutting a segment copies its whole behaviour for a moment."""


@dataclass(frozen=True, kw_only=True)
class QueryConfig:
    """Which segments are compared."""

    scheme: Query = "disagreement"
    """Pairs at random, those on which the members of the reward disagree most, or those closest to a coin flip."""
    segment_length: int = 50
    """Steps of a segment; an episode that is shorter is used whole."""
    num_queries: int = 50
    """Pairs per round of asking."""
    candidates: int = 10
    """The informed schemes choose among this many times as many random pairs."""

    def __post_init__(self) -> None:
        if self.scheme not in get_args(Query):
            known = ", ".join(get_args(Query))
            raise UserError(f"queries: scheme is '{self.scheme}'; expected one of {known}.")
        for name in ("segment_length", "num_queries", "candidates"):
            if getattr(self, name) < 1:
                raise UserError(f"queries: {name} is {getattr(self, name)}; expected 1 or more.")


@runtime_checkable
class Ensemble(Protocol):
    """A reward with several opinions."""

    def member_rewards(self, trajectories: Trajectories) -> Tensor:
        """float[E, B, T]: the reward of every step as each member sees it."""
        ...


def pick(
    pool: Trajectories,
    reward: RewardFunction,
    config: QueryConfig,
    *,
    gamma: float,
    sharpness: float,
    generator: Generator,
    runs_on: bool = False,
) -> tuple[Trajectories, Trajectories] | None:
    """Pairs of different segments of the pool, as many as asked for and all of the same weight; None where the pool
    holds a single segment. The informed schemes ask about no pair twice, which may leave fewer.

    `sharpness` is the κ of P(first better) = σ(κ ΔR). Every place where a segment fits is as likely as any other, so
    long episodes give more segments than short ones. Segments end where their episode ends; where episodes run on in an
    absorbing state, so do segments of one that the world ended: otherwise no answer would say what an end is worth.
    """
    import torch

    from envs.robots.episodes import as_lived, with_absorbing

    seen = replace(as_lived(pool), weight=torch.ones_like(pool.weight))
    row_S, start_S = _places(seen, config.segment_length, runs_on=runs_on)
    if len(row_S) < 2:
        return None
    informed = config.scheme != "uniform"
    count = config.num_queries * (config.candidates if informed else 1)
    first_C = torch.randint(len(row_S), (count,), generator=generator)
    step_C = torch.randint(len(row_S) - 1, (count,), generator=generator) + 1
    pairs_2C = torch.stack([first_C, (first_C + step_C) % len(row_S)])

    def cut(place: Tensor) -> Trajectories:
        segments = _cut(seen, row_S[place], start_S[place], config.segment_length)
        return with_absorbing(segments, config.segment_length) if runs_on else segments

    if informed:
        score_C = _scores(pairs_2C, cut, reward, config.scheme, gamma, sharpness)
        score_C[_repeated(pairs_2C, len(row_S))] = -torch.inf
        best = score_C.topk(config.num_queries)
        pairs_2C = pairs_2C[:, best.indices[best.values > -torch.inf]]
    return cut(pairs_2C[0]), cut(pairs_2C[1])


def _places(pool: Trajectories, length: int, *, runs_on: bool) -> tuple[Tensor, Tensor]:
    """long[S], long[S]: behaviour and first step of every segment there is."""
    import torch

    steps = pool.mask.sum(1)
    room = (steps - length).clamp(min=0) + 1
    room = torch.where(steps > 0, torch.where(pool.terminated, steps, room) if runs_on else room, 0)
    row_S = torch.arange(len(pool)).repeat_interleave(room)
    return row_S, torch.arange(len(row_S)) - (room.cumsum(0) - room)[row_S]


def _cut(pool: Trajectories, row: Tensor, start: Tensor, length: int) -> Trajectories:
    import torch

    from unified_irl.trajectories import Trajectories

    pieces = zip(torch.split(row, CUT_AT_ONCE), torch.split(start, CUT_AT_ONCE), strict=True)
    return Trajectories.cat([pool[rows].segment(starts, length) for rows, starts in pieces])


def _scores(
    pairs_2C: Tensor,
    cut: Callable[[Tensor], Trajectories],
    reward: RewardFunction,
    scheme: Query,
    gamma: float,
    sharpness: float,
) -> Tensor:
    """float[C]: how much an answer about each pair would say, by the scheme."""
    import torch

    def mean(segments: Trajectories) -> Tensor:
        return reward(segments)[None]

    opinions = mean if scheme == "entropy" else _members(reward)

    def returns_of(segments: Trajectories) -> Tensor:
        """float[E, S], with one member where only the mean counts."""
        return torch.where(segments.rewarded, opinions(segments).cpu() * segments.discount(gamma), 0.0).sum(2)

    scores = []
    with torch.no_grad():
        for some in torch.split(pairs_2C, CUT_AT_ONCE, dim=1):
            difference_EC = returns_of(cut(some[0])) - returns_of(cut(some[1]))
            if scheme == "entropy":
                scores.append(-difference_EC[0].abs())
            else:
                scores.append(torch.sigmoid(sharpness * difference_EC).std(0, correction=0))
    if scheme == "disagreement" and len(difference_EC) < 2:
        raise UserError(
            "queries: scheme 'disagreement' was given an ensemble of one member, which cannot disagree; learn two or "
            "more members, or choose 'entropy' or 'uniform'."
        )
    return torch.cat(scores)


def _members(reward: RewardFunction) -> Callable[[Trajectories], Tensor]:
    if not isinstance(reward, Ensemble):
        raise UserError(
            f"queries: scheme 'disagreement' needs a reward with members that can disagree; {type(reward).__name__} "
            "has none, so choose 'entropy' or 'uniform', or learn an ensemble."
        )
    return reward.member_rewards


def _repeated(pairs_2C: Tensor, num_places: int) -> Tensor:
    """bool[C]: the same two segments came up before, in either order."""
    import torch

    key_C = pairs_2C.amin(0) * num_places + pairs_2C.amax(0)
    order = key_C.argsort(stable=True)
    again = torch.zeros_like(key_C, dtype=torch.bool)
    again[order[1:]] = key_C[order[1:]] == key_C[order[:-1]]
    return again
