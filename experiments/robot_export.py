"""What a robot's run has learnt, as files for Stable-Baselines3 and Gymnasium."""

from __future__ import annotations

import os
from pathlib import Path

from control.export_reward import save_reward
from control.policy import random_entropy
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
    asked = ", terminate_when_unhealthy=False" if learnt.config.task.ends == "fixed horizon" else ""
    env = f'gymnasium.make("{id_}"{asked})'
    text = f"""# {learnt.robot}, learnt by {learnt.config.method.name}

From `{learnt.path}` (seed {learnt.config.seed}, {learnt.which} checkpoint, round {learnt.round}).

## The policy, in Stable-Baselines3

```python
import gymnasium
from stable_baselines3 import SAC

env = {env}
model = SAC.load("{POLICY}", env=env)
action, _ = model.predict(env.reset(seed=0)[0], deterministic=True)
```
"""
    return text if learnt.reward is None else text + _about_the_reward(learnt, env)


def _about_the_reward(learnt: RobotRun, env: str) -> str:
    one, task = learnt.domain.helpers[0], learnt.config.task
    state, action = f"numpy.zeros({one.observation_size})", f"numpy.zeros({one.action_size})"
    beta, discount = learnt.config.method.beta, min(learnt.config.method.gamma, task.sac.discount)
    terms, why = "", ""
    if task.ends == "absorbing":
        terms = f", horizon={learnt.domain.absorbing_horizon}, discount={discount:g}"
        why = " The step that ends an episode also pays for the steps after it, as it was learnt."
    temperature = f"{beta:g}" if task.sac.temperature == "fixed" else '"auto"'
    if task.sac.temperature == "fixed":
        terms += f", toll={random_entropy(beta, one.action_size):.6g}"
        why += " Of every step a toll is taken for the entropy that it may earn."
    if task.sac.anchor == "reference":
        why += " While it was learnt, the policy was measured from how it began; here it is from acting at random."
    return f"""
## The reward, for any library

The temperature of the policy that climbed it, and how far it looked ahead, in Stable-Baselines3:
`SAC("MlpPolicy", env, ent_coef={temperature}, gamma={discount:g})`.

As an environment that pays it; `info["true_reward"]` keeps what the environment would have paid.{why}

```python
import gymnasium
from control.export_reward import LearntReward

env = LearntReward({env}, "{REWARD}"{terms})
```

As a function of state, action and next state, of one step or of many:

```python
import numpy
from control.export_reward import reward_function

reward = reward_function("{REWARD}")
print(reward({state}, {action}, {state}))
```
"""
