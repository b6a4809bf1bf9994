"""How a squashed Gaussian actor acts, and how likely it finds what somebody did.

Densities are those of the action scaled to [−1, 1], so that the width of an environment's action range drops out.

Shape legend: B behaviours, T steps, N simulators, O observations, A actions.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from stable_baselines3.sac.policies import Actor
from torch import Generator, Tensor

from control.scales import Scales
from control.update import HALF_LOG_TWO_PI, LOG_STD_MAX, SQUASH_EPSILON
from envs.robots.episodes import trajectories, with_absorbing
from envs.robots.rollout import Act, roll_out
from envs.robots.simulators import Simulator
from unified_irl.contracts import State
from unified_irl.trajectories import Contexts, Trajectories


def gaussian(actor: Actor, observation: Tensor, scales: Scales) -> tuple[Tensor, Tensor]:
    """Mean and log standard deviation before the squashing."""
    latent = actor.latent_pi(scales.seen(observation))
    return actor.mu(latent), actor.log_std(latent).clamp(scales.log_std_floor, LOG_STD_MAX)


def log_density(actor: Actor, observation: Tensor, action: Tensor, scales: Scales) -> Tensor:
    """log π(action | observation) for actions in the environment's units, summed over their dimensions."""
    mean, log_std = gaussian(actor, observation, scales)
    limit = 1.0 - scales.action_margin
    squashed = scales.inward(action).clamp(-limit, limit)
    noise = (torch.atanh(squashed) - mean) * (-log_std).exp()
    density = -0.5 * noise.square() - log_std - torch.log(1.0 - squashed.square() + SQUASH_EPSILON)
    return density.sum(-1) - action.shape[-1] * HALF_LOG_TWO_PI


def log_prob(actor: Actor, behaviours: Trajectories, scales: Scales) -> Tensor:
    """float[B, T]: log-density where the policy chose, zero elsewhere. Only those steps pass through the network."""
    device = scales.action_low.device
    mask = behaviours.mask.to(device)
    observation, action = (behaviours.data[name].to(device)[mask] for name in ("observation", "action"))
    density = log_density(actor, observation, action, scales)
    return torch.zeros(mask.shape, dtype=density.dtype, device=device).masked_scatter(mask, density)


class Speaker:
    """A policy that only acts and speaks of what others did: a copy of an actor."""

    def __init__(self, actor: Actor, scales: Scales, simulators: list[Simulator], absorbing_horizon: int) -> None:
        self.actor, self.scales = copy.deepcopy(actor).requires_grad_(False), copy.deepcopy(scales)
        self.simulators, self.absorbing_horizon = simulators, absorbing_horizon

    @torch.no_grad()
    def sample(self, contexts: Contexts, generator: Generator) -> Trajectories:
        return sample(self.actor, contexts, self.simulators, self.scales, generator, self.absorbing_horizon)

    @torch.no_grad()
    def log_prob(self, behaviours: Trajectories) -> Tensor:
        return log_prob(self.actor, behaviours, self.scales)

    def acting(self, generator: Generator | None) -> Act:
        """How it acts: at random with a generator, by its mean without."""
        return actions_of(self.actor, self.scales, generator)

    def state_dict(self) -> State:
        scales = [self.scales.observation_mean, self.scales.observation_std]
        return {"actor": dict(self.actor.state_dict()), "scales": scales}

    def load_state_dict(self, state: State) -> None:
        self.actor.load_state_dict(state["actor"])
        self.scales.observation_mean.copy_(state["scales"][0])
        self.scales.observation_std.copy_(state["scales"][1])


def actions_of(actor: Actor, scales: Scales, generator: Generator | None) -> Act:
    """How the actor acts, in the environment's units: at random with a generator, by its mean without."""

    def act(observations: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            seen = torch.from_numpy(observations).to(scales.action_low.device)
            mean, log_std = gaussian(actor, seen, scales)
            if generator is not None:
                mean = mean + log_std.exp() * torch.randn(mean.shape, generator=generator).to(mean.device)
            return scales.outward(torch.tanh(mean)).cpu().numpy()

    return act


def sample(
    actor: Actor,
    contexts: Contexts,
    simulators: list[Simulator],
    scales: Scales,
    generator: Generator,
    absorbing_horizon: int,
) -> Trajectories:
    """One whole episode per context."""
    act = actions_of(actor, scales, generator)
    episodes = trajectories(roll_out(act, simulators, len(contexts), generator), contexts.ids)
    return spoken(actor, with_absorbing(episodes, absorbing_horizon), scales)


def spoken(actor: Actor, behaviours: Trajectories, scales: Scales) -> Trajectories:
    """The behaviours with their log-probability under the actor that made them."""
    with torch.no_grad():
        known = log_prob(actor, behaviours, scales).cpu()
    return Trajectories(**{**behaviours.state_dict(), "behaviour_log_prob": known})
