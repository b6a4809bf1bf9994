"""What a run of a language task has learnt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.train import TrainConfig, load
from llm.config import LanguageConfig
from llm.domain import LanguageDomain
from llm.policy import LanguagePolicy
from llm.reward import TextReward
from llm.written import WrittenDomain
from unified_irl.contracts import RewardFunction
from unified_irl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LanguageRun:
    """The policy and the reward of one checkpoint."""

    path: Path
    task: str
    config: TrainConfig[LanguageConfig]
    domain: LanguageDomain | WrittenDomain
    policy: LanguagePolicy
    reward: TextReward | None
    """The explicit one, where the method has one."""
    learnt_reward: RewardFunction | None
    """Explicit or implicit, as learnt so far."""
    which: str
    round: int
    """After how many rounds the checkpoint was written."""

    @property
    def title(self) -> str:
        return f"{self.task} {self.config.method.name}, seed {self.config.seed}, {self.which}: round {self.round}"


def load_language_run(path: Path, which: str) -> LanguageRun:
    """The newest or the best checkpoint."""
    task_name, config, learner = load(path, which)
    domain, policy, reward = learner.domain, learner.policy, learner.reward
    if not isinstance(domain, LanguageDomain | WrittenDomain) or not isinstance(policy, LanguagePolicy):
        raise UserError(
            f"{path} is a run of {task_name}, where nothing is said; `unified-irl evaluate` shows its scores."
        )
    settings: TrainConfig[Any] = config
    return LanguageRun(
        path=path,
        task=task_name,
        config=settings,
        domain=domain,
        policy=policy,
        reward=reward if isinstance(reward, TextReward) else None,
        learnt_reward=learner.learnt_reward,
        which=which,
        round=learner.num_rounds,
    )
