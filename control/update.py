"""One update of soft actor-critic, as plain functions of tensors with their derivatives written out.

    critic        Σ_i ½ E[(Q_i(s, a) − y)²],  y = r + γ' (min_i Q'_i(s', a') − α log π(a'|s')),  a' ~ π
    actor         E[α log π(ã|s) − min_i Q_i(s, ã)],  ã = tanh(μ + σ ε)
    temperature   −log α · E[log π(ã|s) + target entropy]

γ' is the discount over the transition, zero where the world ended the behaviour. Nothing here waits for the device:
what is logged stays a tensor until somebody reads it.

Shape legend: B rows, A action dimensions, I inputs of a critic (observation and action), E critics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from control.stack import Stack

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
SQUASH_EPSILON = 1e-6
"""Added to 1 − a² under the logarithm; the same number as in Stable-Baselines3, so that densities agree."""
HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


@dataclass
class Squashed:
    """Actions of a tanh-Gaussian, and what their derivative needs. Each [B, A] but for log_prob [B]."""

    action: Tensor
    log_prob: Tensor
    scaled_noise: Tensor
    """σ ε."""
    inside: Tensor
    """1 where log σ is within its bounds, 0 where it was clamped."""

    def slope(self, d_action: Tensor, d_log_prob: float | Tensor) -> Tensor:
        """[B, 2A]: the derivative by (μ, log σ), ε held fixed, from those by the action and by log π."""
        room = 1.0 - self.action.square()
        d_before = (d_action + d_log_prob * (2.0 * self.action / (room + SQUASH_EPSILON))) * room
        return torch.cat([d_before, (d_before * self.scaled_noise - d_log_prob) * self.inside], dim=1)


def squash(output: Tensor, noise: Tensor, log_std_floor: float = LOG_STD_MIN) -> Squashed:
    """From an actor's outputs [B, 2A] and standard normal noise [B, A] to actions and their log-density."""
    mean, raw = output.chunk(2, dim=1)
    log_std = raw.clamp(log_std_floor, LOG_STD_MAX)
    scaled_noise = log_std.exp() * noise
    action = torch.tanh(mean + scaled_noise)
    density = noise.square().mul_(-0.5) - log_std - torch.log(1.0 - action.square() + SQUASH_EPSILON)
    return Squashed(action, density.sum(1) - noise.shape[1] * HALF_LOG_TWO_PI, scaled_noise, (raw == log_std).float())


@dataclass
class Transitions:
    """A batch drawn from the replay."""

    seen: Tensor
    """[B, I]: observation and action, as the critics take them."""
    observation: Tensor
    following: Tensor
    """[B, ...]: the observation that the backup looks at."""
    reward: Tensor
    """[B], summed over the steps of the backup."""
    discount: Tensor
    """[B]: γ' of the backup."""


@dataclass
class Networks:
    """What one update moves."""

    actor: Stack
    critic: Stack
    target: Stack
    actor_optimiser: Optimizer
    critic_optimiser: Optimizer
    log_alpha: Tensor
    alpha_optimiser: Optimizer | None
    """None keeps the temperature where it is."""
    target_entropy: float
    tau: float
    log_std_floor: float = LOG_STD_MIN


def update(networks: Networks, batch: Transitions, noise: Tensor, *, actor: bool = True) -> dict[str, Tensor]:
    """One step of critics, actor, temperature and targets; `noise` is standard normal [2B, A]."""
    count = len(batch.reward)
    alpha = networks.log_alpha.exp()
    seen_by_actor = networks.actor.forward(torch.cat([batch.observation, batch.following])[None])
    drawn = squash(seen_by_actor[-1][0], noise, networks.log_std_floor)
    now = Squashed(*(part[:count] for part in vars(drawn).values()))

    ahead = torch.cat([batch.following, drawn.action[count:]], dim=1)[None]
    value = networks.target.forward(ahead)[-1].amin(0).squeeze(1) - alpha * drawn.log_prob[count:]
    goal = torch.addcmul(batch.reward, batch.discount, value)

    passed = networks.critic.forward(batch.seen[None])
    error = passed[-1] - goal[None, :, None]
    networks.critic.backward(passed, error / count, weights=True, inputs=False)
    networks.critic_optimiser.step()
    networks.critic.refresh()
    metrics = {"critic_loss": 0.5 * error.square().mean() * len(error), "q": goal.mean()}

    if actor:
        metrics |= _improve_actor(networks, batch.observation, now, seen_by_actor, alpha)
    networks.target.flat.data.lerp_(networks.critic.flat.data, networks.tau)
    networks.target.refresh()
    return metrics


def _improve_actor(
    networks: Networks, observation: Tensor, drawn: Squashed, seen: list[Tensor], alpha: Tensor
) -> dict[str, Tensor]:
    count = len(observation)
    passed = networks.critic.forward(torch.cat([observation, drawn.action], dim=1)[None])
    lowest, which = passed[-1].min(0)
    chosen = torch.zeros_like(passed[-1]).scatter_(0, which[None], -1.0 / count)
    d_seen = networks.critic.backward(passed, chosen, weights=False, inputs=True)
    assert d_seen is not None
    d_action = d_seen.sum(0)[:, observation.shape[1] :]
    slope = drawn.slope(d_action, alpha / count)
    networks.actor.backward([layer[:, :count] for layer in seen], slope[None], weights=True, inputs=False)
    networks.actor_optimiser.step()
    networks.actor.refresh()
    surprise = drawn.log_prob.mean()
    if networks.alpha_optimiser is not None:
        networks.log_alpha.grad = -(surprise + networks.target_entropy).view_as(networks.log_alpha)
        networks.alpha_optimiser.step()
    return {"actor_loss": alpha * surprise - lowest.mean(), "entropy": -surprise, "alpha": alpha}
