"""Several equal multi-layer perceptrons as one batched product, with a backward pass written out.

The members' weights lie side by side in one flat tensor, and so do their gradients: a forward layer of all members is
one `baddbmm`, an optimiser step or a Polyak step is one kernel. The modules that the weights came from keep working:
their parameters become views of the flat tensor. Without autograd an update has no graph to build, nothing to wait
for, and can be captured as a CUDA graph as it is.

Shape legend: E members, B rows, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import Parameter


class Stack:
    """E perceptrons with ReLU between their layers."""

    def __init__(self, members: Sequence[Sequence[Sequence[nn.Linear]]], half: bool = False) -> None:
        """`members[e][k]` are the linear modules whose outputs, side by side, make layer k of member e.

        With `half`, products between hidden layers are taken in bfloat16; the first layer, which sees raw inputs, and
        the last, whose outputs are values, stay in full precision, and so do the weights that the optimiser moves.
        """
        self.members = members
        shapes = [(sum(one.out_features for one in layer), layer[0].in_features) for layer in members[0]]
        sizes = [len(members) * wide * (deep + 1) for wide, deep in shapes]
        like = members[0][0][0].weight
        self.flat = Parameter(torch.empty(sum(sizes), dtype=like.dtype, device=like.device), requires_grad=False)
        self.grad = torch.zeros_like(self.flat)
        self.flat.grad = self.grad
        self.weights, self.biases = self._views(self.flat.data, shapes)
        self.weight_grads, self.bias_grads = self._views(self.grad, shapes)
        self.low = torch.empty_like(self.flat.data, dtype=torch.bfloat16) if half else self.flat.data
        self.low_weights, _ = self._views(self.low, shapes)
        self.half = half
        self._adopt()

    def _views(self, flat: Tensor, shapes: list[tuple[int, int]]) -> tuple[list[Tensor], list[Tensor]]:
        """Weights [E, O, I] and biases [E, 1, O] of each layer, as parts of a flat tensor."""
        weights, biases, begin, count = [], [], 0, len(self.members)
        for wide, deep in shapes:
            middle, end = begin + count * wide * deep, begin + count * wide * (deep + 1)
            weights.append(flat[begin:middle].view(count, wide, deep))
            biases.append(flat[middle:end].view(count, 1, wide))
            begin = end
        return weights, biases

    def _adopt(self) -> None:
        """Copy the modules' weights in, and let the modules look at the copy from now on."""
        for e, member in enumerate(self.members):
            for weight, bias, layer in zip(self.weights, self.biases, member, strict=True):
                begin = 0
                for one in layer:
                    end = begin + one.out_features
                    for parameter, view in ((one.weight, weight[e, begin:end]), (one.bias, bias[e, 0, begin:end])):
                        view.copy_(parameter.data)
                        parameter.data = view
                    begin = end
        self.refresh()

    def spread(self, flat: Tensor) -> list[Tensor]:
        """A flat tensor cut up as the modules' parameters are, in their order."""
        shapes = [tuple(weight.shape[1:]) for weight in self.weights]
        weights, biases = self._views(flat, shapes)
        parts = []
        for e, member in enumerate(self.members):
            for weight, bias, layer in zip(weights, biases, member, strict=True):
                begin = 0
                for one in layer:
                    end = begin + one.out_features
                    parts += [weight[e, begin:end], bias[e, 0, begin:end]]
                    begin = end
        return parts

    def parameters(self) -> list[Parameter]:
        """The modules' parameters, in the order of `spread`."""
        return [
            parameter
            for member in self.members
            for layer in member
            for one in layer
            for parameter in (one.weight, one.bias)
        ]

    def refresh(self) -> None:
        """After the weights have changed: renew their copy in half precision."""
        if self.half:
            self.low.copy_(self.flat.data)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """The inputs [E or 1, B, I] and what every layer made of them, the last one's output at the end."""
        last = len(self.weights) - 1
        seen = [inputs.expand(len(self.members), -1, -1)]
        for k, bias in enumerate(self.biases):
            if self._halved(k):
                product = torch.bmm(seen[-1].bfloat16(), self.low_weights[k].transpose(1, 2)).float().add_(bias)
            else:
                product = torch.baddbmm(bias, seen[-1], self.weights[k].transpose(1, 2))
            seen.append(product if k == last else product.relu_())
        return seen

    def backward(self, seen: list[Tensor], slope: Tensor, *, weights: bool, inputs: bool) -> Tensor | None:
        """From d loss / d output [E, B, O]: fill the gradients of the weights, and return that of the inputs."""
        for k in reversed(range(len(self.weights))):
            half = self._halved(k)
            given = slope.bfloat16() if half else slope
            if weights:
                _outer(given, seen[k].bfloat16() if half else seen[k], self.weight_grads[k])
                torch.sum(slope, 1, keepdim=True, out=self.bias_grads[k])
            if k == 0 and not inputs:
                return None
            slope = _times(given, self.low_weights[k] if half else self.weights[k]).float()
            if k:
                torch.ops.aten.threshold_backward.grad_input(slope, seen[k], 0.0, grad_input=slope)
        return slope

    def _halved(self, k: int) -> bool:
        return self.half and 0 < k < len(self.weights) - 1


def _outer(given: Tensor, seen: Tensor, into: Tensor) -> None:
    """Σ_B given[E, B, O] ⊗ seen[E, B, I]. On a CPU a product is several times slower with the short side last."""
    if seen.shape[2] < given.shape[2]:
        into.copy_(torch.bmm(seen.transpose(1, 2), given).transpose(1, 2))
    elif given.dtype == into.dtype:
        torch.bmm(given.transpose(1, 2), seen, out=into)
    else:
        into.copy_(torch.bmm(given.transpose(1, 2), seen))


def _times(given: Tensor, weight: Tensor) -> Tensor:
    """given[E, B, O] · weight[E, O, I], the short side first for the same reason."""
    if weight.shape[1] == 1:
        return given * weight
    if weight.shape[2] < weight.shape[1]:
        return torch.bmm(weight.transpose(1, 2), given.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(given, weight)


def linears(module: nn.Module) -> list[list[nn.Linear]]:
    """The linear layers of a sequential perceptron with ReLU between them."""
    layers = list(module.children())
    assert all(isinstance(layer, nn.Linear | nn.ReLU) for layer in layers), "expected linear layers and ReLU alone"
    assert not any(isinstance(one, nn.Linear) and isinstance(two, nn.Linear) for one, two in pairwise(layers))
    return [[layer] for layer in layers if isinstance(layer, nn.Linear)]
