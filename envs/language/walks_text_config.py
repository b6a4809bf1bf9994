"""What can be set about the graph world as a language. No tensor library here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from envs.walks.config import DemonstratorConfig, WalksConfig
from unified_irl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class WalksTextConfig:
    """Walks on a seeded geometric graph, told node by node: reach the goal and end there, by a short way that avoids
    tolls."""

    num_nodes: int = 24
    """Size of the graph; every node is a word."""
    num_neighbours: int = 3
    """Nearest nodes that each node has an edge to (the graph is kept connected beside that)."""
    num_goals: int = 0
    """Nodes that can be goals, each with a word of its own beside the node's; 0 means all of them."""
    horizon: int = 12
    """Words after which a walk is cut off."""
    graph_seed: int = 0
    """Which graph."""
    goal_reward: float = 2.0
    """Reward for ending at the goal; ending elsewhere pays nothing."""
    toll_share: float = 0.3
    """Share of the nodes that charge a toll on entry."""
    toll: float = 0.6
    """The mean toll; single ones lie between half and one and a half of it."""
    invalid_reward: float = -1.0
    """Reward of a word that is no neighbour of where the walk stands; the walk is over there, and nothing said after
    it counts."""

    temperature: float = 0.1
    """Temperature of the expert, against whom KL and regret are measured: soft-optimal for the true reward."""
    demonstrator: DemonstratorConfig = field(default_factory=DemonstratorConfig)
    """Who demonstrates."""
    demonstrated_share: float = 0.5
    """Share of the start/goal pairs that may be demonstrated and compared; on the rest the learner is examined."""
    compared_temperatures: tuple[float, ...] = (0.3, 1.0)
    """The walks that are compared come from soft-optimal walkers of these temperatures, drawn at random."""
    length_bias: float = 0.0
    """What labellers feel for every word, however far it leads; 0 for none."""
    labelled_share: float = 0.3
    """Share of the corpus whose walks carry the goal where they ended; the others say that they go anywhere."""

    def __post_init__(self) -> None:
        _ = self.walks  # its own checks, and their sentences
        if not (math.isfinite(self.invalid_reward) and self.invalid_reward < 0):
            raise UserError(
                f"walks-text: invalid_reward is {self.invalid_reward}; expected a finite number below 0, so that "
                "a word that is no neighbour pays less than ending."
            )
        if not math.isfinite(self.length_bias):
            raise UserError(f"walks-text: length_bias is {self.length_bias}; expected a finite number, 0 for none.")
        if not 0.0 <= self.labelled_share <= 1.0:
            raise UserError(f"walks-text: labelled_share is {self.labelled_share}; expected a share from 0 to 1.")

    @property
    def walks(self) -> WalksConfig:
        """The exact world that is told."""
        return WalksConfig(
            num_nodes=self.num_nodes,
            num_neighbours=self.num_neighbours,
            num_goals=self.num_goals,
            horizon=self.horizon,
            graph_seed=self.graph_seed,
            goal_reward=self.goal_reward,
            toll_share=self.toll_share,
            toll=self.toll,
            temperature=self.temperature,
            demonstrator=self.demonstrator,
            demonstrated_share=self.demonstrated_share,
            compared_temperatures=self.compared_temperatures,
        )
