"""GAIL with SAC as `imitation` 1.0.1 offers it, in an environment of its own, from a demonstration by random actions.

What its documentation leaves open is left at its defaults; its logger writes nowhere, which only helps it.
"""

from __future__ import annotations

import importlib.metadata
import tempfile

import numpy as np
import torch
from imitation.algorithms.adversarial.gail import GAIL
from imitation.data import rollout
from imitation.data.wrappers import RolloutInfoWrapper
from imitation.rewards.reward_nets import BasicRewardNet
from imitation.util import logger
from imitation.util.util import make_vec_env
from serving import options, serve
from stable_baselines3 import SAC


def trainer(told: dict) -> GAIL:
    draw = np.random.default_rng(0)
    venv = make_vec_env(told["task"], rng=draw, n_envs=1, post_wrappers=[lambda env, _: RolloutInfoWrapper(env)])
    shown = rollout.rollout(None, venv, rollout.make_sample_until(min_episodes=1), rng=draw)
    learner = SAC(
        "MlpPolicy", venv, learning_starts=told["learning_starts"], ent_coef=told["beta"], seed=0, device="cpu"
    )
    rounds = {}
    if told["round"]:
        rounds = {
            "gen_train_timesteps": told["round"],
            "n_disc_updates_per_round": told["reward_steps"],
            "gen_replay_buffer_capacity": 5 * told["round"],
        }
    return GAIL(
        demonstrations=shown,
        demo_batch_size=told["demo_batch"],
        venv=venv,
        gen_algo=learner,
        reward_net=BasicRewardNet(venv.observation_space, venv.action_space),
        allow_variable_horizon=told["can_fall"],
        custom_logger=logger.configure(tempfile.mkdtemp(), format_strs=[]),
        **rounds,
    )


def main() -> None:
    torch.set_num_threads(1)
    told = options()
    gail = trainer(told)
    chunk = told["round"] or 20

    def advance() -> int:
        before = gail.gen_algo.num_timesteps
        gail.train(chunk)
        return gail.gen_algo.num_timesteps - before

    done = 0
    while done < told["learning_starts"] + told["warm_up"]:
        done += advance()
    names = ("imitation", "stable-baselines3", "gymnasium", "mujoco", "torch", "numpy")
    serve(advance, {"task": told["task"]} | {name: importlib.metadata.version(name) for name in names})


if __name__ == "__main__":
    main()
