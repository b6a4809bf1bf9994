"""What a learnt reward looks at, how large it is and what keeps it smooth. No tensor library here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from unified_irl.errors import UserError

Inputs = Literal["s", "s,a", "s,a,s'"]
Activation = Literal["tanh", "relu"]
Bounding = Literal["clamp", "tanh", "none"]


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """A perceptron, or several, over single steps."""

    inputs: Inputs = "s,a"
    """What of a step is seen: the state, the action too, or also the state that came of it."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers; none at all makes the reward linear in its inputs."""
    activation: Activation = "tanh"
    """What stands between the layers."""
    bounding: Bounding = "clamp"
    """How the reward of one step is kept within `bound`: cut off there, squashed smoothly, or not at all."""
    bound: float = 10.0
    """The largest reward of one step, of either sign."""
    gradient_penalty: float = 10.0
    """Weight of max(slope − penalty_target, 0)², averaged over points between the steps that a loss compares; 0: none.
    A reward that falls off steeply beside the demonstrations gives the policy nothing to climb."""
    penalty_target: float = 1.0
    """The slope (reward per standard deviation of the inputs) up to which there is no penalty."""
    penalty_points: int = 512
    """At how many random points a descent step measures the slope, for each kind of feedback."""
    spectral_norm: bool = False
    """Divide every layer by its largest singular value, so that the slope is nowhere above 1."""
    num_members: int = 1
    """Perceptrons that start differently and learn from the same data. The reward is their mean; where they disagree,
    the data say little."""
    normalise_inputs: bool = True
    """Shift and scale observations by the mean and standard deviation of the data, and actions from their bounds to
    [−1, 1]."""
    input_std_floor: float = 0.1
    """Inputs are never divided by less than this, so that what hardly varies in the data, a joint that never moved
    say, does not become huge the first time it does."""
    normalise_output: bool = False
    """Show the policy the reward divided by its running standard deviation over the steps learnt from. Comparisons
    leave the scale of a reward open, and step sizes and the temperature of a policy depend on it; the demonstrations
    fix it, so leave this off where they take part. Nothing is subtracted: a reward's zero says what one more step is
    worth where episodes can end."""
    absorbing: bool = False
    """The steps after the world has ended an episode have a reward of their own, learnt through one more input that
    only they carry; otherwise it is 0. In a task, its `ends` decides this."""

    def __post_init__(self) -> None:
        for name, choices in (("inputs", Inputs), ("activation", Activation), ("bounding", Bounding)):
            if getattr(self, name) not in get_args(choices):
                known = ", ".join(f'"{one}"' for one in get_args(choices))
                raise UserError(f'reward: {name} is "{getattr(self, name)}"; expected one of {known}.')
        if any(width < 1 for width in self.hidden):
            raise UserError(f"reward: hidden is {list(self.hidden)}; expected widths of 1 or more, such as 128 128.")
        for name in ("bound", "input_std_floor"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise UserError(f"reward: {name} is {getattr(self, name)}; expected a finite number above 0.")
        for name in ("gradient_penalty", "penalty_target"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise UserError(f"reward: {name} is {getattr(self, name)}; expected a finite number of 0 or more.")
        for name in ("num_members", "penalty_points"):
            if getattr(self, name) < 1:
                raise UserError(f"reward: {name} is {getattr(self, name)}; expected 1 or more.")
