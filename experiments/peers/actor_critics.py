"""Soft actor-critic on Hopper at one update per step: our trainer, our drop-in, and Stable-Baselines3's own."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium
import stable_baselines3
import torch
from serving import options, serve
from stable_baselines3 import SAC

from control.ground_truth import GroundTruth
from control.sac import FastSAC
from control.sac_config import Precision, SACConfig
from control.trainer import Trainer
from envs.robots.simulators import Simulator
from envs.robots.table import robot

ROBOT = "hopper"
CHUNK = 50
"""Steps at a time."""


def trainer(*, precision: Precision, learning_starts: int, device: str) -> Callable[[], int]:
    """Our trainer under the task's own reward, its temperature tuned as in Stable-Baselines3."""
    config = SACConfig(temperature="auto", precision=precision, learning_starts=learning_starts, graph=device == "cuda")
    simulators, generator = [Simulator(ROBOT)], torch.Generator().manual_seed(0)
    made, reward = Trainer(simulators[0].env, simulators, config, generator, device), GroundTruth().for_policy()

    def advance() -> int:
        before = made.practice.num_steps
        made.train(reward, 1.0, config.discount, CHUNK, generator)
        return made.practice.num_steps - before

    return advance


def baseline(kind: type[SAC], *, learning_starts: int, device: str) -> Callable[[], int]:
    """`SAC.learn` as anybody would call it; all the rest are its defaults, which are what is compared."""
    env = gymnasium.make(robot(ROBOT).id)
    model = kind("MlpPolicy", env, learning_starts=learning_starts, seed=0, device=device)

    def advance() -> int:
        before = model.num_timesteps
        model.learn(CHUNK, reset_num_timesteps=False)
        return int(model.num_timesteps - before)

    return advance


def main() -> None:
    torch.set_num_threads(1)
    told = options()
    terms = {"learning_starts": told["learning_starts"], "device": told["device"]}
    makers: dict[str, Callable[[], Callable[[], int]]] = {
        "trainer, half": lambda: trainer(precision="bfloat16", **terms),
        "trainer": lambda: trainer(precision="float32", **terms),
        "FastSAC": lambda: baseline(FastSAC, **terms),
        "SAC": lambda: baseline(SAC, **terms),
    }
    advance, done = makers[told["which"]](), 0
    while done < told["learning_starts"] + told["warm_up"]:
        done += advance()
    serve(advance, {"stable_baselines3": stable_baselines3.__version__, "gymnasium": gymnasium.__version__})


if __name__ == "__main__":
    main()
