"""What the measurements in the exact world sweep. No tensor library here: the command line reads this to print help."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from envs.walks.config import DemonstratorConfig, Kind, WalksConfig
from unified_irl.errors import UserError


def _small_world(**changes: object) -> WalksConfig:
    """Eight nodes, an expert soft enough to show every kind of move, and a learner that acts as it does."""
    world = WalksConfig(
        num_nodes=8,
        num_neighbours=2,
        num_goals=4,
        horizon=6,
        temperature=0.5,
        demonstrator=DemonstratorConfig(temperature=0.5),
        num_preferences=0,
        reward="linear",
        reward_width=16,
    )
    return replace(world, **changes)  # type: ignore[arg-type]


def _sweep(what: str, values: tuple[int, ...]) -> None:
    if len(values) < 3 or min(values) < 1 or len(set(values)) < len(values):
        raise UserError(f"{what} is {values}; expected at least three different numbers above 0, for a slope.")


def _seeds(seeds: int) -> None:
    if not seeds >= 2:
        raise UserError(f"seeds is {seeds}; expected 2 or more, for an interval.")


def _at_least_one(what: str, value: float) -> None:
    if not value >= 1:
        raise UserError(f"{what} is {value}; expected 1 or more.")


@dataclass(frozen=True, kw_only=True)
class GradientConfig:
    """Does the gradient that the core computes from samples converge to the exact one, and how fast?"""

    num_samples: tuple[int, ...] = tuple(2**power for power in range(4, 15))
    """Numbers of demonstrations, and of own samples beside them."""
    seeds: int = 64
    """Independent draws per number."""
    kinds: tuple[Kind, ...] = ("free", "linear", "network")
    """Kinds of reward."""
    gamma: float = 1.0
    """Discount of the likelihood."""
    spread: float = 0.5
    """Standard deviation of the reward's parameters: the gradient is taken at a random reward."""
    world: WalksConfig = field(default_factory=_small_world)
    """The graph world."""

    def __post_init__(self) -> None:
        _sweep("num_samples", self.num_samples)
        _seeds(self.seeds)


@dataclass(frozen=True, kw_only=True)
class ConvergenceConfig:
    """How fast does the single loop of ML-IRL (one policy update, one reward step per round) become stationary?"""

    rounds: tuple[int, ...] = (16, 64, 256, 1024, 4096)
    """Lengths T of a run; each is run afresh, with its own step size."""
    seeds: int = 5
    """Runs per length; each seed draws its own demonstrations and samples."""
    kinds: tuple[Kind, ...] = ("linear", "network")
    """Kinds of reward."""
    step_size: float = 0.3
    """α₀: every step of a run of T rounds has size α₀/√T. Chosen by hand, the largest of 0.15, 0.3, 0.6 and 1 at which
    the shortest runs do not overshoot; smaller ones leave short runs where they started."""
    num_measured: int = 512
    """Rounds of a run, evenly spread, at which the exact gradient is computed; longer runs leave out the others."""
    world: WalksConfig = field(default_factory=lambda: _small_world(num_demonstrations=256))
    """The graph world."""

    def __post_init__(self) -> None:
        _sweep("rounds", self.rounds)
        _seeds(self.seeds)
        _at_least_one("num_measured", self.num_measured)
        if not self.step_size > 0:
            raise UserError(f"step_size is {self.step_size}; expected a number above 0.")


@dataclass(frozen=True, kw_only=True)
class SamplesConfig:
    """How fast does what ML-IRL learns approach the demonstrator as demonstrations are added?"""

    num_demonstrations: tuple[int, ...] = tuple(2**power for power in range(4, 14))
    """Numbers of demonstrations."""
    seeds: int = 16
    """Independent data sets per number."""
    rounds: int = 300
    """Rounds of the learner; its step size falls to zero along a cosine."""
    learning_rate: float = 0.5
    """The learner's highest step size (Adam)."""
    prior: float = 5.0
    """Standard deviation of a Gaussian prior on each weight of the exact solution: where few demonstrations never show
    a move that some feature marks, their likelihood alone is greatest at infinity."""
    pseudo_count: float = 1.0
    """Weight of the uniform policy in behaviour cloning's frequencies; with 0 its KL is infinite."""
    world: WalksConfig = field(default_factory=lambda: _small_world(horizon=4, goal_reward=3.0))
    """The graph world. The reward must be linear: the true one is then among those that can be learnt."""

    def __post_init__(self) -> None:
        _sweep("num_demonstrations", self.num_demonstrations)
        _seeds(self.seeds)
        _at_least_one("rounds", self.rounds)
        if self.world.reward != "linear":
            raise UserError(f"the reward is '{self.world.reward}'; expected linear, which holds the true one.")
        if not (self.pseudo_count > 0 and self.prior > 0 and self.learning_rate > 0):
            raise UserError("pseudo_count, prior and learning_rate must be above 0.")


def _tiny_world() -> WalksConfig:
    """Five nodes and three steps: every walk can be written down."""
    return _small_world(
        num_nodes=5, num_goals=2, horizon=3, temperature=1.5, demonstrator=DemonstratorConfig(temperature=1.5),
        reward="free",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FixedPointsConfig:
    """What does each link converge to? Expectations are sums over every walk, so nothing here is noise."""

    betas: tuple[float, ...] = (0.5, 1.0, 2.0)
    """β of the pairwise link with an explicit reward."""
    turns: int = 24
    """Turns of that link (reward solved for the policy, policy solved for the reward)."""
    self_play_betas: tuple[float, ...] = (0.4, 0.5, 0.75, 1.0, 2.0, 4.0)
    """β of self-play."""
    rounds: int = 6
    """Rounds of self-play, each solved fully, and of preferences against the previous self."""
    rationality: float = 2.0
    """Inverse temperature of the labeller whose comparisons are learnt."""
    steps: int = 300
    """Descent steps of the linear link on the implicit reward, with fresh and with stale own samples."""
    world: WalksConfig = field(default_factory=_tiny_world)
    """The graph world; small, because its walks are enumerated in pairs."""

    def __post_init__(self) -> None:
        for name in ("turns", "rounds", "steps"):
            _at_least_one(name, getattr(self, name))
        if not (self.betas and self.self_play_betas and min(*self.betas, *self.self_play_betas) > 0):
            raise UserError("betas and self_play_betas need at least one entry each, all above 0.")
        if self.world.horizon > 5 or self.world.num_nodes > 8:
            raise UserError(
                f"a world of {self.world.num_nodes} nodes and {self.world.horizon} steps has too many pairs of walks; "
                "expected at most 8 nodes and 5 steps."
            )


QUICK = {
    "gradient": GradientConfig(num_samples=tuple(2**power for power in range(5, 12)), seeds=12),
    "convergence": ConvergenceConfig(rounds=(16, 64, 256), seeds=3, kinds=("linear",), num_measured=64),
    "samples": SamplesConfig(num_demonstrations=(64, 256, 1024), seeds=4, rounds=100),
    "fixed_points": FixedPointsConfig(betas=(0.5, 2.0), turns=12, self_play_betas=(0.75, 1.0, 2.0), rounds=2, steps=60),
}
"""The same measurements in seconds, for a first look and for tests."""
