"""How long and how fast each method learns in language. No tensor library here."""

from __future__ import annotations

from dataclasses import dataclass, replace

from llm.config import PeopledConfig
from llm.table import TASKS
from unified_irl.descent_config import DescentConfig
from unified_irl.methods import Method, Phase, Regularisation


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What suits a language."""

    beta: float
    """KL weight of an explicit reward's policy."""
    climb: float = 1e-3
    """Step size of the policy."""
    teach: float = 1e-3
    """Step size of an explicit reward."""
    rounds: int = 60
    """Rounds of a method that climbs while it learns."""
    batch: int = 64
    """Rows of a descent step on data."""
    steps: int = 200
    """Descent steps on comparisons alone."""
    clone: int = 60
    """Descent steps on demonstrations alone: more of them learn a few hundred by heart."""


PACES: dict[str, Pace] = {
    "walks-text": Pace(beta=0.2),
    "reviews": Pace(beta=0.1),
    "instructions": Pace(beta=0.1),
}


def settings(name: str) -> PeopledConfig:
    """The settings a task starts from."""
    return TASKS[name]()


def row(name: str, method: Method) -> Method:
    """The row with the step sizes and lengths that suit a task."""
    pace = PACES[name]
    sharpness = TASKS[name]().people.labeller.rationality
    return replace(
        method,
        beta=pace.beta if method.reward == "explicit" else method.beta,
        # Everybody begins where sft would have ended, but for those that clone on their way.
        init="clone" if not any(phase.clones for phase in method.phases) else method.init,
        warm_start=replace(method.warm_start, rounds=pace.clone, batch_size=pace.batch),
        policy_descent=DescentConfig(learning_rate=pace.climb, max_grad_norm=1.0),
        reward_descent=DescentConfig(learning_rate=_reward_step(method, pace), max_grad_norm=1.0),
        regularisation=_regularised(method),
        phases=tuple(_phase(phase, method, pace, sharpness) for phase in method.phases),
    )


def written_row(method: Method) -> Method:
    """The row with step sizes for models that can already speak: those usual for full fine-tuning, with AdamW."""
    clones_first = method.uses_demonstrations and not any(phase.clones for phase in method.phases)
    return replace(
        method,
        init="clone" if clones_first else method.init,
        warm_start=replace(method.warm_start, rounds=200, batch_size=32),
        policy_descent=DescentConfig(learning_rate=2e-5, max_grad_norm=1.0),
        reward_descent=DescentConfig(learning_rate=1e-5, max_grad_norm=1.0),
        regularisation=_regularised(method),
        phases=tuple(_written_phase(phase, method) for phase in method.phases),
    )


def _written_phase(phase: Phase, method: Method) -> Phase:
    common = {"batch_size": 32}
    if method.reward == "none":
        return replace(phase, rounds=200, **common)
    if method.reward == "implicit":
        return replace(phase, rounds=200, step_size=0.05, prompts=0.05, reward_steps=1, **common)
    if phase.policy_updates == 0:
        return replace(phase, rounds=200, **common)
    climbing = replace(phase, policy_updates=4, rounds=200, practice=32, **common)
    if not phase.learns_demonstrations:
        return replace(climbing, until="rounds")
    return replace(climbing, demonstration="pairwise", prompts=0.05, reward_steps=4, own_memory=3)


def note(method: Method) -> str:
    """What a user should know of this method in this world."""
    if method.init == "clone" and method.reward == "implicit":
        return "The policy is cloned from the demonstrations first; --method.init base begins without them."
    return ""


def _regularised(method: Method) -> Regularisation:
    """A reward that separates its data grows without bound, and with it the policy leaves the language."""
    if method.reward != "explicit":
        return method.regularisation
    return replace(method.regularisation, magnitude=0.1)


def _phase(phase: Phase, method: Method, pace: Pace, sharpness: float) -> Phase:
    if method.reward == "none":
        return replace(phase, rounds=pace.clone, batch_size=pace.batch)
    if method.reward == "implicit":
        return _implicit(phase, pace)
    common = {"preference_sharpness": sharpness, "batch_size": pace.batch}
    if phase.policy_updates == 0:  # the reward alone, of rlhf
        return replace(phase, rounds=400, **common)
    climbing = replace(phase, policy_updates=4, rounds=pace.rounds, practice=64, **common)
    if not phase.learns_demonstrations:
        return replace(climbing, practice=128, until="rounds")
    # The joint methods tell demonstrations from own samples pair by pair, as the authors' language code does: a bounded
    # loss, where the linear one pulls ever further on a policy that a few steps cannot keep in its optimum.
    link = "linear" if method.name == "ml-irl" else "pairwise"
    steps = 2 if link == "linear" else 10
    return replace(climbing, demonstration=link, prompts=0.25, reward_steps=steps, own_memory=3)


def _reward_step(method: Method, pace: Pace) -> float:
    return pace.teach / 10 if method.name == "ml-irl" else pace.teach


def _implicit(phase: Phase, pace: Pace) -> Phase:
    if phase.needs_own_samples:
        return replace(phase, batch_size=pace.batch, reward_steps=min(phase.reward_steps, 20), rounds=10)
    return replace(phase, rounds=pace.steps, batch_size=pace.batch)
