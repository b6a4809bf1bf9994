"""Soft actor-critic at work: simulators are stepped, batches drawn under the reward as it is now, networks moved.

Shape legend: B rows, N simulators, O observations, A actions.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from gymnasium import Env
from torch import Generator, Tensor

from control.captured import CapturedUpdate
from control.practice import Practice
from control.processor import gains_from_bfloat16, vanishing_numbers_as_zero
from control.replay import Replay, StepReward
from control.sac import FastSAC
from control.sac_config import SACConfig
from control.scales import Scales
from control.update import LOG_STD_MAX, Transitions, update
from envs.robots.episodes import Episode
from envs.robots.rollout import seed_from
from envs.robots.simulators import Simulator
from unified_irl.contracts import Metrics, State

NUM_PROBES = 512
"""Remembered steps by which a change of the reward is measured."""

SETTLED = 0.05
"""What is left of the learning rate where it has come to rest."""


class Trainer:
    """A SAC of Stable-Baselines3, its simulators and what it remembers."""

    def __init__(
        self, env: Env, simulators: list[Simulator], config: SACConfig, generator: Generator, device: str = "cpu"
    ) -> None:
        self.config = config
        self.sac = _sac(env, config, generator, device)
        assert self.sac.networks is not None
        self.networks = self.sac.networks
        self.update = self._updater()
        self.scales = Scales.of(env, config, device)
        self.practice = Practice(simulators)
        num_observations = env.observation_space.shape[0]
        self.replay = Replay(num_observations, self.scales, config.buffer_size, len(simulators))
        self.shown: Replay | None = None
        self.is_standardised = self.is_taught = False
        self.owed = 0.0
        self.num_updates = self.num_warmup = 0
        self.probe: tuple[Tensor, Tensor] | None = None

    def _updater(self) -> Callable[..., dict[str, Tensor]]:
        on_gpu = self.sac.device.type == "cuda"
        return CapturedUpdate(self.networks) if self.config.graph and on_gpu else partial(update, self.networks)

    def show(self, steps: dict[str, Tensor], terminated: Tensor) -> None:
        """Steps that somebody demonstrated, each [S, ...] and named as in `envs.robots.episodes`, for batches to hold a
        share of."""
        observation, action, next_observation = (steps[k] for k in ("observation", "action", "next_observation"))
        self.shown = Replay(observation.shape[1], self.scales, len(observation), 1)
        inward = self.scales.inward(action.to(self.sac.device)).clamp(-1.0, 1.0).cpu()
        true_reward = steps["true_reward"]
        flags = torch.stack([true_reward, terminated.float(), torch.ones_like(true_reward)], dim=1)
        rows = torch.cat([observation, inward, next_observation, flags], dim=1)
        self.shown.load_state_dict({"rows": rows, "head": 0})

    @torch.no_grad()
    @vanishing_numbers_as_zero()
    def train(
        self,
        reward: StepReward,
        alpha: float,
        gamma: float,
        num_updates: int,
        generator: Generator,
        *,
        toll: float = 0.0,
    ) -> tuple[Metrics, list[Episode]]:
        """`num_updates` updates and the steps that go with them; the episodes that ended on the way are handed back.

        Every backup pays the toll once, as it counts one entropy, over however many steps it looks ahead."""
        if self.networks.alpha_optimiser is None:
            self._tell_temperature(alpha)
            self.networks.log_alpha.copy_(self.sac.ent_coef_tensor.log())
        self._forget_critics_if_the_reward_moved(reward, generator)
        finished: list[Episode] = []
        metrics: dict[str, Tensor] = {}
        num_first = self.config.learning_starts // len(self.practice.simulators) * len(self.practice.simulators)
        while self.replay.size < num_first:
            over = self._step(generator, is_random=not self.is_taught)
            finished += over if self.is_taught else []  # what random steps did is nobody's behaviour
            if self.replay.size >= num_first and not self.is_standardised:
                self.normalise_by(self.replay.rows[: self.replay.size, : self.replay.num_observations])
        done = 0
        while done < num_updates:
            if self.owed < 1.0:
                finished += self._step(generator, is_random=False)
                self.owed += self.config.updates_per_step * len(self.practice.simulators)
                continue
            metrics |= self._update(reward, gamma, generator, toll)
            self.owed -= 1.0
            done += 1
        self._probe(reward, generator)
        numbers = {name: float(value) for name, value in metrics.items()}
        return numbers | {"env_steps": float(self.practice.num_steps), "updates": float(self.num_updates)}, finished

    def _step(self, generator: Generator, *, is_random: bool) -> list[Episode]:
        before = self.practice.observations(generator)
        shape, device = (len(before), self.replay.num_actions), self.sac.device
        if is_random:
            action = (2.0 * torch.rand(shape, generator=generator) - 1.0).to(device)
        else:
            seen = self.scales.seen(torch.from_numpy(before).to(device))
            mean, log_std = self.networks.actor.forward(seen[None])[-1][0].chunk(2, dim=1)
            std = log_std.clamp(self.config.log_std_floor, LOG_STD_MAX).exp()
            action = torch.addcmul(mean, std, torch.randn(shape, generator=generator).to(device)).tanh()
        outward = self.scales.outward(action).cpu().numpy()
        after, outcome, finished = self.practice.step(outward, generator)
        self.replay.add(before, action.cpu().numpy(), after, outcome)
        return finished

    def _update(self, reward: StepReward, gamma: float, generator: Generator, toll: float = 0.0) -> dict[str, Tensor]:
        config = self.config
        self._settle()
        batch = self._batch(reward, gamma, generator, toll)
        noise = torch.randn(2 * config.batch_size, self.replay.num_actions, generator=generator)
        moves_actor = self.num_warmup == 0 and self.num_updates % config.actor_every == 0
        self.num_updates += 1
        self.num_warmup = max(0, self.num_warmup - 1)
        return self.update(batch, noise.to(self.sac.device), actor=moves_actor)

    def _settle(self) -> None:
        begin, end = self.config.settling
        if not end:
            return
        done = min(max((self.num_updates - begin) / (end - begin), 0.0), 1.0)
        rate = self.config.learning_rate * (1.0 - (1.0 - SETTLED) * done)
        networks = self.networks
        for optimiser in (networks.actor_optimiser, networks.critic_optimiser, networks.alpha_optimiser):
            for group in () if optimiser is None else optimiser.param_groups:
                group["lr"] = rate

    def _batch(self, reward: StepReward, gamma: float, generator: Generator, toll: float = 0.0) -> Transitions:
        config = self.config
        num_shown = 0 if self.shown is None else round(config.demonstrated_share * config.batch_size)
        index = self.replay.draw(config.batch_size - num_shown, generator)
        batch = self.replay.transitions(index, reward, gamma, config.n_step)
        if num_shown and self.shown is not None:
            shown = self.shown.transitions(self.shown.draw(num_shown, generator), reward, gamma, 1)
            batch = Transitions(
                *(torch.cat(pair) for pair in zip(vars(batch).values(), vars(shown).values(), strict=True))
            )
        batch = replace(batch, reward=batch.reward - toll)
        if not config.normalise_observations:
            return batch
        observation = self.scales.seen(batch.observation)
        action = batch.seen[:, observation.shape[1] :]
        seen = torch.cat([observation, action], dim=1)
        return Transitions(seen, observation, self.scales.seen(batch.following), batch.reward, batch.discount)

    def normalise_by(self, observation: Tensor) -> None:
        """Standardise what the networks see by these observations [S, O], if the config asks for it."""
        self.is_standardised = True
        if self.config.normalise_observations:
            self.scales.observation_mean.copy_(observation.mean(0))
            self.scales.observation_std.copy_(observation.std(0).clamp(min=1e-2))

    def export(self) -> FastSAC:
        """The model on its own: what observations are standardised by moves into the first layers."""
        if not self.config.normalise_observations:
            return self.sac
        file = io.BytesIO()
        self.sac.save(file)
        file.seek(0)
        with torch.random.fork_rng():
            model = FastSAC.load(file, device=self.sac.device)
        mean, std = self.scales.observation_mean, self.scales.observation_std
        critics = [*model.critic.q_networks, *model.critic_target.q_networks]
        with torch.no_grad():
            for first in (model.actor.latent_pi[0], *(critic[0] for critic in critics)):
                weight = first.weight[:, : len(mean)]
                weight.div_(std)
                first.bias.sub_(weight @ mean)
        return model

    def warm_up(self) -> None:
        """Let the critics alone learn for a while, for a policy that was not taught by them."""
        self.num_warmup = self.config.critic_warmup
        self.is_taught = True

    def _probe(self, reward: StepReward, generator: Generator) -> None:
        """Remember what the reward says of some steps."""
        if self.config.reset_critics_above:
            index = self.replay.draw(NUM_PROBES, generator)
            self.probe = (index, self.replay.transitions(index, reward, 0.0, 1).reward)

    def _forget_critics_if_the_reward_moved(self, reward: StepReward, generator: Generator) -> None:
        if self.probe is None:
            return
        index, before = self.probe
        moved = (self.replay.transitions(index, reward, 0.0, 1).reward - before).abs().mean()
        if bool(moved > self.config.reset_critics_above * before.std()):
            self.forget_critics(generator)

    def forget_critics(self, generator: Generator) -> None:
        """Fresh critics, and time for them before the actor moves again."""
        with torch.random.fork_rng():
            torch.manual_seed(seed_from(generator))
            for network in self.sac.critic.q_networks:
                for layer in network:
                    if isinstance(layer, torch.nn.Linear):
                        layer.reset_parameters()
        self.networks.target.flat.data.copy_(self.networks.critic.flat.data)
        for moments in self.networks.critic_optimiser.state.values():
            for one in moments.values():
                one.zero_()  # in place: a captured update looks at these very tensors
        self.refresh()
        self.warm_up()

    def refresh(self) -> None:
        """After the modules' weights were changed from outside."""
        for stack in (self.networks.actor, self.networks.critic, self.networks.target):
            stack.refresh()

    def state_dict(self) -> State:
        networks = self.networks
        alpha = networks.alpha_optimiser
        return {
            "networks": dict(self.sac.policy.state_dict()),
            "log_alpha": networks.log_alpha.detach(),
            "optimisers": [
                networks.actor_optimiser.state_dict(),
                networks.critic_optimiser.state_dict(),
                *([] if alpha is None else [alpha.state_dict()]),
            ],
            "replay": self.replay.state_dict(),
            "practice": self.practice.state_dict(),
            "probe": None if self.probe is None else list(self.probe),
            "scales": [self.scales.observation_mean, self.scales.observation_std],
            "flags": {"is_standardised": self.is_standardised, "is_taught": self.is_taught},
            "counters": {"owed": self.owed, "num_updates": self.num_updates, "num_warmup": self.num_warmup},
        }

    def _tell_temperature(self, alpha: float) -> None:
        """Let the model, and so its file, hold a fixed temperature where Stable-Baselines3 looks for it."""
        self.sac.ent_coef, self.sac.ent_coef_tensor = alpha, torch.tensor(alpha, device=self.sac.device)

    def load_state_dict(self, state: State) -> None:
        networks = self.networks
        self.sac.policy.load_state_dict(state["networks"])
        networks.log_alpha.data.copy_(state["log_alpha"])
        if networks.alpha_optimiser is None:
            self._tell_temperature(float(networks.log_alpha.exp()))
        optimisers = [networks.actor_optimiser, networks.critic_optimiser, networks.alpha_optimiser]
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=False):
            assert optimiser is not None
            optimiser.load_state_dict(saved)
        self.replay.load_state_dict(state["replay"])
        self.practice.load_state_dict(state["practice"])
        if not self.practice.records:
            self.replay.cut()
        for scale, saved in zip(
            (self.scales.observation_mean, self.scales.observation_std), state["scales"], strict=True
        ):
            scale.copy_(saved)
        self.probe = None if state["probe"] is None else (state["probe"][0], state["probe"][1].to(self.sac.device))
        self.owed, self.num_updates = state["counters"]["owed"], state["counters"]["num_updates"]
        self.num_warmup = state["counters"]["num_warmup"]
        self.is_standardised, self.is_taught = state["flags"]["is_standardised"], state["flags"]["is_taught"]
        self.update = self._updater()
        self.refresh()


def _sac(env: Env, config: SACConfig, generator: Generator, device: str) -> FastSAC:
    """The model that files hold; its own buffer stays empty, since ours remembers."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_from(generator))
        sac = FastSAC(
            "MlpPolicy",
            env,
            learning_rate=config.learning_rate,
            buffer_size=1,
            learning_starts=config.learning_starts,
            batch_size=config.batch_size,
            tau=config.tau,
            gamma=config.discount,
            ent_coef="auto" if config.temperature == "auto" else 1.0,
            policy_kwargs={"net_arch": list(config.hidden), "n_critics": config.num_critics},
            device=device,
            half=gains_from_bfloat16(device, config.hidden)
            if config.precision == "auto"
            else config.precision == "bfloat16",
            log_std_floor=config.log_std_floor,
        )
    sac.buffer_size = config.buffer_size
    return sac
