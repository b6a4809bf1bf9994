"""The policy of the language world: it clones and compares with `descend`, and climbs a reward with `improve`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator

from llm.config import ImproveConfig
from llm.improve import climbing_loss, in_groups, judged, sections
from llm.references import Remembering
from llm.roles import Role
from llm.speech import Manner, Speech
from unified_irl.batch import Batch, Normaliser
from unified_irl.contracts import LossFunction, Metrics, Reward, Sampler, State
from unified_irl.descent import Descent
from unified_irl.descent_config import DescentConfig
from unified_irl.trajectories import Contexts, Trajectories


class LanguagePolicy(Speech):
    """A role that learns."""

    def __init__(self, role: Role, manner: Manner, descent: DescentConfig, config: ImproveConfig) -> None:
        super().__init__(role, manner)
        self.config = config
        self.descent = Descent(role.parameters(), descent)
        climb = replace(descent, learning_rate=config.learning_rate or descent.learning_rate, schedule="constant")
        self.climb = Descent(role.parameters(), climb)

    def descend(
        self, loss: LossFunction, batch: Batch, normaliser: Normaliser, step_size: float = 1.0
    ) -> dict[str, torch.Tensor]:
        with self.role.active():
            return self.descent.descend(loss, batch, normaliser, step_size)

    @torch.no_grad()
    def measure(self, loss: LossFunction, batch: Batch, normaliser: Normaliser) -> dict[str, torch.Tensor]:
        with self.role.active():
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
        """An update samples its section of the contexts, several times each, and takes a step on that."""
        config, samples = self.config, self.config.samples
        ask = reward.for_policy()
        say = reference.fresh if isinstance(reference, Remembering) else reference.log_prob
        loss = climbing_loss(self.log_prob, config, beta, gamma)
        made: list[Trajectories] = []
        told: list[Metrics] = []
        for section in sections(contexts, num_updates, generator):
            own = self.sample(in_groups(section, samples), generator)
            with torch.no_grad():
                batch, metrics = judged(own, ask(own), say(own), config, beta, gamma)
            made.append(own)
            told.append(metrics)
            step = Batch(own=batch)
            with self.role.active():
                for _ in range(config.epochs if config.algorithm == "ppo" else 1):
                    self.climb.descend(loss, step, step.normaliser())
        return {name: sum(one[name] for one in told) / len(told) for name in told[0]}, Trajectories.cat(made)

    def frozen(self) -> Remembering:
        return Remembering(self.role.still(), self.manner)

    def state_dict(self) -> State:
        return {
            "weights": self.role.weights(),
            "descent": self.descent.state_dict(),
            "climb": self.climb.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        self.role.load(state["weights"])
        self.descent.load_state_dict(state["descent"])
        self.climb.load_state_dict(state["climb"])
