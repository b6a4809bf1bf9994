"""Learnt rewards as files, and for any other library: a function on arrays, and an environment that pays them.

A file is safetensors: the weights and how inputs are scaled, under a JSON header that says how the reward is built and
what the content hashes to. Nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from safetensors import SafetensorError, safe_open
from torch import Generator, Tensor

from control.reward import RewardModel
from control.reward_config import RewardConfig
from unified_irl.errors import UserError
from unified_irl.serialise import canonical, from_json, to_json, write_tensors

FORMAT = "unified-irl reward 1"
ArrayReward = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Freezable(Protocol):
    def frozen(self) -> RewardModel: ...


def save_reward(path: Path | str, reward: Freezable) -> None:
    """Write the reward as it is now; the file is seen whole or not at all."""
    path, model = Path(path), reward.frozen()
    tensors = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    built = {"num_observations": model.features.num_observations, "config": to_json(model.config), "format": FORMAT}
    # Under one key, since safetensors writes several in any order: the same reward is the same file.
    metadata = {"reward": canonical(built | {"sha256": _digest(built, tensors)})}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_tensors(temporary, tensors, metadata)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"The reward cannot be written to {path}: {error.strerror}. Choose another place.") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_reward(path: Path | str) -> RewardModel:
    """The reward of a file, on the CPU; it judges and does not learn."""
    path = Path(path)
    built, tensors = _read(path)
    if built.get("format") != FORMAT:
        raise UserError(f"{path} is no learnt reward of the kind '{FORMAT}'; expected a file that save_reward wrote.")
    if built.pop("sha256", None) != _digest(built, tensors):
        raise UserError(f"{path} is damaged: its content does not fit its checksum. Restore a copy, or save it again.")
    config = from_json(RewardConfig, built["config"], str(path))
    low, high = (tensors[f"features.action_{side}"].numpy() for side in ("low", "high"))
    model = RewardModel(built["num_observations"], low, high, config, Generator())
    model.load_state_dict(tensors)
    return model.requires_grad_(False)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise UserError(f"{path} is not there; expected a learnt reward, a file that save_reward wrote.")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            built = json.loads((file.metadata() or {}).get("reward", "{}"))
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path} cannot be read as a learnt reward: {error}. Restore a copy, or save it again."
        ) from error
    return (built if isinstance(built, dict) else {}), tensors


def _digest(built: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    seen = hashlib.sha256(canonical(built).encode())
    for name, value in sorted(tensors.items()):
        seen.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        seen.update(value.numpy().tobytes())
    return seen.hexdigest()


def reward_function(path: Path | str) -> ArrayReward:
    """The reward of a file as a plain function of state, action and next state, as its policy was shown it.

    It takes single transitions ([O], [A] and [O], for a number) or batches of any shape before the last axis. What
    steps after an end are worth is not in it: see `LearntReward`.
    """
    return _on_arrays(load_reward(path), str(path))


def _on_arrays(model: RewardModel, where: str) -> ArrayReward:
    judge = model.for_policy()
    sizes = (model.features.num_observations, len(model.features.action_low), model.features.num_observations)

    def reward(state: np.ndarray, action: np.ndarray, next_state: np.ndarray) -> np.ndarray:
        given = [np.asarray(one, dtype=np.float32) for one in (state, action, next_state)]
        if any(one.shape != (*given[0].shape[:-1], size) for one, size in zip(given, sizes, strict=True)):
            shapes = ", ".join(str(list(one.shape)) for one in given)
            wanted = ", ".join(f"[..., {size}]" for size in sizes)
            raise UserError(f"{where}: state, action and next state have shapes {shapes}; expected {wanted}.")
        rows = [torch.from_numpy(one.reshape(-1, one.shape[-1]).copy()) for one in given]
        return judge(*rows).numpy().reshape(given[0].shape[:-1])

    return reward


class LearntReward(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """An environment that pays a learnt reward; `info["true_reward"]` keeps what it would have paid itself.

    Where a reward was learnt with absorbing steps, an episode that ends early is worth what came before the end *and*
    what the steps after it are worth. Libraries that stop at the end miss the second part: give `horizon`, and the
    step that ends an episode also pays for the steps after it, discounted as the library discounts. With a discount
    below 1 they go on for ever, as they did for the policy that the reward was learnt with: a time limit is no end.
    Without one they are those left until the horizon.

    `toll` is taken off every step. An entropy bonus makes living worth something by itself; policies here pay as much
    for it as acting at random would earn.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        path: Path | str,
        horizon: int | None = None,
        discount: float = 0.99,
        toll: float = 0.0,
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, path=path, horizon=horizon, discount=discount, toll=toll)
        super().__init__(env)
        model = load_reward(path)
        _check_spaces(env, model, str(path))
        self.learnt = _on_arrays(model, str(path))
        self.absorbing = float(model.for_policy().absorbing())
        self.horizon, self.discount, self.toll = horizon, discount, toll
        self.before: np.ndarray = np.zeros(model.features.num_observations)
        self.num_steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self.before, self.num_steps = np.array(observation), 0
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, true_reward, terminated, truncated, info = self.env.step(action)
        reward = float(self.learnt(self.before, action, observation)) - self.toll
        self.before = np.array(observation)
        self.num_steps += 1
        if terminated and self.horizon is not None:
            reward += self.absorbing * self._worth(max(0, self.horizon - self.num_steps))
        return observation, reward, terminated, truncated, {**info, "true_reward": true_reward}

    def _worth(self, num_steps: int) -> float:
        """γ + γ² + …; without discounting, over so many steps."""
        gamma = self.discount
        return float(num_steps) if gamma == 1.0 else gamma / (1.0 - gamma)


def _check_spaces(env: gym.Env[Any, Any], model: RewardModel, where: str) -> None:
    sizes: tuple[tuple[str, Any, int], ...] = (
        ("observations", env.observation_space, model.features.num_observations),
        ("actions", env.action_space, len(model.features.action_low)),
    )
    for what, space, size in sizes:
        if not isinstance(space, Box) or space.shape != (size,):
            raise UserError(f"{where} was learnt on {what} of {size} numbers; the environment has {space} instead.")
    action = env.action_space
    assert isinstance(action, Box)
    if not (
        np.allclose(action.low, model.features.action_low) and np.allclose(action.high, model.features.action_high)
    ):
        raise UserError(
            f"{where} was learnt on actions from {model.features.action_low.tolist()} to "
            f"{model.features.action_high.tolist()}; the environment takes {action}. Rescale its actions."
        )
