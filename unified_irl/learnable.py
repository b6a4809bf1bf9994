"""What most policies and rewards are: a torch module with an optimiser of its own; or a reward that nothing teaches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import Parameter

from unified_irl.batch import Batch, Normaliser
from unified_irl.contracts import LossFunction, State
from unified_irl.descent import Descent
from unified_irl.descent_config import DescentConfig
from unified_irl.errors import UserError


class Untaught:
    """A reward that is there already: nothing teaches it, and it has nothing to keep."""

    refusal: str
    """What is said to a method that would teach it."""

    def descend(
        self, loss: LossFunction, batch: Batch, normaliser: Normaliser, step_size: float = 1.0
    ) -> dict[str, Tensor]:
        raise UserError(self.refusal)

    def measure(self, loss: LossFunction, batch: Batch, normaliser: Normaliser) -> dict[str, Tensor]:
        return self.descend(loss, batch, normaliser)

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        return None


class LearnableModule(torch.nn.Module):
    """Descends over all its parameters. The optimiser travels with `state_dict` and `load_state_dict`."""

    def __init__(self, config: DescentConfig, **parameters: Tensor) -> None:
        """Tensors given by name become parameters; a subclass may make modules beside them, or instead."""
        super().__init__()
        self.config = config
        for name, value in parameters.items():
            self.register_parameter(name, Parameter(value))

    @cached_property
    def descent(self) -> Descent:
        """Made when it is first asked for, once a subclass has its parameters."""
        return Descent(self.parameters(), self.config)

    def descend(
        self, loss: LossFunction, batch: Batch, normaliser: Normaliser, step_size: float = 1.0
    ) -> dict[str, Tensor]:
        return self.descent.descend(loss, batch, normaliser, step_size)

    def measure(self, loss: LossFunction, batch: Batch, normaliser: Normaliser) -> dict[str, Tensor]:
        return self.descent.measure(loss, batch, normaliser)

    def for_policy(self) -> Callable[..., Tensor]:
        """Where it is a reward: what it says, without a gradient."""
        return torch.no_grad()(self.forward)

    def frozen(self) -> Self:
        """As it is now, without gradients; later learning leaves it untouched."""
        return copy.deepcopy(self).requires_grad_(False)

    def get_extra_state(self) -> Any:
        return self.descent.state_dict()

    def set_extra_state(self, state: Any) -> None:
        self.descent.load_state_dict(copy.deepcopy(state))  # torch's optimisers would go on sharing its tensors
