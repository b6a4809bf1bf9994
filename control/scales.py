"""Between the units of an environment and those of the networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gymnasium import Env
from torch import Tensor

from control.sac_config import SACConfig


@dataclass(frozen=True)
class Scales:
    """Between the units of an environment and those of the networks."""

    action_low: Tensor
    action_high: Tensor
    observation_mean: Tensor
    observation_std: Tensor
    action_margin: float
    """Demonstrated actions this close to ±1 are taken to lie this far inside, where densities are tame."""
    log_std_floor: float

    @staticmethod
    def of(env: Env, config: SACConfig, device: str) -> Scales:
        num_observations = env.observation_space.shape[0]
        return Scales(
            action_low=torch.as_tensor(env.action_space.low, dtype=torch.float32, device=device),
            action_high=torch.as_tensor(env.action_space.high, dtype=torch.float32, device=device),
            observation_mean=torch.zeros(num_observations, device=device),
            observation_std=torch.ones(num_observations, device=device),
            action_margin=config.action_margin,
            log_std_floor=config.log_std_floor,
        )

    def inward(self, action: Tensor) -> Tensor:
        """From the environment's units to [−1, 1]."""
        return 2.0 * (action - self.action_low) / (self.action_high - self.action_low) - 1.0

    def outward(self, action: Tensor) -> Tensor:
        return self.action_low + 0.5 * (action + 1.0) * (self.action_high - self.action_low)

    def seen(self, observation: Tensor) -> Tensor:
        return (observation - self.observation_mean) / self.observation_std
