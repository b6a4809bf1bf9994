"""What can be set about the graph world. No tensor library here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from envs.labeller import LabellerConfig
from unified_irl.errors import UserError

Kind = Literal["free", "linear", "network"]


@dataclass(frozen=True, kw_only=True)
class DemonstratorConfig:
    """Who shows how it is done."""

    temperature: float = 0.1
    """Temperature at which the demonstrator is soft-optimal; higher is worse."""
    slips: float = 0.0
    """Probability of a random move at each step."""
    foresight: float = 1.0
    """Discount with which the demonstrator plans; below 1 it cares less about the far end of a walk."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"demonstrator: temperature is {self.temperature}; expected a number above 0.")
        if math.isinf(self.temperature):
            raise UserError("demonstrator: temperature is inf; expected a finite number (1000 is as good as random).")
        if not 0.0 <= self.slips < 1.0:
            raise UserError(f"demonstrator: slips is {self.slips}; expected a probability of at least 0 and below 1.")
        if not 0.0 < self.foresight <= 1.0:
            raise UserError(f"demonstrator: foresight is {self.foresight}; expected a discount above 0 and at most 1.")


@dataclass(frozen=True, kw_only=True)
class WalksConfig:
    """Walks on a seeded geometric graph: reach the goal and stop there, by a short way that avoids tolls."""

    num_nodes: int = 24
    """Size of the graph, 2 to 2,000 and more."""
    num_neighbours: int = 3
    """Nearest nodes that each node has an edge to (the graph is kept connected beside that)."""
    num_goals: int = 0
    """Nodes that can be goals; 0 means all of them."""
    horizon: int = 12
    """Steps after which a walk is cut off."""
    graph_seed: int = 0
    """Which graph."""
    goal_reward: float = 2.0
    """Reward for stopping at the goal; stopping elsewhere pays nothing."""
    toll_share: float = 0.3
    """Share of the nodes that charge a toll on entry."""
    toll: float = 0.6
    """The mean toll; single ones lie between half and one and a half of it."""

    temperature: float = 0.1
    """Temperature of the expert, against whom KL and regret are measured: soft-optimal for the true reward."""
    demonstrator: DemonstratorConfig = field(default_factory=DemonstratorConfig)
    """Who demonstrates."""
    num_demonstrations: int = 64
    """Walks shown."""
    demonstrated_share: float = 0.5
    """Share of the start/goal pairs that may be demonstrated; on the rest the learner is examined."""
    demonstrations_file: str = ""
    """A file of demonstrations to learn from instead of drawing them."""

    num_preferences: int = 64
    """Comparisons made."""
    preference_level: Literal["step", "segment", "whole"] = "whole"
    """What is compared."""
    segment_length: int = 3
    """Steps of a compared segment."""
    compared_temperatures: tuple[float, ...] = (0.3, 1.0)
    """The walks that are compared come from soft-optimal walkers of these temperatures, drawn at random."""
    labeller: LabellerConfig = field(default_factory=LabellerConfig)
    """Who compares."""
    preferences_file: str = ""
    """A file of preferences to learn from instead of drawing them."""
    data_seed: int = -1
    """Seed of the demonstrations and comparisons; -1 takes the run's."""

    reward: Kind = "network"
    """The explicit reward: one free number per time, goal, node and action; linear in shared features; a network."""
    policy: Literal["auto", "free", "linear", "network"] = "auto"
    """The policy's logits, of the same three kinds; auto takes the reward's kind; with an explicit reward there is
    a free correction beside it, by which the policy climbs exactly."""
    reward_width: int = 32
    """Hidden units of a network (two layers)."""
    policy_step: float = 1.0
    """How far a free policy moves toward the soft-greedy one in each update; 1 all the way."""
    dtype: Literal["float64", "float32"] = "float64"
    """Precision."""

    def __post_init__(self) -> None:
        for name, least in (("num_nodes", 2), ("num_neighbours", 1), ("num_goals", 0), ("horizon", 1),
                            ("num_demonstrations", 0), ("num_preferences", 0), ("segment_length", 1),
                            ("reward_width", 1), ("graph_seed", 0)):  # fmt: skip
            if getattr(self, name) < least:
                raise UserError(f"walks: {name} is {getattr(self, name)}; expected {least} or more.")
        if self.num_goals > self.num_nodes:
            raise UserError(f"walks: num_goals is {self.num_goals}, but the graph has {self.num_nodes} nodes.")
        if self.num_nodes == 2 and self.num_goals == 1:
            raise UserError("walks: 2 nodes and 1 goal make a single start/goal pair; expected one more to examine.")
        if self.num_neighbours >= self.num_nodes:
            raise UserError(
                f"walks: num_neighbours is {self.num_neighbours}; expected fewer than {self.num_nodes} nodes."
            )
        for name in ("goal_reward", "toll", "temperature"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"walks: {name} is {getattr(self, name)}; expected a finite number.")
        if not all(map(math.isfinite, self.compared_temperatures)):
            raise UserError("walks: compared_temperatures must be finite numbers.")
        if not self.temperature > 0 or not all(one > 0 for one in self.compared_temperatures):
            raise UserError("walks: temperatures must be above 0.")
        if not self.compared_temperatures:
            raise UserError("walks: compared_temperatures is empty; name at least one temperature.")
        if not 0.0 < self.demonstrated_share < 1.0:
            raise UserError(
                f"walks: demonstrated_share is {self.demonstrated_share}; expected above 0 and below 1, so that some "
                "start/goal pairs are never demonstrated."
            )
        if not 0.0 < self.policy_step <= 1.0:
            raise UserError(f"walks: policy_step is {self.policy_step}; expected above 0 and at most 1.")
        if not 0.0 <= self.toll_share <= 1.0 or self.toll < 0 or self.goal_reward <= 0:
            raise UserError("walks: expected a toll_share from 0 to 1, a toll of 0 or more and a goal_reward above 0.")
