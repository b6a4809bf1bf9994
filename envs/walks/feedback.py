"""The people of the graph world: who shows walks, and who compares them."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Generator, Tensor

from envs.labeller import label, seen_return
from envs.walks.policy import Walker
from envs.walks.world import World
from unified_irl.contracts import RewardFunction
from unified_irl.errors import UserError
from unified_irl.feedback import Demonstrations, Preferences, Provenance
from unified_irl.objectives import returns
from unified_irl.rows import Phase
from unified_irl.trajectories import Contexts, Trajectories

Feedback = TypeVar("Feedback", Demonstrations, Preferences)


def demonstrator(world: World) -> Walker:
    """The configured demonstrator: soft-optimal, perhaps short-sighted, perhaps with slips."""
    who = world.config.demonstrator
    planned = world.soft_optimal(who.temperature, who.foresight)
    if who.slips:
        slipping = (1.0 - who.slips) * planned.exp() + who.slips * world.uniform_HGNA.exp()
        planned = torch.where(world.graph.possible_NA, slipping.log(), planned)
    return Walker(world.graph, planned)


def demonstrate(world: World, among: Contexts, count: int, draw: Generator) -> Demonstrations:
    """Walks by the demonstrator from contexts drawn, with replacement, among the given ones."""
    walker, who = demonstrator(world), world.config.demonstrator
    maker = Provenance(
        maker=f"soft-optimal walker, temperature {who.temperature:g}, slips {who.slips:g}, foresight {who.foresight:g}",
        quality=world.normalised(world.true_value(walker.log_policy_HGNA, world.pairs), world.pairs),
        source="walks",
    )
    contexts = among[torch.randint(len(among), (count,), generator=draw)]
    return Demonstrations(
        trajectories=walker.sample(contexts, draw), maker=torch.zeros(count, dtype=torch.long), makers=(maker,)
    )


def compare(world: World, count: int, draw: Generator) -> Preferences:
    """Comparisons by the configured labeller; a query that it skips is replaced by another."""
    walkers = [Walker(world.graph, world.soft_optimal(one)) for one in world.config.compared_temperatures]
    answered: list[Preferences] = []
    missing = count
    while missing > 0:
        batch = _query(world, walkers, missing, draw)
        answered.append(batch)
        missing -= len(batch)
    return answered[0] if len(answered) == 1 else Preferences.cat(answered)


def _query(world: World, walkers: list[Walker], count: int, draw: Generator) -> Preferences:
    """Pairs of behaviours in one context each, by random ones of the walkers, and the labeller's answers."""
    config = world.config
    contexts = world.pairs[torch.randint(len(world.pairs), (count,), generator=draw)]
    sides = []
    for _ in range(2):
        walks = Trajectories.cat([walker.sample(contexts, draw) for walker in walkers])
        who = torch.randint(len(walkers), (count,), generator=draw)
        sides.append(_shown(world, walks[who * count + torch.arange(count)], draw))
    felt = [seen_return(world.true_rewards(side), side.rewarded, config.labeller.myopia) for side in sides]
    labels, kept = label(felt[0], felt[1], config.labeller, draw)
    maker = Provenance(
        maker=f"soft-optimal walkers, temperatures {', '.join(f'{one:g}' for one in config.compared_temperatures)}",
        labeller=config.labeller.describe(),
        source="walks",
    )
    return Preferences(
        first=sides[0],
        second=sides[1],
        label=labels,
        margin=torch.zeros_like(labels),
        maker=torch.zeros(count, dtype=torch.long),
        makers=(maker,),
        level=config.preference_level,
    )[kept]


@torch.no_grad()
def ask(
    world: World, own: Trajectories, reward: RewardFunction, count: int, phase: Phase, gamma: float, draw: Generator
) -> Preferences | None:
    """The labeller's answers about pairs of these walks, each walk in two pairs at most.

    Whole walks are compared within their context. Nobody is asked to compare what looks the same on both sides.
    """
    if phase.query == "disagreement":
        raise UserError(
            "The rewards of walks have no members that could disagree; let query be uniform or entropy (or ask in the "
            "control world, where rewards can be ensembles)."
        )
    is_whole = world.config.preference_level == "whole"
    own = replace(own, weight=torch.ones_like(own.weight))
    order = torch.randperm(len(own), generator=draw)
    if is_whole:
        order = order[own.context_id[order].argsort(stable=True)]
    first, second = (_shown(world, own[side], draw) for side in (order[:-1], order[1:]))
    differ = torch.stack([first.mask != second.mask, *(first.data[name] != second.data[name] for name in first.data)])
    meet = differ.any(0).any(1) & ((first.context_id == second.context_id) | (not is_whole))
    pairs = meet.nonzero().squeeze(1)
    if len(pairs) == 0:
        return None
    pairs = pairs[torch.randperm(len(pairs), generator=draw)]
    if phase.query == "entropy":
        gap = [returns(reward(side[pairs]), side[pairs].discount(gamma)) for side in (first, second)]
        pairs = pairs[(gap[0] - gap[1]).abs().argsort(stable=True)]
    first, second = first[pairs[:count]], second[pairs[:count]]
    felt = [
        seen_return(world.true_rewards(side), side.rewarded, world.config.labeller.myopia) for side in (first, second)
    ]
    labels, kept = label(felt[0], felt[1], world.config.labeller, draw)
    maker = Provenance(
        maker="the policy while learning", labeller=world.config.labeller.describe(), source="online queries"
    )
    return Preferences(
        first=first,
        second=second,
        label=labels,
        margin=torch.zeros_like(labels),
        maker=torch.zeros(len(labels), dtype=torch.long),
        makers=(maker,),
        level=world.config.preference_level,
    )[kept]


def _shown(world: World, walks: Trajectories, draw: Generator) -> Trajectories:
    """The part of each walk that the labeller gets to see."""
    if world.config.preference_level == "whole":
        return walks
    num_steps = 1 if world.config.preference_level == "step" else world.config.segment_length
    latest = (walks.rewarded.sum(1) - num_steps).clamp(min=0)
    start = (torch.rand(len(walks), generator=draw) * (latest + 1)).long().clamp(max=latest)
    return walks.segment(start, num_steps)


def checked(world: World, feedback: Feedback, where: str) -> Feedback:
    """Feedback from a file, with this world's numbers of its contexts; or a sentence on why its walks are not walks of
    this graph."""
    if isinstance(feedback, Demonstrations):
        return replace(feedback, trajectories=_checked_walks(world, feedback.trajectories, where))
    return replace(
        feedback,
        first=_checked_walks(world, feedback.first, f"{where}, first side"),
        second=_checked_walks(world, feedback.second, f"{where}, second side"),
    )


def _checked_walks(world: World, walks: Trajectories, where: str) -> Trajectories:
    num_goals, num_nodes, num_actions = world.graph.shape
    for name, limit in (("node", num_nodes), ("action", num_actions), ("goal", num_goals)):
        if name not in walks.data:
            raise UserError(f"{where}: '{name}' is missing; a walk needs node, action and goal for every step.")
        value = walks.data[name]
        if value.shape != walks.mask.shape or value.dtype not in (torch.int32, torch.int64):
            raise UserError(
                f"{where}: '{name}' holds {value.dtype} of shape {list(value.shape)}; expected whole numbers of shape "
                f"{list(walks.mask.shape)}, one for every step."
            )
        if value.is_floating_point() or int(value.min()) < 0 or int(value.max()) >= limit:
            raise UserError(
                f"{where}: '{name}' runs from {value.min():g} to {value.max():g}; expected whole numbers from 0 to "
                f"{limit - 1} in this graph. Was the file made for another graph (num_nodes, graph_seed)?"
            )
    node, action, goal = walks.data["node"], walks.data["action"], walks.data["goal"]
    if bool(((goal != goal[:, :1]) & walks.mask).any()):
        raise UserError(f"{where}: a walk changes its goal on the way; expected one goal per walk.")
    wrong = ~world.graph.possible_NA[node, action] & walks.mask
    wrong[:, 1:] |= (world.graph.next_NA[node, action][:, :-1] != node[:, 1:]) & walks.mask[:, 1:]
    if bool(wrong.any()):
        raise UserError(
            f"{where}: {int(wrong.any(1).sum())} walks take an edge that this graph does not have. "
            "Was the file made for another graph (num_nodes, graph_seed)?"
        )
    if int(walks.context_id.min()) < 0 or int(walks.context_id.max()) >= len(world.pairs):
        raise UserError(f"{where}: 'context_id' must lie between 0 and {len(world.pairs) - 1} in this graph.")
    if int((walks.start_step + walks.rewarded.sum(1)).max()) > world.config.horizon:
        raise UserError(
            f"{where}: a walk is longer than the horizon of {world.config.horizon} steps; raise the horizon."
        )
    return replace(walks, context_id=_context_id(world, walks, where))


def _context_id(world: World, walks: Trajectories, where: str) -> Tensor:
    """The order of the start/goal pairs hangs on the seed, so a number from a file may stand for another pair here.

    Segments from within a walk do not show where it started; they keep their number, which nothing looks at.
    """
    pairs = world.pairs
    number_GN = torch.full(world.graph.shape[:2], -1)
    number_GN[pairs.data["goal"], pairs.data["start"]] = pairs.ids
    number = number_GN[walks.data["goal"][:, 0], walks.data["node"][:, 0]]
    is_whole = walks.start_step == 0
    if bool((is_whole & (number < 0)).any()):
        raise UserError(f"{where}: a walk starts at its own goal, which is no context of this graph.")
    return torch.where(is_whole, number, walks.context_id)
