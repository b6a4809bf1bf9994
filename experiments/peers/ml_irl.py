"""Rounds of `unified-irl train TASK ml-irl`, from a demonstration by random actions, with the networks and the updates
per step that Stable-Baselines3 takes by default, as its rivals do."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import torch
from serving import options, serve

from control.files.demonstrations import write_demonstrations
from control.policy import ControlPolicy
from envs.robots.episodes import trajectories
from envs.robots.rollout import roll_out
from envs.robots.simulators import Simulator
from experiments.train import build_learner, default_config
from unified_irl.feedback import Demonstrations, Provenance
from unified_irl.learner import Learner


def learner(robot: str, folder: Path, learning_starts: int) -> Learner:
    """What `train` builds; who demonstrates does not matter to how long a round takes."""
    simulator, draw = Simulator(robot), np.random.default_rng(0)
    episodes = roll_out(
        lambda seen: draw.uniform(simulator.low, simulator.high, (len(seen), len(simulator.low))).astype(np.float32),
        [simulator], 1, torch.Generator().manual_seed(0),
    )  # fmt: skip
    shown = Demonstrations(
        trajectories=trajectories(episodes), maker=torch.zeros(1, dtype=torch.long), makers=(Provenance(maker="none"),)
    )
    write_demonstrations(folder / "shown.npz", shown, "npz")
    config = default_config(robot, "ml-irl")
    people = replace(config.task.people, demonstrations_file=str(folder / "shown.npz"))
    sac = replace(
        config.task.sac, learning_starts=learning_starts, hidden=(256, 256), num_simulators=1, updates_per_step=1.0,
        settling=(0, 0),
    )  # fmt: skip
    return build_learner(robot, replace(config, task=replace(config.task, people=people, sac=sac)))


def main() -> None:
    told = options()
    with tempfile.TemporaryDirectory() as folder:
        made = learner(told["robot"], Path(folder), told["learning_starts"])
    policy = made.policy
    assert isinstance(policy, ControlPolicy)

    def advance() -> int:
        before = policy.trainer.practice.num_steps
        made.round()
        return policy.trainer.practice.num_steps - before

    done = 0
    while done < told["learning_starts"] + told["warm_up"]:
        done += advance()
    serve(advance, {"gymnasium": gymnasium.__version__, "task": policy.simulators[0].env.spec.id})  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
