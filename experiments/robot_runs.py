"""What a run of a robot task has learnt, without the people it learnt from: their files may be gone by now."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from control.config import ControlConfig
from control.domain import ControlDomain
from control.policy import ControlPolicy
from control.reward import MLPReward
from envs.robots.config import PeopleConfig
from experiments.train import TrainConfig, stored_config
from unified_irl import checkpoint
from unified_irl.errors import UserError

NOBODY = PeopleConfig(num_demonstrations=0, num_preferences=0)


@dataclass(frozen=True, kw_only=True)
class RobotRun:
    """The policy and the reward of one checkpoint."""

    path: Path
    config: TrainConfig[ControlConfig]
    domain: ControlDomain
    policy: ControlPolicy
    reward: MLPReward | None
    """The learnt one; None where the method has none of its own."""
    which: str
    """Which checkpoint it is."""
    round: int
    """After how many rounds it was written."""

    @property
    def robot(self) -> str:
        return self.config.task.robot

    @property
    def title(self) -> str:
        """For people: what was learnt, and how far."""
        return f"{self.robot} {self.config.method.name}, seed {self.config.seed}, {self.which}: round {self.round}"

    @property
    def why_no_reward(self) -> str:
        """Half a sentence, where there is none."""
        if self.config.task.learn_from == "ground truth":
            return "the run climbed the task's own reward"
        return f"the reward of {self.config.method.name} is {self.config.method.reward}"


def load_robot_run(path: Path, which: str, elsewhere: str) -> RobotRun:
    """The newest or the best checkpoint; of another world's run, `elsewhere` is said to whoever asked."""
    task_name, config = stored_config(path)
    if not isinstance(config.task, ControlConfig):
        raise UserError(f"{path} is a run of {task_name}, which is no robot task. {elsewhere}")
    chosen = (checkpoint.best if which == "best" else checkpoint.latest)(path / "checkpoints")
    if chosen is None:
        raise UserError(f"{path} holds no {which} checkpoint yet; `resume {path}` goes on with the run.")
    domain = ControlDomain(alone(config.task), config.seed)
    parts = domain.build(config.method)
    _restore({"policy": parts.policy, "reward": parts.reward}, chosen)
    assert isinstance(parts.policy, ControlPolicy)
    return RobotRun(
        path=path,
        config=config,
        domain=domain,
        policy=parts.policy,
        reward=parts.reward if isinstance(parts.reward, MLPReward) else None,
        which=which,
        round=checkpoint.counter_of(chosen),
    )


def alone(task: ControlConfig) -> ControlConfig:
    """The task without its people, on a GPU only where there is one: it may have been learnt on another machine."""
    return replace(task, people=NOBODY, device="cpu" if task.device == "cpu" else "auto")


def _restore(parts: dict[str, Any], path: Path) -> None:
    state = checkpoint.load(path)
    try:
        for name, part in parts.items():
            if part is not None:
                part.load_state_dict(state["learner"][name])
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise UserError(
            f"The checkpoint {path} is of another task or method than the run's config.json says: {why} "
            "Restore the config that the run was started with."
        ) from error
