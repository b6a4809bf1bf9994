"""One optimiser over the parameters of a policy or a reward: what a domain's `descend` is made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from unified_irl import parallel
from unified_irl.batch import Batch, Normaliser
from unified_irl.contracts import LossFunction, State
from unified_irl.descent_config import DescentConfig


class Descent:
    """Micro-batches, clipping, the schedule and the optimiser's state."""

    def __init__(self, parameters: Iterable[Parameter], config: DescentConfig) -> None:
        self.config = config
        self.parameters = list(parameters)
        self.is_shared = any(map(parallel.is_share, self.parameters))
        self.num_steps = 0
        rules: dict[str, Any] = {
            "adam": lambda lr, wd: torch.optim.AdamW(self.parameters, lr=lr, weight_decay=wd, fused=True),
            "sgd": lambda lr, wd: torch.optim.SGD(self.parameters, lr=lr, weight_decay=wd),
            "rmsprop": lambda lr, wd: torch.optim.RMSprop(self.parameters, lr=lr, weight_decay=wd),
        }
        self.optimiser: torch.optim.Optimizer = rules[config.optimiser](config.learning_rate, config.weight_decay)

    def descend(
        self, loss: LossFunction, batch: Batch, normaliser: Normaliser, step_size: float = 1.0
    ) -> dict[str, Tensor]:
        """One step; the losses and metrics of the micro-batches add up to those of the batch."""
        self.optimiser.zero_grad(set_to_none=True)
        total = self._over_pieces(loss, batch, normaliser, backward=True)
        if parallel.world().size > 1 and not self.is_shared:  # shares of weights get the sum as the gradient passes
            parallel.add_up([_gradient(one) for one in self.parameters])
        self.step(step_size)
        return total

    @torch.no_grad()
    def measure(self, loss: LossFunction, batch: Batch, normaliser: Normaliser) -> dict[str, Tensor]:
        """The same sums without gradient or step."""
        return self._over_pieces(loss, batch, normaliser, backward=False)

    def _over_pieces(
        self, loss: LossFunction, batch: Batch, normaliser: Normaliser, *, backward: bool
    ) -> dict[str, Tensor]:
        device = self.parameters[0].device
        total: dict[str, Tensor] = {}
        pieces = self._pieces(batch)
        with parallel.alone():
            for piece in pieces:
                value, metrics = loss(piece if device.type == "cpu" else piece.to(device), normaliser)
                if backward:
                    value.backward()  # type: ignore[no-untyped-call]
                _add(total, {"loss": value.detach(), **metrics})
        return _summed(total, device) if parallel.world().size > 1 else total

    def _pieces(self, batch: Batch) -> Iterator[Batch]:
        """The micro-batches; where several processes share a batch, those of this one."""
        world, size = parallel.world(), self.config.micro_batch_size
        share = -(-batch.size // world.size)
        num_rows = min(size, share) if size else share if world.size > 1 else 0
        pieces = batch.micro_batches(num_rows, alike_for=world.size if self.is_shared else 0)
        return itertools.islice(pieces, world.rank, None, world.size)

    def step(self, step_size: float = 1.0) -> None:
        """Apply the gradient that the parameters hold."""
        if self.config.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * self.config.factor(self.num_steps) * step_size
        self.optimiser.step()
        self.num_steps += 1

    def state_dict(self) -> State:
        state = self.optimiser.state_dict()
        state["state"] = {key: {name: _whole(one) for name, one in of.items()} for key, of in state["state"].items()}
        return {"optimiser": state, "num_steps": self.num_steps}

    def load_state_dict(self, state: State) -> None:
        given = state["optimiser"]
        shared = {
            key: {name: _like(one, self.parameters[int(key)]) for name, one in of.items()}
            for key, of in given["state"].items()
        }
        self.optimiser.load_state_dict({**given, "state": shared})
        self.num_steps = state["num_steps"]


def _gradient(parameter: Parameter) -> Tensor:
    """A process without a piece of the batch has none yet."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _whole(entry: Any) -> Any:
    return parallel.whole(entry) if torch.is_tensor(entry) else entry


def _like(entry: Any, parameter: Parameter) -> Any:
    is_moment = torch.is_tensor(entry) and entry.shape == parameter.shape
    return parallel.share_of(entry, parameter) if is_moment else entry


def _add(total: dict[str, Tensor], metrics: dict[str, Tensor]) -> None:
    for name, metric in metrics.items():
        total[name] = total[name] + metric if name in total else metric


def _summed(metrics: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Over all processes, some of which may have had nothing to measure."""
    total: dict[str, Tensor] = {}
    for one in parallel.gather({name: metric.cpu() for name, metric in metrics.items()}):
        _add(total, one)
    return {name: metric.to(device) for name, metric in total.items()}
