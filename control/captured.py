"""The update as one CUDA graph: on a GPU small networks cost less than the launching of their kernels."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.cuda import CUDAGraph
from torch.optim import Optimizer

from control.update import Networks, Transitions, update

NUM_REHEARSALS = 3
"""Updates before capturing, which give the libraries their workspaces; what they moved is put back."""


class CapturedUpdate:
    """`control.update.update` for one set of networks, recorded once and then replayed."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self.recorded: dict[bool, tuple[CUDAGraph, list[Tensor], dict[str, Tensor]]] = {}

    def __call__(self, batch: Transitions, noise: Tensor, *, actor: bool) -> dict[str, Tensor]:
        given = [*vars(batch).values(), noise]
        if actor not in self.recorded:
            self.recorded[actor] = self._record([one.clone() for one in given], actor)
        graph, inputs, metrics = self.recorded[actor]
        for mine, one in zip(inputs, given, strict=True):
            mine.copy_(one)
        graph.replay()
        return metrics

    def _record(self, inputs: list[Tensor], actor: bool) -> tuple[CUDAGraph, list[Tensor], dict[str, Tensor]]:
        """Only what a replay does counts: the networks leave here as they came."""
        *parts, noise = inputs
        batch = Transitions(*parts)
        before = self._weights(), [copy.deepcopy(one.state_dict()["state"]) for one in self._optimisers()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(NUM_REHEARSALS):
                update(self.networks, batch, noise, actor=actor)
        torch.cuda.current_stream().wait_stream(stream)
        self._put_back(*before)
        graph = CUDAGraph()
        with torch.cuda.graph(graph):
            metrics = update(self.networks, batch, noise, actor=actor)
        return graph, inputs, metrics

    def _optimisers(self) -> list[Optimizer]:
        networks = self.networks
        every = [networks.actor_optimiser, networks.critic_optimiser, networks.alpha_optimiser]
        return [one for one in every if one is not None]

    def _moving(self) -> list[Tensor]:
        networks = self.networks
        return [networks.actor.flat.data, networks.critic.flat.data, networks.target.flat.data, networks.log_alpha.data]

    def _weights(self) -> list[Tensor]:
        return [one.clone() for one in self._moving()]

    def _put_back(self, weights: list[Tensor], states: list[dict[int, dict[str, Tensor]]]) -> None:
        """In place: the graph will look at these very tensors. A state that was not there before begins at zero."""
        for tensor, value in zip(self._moving(), weights, strict=True):
            tensor.copy_(value)
        for optimiser, state in zip(self._optimisers(), states, strict=True):
            for number, tensors in enumerate(optimiser.state.values()):
                for name, tensor in tensors.items():
                    known = state.get(number, {}).get(name)
                    tensor.zero_() if known is None else tensor.copy_(known)
        for stack in (self.networks.actor, self.networks.critic, self.networks.target):
            stack.refresh()
