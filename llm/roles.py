"""Who speaks with which weights: policy, reward and reference, as whole models or as adapters on one shared base.

A role gives hidden states; what is made of them (words, rewards) is others' business. The reference of a shared base is
the base itself, its adapters off.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from llm.config import LoRAConfig
from llm.models import multiplying, output_weight
from unified_irl.feed import stream

Weights = dict[str, Tensor]


class Role(Protocol):
    """A set of weights that speaks."""

    model: PreTrainedModel
    """The model as it stands; use it within `active` alone."""

    @property
    def body(self) -> nn.Module:
        """All of the model but its output layer."""
        return self.model.base_model

    @property
    def reader(self) -> Callable[..., Any]:
        """The body as it reads whole behaviours."""
        return self.body

    def active(self) -> AbstractContextManager[None]:
        """The model speaks with this role's weights."""
        ...

    def parameters(self) -> list[nn.Parameter]:
        """What this role may move."""
        ...

    def weights(self) -> Weights: ...

    def load(self, weights: Weights) -> None: ...

    def still(self) -> Role:
        """The role as it is now, whatever becomes of it."""
        ...

    def adopt(self, head: nn.Module) -> None:
        """Weights beside the model are kept as the model's are."""

    def wanted(self, here: bool) -> bool:
        """Whether it is to be made active, which `here` wishes: all processes have to where each has but a share."""
        return here


class Whole(Role):
    """A model of its own."""

    def __init__(self, model: PreTrainedModel, *, compiled: bool = False) -> None:
        self.model = model
        self._reader = torch.compile(model.base_model, dynamic=True) if compiled else model.base_model
        self._parameters = list(model.parameters())  # to gather them from the modules again takes milliseconds

    @property
    def reader(self) -> Callable[..., Any]:
        return self._reader

    def active(self) -> AbstractContextManager[None]:
        return multiplying(self.model)

    def parameters(self) -> list[nn.Parameter]:
        return self._parameters

    def weights(self) -> Weights:
        return {name: value.detach() for name, value in self.model.named_parameters()}

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        for name, value in self.model.named_parameters():
            value.copy_(weights[name])

    def still(self) -> Whole:
        model = copy.deepcopy(self.model)
        model.requires_grad_(False)
        return Whole(model)


class Shared:
    """One base, frozen, and named adapters on it; one of them, or none, is active at a time."""

    SPARE = "still"
    """The adapter that takes on the weights of whoever was frozen."""

    def __init__(self, model: PreTrainedModel, config: LoRAConfig, seed: int) -> None:
        self.model, self.config, self.seed = model, config, seed
        self.where = _linear_names(model)
        self.names: list[str | None] = [None]
        self.layers: list[BaseTunerLayer] = []
        self.learning: list[nn.Parameter] = []
        self.spare_holds: Weights | None = None
        model.requires_grad_(False)
        if model.is_activation_checkpointing:  # which needs an input that wants a gradient: here, no embedding does
            model.enable_input_require_grads()

    def add(self, name: str) -> None:
        """A new adapter, which adds nothing yet."""
        rank = self.config.rank
        settings = LoraConfig(r=rank, lora_alpha=self.config.alpha or 2 * rank, target_modules=self.where)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several roles, on purpose
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")  # of Conv1D, which peft mends
            torch.manual_seed(stream(self.seed, "adapter", name).initial_seed())
            inject_adapter_in_model(settings, self.model, adapter_name=name)
        self.layers = [one for one in self.model.modules() if isinstance(one, BaseTunerLayer)]
        for parameter in self.parameters_of(name).values():  # a base in half precision would halve them too
            parameter.data = parameter.data.float()
        self._switch(self.names[-1])

    def parameters_of(self, name: str) -> dict[str, nn.Parameter]:
        """By their names without the adapter's, so that one adapter's weights fit another."""
        mark = f".{name}."
        return {
            key.replace(mark, "."): value
            for key, value in self.model.named_parameters()
            if mark in key and ".lora_" in key
        }

    @contextmanager
    def speaking(self, name: str | None) -> Iterator[None]:
        self.names.append(name)
        self._switch(name)
        try:
            with multiplying(self.model):
                yield
        finally:
            self.names.pop()
            self._switch(self.names[-1])

    def _switch(self, name: str | None) -> None:
        for layer in self.layers:
            if name is not None:
                layer.set_adapter([name])
            layer.enable_adapters(name is not None)
        for parameter in self.learning:  # peft freezes what is not active, but a gradient may be on its way back to it
            parameter.requires_grad_(True)


class Adapter(Role):
    """An adapter of a shared base that learns."""

    def __init__(self, shared: Shared, name: str) -> None:
        self.shared, self.name = shared, name
        self.model = shared.model
        shared.add(name)
        self._parameters = shared.parameters_of(name)
        shared.learning += self._parameters.values()

    def active(self) -> AbstractContextManager[None]:
        return self.shared.speaking(self.name)

    def parameters(self) -> list[nn.Parameter]:
        return list(self._parameters.values())

    def weights(self) -> Weights:
        return {name: value.detach() for name, value in self._parameters.items()}

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        for name, value in self._parameters.items():
            value.copy_(weights[name])

    def still(self) -> Still:
        return Still(self.shared, {name: value.clone() for name, value in self.weights().items()})


class Still(Role):
    """An adapter as it once was: its weights lie aside, and are put into a spare adapter when it is asked."""

    def __init__(self, shared: Shared, weights: Weights) -> None:
        self.shared, self.model = shared, shared.model
        self._weights = weights

    @contextmanager
    def active(self) -> Iterator[None]:
        shared = self.shared
        if not shared.layers or shared.SPARE not in shared.layers[0].lora_A:  # type: ignore[operator]
            shared.add(shared.SPARE)
        if shared.spare_holds is not self._weights:
            with torch.no_grad():
                for name, value in shared.parameters_of(shared.SPARE).items():
                    value.copy_(self._weights[name])
            shared.spare_holds = self._weights
        with shared.speaking(shared.SPARE):
            yield

    def parameters(self) -> list[nn.Parameter]:
        return []

    def weights(self) -> Weights:
        return self._weights

    def load(self, weights: Weights) -> None:
        self._weights = {name: value.clone() for name, value in weights.items()}

    def still(self) -> Still:
        return self


class Base(Role):
    """The shared base, its adapters off."""

    def __init__(self, shared: Shared) -> None:
        self.shared, self.model = shared, shared.model

    def active(self) -> AbstractContextManager[None]:
        return self.shared.speaking(None)

    def parameters(self) -> list[nn.Parameter]:
        return []

    def weights(self) -> Weights:
        return {}

    def load(self, weights: Weights) -> None:
        assert not weights, "the base never learns"

    def still(self) -> Base:
        return self


def hidden_states(role: Role, tokens_BT: Tensor) -> Tensor:
    """[B, T, D] of tokens that begin in the first column; what comes after a row's end is not seen by its tokens."""
    hidden_BTD: Tensor = role.reader(tokens_BT, use_cache=False).last_hidden_state
    return hidden_BTD


def head_of(role: Role) -> Tensor:
    return output_weight(role.model)


def _linear_names(model: PreTrainedModel) -> list[str]:
    """The last names of all linear layers but the output head."""
    head, kinds = model.get_output_embeddings(), (nn.Linear, Conv1D)
    return sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, one in model.named_modules()
            if isinstance(one, kinds) and one is not head and ".lora_" not in name and "base_layer" not in name
        }
    )
