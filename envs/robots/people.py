"""The people of the control world: who demonstrates, and who compares."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from envs.labeller import label, seen_return
from envs.robots.config import PeopleConfig
from envs.robots.episodes import Episode, trajectories, with_absorbing
from envs.robots.rollout import Act, roll_out
from envs.robots.simulators import Simulator
from envs.robots.snapshots import Experts
from unified_irl.errors import UserError
from unified_irl.feed import stream
from unified_irl.feedback import Demonstrations, Preferences, Provenance
from unified_irl.trajectories import Trajectories


def demonstrate(
    experts: Experts, simulators: list[Simulator], config: PeopleConfig, draw: Generator, task: str
) -> Demonstrations:
    """The episodes of the demonstrator, with who that was."""
    episodes = shown_episodes(experts, simulators, config, draw)
    return Demonstrations(
        trajectories=trajectories(episodes, torch.zeros(len(episodes), dtype=torch.long)),
        maker=torch.zeros(len(episodes), dtype=torch.long),
        makers=(Provenance(maker=f"{task} {config.demonstrator}", source="embedded"),),
    )


def shown_by(act: Act, task: str, count: int, seed: int = 0) -> Demonstrations:
    """So many episodes of a controller of your own: a function from observations [N, O] to actions [N, A]."""
    episodes = roll_out(act, [Simulator(task)], count, stream(seed, "shown by hand"))
    return Demonstrations.by(getattr(act, "__name__", "somebody"), trajectories(episodes))


def shown_episodes(
    experts: Experts, simulators: list[Simulator], config: PeopleConfig, draw: Generator
) -> list[Episode]:
    """Of the expert those that come with the task, as long as there are enough."""
    count, tier = config.num_demonstrations, config.demonstrator
    if tier == "expert" and count <= len(experts.episodes):
        order = torch.randperm(len(experts.episodes), generator=draw)[:count]
        return [experts.episodes[k] for k in order.tolist()]
    return roll_out(experts.tiers[tier].act(None), simulators, count, draw, with_physics=True)


def pool(experts: Experts, simulators: list[Simulator], config: PeopleConfig, draw: Generator) -> Trajectories:
    """The episodes whose segments are compared, as one batch."""
    episodes = compared_episodes(experts, simulators, config, draw)
    return trajectories(episodes, torch.zeros(len(episodes), dtype=torch.long))


def compared_episodes(
    experts: Experts, simulators: list[Simulator], config: PeopleConfig, draw: Generator, *, with_physics: bool = False
) -> list[Episode]:
    """Episodes of the tiers whose segments are compared; they act at random, so that no two are alike."""
    return [
        episode
        for tier in config.compared
        for episode in roll_out(
            experts.tiers[tier].act(draw), simulators, config.num_compared_episodes, draw, with_physics=with_physics
        )
    ]


def cut(behaviours: Trajectories, where: tuple[Tensor, Tensor], length: int, *, runs_on: bool) -> Trajectories:
    """The windows at these places.

    Where episodes run on in an absorbing state, so do the windows at the end of one that the world ended: otherwise no
    comparison would ever say what an end is worth.
    """
    row, start = where
    windows = behaviours[row].segment(start, length)
    return with_absorbing(windows, length) if runs_on else windows


def places(
    behaviours: Trajectories, count: int, length: int, draw: Generator, *, runs_on: bool = False
) -> tuple[Tensor, Tensor]:
    """long[N] each: in which episode windows lie, drawn evenly over all places where they fit, and where they begin.
    An episode shorter than the window is one by itself."""
    steps = behaviours.mask.sum(1)
    room = (steps - length).clamp(min=0) + 1
    if runs_on:
        room = torch.where(behaviours.terminated, steps, room)
    place = (torch.rand(count, generator=draw) * float(room.sum())).long()
    ends = room.cumsum(0)
    row = torch.searchsorted(ends, place, right=True).clamp(max=len(room) - 1)
    return row, (place - (ends - room)[row]).clamp(min=0)


def compare(
    behaviours: Trajectories,
    config: PeopleConfig,
    count: int,
    draw: Generator,
    makers: tuple[Provenance, ...],
    *,
    runs_on: bool,
) -> tuple[Preferences, Tensor]:
    """Comparisons of segments by the configured teacher, and where these lie: long[N, 4], the episode and the first
    step of either. A query that the teacher skips is replaced by another."""
    answered: list[Preferences] = []
    lying: list[Tensor] = []
    length = config.segment_length
    for _ in range(100):
        missing = count - sum(map(len, answered))
        if missing == 0:
            return Preferences.cat(answered) if len(answered) > 1 else answered[0], torch.cat(lying)
        where = [places(behaviours, missing, length, draw, runs_on=runs_on) for _ in range(2)]
        sides = [cut(behaviours, one, length, runs_on=runs_on) for one in where]
        said, kept = _answers(sides[0], sides[1], config, draw, makers)
        answered.append(said[kept])
        lying.append(torch.stack([*where[0], *where[1]], 1)[kept])
    raise UserError(
        f"The teacher skipped so many queries that {count} comparisons could not be had; lower labeller.skip."
    )


def judged(
    first: Trajectories, second: Trajectories, config: PeopleConfig, draw: Generator, makers: tuple[Provenance, ...]
) -> Preferences:
    """What the teacher says of each pair; queries it skips are left out."""
    said, kept = _answers(first, second, config, draw, makers)
    return said[kept]


def _answers(
    first: Trajectories, second: Trajectories, config: PeopleConfig, draw: Generator, makers: tuple[Provenance, ...]
) -> tuple[Preferences, Tensor]:
    """What the teacher would say of each pair, and bool[N], of which it does."""
    teacher = config.who_compares
    felt = [felt_return(side, teacher.myopia) for side in (first, second)]
    labels, kept = label(felt[0], felt[1], teacher, draw)
    said = Preferences(
        first=first,
        second=second,
        label=labels,
        margin=torch.zeros_like(labels),
        maker=torch.zeros(len(labels), dtype=torch.long),
        makers=makers,
        level="segment",
    )
    return said, kept


def felt_return(side: Trajectories, myopia: float) -> Tensor:
    return seen_return(side.data["true_reward"], side.rewarded, myopia, side.data["absorbing"].clamp(min=1.0))
