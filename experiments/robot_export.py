"""What a robot's run has learnt, as files for Stable-Baselines3 and Gymnasium."""

from __future__ import annotations

import math
import os
from pathlib import Path

from control.export_reward import save_reward
from envs.robots.table import robot
from experiments.robot_runs import RobotRun, load_robot_run
from unified_irl.serialise import write_text

POLICY, REWARD, README = "policy.zip", "reward.safetensors", "README.md"


def export(run: Path, place: Path, which: str) -> None:
    """Write the files, and say where they are."""
    learnt = load_robot_run(run, which, "")
    write(learnt, place)
    print(f"{learnt.title}\n{POLICY} written to {place / POLICY}")
    if learnt.reward is None:
        print(f"no {REWARD}: {learnt.why_no_reward}")
    else:
        print(f"{REWARD} written to {place / REWARD}")
    print(f"how to use them: {place / README}")


def write(learnt: RobotRun, place: Path) -> None:
    """Each file is seen whole or not at all; a reward from an earlier export does not stay beside another policy."""
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
    beta, discount = learnt.config.method.beta, min(learnt.config.method.gamma, task.sac.discount)
    horizon, why = "", ""
    if task.ends == "absorbing":
        toll = beta * one.action_size * math.log(2.0)
        horizon = f", horizon={learnt.domain.absorbing_horizon}, discount={discount:g}, toll={toll:.6g}"
        why = (
            " The step that ends an episode also pays for the steps after it, and every step a toll for the "
            "entropy that it may earn, as it was learnt."
        )
    return f"""
## The reward, for any library

It was learnt with a policy of temperature {beta:g}: in Stable-Baselines3,
`SAC("MlpPolicy", env, ent_coef={beta:g}, gamma={discount:g})`.

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
