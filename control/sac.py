"""Stable-Baselines3's SAC with an update of our own.

Everything around the update is Stable-Baselines3: construction, callbacks, schedules, `save` and `load` (either way
between the two classes), `predict`, the hyper-parameters of its zoo. The modules of its policy are views of two flat
tensors, which `control.update` moves. What the stacked form cannot express (state-dependent exploration, other
activations or networks, observations that are no vectors, rarer target updates) is left to Stable-Baselines3's own
update; `networks` is then None.
"""

from __future__ import annotations

import io
import pathlib
from collections.abc import Iterable
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.sac.policies import Actor
from torch import nn
from torch.optim import Adam, Optimizer

from control.processor import keep_memory, vanishing_numbers_as_zero
from control.stack import Stack, linears
from control.update import LOG_STD_MIN, Networks, Transitions, update


class FastSAC(SAC):
    """SAC whose critics are one batched product and whose update builds no graph.

    Building one makes the process keep its freed memory: see `control.processor`.
    """

    half: bool = False
    log_std_floor: float = LOG_STD_MIN
    networks: Networks | None = None

    def __init__(self, *args: Any, half: bool = False, log_std_floor: float = LOG_STD_MIN, **kwargs: Any) -> None:
        """As for SAC; with `half`, products between hidden layers are taken in bfloat16."""
        self.half, self.log_std_floor = half, log_std_floor
        super().__init__(*args, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.metrics = {}
        keep_memory()
        self.networks = self._stacked() if self._is_plain() else None

    def _is_plain(self) -> bool:
        """Whether the networks are perceptrons with ReLU on the observation itself, with Adam as it comes."""
        policy, seen = self.policy, self.observation_space
        extractors = (policy.actor.features_extractor, policy.critic.features_extractor)
        return (
            not self.use_sde
            and self.target_update_interval == 1
            and isinstance(seen, spaces.Box)
            and len(seen.shape) == 1
            and type(policy.actor) is Actor
            and type(policy.critic) is ContinuousCritic
            and policy.activation_fn is nn.ReLU
            and all(isinstance(one, FlattenExtractor) for one in extractors)
            and policy.optimizer_class is Adam
            and not policy.optimizer_kwargs.get("amsgrad")
            and all(isinstance(one, nn.Linear | nn.ReLU) for one in (*self.actor.latent_pi, *self.critic.q_networks[0]))
        )

    def _stacked(self) -> Networks:
        actor_layers = [*linears(self.actor.latent_pi), [self.actor.mu, self.actor.log_std]]
        actor = Stack([actor_layers], self.half)
        critic, target = (
            Stack([linears(one) for one in critics.q_networks], self.half)
            for critics in (self.critic, self.critic_target)
        )
        on_gpu = self.device.type == "cuda"
        if self.ent_coef_optimizer is not None:
            self.ent_coef_optimizer.param_groups[0]["capturable"] = on_gpu
        options = {"lr": self.lr_schedule(1), **self.policy.optimizer_kwargs, "fused": True, "capturable": on_gpu}
        log_alpha = self.log_ent_coef if self.log_ent_coef is not None else self.ent_coef_tensor.log()
        return Networks(
            actor=actor,
            critic=critic,
            target=target,
            actor_optimiser=Adam([actor.flat], **options),
            critic_optimiser=Adam([critic.flat], **options),
            log_alpha=log_alpha,
            alpha_optimiser=self.ent_coef_optimizer,
            target_entropy=float(self.target_entropy),
            tau=self.tau,
            log_std_floor=self.log_std_floor,
        )

    @torch.no_grad()
    @vanishing_numbers_as_zero()
    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """As in SAC, without waiting for the device after an update."""
        if self.networks is None:
            with torch.enable_grad():
                super().train(gradient_steps, batch_size)
            return
        networks = self.networks
        optimisers = [networks.actor_optimiser, networks.critic_optimiser, networks.alpha_optimiser]
        self._update_learning_rate([one for one in optimisers if one is not None])
        if networks.alpha_optimiser is None:
            networks.log_alpha.copy_(self.ent_coef_tensor.log())
        for _ in range(gradient_steps):
            samples = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            noise = torch.randn(2 * batch_size, self.action_space.shape[0], device=self.device)
            self.metrics = update(networks, self._transitions(samples), noise)
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def dump_logs(self) -> None:
        """As in SAC; only now is the device asked for the numbers of the last update."""
        names = {"ent_coef": "alpha", "actor_loss": "actor_loss", "critic_loss": "critic_loss"}
        for name, said in names.items():
            if said in self.metrics:
                self.logger.record(f"train/{name}", float(self.metrics[said]))
        super().dump_logs()

    def _transitions(self, samples: ReplayBufferSamples) -> Transitions:
        discount = self.gamma if samples.discounts is None else samples.discounts
        return Transitions(
            seen=torch.cat([samples.observations, samples.actions], dim=1).float(),
            observation=samples.observations.float(),
            following=samples.next_observations.float(),
            reward=samples.rewards.squeeze(1),
            discount=((1.0 - samples.dones) * discount).squeeze(1),
        )

    def _optimisers(self) -> Iterable[tuple[Optimizer, Optimizer, Stack]]:
        """Stable-Baselines3's optimisers, which travel in files, and ours, which work; none where it updates."""
        if self.networks is not None:
            yield self.actor.optimizer, self.networks.actor_optimiser, self.networks.actor
            yield self.critic.optimizer, self.networks.critic_optimiser, self.networks.critic

    def get_parameters(self) -> dict[str, dict]:
        """As in SAC: its optimisers are told what ours know."""
        self._tell_optimisers()
        return super().get_parameters()

    def _tell_optimisers(self) -> None:
        for theirs, ours, stack in self._optimisers():
            theirs.state.clear()
            if known := ours.state.get(stack.flat):
                parts = {name: stack.spread(known[name]) for name in ("exp_avg", "exp_avg_sq")}
                for k, parameter in enumerate(stack.parameters()):
                    moments = {name: values[k].clone() for name, values in parts.items()}
                    theirs.state[parameter] = {"step": known["step"].clone(), **moments}
            for group, mine in zip(theirs.param_groups, ours.param_groups, strict=True):
                group["lr"] = mine["lr"]

    def set_parameters(self, *args: Any, **kwargs: Any) -> None:
        """As in SAC: our optimisers learn what its optimisers were given."""
        self._tell_optimisers()  # whichever of them is given nothing stays as it is
        super().set_parameters(*args, **kwargs)
        for theirs, ours, stack in self._optimisers():
            stack.refresh()
            states = [theirs.state.get(parameter) for parameter in stack.parameters()]
            ours.state.clear()
            if all(states):
                known = {name: torch.zeros_like(stack.flat.data) for name in ("exp_avg", "exp_avg_sq")}
                for name, flat in known.items():
                    for view, state in zip(stack.spread(flat), states, strict=True):
                        view.copy_(state[name])
                ours.state[stack.flat] = {"step": states[0]["step"].clone().to(stack.flat), **known}
        if self.networks is not None:
            self.networks.target.refresh()

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """As in SAC; the file loads there as well as here."""
        super().save(path, exclude=[*(exclude or ()), "networks", "metrics"], include=include)
