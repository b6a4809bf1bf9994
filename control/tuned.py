"""How long and how fast each method learns on each robot, and how its networks are set. No tensor library here.

Every method that climbs a reward gets the same number of updates, and so of steps of practice. Where no episode ends
within a round, one more is simulated to be looked at, from which no critic learns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from control.config import ControlConfig
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
    hidden: tuple[int, ...] = (256, 256)
    """Units of the layers of actor and critics."""
    num_simulators: int = 1
    """Simulators that make a step each for every update."""
    settles: bool = False
    """Whether the reward is at rest after five sixths of the run, and the networks' step sizes fall through its second
    half: a policy of many updates swings to the end otherwise."""

    @property
    def is_long(self) -> bool:
        """Whether a run takes hours rather than minutes."""
        return self.round_ >= 1000


USUAL = Pace(round_=1000, num_rounds=400, beta=0.05)
PLANAR = replace(USUAL, hidden=(128, 128), num_simulators=2, num_rounds=600, settles=True)
PACES: dict[str, Pace] = {
    # Small robots do with small networks, which take a fraction of the time. Steps cost less than updates.
    "pendulum": Pace(round_=200, num_rounds=60, beta=0.1, learning_rate=1e-3, segment=25, hidden=(64, 64)),
    "inverted-pendulum": Pace(round_=500, num_rounds=30, beta=0.05, learning_rate=1e-3, segment=25, hidden=(64, 64)),
    "inverted-double-pendulum": Pace(
        round_=500, num_rounds=50, beta=0.05, learning_rate=1e-3, segment=25, hidden=(64, 64)
    ),
    "reacher": Pace(round_=200, num_rounds=100, beta=0.02, learning_rate=1e-3, segment=10, hidden=(64, 64)),
    "hopper": PLANAR,
    "halfcheetah": PLANAR,
    "walker2d": PLANAR,
}
REWARD_STEPS = 20
"""Descent steps of the reward in a round."""
CLONING = 1000
"""Rounds of everything that descends on data alone."""


def pace(name: str) -> Pace:
    return PACES.get(name, USUAL)


def settings(name: str) -> ControlConfig:
    """The settings a robot starts from."""
    one, speed = robot(name), pace(name)
    updates = speed.num_rounds * speed.round_
    return ControlConfig(
        robot=name,
        people=PeopleConfig(segment_length=speed.segment),
        ends="absorbing" if one.can_fall else "as they come",
        sac=SACConfig(
            discount=one.discount,
            learning_rate=speed.learning_rate,
            hidden=speed.hidden,
            updates_per_step=1.0 / speed.num_simulators,
            num_simulators=speed.num_simulators,
            settling=(updates // 2, updates) if speed.settles else (0, 0),
            learning_starts=one.learning_starts if speed.is_long else 500,
            critic_warmup=speed.round_,
            precision="auto",
        ),
    )


def row(name: str, method: Method) -> Method:
    """The row with the step sizes and lengths that suit a robot."""
    one, speed = robot(name), pace(name)
    # Ratios to an untaught policy say little, of one's own behaviour or of a comparison. Cloning first is also what
    # these methods do in language; direct-aihf clones while it compares.
    ratios = method.reward == "implicit" and not any(phase.clones for phase in method.phases)
    return replace(
        method,
        init="clone" if ratios else method.init,
        beta=speed.beta if method.reward == "explicit" else method.beta,
        gamma=1.0,
        warm_start=replace(method.warm_start, rounds=CLONING),
        policy_descent=DescentConfig(learning_rate=3e-4, max_grad_norm=10.0),
        reward_descent=_settling(method, speed),
        phases=tuple(_phase(phase, method, one, speed) for phase in method.phases),
    )


def note(method: Method) -> str:
    """What a user should know of this method in this world."""
    said = []
    if method.reward == "implicit" and method.uses_preferences:
        said.append(
            "Comparisons here are of segments, and on segments the likelihood form of preferences is contrastive "
            "preference learning: it compares regrets, not returns."
        )
    if method.init == "clone" and not any(phase.needs_own_samples for phase in method.phases):
        said.append("The policy is cloned from the demonstrations first; --method.init base begins without them.")
    steps, rest = sum(phase.rounds * phase.reward_steps for phase in method.phases), method.reward_descent.total_steps
    settles = method.reward == "explicit" and method.reward_descent.schedule == "cosine"
    if settles and not 0.8 * steps <= rest <= steps:
        said.append(
            f"The reward's step size reaches zero after {rest} steps, but {steps} are planned; "
            f"--method.reward-descent.total-steps {steps} would fit (and task.sac.settling, where it is set)."
        )
    return " ".join(said)


def _settling(method: Method, speed: Pace) -> DescentConfig:
    """A reward that learns beside the policy comes to rest toward the end, and the policy with it."""
    if not any(phase.needs_own_samples for phase in method.phases):
        return DescentConfig(learning_rate=1e-3)
    steps = speed.num_rounds * REWARD_STEPS
    return DescentConfig(learning_rate=1e-3, schedule="cosine", total_steps=steps * 5 // 6 if speed.settles else steps)


def _phase(phase: Phase, method: Method, one: Robot, speed: Pace) -> Phase:
    if method.reward == "none":
        return replace(phase, rounds=CLONING)
    if method.reward == "implicit":
        return _implicit(phase, one)
    common = {"preference_sharpness": 5.0 / speed.segment}
    if phase.policy_updates == 0:  # the reward alone, of rlhf
        return replace(phase, rounds=CLONING, batch_size=64, **common)
    climbing = replace(phase, policy_updates=speed.round_, rounds=speed.num_rounds, **common)
    if not phase.learns_demonstrations:
        # One round more: methods that learn their reward on the way climb once more when it is done.
        return replace(climbing, rounds=speed.num_rounds + 1, practice=1, until="rounds")
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


def _implicit(phase: Phase, one: Robot) -> Phase:
    """Ratios of densities over short windows: over whole episodes any sigmoid is saturated."""
    if phase.needs_own_samples:
        return replace(phase, segment=10, batch_size=64, rounds=min(phase.rounds, 50))
    if phase.clones:  # a mean over steps, or a thousand of them would drown the comparisons
        return replace(phase, rounds=CLONING, demonstration_weight=1.0 / (one.horizon or 1000))
    return replace(phase, rounds=CLONING, batch_size=64)


EXPERT = Method(
    name="expert",
    summary="climb the task's own reward",
    reward="explicit",
    phases=(Phase(name="practice", policy_updates=1000, practice=1, reward_steps=0),),
)
"""No method of the table: how the experts that demonstrate are made."""


def expert_settings(name: str) -> ControlConfig:
    """Small tasks get networks of the usual width, which takes minutes once: an arm of 64 units ends 0.7 behind."""
    usual = settings(name)
    hidden = usual.sac.hidden if pace(name).is_long else SACConfig().hidden
    return replace(
        usual,
        learn_from="ground truth",
        ends="as they come",
        people=replace(usual.people, num_demonstrations=0, num_preferences=0),
        sac=replace(usual.sac, temperature="auto", settling=(0, 0), hidden=hidden),
    )


def expert_row(name: str) -> Method:
    """Two million updates, or what a small task needs; a run can be harvested before its end."""
    speed = pace(name)
    rounds = 2000 if speed.is_long else 2 * speed.num_rounds
    return replace(
        EXPERT,
        phases=(replace(EXPERT.phases[0], policy_updates=speed.round_, rounds=rounds),),
    )


def run_settings(name: str, row: Method) -> RunConfig:
    """A replay of many steps makes checkpoints of many megabytes; an examination takes as long as a hundred rounds on
    data alone, so there are forty of them at most."""
    num_rounds, usual = sum(phase.rounds for phase in row.stages), RunConfig()
    if not pace(name).is_long:
        return RunConfig(evaluate_every=max(usual.evaluate_every, num_rounds // 40))
    return RunConfig(checkpoint_seconds=300.0, evaluate_every=max(1, num_rounds // 40))
