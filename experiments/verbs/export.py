"""export RUN DIRECTORY [flags]: what a run has learnt, as files for Stable-Baselines3 and Gymnasium."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from experiments import command
from unified_irl.errors import UserError

if TYPE_CHECKING:
    from experiments.robot_runs import RobotRun

POLICY, REWARD, README = "policy.zip", "reward.safetensors", "README.md"


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Write policy.zip, which plain Stable-Baselines3 loads; reward.safetensors, where the method learns a reward of
    its own; and README.md, which shows how to use them."""

    which: Literal["latest", "best"] = "latest"
    """The newest checkpoint, or the one with the best score."""
    overwrite: bool = False
    """Replace what an earlier export left in the directory."""


def main(arguments: list[str]) -> None:
    (run, directory), rest = command.split_words(arguments, ("run", "directory"), "export")
    config = command.flags(Flags, rest, "export RUN DIRECTORY")
    place = Path(directory)
    there = [name for name in (POLICY, REWARD, README) if (place / name).exists()]
    if there and not config.overwrite:
        raise UserError(f"{place} already holds {', '.join(there)}. Choose another directory, or say --overwrite.")
    from experiments.robot_runs import load_robot_run

    learnt = load_robot_run(
        Path(run),
        config.which,
        "What can be exported there is its feedback, with `unified-irl collect`; what was learnt lies in the run's "
        "checkpoints as safetensors.",
    )
    write(learnt, place)
    print(f"{learnt.title}\n{POLICY} written to {place / POLICY}")
    if learnt.reward is None:
        print(f"no {REWARD}: {learnt.why_no_reward}")
    else:
        print(f"{REWARD} written to {place / REWARD}")
    print(f"how to use them: {place / README}")


def write(learnt: RobotRun, place: Path) -> None:
    """Each file is seen whole or not at all; a reward from an earlier export does not stay beside another policy."""
    from control.export_reward import save_reward
    from unified_irl.serialise import write_text

    place.mkdir(parents=True, exist_ok=True)
    temporary = place / f".{os.getpid()}.{POLICY}"
    try:
        learnt.policy.save(temporary)
        temporary.replace(place / POLICY)
    finally:
        temporary.unlink(missing_ok=True)
    if learnt.reward is None:
        (place / REWARD).unlink(missing_ok=True)
    else:
        save_reward(place / REWARD, learnt.reward)
    write_text(place / README, readme(learnt))


def readme(learnt: RobotRun) -> str:
    """What the files are; its Python runs as written, in the directory."""
    from envs.robots.table import robot

    id_ = robot(learnt.robot).id
    ours = "from envs.robots import ants\n\nants.register()\n" if id_.startswith("unified-irl/") else ""
    asked = ", terminate_when_unhealthy=False" if learnt.config.task.ends == "fixed horizon" else ""
    env = f'gymnasium.make("{id_}"{asked})'
    text = f"""# {learnt.robot}, learnt by {learnt.config.method.name}

From `{learnt.path}` (seed {learnt.config.seed}, {learnt.which} checkpoint, round {learnt.round}).

## The policy, in Stable-Baselines3

```python
import gymnasium
from stable_baselines3 import SAC

{ours}env = {env}
model = SAC.load("{POLICY}", env=env)
action, _ = model.predict(env.reset(seed=0)[0], deterministic=True)
```
"""
    return text if learnt.reward is None else text + _about_the_reward(learnt, env, ours)


def _about_the_reward(learnt: RobotRun, env: str, ours: str) -> str:
    one, task = learnt.domain.helpers[0], learnt.config.task
    state, action = f"numpy.zeros({one.observation_size})", f"numpy.zeros({one.action_size})"
    horizon, why = "", ""
    if task.ends == "absorbing":
        horizon = f", horizon={learnt.domain.absorbing_horizon}, discount={learnt.config.task.sac.discount}"
        why = " The step that ends an episode also pays for the steps left until the horizon, as it was learnt."
    return f"""
## The reward, for any library

It was learnt with a policy of temperature {learnt.config.method.beta:g}: in Stable-Baselines3,
`SAC("MlpPolicy", env, ent_coef={learnt.config.method.beta:g})`.

As an environment that pays it; `info["true_reward"]` keeps what the environment would have paid.{why}

```python
import gymnasium
from control.export_reward import LearntReward

{ours}env = LearntReward({env}, "{REWARD}"{horizon})
```

As a function of state, action and next state, of one step or of many:

```python
import numpy
from control.export_reward import reward_function

reward = reward_function("{REWARD}")
print(reward({state}, {action}, {state}))
```
"""
