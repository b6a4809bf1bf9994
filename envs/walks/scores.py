"""A number for every step, goal, node and action, in three kinds. Rewards are such numbers; so are a policy's logits.

Shape legend: H steps, G goals, N nodes, A actions; `...` is any batch shape.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from envs.walks.graph import Graph


class Free(nn.Module):
    """One free number each: nothing is shared."""

    def __init__(self, graph: Graph, horizon: int) -> None:
        super().__init__()
        self.shape = (horizon, *graph.shape)
        self.weight = nn.Parameter(graph.toll_N.new_zeros(horizon * graph.shape[0] * graph.shape[1], graph.shape[2]))

    def rows(self, step: Tensor, goal: Tensor, node: Tensor) -> Tensor:
        """[..., A]: the numbers of every action."""
        _, num_goals, num_nodes, _ = self.shape
        return F.embedding((step * num_goals + goal) * num_nodes + node, self.weight)

    def at(self, step: Tensor, goal: Tensor, node: Tensor, action: Tensor) -> Tensor:
        """[...]: the numbers of the given actions."""
        return self.rows(step, goal, node).gather(-1, action[..., None]).squeeze(-1)

    def table(self) -> Tensor:
        """[H, G, N, A], or [1, G, N, A] where the step does not matter."""
        return self.weight.view(self.shape)

    def become(self, table_HGNA: Tensor) -> None:
        self.weight.copy_(table_HGNA.view_as(self.weight))


class Shared(nn.Module):
    """A function of what a move looks like, the same for every start, goal and step: linear, or a small network."""

    def __init__(self, inputs_GNAF: Tensor, width: int, draw: torch.Generator) -> None:
        super().__init__()
        self.inputs_GNAF = inputs_GNAF
        sizes = [inputs_GNAF.shape[-1], *([width, width] if width else []), 1]
        self.layers = nn.ModuleList(
            nn.Linear(fan_in, fan_out, bias=width > 0, dtype=inputs_GNAF.dtype)
            for fan_in, fan_out in itertools.pairwise(sizes)
        )
        with torch.no_grad():
            for layer in self.layers:
                assert isinstance(layer, nn.Linear)
                layer.weight.normal_(0.0, layer.in_features**-0.5, generator=draw)
                if layer.bias is not None:
                    layer.bias.zero_()
            # It starts as the zero function, so that the first policy is the reference.
            self.layers[-1].weight.zero_()  # type: ignore[operator, union-attr]

    def forward(self, inputs: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            inputs = F.softsign(layer(inputs))  # smooth like tanh, and seven times cheaper in float64
        return self.layers[-1](inputs).squeeze(-1)

    def rows(self, step: Tensor, goal: Tensor, node: Tensor) -> Tensor:
        num_nodes = self.inputs_GNAF.shape[1]
        return self(self.inputs_GNAF.flatten(0, 1)[goal * num_nodes + node])

    def at(self, step: Tensor, goal: Tensor, node: Tensor, action: Tensor) -> Tensor:
        _, num_nodes, num_actions, _ = self.inputs_GNAF.shape
        index = (goal * num_nodes + node) * num_actions + action
        if index.numel() > self.inputs_GNAF.shape[:3].numel():
            return self.table().flatten()[index]
        return self(self.inputs_GNAF.flatten(0, 2)[index])

    def table(self) -> Tensor:
        return self(self.inputs_GNAF)[None]


class Corrected(nn.Module):
    """Shared numbers that descend, and a free correction beside them that exact improvement fills in.

    A policy of this kind clones within its function class, and climbs an explicit reward exactly.
    """

    def __init__(self, shared: Shared, correction: Free) -> None:
        super().__init__()
        self.shared, self.correction = shared, correction

    def rows(self, step: Tensor, goal: Tensor, node: Tensor) -> Tensor:
        return self.shared.rows(step, goal, node) + self.correction.rows(step, goal, node)

    def table(self) -> Tensor:
        return self.shared.table() + self.correction.table()

    def become(self, table_HGNA: Tensor) -> None:
        self.correction.become(table_HGNA - self.shared.table())


Scores = Free | Shared


def build_scores(kind: str, graph: Graph, horizon: int, width: int, draw: torch.Generator) -> Scores:
    """The numbers of the given kind, all zero."""
    if kind == "free":
        return Free(graph, horizon)
    return Shared(graph.features(), 0, draw) if kind == "linear" else Shared(graph.inputs(), width, draw)
