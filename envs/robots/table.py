"""The named tasks of the control world: what they are, how long they last, which returns are 0 and 1 as scores."""

from __future__ import annotations

from dataclasses import dataclass

from unified_irl.errors import UserError, unknown_name

ANY = "gym:"
"""What precedes the id of a Gymnasium environment that has no name here."""


@dataclass(frozen=True, kw_only=True)
class Robot:
    """One task."""

    id: str
    """Gymnasium's id of it."""
    summary: str
    """What has to be done, in a few words."""
    horizon: int | None = None
    """Steps of an episode that nothing ends early; None where only the environment knows."""
    discount: float = 0.99
    """The discount that suits soft actor-critic here."""
    expert_bar: float | None = None
    """The return from which a policy may be called an expert; None where nobody agreed on one."""
    random_score: float | None = None
    """Return of uniform actions, the mean of 100 episodes: 0 on the normalised scale."""
    expert_score: float | None = None
    """Return of a published expert: 1 on the normalised scale; None where none is published."""
    can_fall: bool = True
    """Whether the world can end an episode before the horizon."""
    learning_starts: int = 1_000
    """Steps of random actions that soft actor-critic should see before it learns."""


# Published experts: SB3 checkpoints of farama-minari for v5 (hopper, halfcheetah, walker2d, ant), where there are none,
# soft actor-critic in RL Zoo (pendulum, swimmer, humanoid) and Tianshou (reacher, the inverted pendulums) on v3.
ROBOTS: dict[str, Robot] = {
    "pendulum": Robot(
        id="Pendulum-v1",
        summary="swing a pendulum up and hold it",
        horizon=200,
        random_score=-1197.2,
        expert_score=-157.0,
        can_fall=False,
    ),
    "inverted-pendulum": Robot(
        id="InvertedPendulum-v5",
        summary="balance a pole on a cart",
        horizon=1000,
        random_score=5.6,
        expert_score=1000.0,
    ),
    "inverted-double-pendulum": Robot(
        id="InvertedDoublePendulum-v5",
        summary="balance two poles, one on the other, on a cart",
        horizon=1000,
        random_score=50.1,
        expert_score=9359.5,
    ),
    "reacher": Robot(
        id="Reacher-v5",
        summary="bring the tip of a two-jointed arm to a target",
        horizon=50,
        random_score=-42.9,
        expert_score=-2.6,
        can_fall=False,
    ),
    "swimmer": Robot(
        id="Swimmer-v5",
        summary="swim forward with three links; needs a long view",
        horizon=1000,
        discount=0.999,
        random_score=3.2,
        expert_score=345.6,
        can_fall=False,
        learning_starts=10_000,
    ),
    "hopper": Robot(
        id="Hopper-v5",
        summary="hop forward on one leg",
        horizon=1000,
        expert_bar=3000.0,
        random_score=17.0,
        expert_score=4098.2,
        learning_starts=10_000,
    ),
    "halfcheetah": Robot(
        id="HalfCheetah-v5",
        summary="run forward on two legs, in the plane",
        horizon=1000,
        expert_bar=9000.0,
        random_score=-267.7,
        expert_score=11448.2,
        can_fall=False,
        learning_starts=10_000,
    ),
    "walker2d": Robot(
        id="Walker2d-v5",
        summary="walk forward on two legs, in the plane",
        horizon=1000,
        expert_bar=4000.0,
        random_score=1.9,
        expert_score=6956.6,
        learning_starts=10_000,
    ),
    "ant": Robot(
        id="Ant-v5",
        summary="run forward on four legs",
        horizon=1000,
        random_score=-47.5,
        expert_score=4473.2,
        learning_starts=10_000,
    ),
    "humanoid": Robot(
        id="Humanoid-v5",
        summary="walk forward upright on two legs",
        horizon=1000,
        random_score=109.9,
        expert_score=6232.3,
        learning_starts=10_000,
    ),
    "transfer-ant": Robot(
        id="envs.robots.ants:unified-irl/TransferAnt-v0",
        summary="a weaker ant that may lie down; rewards learnt here are tried on crippled-ant",
        horizon=500,
        random_score=-16.1,
        can_fall=False,
        learning_starts=10_000,
    ),
    "crippled-ant": Robot(
        id="envs.robots.ants:unified-irl/CrippledAnt-v0",
        summary="the same with two short, nearly powerless back legs",
        horizon=500,
        random_score=-15.5,
        can_fall=False,
        learning_starts=10_000,
    ),
}


def robot(name: str) -> Robot:
    """The task of this name. `gym:` and an id stand for any Gymnasium environment, of which less is known."""
    if name in ROBOTS:
        return ROBOTS[name]
    if not name.startswith(ANY):
        raise unknown_name("robot", name, ROBOTS)
    if name == ANY:
        raise UserError("The robot 'gym:' lacks an id; expected one of Gymnasium's behind it, such as gym:Pusher-v5.")
    return Robot(id=name.removeprefix(ANY), summary="an environment of Gymnasium")
