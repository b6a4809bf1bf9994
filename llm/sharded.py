"""Models of which every process keeps a share (FSDP2): one can learn whose gradients and moments no device could hold
beside it.

A pass with a gradient gathers a block at a time and gives it up again, so all processes have to make such passes in
step: `Descent` gives them pieces of the same make. Without a gradient the whole model is gathered once, in the
precision of its products, and everybody samples and judges at their own pace.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from transformers import PreTrainedModel

from llm.models import multiplies_in_half, multiplying
from llm.roles import Role, Weights
from unified_irl import parallel


class Body(nn.Module):
    """What is gathered together: hidden states of a model, and the words they are multiplied with."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any, **more: Any) -> Any:
        return self.model.base_model(*inputs, **more)


class Sharded(Role):
    """A model of its own, a share of it in every process."""

    def __init__(self, model: PreTrainedModel, device: str) -> None:
        """The model, the same in every process, is taken apart; its shares move to the device."""
        self.model, self.device = model, device
        self._body: Any = Body(model)
        kinds = set(model._no_split_modules or ())
        self._blocks = [one for one in model.modules() if type(one).__name__ in kinds]
        for one in (*self._blocks, self._body):
            self._share(one, multiplies_in_half(model))
        self._parts = dict(model.named_parameters())  # while it is gathered, the modules hold others
        self._heads: list[Any] = []
        self._is_settled = self._is_whole = False

    def _share(self, module: nn.Module, half: bool) -> None:
        precision = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        part = fully_shard(module, mesh=_mesh(self.device), mp_policy=precision if half else MixedPrecisionPolicy())
        assert isinstance(part, FSDPModule)
        part.set_gradient_divide_factor(1.0)  # losses are divided by numbers of the whole batch, so gradients add up
        part.set_force_sum_reduction_for_comms(True)

    @property
    def body(self) -> nn.Module:
        return self._body  # type: ignore[no-any-return]

    def adopt(self, head: nn.Module) -> None:
        self._share(head, half=False)
        self._heads.append(head)

    @contextmanager
    def active(self) -> Iterator[None]:
        gathers = not torch.is_grad_enabled() and not self._is_whole
        if gathers:
            self._gather()
        try:
            with multiplying(self.model):
                yield
        finally:
            if gathers:
                self._part()

    def _gather(self) -> None:
        if not self._is_settled:  # the first pass settles which parts belong together
            hidden = self._body(torch.zeros(1, 1, dtype=torch.long, device=self.device), use_cache=False)[0]
            for head in self._heads:
                head(hidden)
            self._is_settled = True
        self._is_whole = True
        for block in self._blocks:
            block.set_reshard_after_forward(False, recurse=False)
        for part in (self._body, *self._heads, *self._blocks):
            part.unshard()

    def _part(self) -> None:
        for root in (self._body, *self._heads):
            root.reset_iter_state()
        for block in self._blocks:
            block.set_reshard_after_forward(True, recurse=False)
        self._is_whole = False

    def wanted(self, here: bool) -> bool:
        return parallel.anywhere(here, self.device)

    def parameters(self) -> list[nn.Parameter]:
        return list(self._parts.values())

    def weights(self) -> Weights:
        return {name: parallel.whole(value.detach()) for name, value in self._parts.items()}

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        for name, value in self._parts.items():
            value.copy_(parallel.share_of(weights[name], value))

    @torch.no_grad()
    def still(self) -> Sharded:
        """Made without weights, and then given those of this one."""
        with torch.device("meta"):
            empty = type(self.model)(self.model.config)
        empty.multiplies_in_half = multiplies_in_half(self.model)
        twin = Sharded(empty.eval().requires_grad_(False), self.device)
        twin._body.to_empty(device=self.device)
        for own, other in zip(self.model.buffers(), empty.buffers(), strict=True):
            other.copy_(own)
        twin._parts = dict(empty.named_parameters())
        for mine, its in zip(self.parameters(), twin.parameters(), strict=True):
            its.copy_(mine)
        return twin


def _mesh(device: str) -> DeviceMesh:
    return init_device_mesh(device, (distributed.get_world_size(),))
