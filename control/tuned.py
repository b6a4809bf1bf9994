"""How long and how fast each method learns on each robot, and how its networks are set. No tensor library here.

Every method that climbs a reward gets the same number of updates, and so of simulated steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from control.config import ControlConfig
from control.reward_config import RewardConfig
from control.sac_config import SACConfig
from envs.robots.config import PeopleConfig
from envs.robots.table import Robot, robot
from unified_irl.descent_config import DescentConfig
from unified_irl.methods import Method, Phase
from unified_irl.run_config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How much a robot needs."""

    round_: int
    """Updates per round: about an episode, so that every round has own samples to learn from."""
    num_rounds: int
    """Rounds of a method that climbs a reward."""
    beta: float
    """Temperature."""
    learning_rate: float = 3e-4
    segment: int = 50
    """Steps of compared segments."""


PACES: dict[str, Pace] = {
    "pendulum": Pace(round_=200, num_rounds=60, beta=0.05, learning_rate=1e-3, segment=25),
    "inverted-pendulum": Pace(round_=500, num_rounds=30, beta=0.05, learning_rate=1e-3, segment=25),
    "inverted-double-pendulum": Pace(round_=500, num_rounds=50, beta=0.05, learning_rate=1e-3, segment=25),
    "reacher": Pace(round_=200, num_rounds=100, beta=0.02, learning_rate=1e-3, segment=10),
}
USUAL = Pace(round_=1000, num_rounds=400, beta=0.05)
REWARD_STEPS = 20
"""Descent steps of the reward in a round."""


def pace(name: str) -> Pace:
    return PACES.get(name, USUAL)


def settings(name: str) -> ControlConfig:
    """The settings a robot starts from."""
    one, speed = robot(name), pace(name)
    return ControlConfig(
        robot=name,
        people=PeopleConfig(segment_length=speed.segment),
        ends="absorbing" if one.can_fall else "as they come",
        sac=SACConfig(
            discount=one.discount,
            learning_rate=speed.learning_rate,
            learning_starts=one.learning_starts if speed is USUAL else 500,
            half=True,
        ),
        reward=RewardConfig(absorbing=one.can_fall),
    )


def row(name: str, method: Method) -> Method:
    """The row with the step sizes and lengths that suit a robot."""
    one, speed = robot(name), pace(name)
    # Against its own behaviour a policy only learns where that resembles a demonstration at all.
    plays_itself = method.reward == "implicit" and any(phase.needs_own_samples for phase in method.phases)
    return replace(
        method,
        init="clone" if plays_itself else method.init,
        beta=speed.beta if method.reward == "explicit" else method.beta,
        gamma=1.0,
        warm_start=replace(method.warm_start, rounds=1000),
        policy_descent=DescentConfig(learning_rate=3e-4, max_grad_norm=10.0),
        reward_descent=_settling(method, speed),
        phases=tuple(_phase(phase, method, one, speed) for phase in method.phases),
    )


def note(method: Method) -> str:
    """What a user should know of this method in this world."""
    if method.reward == "implicit" and method.uses_preferences:
        return (
            "Comparisons here are of segments, and on segments the likelihood form of preferences is contrastive "
            "preference learning: it compares regrets, not returns."
        )
    return ""


def _settling(method: Method, speed: Pace) -> DescentConfig:
    """A reward that learns beside the policy comes to rest toward the end, and the policy with it."""
    if not any(phase.needs_own_samples for phase in method.phases):
        return DescentConfig(learning_rate=1e-3)
    return DescentConfig(learning_rate=1e-3, schedule="cosine", total_steps=speed.num_rounds * REWARD_STEPS)


def _phase(phase: Phase, method: Method, one: Robot, speed: Pace) -> Phase:
    if method.reward == "none":
        return replace(phase, rounds=1000)
    if method.reward == "implicit":
        return _implicit(phase)
    common = {"preference_sharpness": 5.0 / speed.segment}
    if phase.policy_updates == 0:  # the reward alone, of rlhf
        return replace(phase, rounds=1000, batch_size=64, **common)
    climbing = replace(phase, policy_updates=speed.round_, rounds=speed.num_rounds, **common)
    if not phase.learns_demonstrations:
        return replace(climbing, practice=1, until="rounds")
    # Divided by the horizon, the linear term is a mean over steps, as the reward's gradient penalty is.
    steps = one.horizon or 1000
    return replace(
        climbing,
        demonstration_weight=speed.beta / steps if phase.demonstration == "linear" else 1.0,
        segment=0 if phase.demonstration == "linear" else 10,
        batch_size=0 if phase.demonstration == "linear" else 64,
        reward_steps=REWARD_STEPS,
        own_memory=5,
    )


def _implicit(phase: Phase) -> Phase:
    """Ratios of densities over short windows: over whole episodes any sigmoid is saturated."""
    changes: dict[str, object] = {"preference_sharpness": 0.1} if phase.preference != "none" else {}
    if phase.needs_own_samples:
        return replace(phase, segment=10, batch_size=64, rounds=min(phase.rounds, 50), **changes)  # type: ignore[arg-type]
    return replace(phase, rounds=500, batch_size=64 if phase.demonstration == "none" else 0, **changes)  # type: ignore[arg-type]


EXPERT = Method(
    name="expert",
    summary="climb the task's own reward",
    reward="explicit",
    phases=(Phase(name="practice", policy_updates=1000, practice=1, reward_steps=0),),
)
"""No method of the table: how the experts that demonstrate are made."""


def expert_settings(name: str) -> ControlConfig:
    usual = settings(name)
    return replace(
        usual,
        learn_from="ground truth",
        ends="as they come",
        people=replace(usual.people, num_demonstrations=0, num_preferences=0),
        sac=replace(usual.sac, temperature="auto"),
    )


def expert_row(name: str) -> Method:
    """Two million updates, or what a small task needs; a run can be harvested before its end."""
    speed = pace(name)
    rounds = 2000 if speed is USUAL else speed.num_rounds
    return replace(EXPERT, phases=(replace(EXPERT.phases[0], policy_updates=speed.round_, rounds=rounds),))


def run_settings(name: str) -> RunConfig:
    """A replay of many steps makes checkpoints of many megabytes."""
    return RunConfig() if pace(name) is not USUAL else RunConfig(checkpoint_seconds=300.0)
