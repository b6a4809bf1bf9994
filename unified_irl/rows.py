"""What a row of the method table can say. Whatever cannot be said here is a missing column, not a new trainer.

This module imports no tensor library: the command line reads it to print help.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from unified_irl.descent_config import DescentConfig
from unified_irl.errors import UserError

DemonstrationLink = Literal["none", "likelihood", "linear", "pairwise"]
PreferenceLink = Literal["none", "bradley-terry"]
Reference = Literal["start", "previous"]
Query = Literal["uniform", "disagreement", "entropy"]
WATCHED = {"held-out preferences": "held_out_preference_loss", "policy": "policy_loss"}
"""The metric behind each way to end a phase early."""


def _at_least(what: str, value: float, least: float) -> None:
    if not value >= least:
        raise UserError(f"{what} is {value}; expected {least} or more.")
    if value == math.inf:
        raise UserError(f"{what} is inf; expected a finite number.")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stage of a method: which losses, against which references, on which samples, for how long."""

    name: str
    """What the stage is called in logs."""
    demonstration: DemonstrationLink = "none"
    """How demonstrations speak: their likelihood, or their reward against that of own samples (linear, pairwise)."""
    demonstration_weight: float = 1.0
    """w_d, the weight of the demonstration term; 0 leaves the term and its data out entirely."""
    demonstration_reference: Reference = "start"
    """What an implicit reward is measured from in the demonstration term: the start, or the previous self."""
    preference: PreferenceLink = "none"
    """How comparisons speak."""
    preference_weight: float = 1.0
    """w_p, the weight of the preference term; 0 leaves the term and its data out entirely."""
    preference_reference: Reference = "start"
    """What an implicit reward is measured from in the preference term."""
    preference_sharpness: float = 1.0
    """κ in σ(κ ΔR): how sharply labellers are taken to choose between two returns, in units of the reward."""
    queries: int = 0
    """Comparisons asked for in each round, about what the policy did; they join those it learns from."""
    query: Query = "uniform"
    """Which pairs are asked about: any; those on which the members of the reward disagree most; those that the reward
    can tell apart least."""
    query_until: int = 0
    """Ask until there are this many answers in the whole run, those to begin with not counted; 0 never stops."""
    refresh_every: int = 1
    """Rounds after which 'previous' becomes the current policy again."""
    prompts: float = 1.0
    """Share of the demonstrations that one round covers with own samples."""
    practice: int = 0
    """Contexts without demonstrations that the policy also practises on in each round."""
    own_memory: int = 1
    """Own samples of this many last rounds serve as what the policy did; 1 keeps only fresh ones."""
    reward_steps: int = 1
    """Descent steps on the losses per round (on the policy itself where the reward is implicit)."""
    step_size: float = 1.0
    """How long these steps are, as a multiple of the step size of the method's `policy_descent` or `reward_descent`:
    what was cloned with long steps may want to be corrected with short ones."""
    segment: int = 0
    """Steps of the windows that demonstrations and own samples are cut to, at a new random place for every descent
    step; 0 looks at whole behaviours. Over hundreds of summed steps a sigmoid saturates."""
    batch_size: int = 0
    """Demonstrations and comparisons per descent step; 0 takes all of the round's."""
    policy_updates: int = 0
    """Updates by which the policy climbs the explicit reward in each round."""
    rounds: int = 100
    """Rounds at most."""
    until: Literal["rounds", "held-out preferences", "policy"] = "rounds"
    """What ends the stage before its last round: the loss of comparisons set aside, or the policy's objective,
    once it has stopped falling."""
    patience: int = 5
    """Rounds without progress before `until` ends the stage."""
    tolerance: float = 1e-4
    """How much less counts as progress."""

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("refresh_every", 1), ("own_memory", 1), ("patience", 1)):
            _at_least(f"phase '{self.name}': {name}", getattr(self, name), least)
        for name in ("preference_sharpness", "step_size"):
            if not getattr(self, name) > 0:
                raise UserError(f"phase '{self.name}': {name} is {getattr(self, name)}; expected above 0.")
        for name in ("demonstration_weight", "preference_weight", "preference_sharpness", "reward_steps", "step_size",
                     "policy_updates", "batch_size", "segment", "practice", "tolerance", "queries",
                     "query_until"):  # fmt: skip
            _at_least(f"phase '{self.name}': {name}", getattr(self, name), 0)
        if not 0.0 < self.prompts <= 1.0:
            raise UserError(f"phase '{self.name}': prompts is {self.prompts}; expected a share above 0 and at most 1.")
        if self.policy_updates and not self.needs_own_samples and self.practice == 0:
            raise UserError(
                f"phase '{self.name}' improves the policy, but nothing says where: without own samples for "
                "demonstrations it needs practice, a number of contexts above 0."
            )
        if self.queries and not self.learns_preferences:
            raise UserError(
                f"phase '{self.name}' asks for comparisons, but learns from none; let preference be bradley-terry, "
                "with preference_weight and reward_steps above 0, or let queries be 0."
            )
        if self.queries and not self.needs_own_samples and self.practice == 0:
            raise UserError(
                f"phase '{self.name}' asks about what the policy does, but nothing says where: without own samples for "
                "demonstrations it needs practice, a number of contexts above 0."
            )
        if not self.learns_demonstrations and not self.learns_preferences and self.policy_updates == 0:
            raise UserError(f"phase '{self.name}' learns nothing: every weight is 0 and the policy makes no update.")
        if self.until == "held-out preferences" and not self.learns_preferences:
            raise UserError(f"phase '{self.name}' waits for held-out preferences, but learns from none.")
        if self.until == "policy" and self.policy_updates == 0:
            raise UserError(f"phase '{self.name}' waits for the policy, but policy_updates is 0.")
        if self.until == "policy" and (self.learns_demonstrations or self.learns_preferences):
            raise UserError(
                f"phase '{self.name}' waits for the policy's objective while its losses move the reward it is measured "
                "by; let it end by rounds, or by held-out preferences."
            )

    @property
    def learns_demonstrations(self) -> bool:
        return self.demonstration != "none" and self.demonstration_weight > 0 and self.reward_steps > 0

    @property
    def learns_preferences(self) -> bool:
        return self.preference != "none" and self.preference_weight > 0 and self.reward_steps > 0

    @property
    def clones(self) -> bool:
        """The demonstration term is the policy's own likelihood."""
        return self.learns_demonstrations and self.demonstration == "likelihood"

    @property
    def needs_own_samples(self) -> bool:
        return self.learns_demonstrations and self.demonstration != "likelihood"

    @property
    def needs_pairs(self) -> bool:
        """Whether each demonstration has to stand beside an own sample: the linear link only compares the sums."""
        return self.demonstration != "linear" or self.batch_size > 0 or self.segment > 0

    @property
    def references(self) -> frozenset[Reference]:
        """The references that its active terms look at."""
        used: set[Reference] = {self.demonstration_reference} if self.needs_own_samples else set()
        return frozenset(used | ({self.preference_reference} if self.learns_preferences else set()))


@dataclass(frozen=True, kw_only=True)
class Regularisation:
    """What keeps a learnt reward sane."""

    label_smoothing: float = 0.0
    """Probability that a labeller slips, assumed by the Bradley-Terry term."""
    centring: float = 0.0
    """Weight of E[(R(first) + R(second))²], which fixes the level that comparisons leave free."""
    magnitude: float = 0.0
    """Weight of E[R²] over demonstrations and own samples."""
    clamp: float = 0.0
    """Weight of the soft wall E[Σ max(|r| − bound, 0)²] over demonstrations and own samples."""
    clamp_bound: float = 10.0
    """Where that wall stands."""

    def __post_init__(self) -> None:
        for name in ("centring", "magnitude", "clamp", "clamp_bound"):
            _at_least(f"regularisation: {name}", getattr(self, name), 0)
        if not 0.0 <= self.label_smoothing < 0.5:
            raise UserError(f"label_smoothing is {self.label_smoothing}; expected at least 0 and below 0.5.")


CLONE = Phase(name="clone", demonstration="likelihood", rounds=200)


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of the table."""

    name: str
    """What the row is called."""
    summary: str
    """What it does, in half a sentence."""
    reward: Literal["none", "explicit", "implicit"]
    """A reward network of its own, or β log π/π_ref."""
    phases: tuple[Phase, ...]
    """The stages, in order."""
    init: Literal["base", "clone"] = "base"
    """How the policy starts: as the domain builds it, or cloned from the demonstrations first."""
    warm_start: Phase = CLONE
    """The cloning stage, where `init` asks for one. The reference 'start' is the policy as it stands after it."""
    beta: float = 0.1
    """β, the weight of the KL to the reference: the temperature of the policy."""
    gamma: float = 1.0
    """γ, the discount."""
    held_out: float = 0.2
    """Share of the comparisons set aside where a stage ends by them."""
    regularisation: Regularisation = field(default_factory=Regularisation)
    """Regularisers of the reward."""
    reward_descent: DescentConfig = field(default_factory=DescentConfig)
    """How an explicit reward descends."""
    policy_descent: DescentConfig = field(default_factory=DescentConfig)
    """How the policy descends."""

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise UserError(f"beta is {self.beta}; expected a number above 0 (it is the policy's temperature).")
        _at_least("beta", self.beta, 0)
        if not 0.0 < self.gamma <= 1.0:
            raise UserError(f"gamma is {self.gamma}; expected a discount above 0 and at most 1.")
        if not 0.0 < self.held_out < 1.0:
            raise UserError(f"held_out is {self.held_out}; expected a share above 0 and below 1.")
        if not self.phases:
            raise UserError(f"method '{self.name}' has no phase; expected at least one.")
        for phase in self.stages:
            if phase.policy_updates and self.reward != "explicit":
                raise UserError(
                    f"phase '{phase.name}' improves the policy on a reward, but method '{self.name}' has none."
                )
            if phase.references and self.reward == "none":
                raise UserError(f"phase '{phase.name}' needs a reward, but method '{self.name}' has none.")
            if phase.queries and phase.query != "uniform" and self.reward != "explicit":
                raise UserError(
                    f"phase '{phase.name}' asks by {phase.query}, which takes an explicit reward, but method "
                    f"'{self.name}' has none; let query be uniform."
                )
            if phase.clones and phase.learns_preferences and self.reward == "explicit":
                raise UserError(
                    f"phase '{phase.name}' would train policy and reward in one step; split it into two phases."
                )

    @property
    def stages(self) -> tuple[Phase, ...]:
        """All phases in order, the warm start included."""
        return (self.warm_start, *self.phases) if self.init == "clone" else self.phases

    @property
    def uses_demonstrations(self) -> bool:
        return any(phase.learns_demonstrations for phase in self.stages)

    @property
    def uses_preferences(self) -> bool:
        return any(phase.learns_preferences for phase in self.stages)

    @property
    def asks_first(self) -> bool:
        """It asks for comparisons before it needs any, so it can begin with none."""
        learning = [phase for phase in self.stages if phase.learns_preferences]
        return bool(learning and learning[0].queries) and all(one.until != "held-out preferences" for one in learning)

    def with_phases(self, **changes: object) -> Method:
        """The row with the same changes in every one of its phases (not in the warm start)."""
        return replace(self, phases=tuple(replace(phase, **changes) for phase in self.phases))  # type: ignore[arg-type]
