"""What a domain brings: a policy, a reward, and the data. `unified_irl.conformance` checks all of it.

Contexts, trajectories and generators that cross a contract live on the CPU; log-probabilities and rewards are answered
on the device of their model, and `descend` and `measure` move their micro-batches there.

Shape legend: B behaviours, T steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Generator, Tensor

from unified_irl.batch import Batch, Normaliser
from unified_irl.feedback import Demonstrations, Preferences
from unified_irl.rows import Method, Phase
from unified_irl.trajectories import Contexts, Trajectories

Metrics = dict[str, float]
State = dict[str, Any]
LossFunction = Callable[[Batch, Normaliser], tuple[Tensor, dict[str, Tensor]]]
Window = Callable[[Trajectories, int, Generator], Trajectories]


class Stateful(Protocol):
    """Something a checkpoint can hold: nested dicts, lists and tuples of tensors, numbers and strings."""

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> Any: ...


class Sampler(Stateful, Protocol):
    """A policy that only acts. A frozen policy, the demonstrator and a reference are just this."""

    def sample(self, contexts: Contexts, generator: Generator) -> Trajectories:
        """One behaviour per context, in the order of the contexts."""
        ...

    def log_prob(self, trajectories: Trajectories) -> Tensor:
        """float[B, T]: log π(a_t|s_t) where the policy chose, zero elsewhere."""
        ...


class Learnable(Protocol):
    """Something with parameters and an optimiser of its own."""

    def descend(
        self, loss: LossFunction, batch: Batch, normaliser: Normaliser, step_size: float = 1.0
    ) -> dict[str, Tensor]:
        """One optimiser step on the loss of the whole batch, `step_size` times as long as the optimiser's own.

        Micro-batches, distributed backward and clipping happen in here; the losses of the micro-batches add up, because
        each divides by the normaliser of the whole batch.
        """
        ...

    def measure(self, loss: LossFunction, batch: Batch, normaliser: Normaliser) -> dict[str, Tensor]:
        """The same numbers without the step, and without a gradient."""
        ...


class RewardFunction(Protocol):
    """float[B, T]: the reward of every step, differentiable; what it says outside `rewarded` is never read."""

    def __call__(self, trajectories: Trajectories) -> Tensor: ...


class Reward(Learnable, Stateful, RewardFunction, Protocol):
    """An explicit reward."""

    def for_policy(self) -> Callable[..., Tensor]:
        """The same reward as the policy of this domain asks for it: detached, normalised, per transition.

        The core never calls it; what its arguments are is between a domain's policy and its reward.
        """
        ...


class Policy(Learnable, Sampler, Protocol):
    """A sampler that also learns: from losses on its log-probability (`descend`) and from a reward (`improve`)."""

    def improve(
        self,
        reward: Reward,
        reference: Sampler,
        beta: float,
        gamma: float,
        contexts: Contexts,
        num_updates: int,
        generator: Generator,
    ) -> tuple[Metrics, Trajectories]:
        """Climb E[Σ γ^t (r − β log π/π_ref)] for `num_updates` updates, of whatever size suits the domain.

        Hands back whole behaviours made during or after the updates, so that nothing is simulated twice; at least one
        for each of the contexts where contexts can be chosen. The metrics hold `policy_loss`: minus the objective per
        behaviour of the policy, an estimate of the true one (not a critic's loss), finite from the first round on.
        """
        ...

    def frozen(self) -> Sampler:
        """The policy as it is now; later learning leaves it untouched."""
        ...


@dataclass(frozen=True)
class Parts:
    """What a domain builds for one method."""

    policy: Policy
    reward: Reward | None
    """None where the method's reward is implicit."""
    reference: Sampler
    """Where the policy is measured from: usually the policy as it starts."""
    window: Window | None = None
    """How so many steps are cut from a random place of each behaviour, where a column of the world may stand for more
    than one; None for `feed.window`."""


@runtime_checkable
class Domain(Protocol):
    """One world, with its data. Everything else in this package works for any of them."""

    @property
    def contexts(self) -> Contexts:
        """Every context the policy may practise on; `contexts.ids` is 0, 1, 2, …, so an id is an index."""
        ...

    @property
    def demonstrations(self) -> Demonstrations | None: ...

    @property
    def preferences(self) -> Preferences | None: ...

    def build(self, method: Method) -> Parts: ...

    def ask(
        self, own: Trajectories, reward: RewardFunction, count: int, phase: Phase, gamma: float, generator: Generator
    ) -> Preferences | None:
        """What people say of pairs of these behaviours, or of pieces of them; they see what was done and no more.

        At most `count` answers, fewer where people skip or little can be compared, None where there is none; at the
        level of the comparisons that the domain holds. `phase.query` says which pairs; the reward and its return
        difference, as the preference term sees it (γ, `phase.preference_sharpness`), guide the informed ones. What
        cannot be asked, such as the disagreement of a reward without members, is a UserError. The generator is the
        only source of chance, and asking changes nothing. The core asks only where a row says so.
        """
        ...

    def evaluate(self, policy: Sampler, reward: RewardFunction | None) -> Metrics:
        """How good both are under the ground truth; `score` is the one number to rank by (0 start, 1 expert)."""
        ...
