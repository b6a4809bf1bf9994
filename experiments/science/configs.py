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
        _at_least_one("seeds", self.seeds)


@dataclass(frozen=True, kw_only=True)
class ConvergenceConfig:
    """How fast does the single loop of ML-IRL (one policy update, one reward step per round) become stationary?"""

    rounds: tuple[int, ...] = tuple(2**power for power in range(4, 13))
    """Lengths T of a run; each is run afresh, with its own step size."""
    seeds: int = 5
    """Runs per length; each seed draws its own demonstrations and samples."""
    kinds: tuple[Kind, ...] = ("linear", "network")
    """Kinds of reward."""
    step_sizes: tuple[float, ...] = (1.0, 1.0)
    """α₀ for each kind; every step of a run of T rounds has size α₀/√T."""
    num_measured: int = 256
    """Rounds of a run, evenly spread, at which the exact gradient is computed; longer runs leave out the others."""
    world: WalksConfig = field(default_factory=_small_world)
    """The graph world."""

    def __post_init__(self) -> None:
        _sweep("rounds", self.rounds)
        _at_least_one("seeds", self.seeds)
        _at_least_one("num_measured", self.num_measured)
        if len(self.step_sizes) != len(self.kinds):
            raise UserError(f"step_sizes has {len(self.step_sizes)} entries and kinds {len(self.kinds)}; match them.")


@dataclass(frozen=True, kw_only=True)
class SamplesConfig:
    """How fast does what ML-IRL learns approach the demonstrator as demonstrations are added?"""

    num_demonstrations: tuple[int, ...] = tuple(2**power for power in range(4, 14))
    """Numbers of demonstrations."""
    seeds: int = 10
    """Independent data sets per number."""
    rounds: int = 300
    """Rounds of the learner; its step size falls to zero along a cosine."""
    learning_rate: float = 0.1
    """The learner's highest step size (Adam)."""
    pseudo_count: float = 1.0
    """Weight of the uniform policy in behaviour cloning's frequencies; with 0 its KL is infinite."""
    world: WalksConfig = field(default_factory=_small_world)
    """The graph world. The reward must be linear: the true one is then among those that can be learnt."""

    def __post_init__(self) -> None:
        _sweep("num_demonstrations", self.num_demonstrations)
        _at_least_one("seeds", self.seeds)
        _at_least_one("rounds", self.rounds)
        if self.world.reward != "linear":
            raise UserError(f"the reward is '{self.world.reward}'; expected linear, which holds the true one.")
        if not self.pseudo_count > 0:
            raise UserError(f"pseudo_count is {self.pseudo_count}; expected a number above 0.")
