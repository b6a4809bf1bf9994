"""What can be set about soft actor-critic. No tensor library here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unified_irl.errors import UserError

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class SACConfig:
    """The policy, its critics, and how they practise."""

    hidden: tuple[int, ...] = (256, 256)
    """Hidden units of the actor and of each critic."""
    num_critics: int = 2
    """Critics, the lowest of whose values counts."""
    learning_rate: float = 3e-4
    """Learning rate of actor, critics and temperature."""
    settling: tuple[int, int] = (0, 0)
    """Between these numbers of updates the learning rate falls to a twentieth, so that a policy comes to rest; 0 0
    leaves it as it is."""
    batch_size: int = 256
    """Transitions per update."""
    discount: float = 0.99
    """Discount of the backups. SAC cannot look ahead without one; the smaller of this and the method's γ counts."""
    tau: float = 0.005
    """How far the target critics move toward the critics in each update."""
    n_step: int = 1
    """Steps of reward before a backup looks at the critics; entropies of the steps between are left out."""
    updates_per_step: float = 1.0
    """Updates per step of the simulator; 0.5 makes two steps for every update."""
    num_simulators: int = 1
    """Simulators that are stepped together."""
    actor_every: int = 1
    """Critic updates per update of the actor."""
    temperature: Literal["fixed", "auto"] = "fixed"
    """fixed: β of the method, as learning a reward demands; auto: moved toward a target entropy, for a known reward."""
    anchor: Literal["uniform", "reference"] = "uniform"
    """What the policy is measured from: acting at random (which makes an entropy of it), or the reference of the
    method."""
    learning_starts: int = 1000
    """Steps of random actions before the first update; none after cloning."""
    critic_warmup: int = 1000
    """Updates of the critics alone after the policy was cloned, or an untaught critic would undo the cloning."""
    buffer_size: int = 1_000_000
    """Transitions remembered."""
    demonstrated_share: float = 0.0
    """Share of each batch drawn from the demonstrations instead of the policy's own steps."""
    demonstrated_starts: float = 0.0
    """Share of the practice episodes that begin in a state of a demonstration (MuJoCo's; of a file's it is found from
    what was observed); what comes of them is no sample of the policy's own behaviour."""
    normalise_observations: bool = False
    """Standardise what the networks see, by the demonstrations or, without them, the random steps at the start;
    exported policies have it folded into their first layer."""
    reset_critics_above: float = 0.0
    """Forget the critics when one round moves the reward of remembered steps by more than this many of its standard
    deviations; 0 never does."""
    log_std_floor: float = -3.0
    """Least log standard deviation of an action, in units of half the action range. Exported files do not hold it: they
    act alike by their mean, and more narrowly at random where the floor was reached."""
    action_margin: float = 0.005
    """Demonstrated actions this close to their bounds are taken to lie this far inside, where densities are tame."""
    precision: Precision = "float32"
    """Of products between hidden layers; auto takes bfloat16 where the processor is faster with it, asked anew
    when a run goes on, so that it is repeated to the last bit on processors of one kind."""
    graph: bool = False
    """On a GPU: capture the update as one CUDA graph."""

    def __post_init__(self) -> None:
        for name, least in (("num_critics", 1), ("batch_size", 1), ("n_step", 1), ("num_simulators", 1),
                            ("actor_every", 1), ("learning_starts", 0), ("critic_warmup", 0), ("buffer_size", 1000),
                            ("reset_critics_above", 0)):  # fmt: skip
            if not getattr(self, name) >= least:
                raise UserError(f"sac: {name} is {getattr(self, name)}; expected {least} or more.")
        for name in ("learning_rate", "updates_per_step"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise UserError(f"sac: {name} is {getattr(self, name)}; expected a finite number above 0.")
        for name in ("discount", "tau"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise UserError(f"sac: {name} is {getattr(self, name)}; expected above 0 and at most 1.")
        begin, end = self.settling
        if not (0 <= begin < end or begin == end == 0):
            raise UserError(
                f"sac: settling is {begin} {end}; expected two numbers of updates, the first below the second, or 0 0."
            )
        if end and self.graph:
            raise UserError("sac: a captured update keeps its learning rate; let graph be off, or settling 0 0.")
        if self.temperature == "auto" and self.anchor == "reference":
            raise UserError(
                "sac: a temperature that is tuned aims at an entropy, not at a distance from a reference; choose the "
                "anchor uniform or a fixed temperature."
            )
        if self.n_step > 1 and self.anchor == "reference":
            raise UserError("sac: backups over several steps leave out what the anchor needs; set n_step to 1.")
        if self.learning_starts > self.buffer_size:
            raise UserError(
                f"sac: learning_starts is {self.learning_starts}, but only buffer_size = {self.buffer_size} steps are "
                "remembered; expected no more than that."
            )
        if not self.discount < 1.0:
            raise UserError(f"sac: discount is {self.discount}; expected below 1 (0.999 looks a thousand steps ahead).")
        for name in ("demonstrated_share", "demonstrated_starts"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"sac: {name} is {getattr(self, name)}; expected at least 0 and below 1.")
        if not 0.0 < self.action_margin < 0.5:
            raise UserError(f"sac: action_margin is {self.action_margin}; expected above 0 and below 0.5.")
        if not -20.0 <= self.log_std_floor < 0.0:
            raise UserError(f"sac: log_std_floor is {self.log_std_floor}; expected at least -20 and below 0.")
        if not self.hidden or min(self.hidden) < 1:
            raise UserError(f"sac: hidden is {self.hidden}; expected at least one layer of at least one unit.")
