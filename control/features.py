"""What a reward sees of a step, as numbers of ordinary size; and the perceptrons that judge it.

Shape legend: E members, N steps in any order, B behaviours, O observation, A action, I inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from control.reward_config import RewardConfig
from unified_irl.trajectories import Trajectories

Bounds = Sequence[float] | np.ndarray
FIRST_OUTPUT = 0.01
"""How much smaller than usual the last layer starts: a new reward says almost nothing, yet its members differ."""


class Features(nn.Module):
    """From observation, action and next observation to centred and scaled inputs.

    Where absorbing steps have a reward of their own, the last input is 1 on them, all others being 0, and 0 on
    ordinary steps.
    """

    action_low: Tensor
    action_high: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, num_observations: int, action_low: Bounds, action_high: Bounds, config: RewardConfig) -> None:
        super().__init__()
        self.config, self.num_observations = config, num_observations
        self.register_buffer("action_low", torch.as_tensor(action_low, dtype=torch.float32).clone())
        self.register_buffer("action_high", torch.as_tensor(action_high, dtype=torch.float32).clone())
        sees_action, sees_next = config.inputs != "s", config.inputs == "s,a,s'"
        self.num_inputs = num_observations * (2 if sees_next else 1) + len(self.action_low) * sees_action
        self.register_buffer("centre", torch.zeros(self.num_inputs))
        self.register_buffer("scale", torch.ones(self.num_inputs))
        bounds = (self.action_high - self.action_low) / 2.0
        bounded = bounds.isfinite() & (bounds > 0)
        if config.normalise_inputs and sees_action:
            actions = slice(num_observations, num_observations + len(bounds))
            self.centre[actions] = torch.where(bounded, self.action_low + bounds, 0.0)
            self.scale[actions] = torch.where(bounded, 1.0 / bounds, 1.0)

    @torch.no_grad()
    def fit(self, *behaviours: Trajectories) -> None:
        """Take mean and standard deviation of observations from the chosen steps.

        The state that comes of a step is put on the same scale as the one before it, so that both can be compared.
        """
        if not self.config.normalise_inputs:
            return
        seen = torch.cat([one.data["observation"][one.mask] for one in behaviours]).double()
        std, mean = torch.std_mean(seen, 0, correction=0)
        scale = 1.0 / std.clamp(min=self.config.input_std_floor)
        size = self.num_observations
        states = [slice(0, size)] + [slice(-size, None)] * (self.config.inputs == "s,a,s'")
        for state in states:
            self.centre[state] = mean.to(self.centre)
            self.scale[state] = scale.to(self.scale)

    def forward(self, observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
        """float[..., I] on the device and in the precision of the weights."""
        if self.config.inputs == "s":
            raw = observation
        elif self.config.inputs == "s,a":
            raw = torch.cat([observation, action], -1)
        else:
            raw = torch.cat([observation, action, next_observation], -1)
        inputs = (raw.to(self.centre) - self.centre) * self.scale
        return F.pad(inputs, (0, 1)) if self.config.absorbing else inputs

    def of(self, behaviours: Trajectories, chosen: Tensor | tuple[Tensor, ...]) -> Tensor:
        """float[N, I]: the steps that `chosen` picks, bool[B, T] or a pair of long[N]."""
        data = behaviours.data
        return self(data["observation"][chosen], data["action"][chosen], data["next_observation"][chosen])

    def of_absorbing(self) -> Tensor:
        """float[1, I]: an absorbing step."""
        return F.pad(torch.zeros_like(self.centre), (0, 1), value=1.0)[None]


class Perceptrons(nn.Module):
    """E perceptrons with one output each, their weights side by side, so that a layer of all is one product."""

    def __init__(self, num_inputs: int, config: RewardConfig, generator: Generator) -> None:
        super().__init__()
        self.config = config
        weights, biases = list[Tensor](), list[Tensor]()
        for deep, wide in pairwise((num_inputs, *config.hidden, 1)):
            spread = 1.0 / math.sqrt(deep)
            shapes = (config.num_members, deep, wide), (config.num_members, 1, wide)
            for values, shape in zip((weights, biases), shapes, strict=True):
                values.append(nn.Parameter(torch.empty(shape).uniform_(-spread, spread, generator=generator)))
        with torch.no_grad():
            weights[-1] *= FIRST_OUTPUT
            biases[-1] *= FIRST_OUTPUT
        self.weights, self.biases = nn.ParameterList(weights), nn.ParameterList(biases)
        if config.spectral_norm:
            for k, weight in enumerate(self.weights):
                self.register_buffer(f"direction_{k}", torch.full_like(weight[:, :, :1], weight.shape[1] ** -0.5))
            self.turn(30)

    @torch.no_grad()
    def turn(self, num_steps: int = 1) -> None:
        """Power iteration: let each layer's direction follow the one that the layer stretches most."""
        for k, weight in enumerate(self.weights if self.config.spectral_norm else ()):
            direction = getattr(self, f"direction_{k}")
            for _ in range(num_steps):
                stretched = F.normalize(torch.bmm(weight.transpose(1, 2), direction), dim=1)
                direction.copy_(F.normalize(torch.bmm(weight, stretched), dim=1))

    def _weight(self, k: int, members: slice) -> Tensor:
        weight = self.weights[k][members]
        if self.config.spectral_norm:
            stretched = torch.bmm(weight.transpose(1, 2), getattr(self, f"direction_{k}")[members])
            weight = weight / torch.linalg.vector_norm(stretched, dim=1, keepdim=True)
        return weight

    def forward(self, inputs: Tensor, members: slice = slice(None)) -> Tensor:
        """float[E, N] from inputs [N, I] or [E, N, I]; of the given members alone."""
        last = len(self.weights) - 1
        weights = [self._weight(k, members) for k in range(last + 1)]
        hidden = inputs.expand(len(weights[0]), -1, -1)
        for k in range(last):
            hidden = torch.baddbmm(self.biases[k][members], hidden, weights[k])
            hidden = hidden.relu() if self.config.activation == "relu" else _tanh(hidden)
        # A batched product with a single column is slow on a CPU.
        return (hidden * weights[last].transpose(1, 2)).sum(-1) + self.biases[last][members].squeeze(1)


def _tanh(values: Tensor) -> Tensor:
    """On a CPU three times faster than torch.tanh, which would be most of the work; in place where nobody looks back,
    since the memory of large layers is costly to ask for."""
    if values.requires_grad:
        return 2.0 * torch.sigmoid(2.0 * values) - 1.0
    return values.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)
