"""The policy of the control world as the core sees it: it clones with `descend` and climbs a reward with `improve`."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Generator, Tensor

from control.acting import Speaker, actions_of, log_density, log_prob, sample, spoken
from control.replay import StepReward
from control.trainer import Trainer
from envs.robots.episodes import trajectories, with_absorbing
from envs.robots.rollout import Act
from envs.robots.simulators import Simulator
from unified_irl.batch import Batch, Normaliser
from unified_irl.contracts import LossFunction, Metrics, Reward, Sampler, State
from unified_irl.descent import Descent
from unified_irl.descent_config import DescentConfig
from unified_irl.trajectories import Contexts, Trajectories


class ControlPolicy:
    """An actor, the trainer that moves it toward a reward, and the optimiser that moves it toward a likelihood."""

    def __init__(
        self, trainer: Trainer, simulators: list[Simulator], descent: DescentConfig, absorbing_horizon: int
    ) -> None:
        """`simulators` are for whole episodes outside practice; with an `absorbing_horizon` above 0, episodes that end
        early go on in an absorbing state until then."""
        self.trainer, self.simulators, self.absorbing_horizon = trainer, simulators, absorbing_horizon
        self.actor, self.scales = trainer.sac.actor, trainer.scales
        self.descent = Descent(self.actor.parameters(), descent)
        self.is_cloned = False

    def sample(self, contexts: Contexts, generator: Generator) -> Trajectories:
        return sample(self.actor, contexts, self.simulators, self.scales, generator, self.absorbing_horizon)

    def log_prob(self, behaviours: Trajectories) -> Tensor:
        return log_prob(self.actor, behaviours, self.scales)

    def acting(self, generator: Generator | None) -> Act:
        """How it acts: at random with a generator, by its mean without."""
        return actions_of(self.actor, self.scales, generator)

    def descend(
        self, loss: LossFunction, batch: Batch, normaliser: Normaliser, step_size: float = 1.0
    ) -> dict[str, Tensor]:
        metrics = self.descent.descend(loss, batch, normaliser, step_size)
        self.trainer.refresh()
        self.is_cloned = True
        return metrics

    def measure(self, loss: LossFunction, batch: Batch, normaliser: Normaliser) -> dict[str, Tensor]:
        return self.descent.measure(loss, batch, normaliser)

    def improve(
        self,
        reward: Reward,
        reference: Sampler,
        beta: float,
        gamma: float,
        contexts: Contexts,
        num_updates: int,
        generator: Generator,
    ) -> tuple[Metrics, Trajectories]:
        """SAC under the current reward. Episodes begin where the simulator begins them: contexts cannot be chosen."""
        trainer, config = self.trainer, self.trainer.config
        if self.is_cloned:
            trainer.warm_up()
            self.is_cloned = False
        discount = min(gamma, config.discount)
        judged: StepReward = reward.for_policy()  # type: ignore[assignment]
        anchor = reference if config.anchor == "reference" and isinstance(reference, Speaker) else None
        toll = 0.0
        if config.temperature == "fixed" and anchor is not None:
            judged = Anchored(judged, anchor, beta)
        elif config.temperature == "fixed":
            toll = random_entropy(beta, len(self.scales.action_low))
        metrics, episodes = trainer.train(judged, beta, discount, num_updates, generator, toll=toll)
        if episodes:
            own = with_absorbing(
                trajectories(episodes, torch.zeros(len(episodes), dtype=torch.long)), self.absorbing_horizon
            )
            own = spoken(self.actor, own, self.scales)
        else:
            own = self.sample(contexts[:1], generator)
            trainer.practice.num_steps += int(own.mask.sum())
            metrics["env_steps"] = float(trainer.practice.num_steps)
        return metrics | self._objective(own, reward, anchor, beta, discount), own

    @torch.no_grad()
    def _objective(
        self, own: Trajectories, reward: Reward, anchor: Speaker | None, beta: float, gamma: float
    ) -> Metrics:
        """Minus the discounted return of what the policy did and its entropy, or its divergence from the anchor; and
        what the task paid for it."""
        uniform = -math.log(2.0) * len(self.scales.action_low) * own.mask
        anchored = uniform if anchor is None else anchor.log_prob(own).cpu()
        per_step = reward(own).cpu() - beta * (own.behaviour_log_prob - anchored)
        steps = own.data["absorbing"].clamp(min=1.0)  # a column is discounted as its first step would be
        fading = 1.0 if gamma == 1.0 else (1.0 - gamma**steps) / (steps * (1.0 - gamma))
        value = (per_step * fading * own.discount(gamma)).sum(1).mean()
        return {"policy_loss": -float(value), "own_return": float(own.data["true_reward"].sum(1).mean())}

    def frozen(self) -> Speaker:
        return Speaker(self.actor, self.scales, self.simulators, self.absorbing_horizon)

    def save(self, path: Path) -> None:
        """A file that Stable-Baselines3 loads with `SAC.load`; it acts alike there."""
        self.trainer.export().save(path)

    def state_dict(self) -> State:
        return {
            "trainer": self.trainer.state_dict(),
            "descent": self.descent.state_dict(),
            "is_cloned": self.is_cloned,
        }

    def load_state_dict(self, state: State) -> None:
        self.trainer.load_state_dict(state["trainer"])
        self.descent.load_state_dict(state["descent"])
        self.is_cloned = state["is_cloned"]


def random_entropy(beta: float, num_actions: int) -> float:
    """β A log 2, what acting at random earns by its entropy in a step. Less that, SAC's entropy measures the policy
    from acting at random; otherwise every step would pay for the width of the action space, and living would pay by
    itself where absorbing steps follow an end."""
    return beta * num_actions * math.log(2.0)


class Anchored:
    """r + β log π_ref: with the entropy that SAC adds, the policy is measured from the reference."""

    def __init__(self, reward: StepReward, reference: Speaker, beta: float) -> None:
        self.reward, self.reference, self.beta = reward, reference, beta

    def __call__(self, observation: Tensor, action: Tensor, next_observation: Tensor, true_reward: Tensor) -> Tensor:
        judged = self.reward(observation, action, next_observation, true_reward)
        return judged + self.beta * log_density(self.reference.actor, observation, action, self.reference.scales)

    def absorbing(self) -> Tensor:
        return self.reward.absorbing()
