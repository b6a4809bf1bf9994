"""The voices of a method, all of one model: its policy, its reward if it has one, and what both are measured from."""

from __future__ import annotations

import copy
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedModel

from llm.base import content_of
from llm.config import LanguageConfig
from llm.given import GivenReward, refusal
from llm.judges import Asked, judge_called
from llm.policy import LanguagePolicy
from llm.references import Remembering
from llm.reward import TextReward
from llm.roles import Adapter, Base, Role, Shared, Whole
from llm.sampler import complete
from llm.speech import Manner
from unified_irl import parallel
from unified_irl.contracts import Parts, Reward
from unified_irl.errors import UserError
from unified_irl.feedback import Demonstrations, Preferences
from unified_irl.rows import Method, Phase
from unified_irl.trajectories import Trajectories


class Voices:
    """A base model, and the roles that are made of it anew for every method."""

    def __init__(
        self,
        config: LanguageConfig,
        seed: int,
        base: PreTrainedModel,
        read: Callable[[], PreTrainedModel],
        manner: Manner,
        cache: Path,
    ) -> None:
        """`read` gives the base model anew, where it already carries somebody's adapters."""
        self.config, self.seed, self.read, self.manner, self.cache = config, seed, read, manner, cache
        self.base = self._placed(base)
        self.is_shared = False
        self.start = Remembering(self._speaking(self.base), manner)
        """The base model, as it speaks before anything is learnt."""

    def build(
        self, method: Method, fixed: Callable[[], list[Trajectories]], answers: Callable[[Trajectories], Asked]
    ) -> Parts:
        """The parts of a method. `fixed` gives the data that stay the same throughout a run, `answers` the texts of
        behaviours."""
        for phase in method.stages:
            if phase.segment:
                raise UserError(
                    f"phase '{phase.name}' cuts windows of {phase.segment} steps, but a completion means nothing "
                    "without its prompt; let segment be 0."
                )
        config = self.config
        if config.model.compile and not shutil.which(os.environ.get("CXX", "g++")):
            raise UserError(
                "model.compile needs a C++ compiler, g++ or the one that CXX names, and there is none; install one."
            )
        if self.is_shared:
            self.base = self._placed(self.read())
        content = content_of(self.base) if method.reward == "implicit" else ""
        given = self._given(method, answers)
        policy_role, reward_role, reference_role = self._roles(method.reward == "explicit" and given is None)
        policy = LanguagePolicy(policy_role, self.manner, method.policy_descent, config.improve)
        reward: Reward | None = given
        if reward_role is not None:
            reward = TextReward(reward_role, config.reward, method.reward_descent, config.tokens_per_pass)
        reference = Remembering(reference_role, self.manner)
        if method.reward == "implicit":
            reference.remember(fixed(), self.cache / "log-probabilities", content)
        self.start = reference
        return Parts(policy, reward, reference)

    def _given(self, method: Method, answers: Callable[[Trajectories], Asked]) -> GivenReward | None:
        """The reward that the settings name, for methods that climb one and leave it as it is."""
        config = self.config.reward
        if not config.given:
            return None
        if method.reward != "explicit" or any(_teaches(phase) for phase in method.stages):
            does = "climbs no reward" if method.reward != "explicit" else "learns one"
            raise UserError(refusal(config, f"{method.name} {does}"))
        judge = judge_called(config.given, self.config.model.allow_download, device_of(self.config))
        return GivenReward(judge, answers, config, self.config.tokens_per_pass)

    def _placed(self, base: PreTrainedModel) -> PreTrainedModel:
        base.requires_grad_(False)
        return base if self._shards else base.to(device_of(self.config))

    @property
    def _shards(self) -> bool:
        return self.config.model.shard and parallel.world().size > 1

    def _speaking(self, model: PreTrainedModel, *, learns: bool = False) -> Role:
        """A whole model as a role."""
        if not self._shards:
            return Whole(model, compiled=learns and self.config.model.compile)
        from llm.sharded import Sharded

        return Sharded(model, device_of(self.config))

    def _roles(self, explicit: bool) -> tuple[Role, Role | None, Role]:
        config = self.config.model
        if not config.lora.rank:
            copied = self.read if self._shards else lambda: copy.deepcopy(self.base)
            roles = [self._speaking(copied().requires_grad_(True), learns=True) for _ in range(1 + explicit)]
            return roles[0], roles[1] if explicit else None, self.start.role if self._shards else Whole(self.base)
        self.is_shared = True
        shared = Shared(self.base, config.lora, self.seed)
        return Adapter(shared, "policy"), Adapter(shared, "reward") if explicit else None, Base(shared)


class Voiced(ABC):
    """What domains of language have in common: voices, and data that they speak about."""

    voices: Voices
    demonstrations: Demonstrations | None
    preferences: Preferences | None
    sharpness = 1.0
    """How sharply people are taken to choose by the method that was built last."""

    @property
    def start(self) -> Remembering:
        """The model as it speaks before anything is learnt."""
        return self.voices.start

    def build(self, method: Method) -> Parts:
        for phase in method.stages:
            if phase.learns_preferences:
                self.sharpness = phase.preference_sharpness
        return self.voices.build(method, lambda: self._fixed(method), self.answers)

    @abstractmethod
    def answers(self, own: Trajectories) -> Asked:
        """What was asked and what was said, as texts or conversations."""

    def check_asked(self, own: Trajectories) -> None:
        """A judge has to know what was asked."""
        if bool((own.context_id < 0).any()):
            raise UserError(
                "Some answers belong to no prompt of the task, so a judge cannot be asked about them; score them with "
                "`unified-irl score`, naming the judge itself."
            )

    def _fixed(self, method: Method) -> list[Trajectories]:
        """The data that stay the same throughout a run."""
        data = []
        if method.uses_demonstrations and self.demonstrations is not None:
            data.append(self.demonstrations.trajectories)
        if method.uses_preferences and self.preferences is not None:
            data += [self.preferences.first, self.preferences.second]
        return data


def _teaches(phase: Phase) -> bool:
    """Whether its losses move an explicit reward."""
    return (phase.learns_demonstrations or phase.learns_preferences) and not phase.clones


def device_of(config: LanguageConfig) -> str:
    """Where the models live."""
    device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    if config.device == "cuda" and device == "cpu":
        raise UserError("device is cuda, but no CUDA device can be used; choose auto or cpu.")
    return device


def manner_of(config: LanguageConfig, end: int, max_tokens: int) -> Manner:
    """How all voices speak. A completion has `max_tokens` tokens at most, unless the settings say otherwise."""
    sampler, engine = config.sampler, complete
    if sampler.engine == "paged":
        from llm.paged import complete as engine
    return Manner(
        end=end,
        max_tokens=sampler.max_tokens or max_tokens,
        rows=sampler.rows,
        tokens_per_pass=config.tokens_per_pass,
        complete=engine,
    )
