"""All that can be set about a task of the control world. No tensor library here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from control.reward_config import RewardConfig
from control.sac_config import SACConfig
from envs.robots.config import PeopleConfig
from unified_irl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ControlConfig:
    """A Gymnasium task, its people, and how a policy and a reward are built for it."""

    robot: str = "pendulum"
    """The task: a name, or gym:ID for any Gymnasium environment with continuous observations and actions."""
    people: PeopleConfig = field(default_factory=PeopleConfig)
    """Who demonstrates, and who compares."""
    learn_from: Literal["feedback", "ground truth"] = "feedback"
    """Where rewards come from: learnt, or the task's own (to see what the policy alone can do)."""
    ends: Literal["as they come", "absorbing", "fixed horizon"] = "as they come"
    """Episodes that the world ends early: as they come; followed by absorbing steps, so that neither living nor dying
    pays by itself; or never (only for tasks whose world can be told to go on)."""
    sac: SACConfig = field(default_factory=SACConfig)
    """The policy."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """The explicit reward."""
    num_examined: int = 10
    """Episodes of an examination, acting by the mean, and as many acting at random."""
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """Where the networks live; auto takes a GPU where there is one."""

    def __post_init__(self) -> None:
        if self.num_examined < 1:
            raise UserError(f"num_examined is {self.num_examined}; expected 1 or more episodes.")
