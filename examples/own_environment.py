"""A robot of your own: a Gymnasium environment, three demonstrations by someone who knows, and ml-irl from those."""

from contextlib import chdir
from tempfile import TemporaryDirectory

import gymnasium
import numpy as np

from control.files.demonstrations import write_demonstrations
from envs.robots.people import shown_by
from experiments import cli


class Cart(gymnasium.Env):  # on a rail, to be brought to the middle and kept there
    observation_space = gymnasium.spaces.Box(-2, 2, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.place, {}

    def step(self, action):
        self.place = np.clip(self.place + 0.2 * action, -2, 2).astype(np.float32)
        return self.place, -float(self.place[0] ** 2), False, False, {}


def steer(places):
    return np.clip(-4 * places, -1, 1)


gymnasium.register("Cart-v0", Cart, max_episode_steps=50)
SHORT = "--method.phases.0.rounds 10 --method.phases.0.policy-updates 80 --method.reward-descent.total-steps 200 "
SHORT += "--task.sac.batch-size 64 --task.sac.hidden 32 32 --task.sac.learning-rate 3e-3 --task.sac.learning-starts 100"

if __name__ == "__main__":
    with TemporaryDirectory() as place, chdir(place):
        write_demonstrations("cart.npz", shown_by(steer, "gym:Cart-v0", 3), "npz")
        words = f"--out cart --task.people.demonstrations-file cart.npz --run.evaluate-every 0 {SHORT}"
        cli.run(["train", "gym:Cart-v0", "ml-irl", *words.split()])
