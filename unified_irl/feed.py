"""Which data a round sees. Every draw has a random stream of its own, named by what it is for and when it happens.

Named streams need no state: a resumed run draws what the uninterrupted one would have drawn, and switching one kind of
feedback off changes no draw of the other.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Generator, Tensor

from unified_irl.batch import Batch
from unified_irl.contracts import Window
from unified_irl.feedback import Demonstrations, Preferences
from unified_irl.rows import Phase
from unified_irl.trajectories import Contexts, Trajectories


def stream(seed: int, *name: object) -> Generator:
    """A generator seeded by a run's seed and a name."""
    digest = hashlib.blake2b(repr((seed, *name)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def prompts(demonstrations: Demonstrations, phase: Phase, seed: int, stage: int, round_: int) -> Trajectories:
    """The demonstrations that this round covers: all, or the next section of a pass in random order."""
    count = len(demonstrations)
    size = max(1, math.ceil(phase.prompts * count - 1e-9))  # 0.07 · 100 is 7.000000000000001
    if size == count:
        return demonstrations.trajectories
    num_sections = math.ceil(count / size)
    order = torch.randperm(count, generator=stream(seed, "prompts", stage, round_ // num_sections))
    section = round_ % num_sections
    return demonstrations.trajectories[order[section * size : (section + 1) * size]]


def contexts(
    everything: Contexts, demonstrations: Trajectories | None, phase: Phase, seed: int, stage: int, round_: int
) -> Contexts:
    """Where the policy acts in this round: once per demonstration, and on some contexts that nobody demonstrated.

    A demonstration that began where the domain cannot begin is answered from any context.
    """
    shown = torch.zeros(0, dtype=torch.long) if demonstrations is None else demonstrations.context_id
    if bool((shown < 0).any()):
        anywhere = torch.randint(len(everything), shown.shape, generator=stream(seed, "anywhere", stage, round_))
        shown = torch.where(shown < 0, anywhere, shown)
    if not phase.practice:
        return everything[shown]
    # A policy that is judged by its objective practises in the same places, or luck would decide when it stops.
    when = 0 if phase.until == "policy" else round_
    more = torch.randint(len(everything), (phase.practice,), generator=stream(seed, "practice", stage, when))
    return everything[torch.cat([shown, more])]


def weighed(demonstrations: Trajectories, own: Trajectories) -> Trajectories:
    """The own samples that answer a demonstration, weighing every context as the demonstrations do; each of these must
    have been answered."""
    own = own[torch.isin(own.context_id, demonstrations.context_id)]
    ids, group = torch.unique(torch.cat([demonstrations.context_id, own.context_id]), return_inverse=True)
    of_shown, of_own = group.split([len(demonstrations), len(own)])
    shown = torch.bincount(of_shown, weights=demonstrations.weight, minlength=len(ids))
    did = torch.bincount(of_own, weights=own.weight, minlength=len(ids))
    return replace(own, weight=own.weight * (shown / did)[of_own].to(own.weight.dtype))


def aligned(
    demonstrations: Trajectories, own: Trajectories, seed: int, stage: int, round_: int
) -> tuple[Trajectories, Trajectories]:
    """Demonstrations and own samples in rows that share a context, as many rows as the longer of the two has.

    A context that only one side knows is paired with any row of the other: in a world where start states are never met
    twice, all contexts stand for one. Weights stay honest: a repeated demonstration counts once in all, and own samples
    weigh every context as the demonstrations do, however often it was practised.
    """
    answers = torch.isin(own.context_id, demonstrations.context_id)
    if len(own) > len(demonstrations) and bool(answers.any()):
        own = own[answers]
    if not torch.equal(demonstrations.context_id, own.context_id):
        draw = stream(seed, "pairs", stage, round_)
        if len(own) > len(demonstrations):
            picked = _partners(own.context_id, demonstrations.context_id, draw)
            times = torch.bincount(picked, minlength=len(demonstrations)).clamp(min=1)
            demonstrations = replace(demonstrations[picked], weight=(demonstrations.weight / times)[picked])
        else:
            own = own[_partners(demonstrations.context_id, own.context_id, draw)]
    if torch.equal(demonstrations.weight, own.weight):
        return demonstrations, own
    _, group = torch.unique(demonstrations.context_id, return_inverse=True)
    shown, did = (torch.bincount(group, weights=side.weight) for side in (demonstrations, own))
    return demonstrations, replace(own, weight=own.weight * (shown / did)[group].to(own.weight.dtype))


def _partners(wanted: Tensor, offered: Tensor, draw: Generator) -> Tensor:
    """For each wanted context the index of an offered row of that context, or of any row where there is none.

    The rows of a context take turns, in random order: each is taken equally often, to within one.
    """
    shuffled = torch.randperm(len(offered), generator=draw)
    ids, order = torch.sort(offered[shuffled], stable=True)
    low, high = torch.searchsorted(ids, wanted), torch.searchsorted(ids, wanted, right=True)
    missing = low == high
    low, high = torch.where(missing, 0, low), torch.where(missing, len(ids), high)
    group = torch.where(missing, -1, wanted)
    together = torch.sort(group, stable=True)[1]
    first = torch.searchsorted(group[together], group[together])
    turn = torch.empty_like(wanted)
    turn[together] = torch.arange(len(wanted)) - first
    return shuffled[order[low + turn % (high - low)]]


def held_out(preferences: Preferences, share: float, seed: int) -> tuple[Preferences, Preferences]:
    """Comparisons to learn from and comparisons set aside; at least one of each where there are two."""
    count = len(preferences)
    aside = min(max(1, round(share * count)), count - 1)
    order = torch.randperm(count, generator=stream(seed, "held out"))
    return preferences[order[aside:]], preferences[order[:aside]] if aside else preferences


def batches(
    demonstrations: Trajectories | None,
    own: Trajectories | None,
    preferences: Preferences | None,
    phase: Phase,
    seed: int,
    stage: int,
    round_: int,
    cut: Window | None = None,
) -> Iterator[Batch]:
    """The batches of one round. A part that a batch does not hold whole is walked through in random order."""
    num_rows = max((len(part) for part in (demonstrations, own) if part is not None), default=0)
    shown = _orders(num_rows, phase, stream(seed, "behaviours", stage, round_), cut=phase.segment > 0)
    num_pairs = 0 if preferences is None else len(preferences)
    compared = _orders(num_pairs, phase, stream(seed, "preferences", stage, round_), cut=False)
    where = [stream(seed, "windows", side, stage, round_) for side in ("shown", "own")]
    for rows, pairs in zip(shown, compared, strict=True):
        sides = [part if part is None or rows is None else part[rows] for part in (demonstrations, own)]
        if phase.segment:
            sides = [
                None if side is None else (cut or window)(side, phase.segment, draw)
                for side, draw in zip(sides, where, strict=True)
            ]
        yield Batch(
            demonstrations=sides[0],
            own=sides[1],
            preferences=preferences if preferences is None or pairs is None else preferences[pairs],
        )


def window(behaviours: Trajectories, num_steps: int, draw: Generator, room: Tensor | None = None) -> Trajectories:
    """Of each behaviour `num_steps` steps from one of its first `room` places on, long[B]; by default from where they
    all fit, and a shorter one is given whole."""
    if room is None:
        room = (behaviours.rewarded.sum(1) - num_steps).clamp(min=0) + 1
    start = (torch.rand(len(behaviours), generator=draw) * room).long()
    return behaviours.segment(torch.minimum(start, room - 1), num_steps)


def _orders(count: int, phase: Phase, draw: Generator, *, cut: bool) -> list[Tensor | None]:
    """The rows of each of the round's batches; None stands for all of them. Where windows are cut from the rows, a
    batch may hold more of them than there are rows."""
    size = phase.batch_size
    if count == 0 or size == 0 or (size >= count and not cut):
        return [None] * phase.reward_steps
    passes = math.ceil(size * phase.reward_steps / count)
    rows = torch.cat([torch.randperm(count, generator=draw) for _ in range(passes)])
    return [rows[begin : begin + size] for begin in range(0, size * phase.reward_steps, size)]
