"""Gymnasium environments as the control world uses them: vectors in, vectors out, checked, and resumable to the bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box, Space
from gymnasium.wrappers import OrderEnforcing, TimeLimit

from envs.robots.quiet import building
from envs.robots.resuming import Physics, captured, is_plain, layers_of, moving, put_back
from envs.robots.table import robot
from unified_irl.errors import UserError

PLAIN_WRAPPERS = (TimeLimit, OrderEnforcing)
"""Wrappers that leave observations as they are."""


class BrokenSimulator(UserError):
    """A simulator failed, or answered with something that is no observation or reward."""


def make(name: str, *, render_mode: str | None = None, never_ends: bool = False) -> gymnasium.Env:
    """The Gymnasium environment of this robot, with its time limit, or a UserError that says why it cannot be used.

    With `never_ends`, falling does not end an episode; only the time limit does.
    """
    id_ = robot(name).id
    asked: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    if never_ends:
        asked["terminate_when_unhealthy"] = False
    try:
        with building():
            env = gymnasium.make(id_, disable_env_checker=True, **asked)
    except gymnasium.error.DependencyNotInstalled as error:
        raise UserError(f"robot '{name}' needs a package that is not installed: {error}.") from error
    except (gymnasium.error.UnregisteredEnv, ImportError) as error:
        raise UserError(
            f"robot '{name}' is not to be had from Gymnasium: {str(error).rstrip('.')}. Expected the id of an "
            "installed environment, as package:Name-v0 where a package has to be imported first."
        ) from error
    except Exception as error:
        if never_ends and "terminate_when_unhealthy" in str(error):
            raise UserError(
                f"The world of robot '{name}' cannot be told to go on after a fall; let episodes end as they come, or "
                "follow them by absorbing steps."
            ) from error
        raise UserError(f"robot '{name}' could not be built: {type(error).__name__}: {error}") from error
    fault = _fault(env.observation_space, env.action_space)
    if fault is not None:
        env.close()
        raise UserError(f"robot '{name}' cannot be used: {fault}.")
    return env


def _fault(seen: Space[Any], done: Space[Any]) -> str | None:
    """What makes these spaces unfit for continuous control."""
    if not isinstance(seen, Box):
        return f"its observations are {seen}; expected a vector of numbers (a Box of one dimension)"
    if len(seen.shape) != 1:
        kind = "images" if len(seen.shape) == 3 else "arrays"
        return f"its observations are {kind} of shape {list(seen.shape)}; expected a vector of numbers"
    if not isinstance(done, Box) or not np.issubdtype(done.dtype, np.floating):
        return f"its actions are {done}; expected continuous ones (a Box of floats)"
    if len(done.shape) != 1 or done.shape[0] == 0:
        return f"its actions have shape {list(done.shape)}; expected a vector of at least one number"
    for low, high in zip(done.low, done.high, strict=True):
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            return f"an action lies between {low} and {high}; expected finite bounds, the lower below the upper"
    return None


class Simulator:
    """One environment. What it returns is always finite, of one shape, and float32."""

    def __init__(self, name: str, *, render_mode: str | None = None, never_ends: bool = False) -> None:
        self.name = name
        self.env = make(name, render_mode=render_mode, never_ends=never_ends)
        self.horizon: int | None = None if self.env.spec is None else self.env.spec.max_episode_steps
        self.low, self.high = self.env.action_space.low, self.env.action_space.high  # type: ignore[attr-defined]
        self.observation_size, self.action_size = self.env.observation_space.shape[0], len(self.low)  # type: ignore[index]
        self.steps = 0
        """Of the current episode."""
        self.observation = np.zeros(self.observation_size, np.float32)
        """The last one."""
        self._layers = layers_of(self.env)
        inner: Any = self.env.unwrapped
        is_mujoco = isinstance(getattr(inner, "data", None), mujoco.MjData)
        self._physics = Physics(inner.model, inner.data) if is_mujoco else None
        self.can_reset_to = (
            is_mujoco
            and all(isinstance(layer, PLAIN_WRAPPERS) for layer in self._layers[:-1])
            and all(hasattr(inner, method) for method in ("set_state", "_get_obs"))
        )
        """Whether episodes can begin in a given physical state."""

    def reset(self, seed: int) -> np.ndarray:
        """float32[O]: the first observation of a new episode, which depends on the seed alone."""
        self.steps = 0
        try:
            given, _ = self.env.reset(seed=seed)
            observation = np.array(given, np.float32)
        except Exception as error:
            raise self._broken(f"raised {type(error).__name__}: {error}") from error
        return self._checked(observation)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        """Observation, reward, terminated, truncated. An episode that the world ended is never called truncated."""
        self.steps += 1
        try:
            given, reward, terminated, truncated, _ = self.env.step(action)
            observation, reward = np.array(given, np.float32), float(reward)
        except Exception as error:
            raise self._broken(f"raised {type(error).__name__}: {error}", action) from error
        self._checked(observation, action)
        if not math.isfinite(reward):
            raise self._broken(f"paid a reward of {reward}", action)
        return observation, reward, bool(terminated), bool(truncated and not terminated)

    def _checked(self, observation: np.ndarray, action: np.ndarray | None = None) -> np.ndarray:
        if observation.shape != (self.observation_size,):
            raise self._broken(
                f"gave an observation of shape {list(observation.shape)} instead of [{self.observation_size}]", action
            )
        if not np.isfinite(observation).all():
            place = int(np.flatnonzero(~np.isfinite(observation))[0])
            raise self._broken(f"gave an observation whose entry {place} is {observation[place]}", action)
        self.observation = observation
        return observation

    def _broken(self, what: str, action: np.ndarray | None = None) -> BrokenSimulator:
        when = f"in step {self.steps} of an episode" if self.steps else "when an episode began"
        cause = "Expected finite numbers of an unchanging shape; the environment has to be mended."
        if action is not None and not np.isfinite(action).all():
            cause = "The action it was given was not finite."
        return BrokenSimulator(f"The simulator '{self.name}' {what} {when}. {cause}")

    @property
    def obstacle(self) -> str | None:
        """What keeps the simulator from being saved where it is; None where nothing does."""
        if self._physics is not None and self._physics.data is not self.env.unwrapped.data:  # type: ignore[attr-defined]
            return "it builds its simulation anew for every episode"
        for layer in self._layers:
            for name, value in moving(layer):
                if not (isinstance(value, np.random.Generator) or is_plain(value)):
                    return f"attribute '{name}' of {type(layer).__name__} is a {type(value).__name__}"
        return None

    @property
    def can_restore(self) -> bool:
        return self.obstacle is None

    def state(self) -> dict[str, Any]:
        """Where it is in its episode, as a checkpoint can hold it; continuing from it is exact to the bit."""
        if self.obstacle is not None:
            raise UserError(f"The simulator '{self.name}' cannot be saved within an episode: {self.obstacle}.")
        return {
            "robot": self.name,
            "steps": self.steps,
            "observation": self.observation.copy(),
            "layers": [captured(layer) for layer in self._layers],
            "physics": None if self._physics is None else self._physics.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> np.ndarray:
        """Return to where a simulator of the same robot was; its last observation."""
        if state["robot"] != self.name or len(state["layers"]) != len(self._layers):
            raise UserError(
                f"The saved simulator is a '{state['robot']}' and this one a '{self.name}', or their wrappers differ; "
                "resume with the robot and the packages that the run began with."
            )
        self.reset(0)  # whatever an environment only builds when an episode begins must exist
        for layer, saved in zip(self._layers, state["layers"], strict=True):
            put_back(layer, saved)
        if self._physics is not None:
            self._physics.restore(state["physics"])
        self.steps, self.observation = state["steps"], np.array(state["observation"], np.float32)
        return self.observation

    def physics(self) -> np.ndarray:
        """float64[Q + V]: positions and velocities of a MuJoCo robot, from which `reset_to` begins an episode."""
        if not self.can_reset_to:
            raise UserError(f"The robot '{self.name}' has no physical state to begin from; expected a MuJoCo one.")
        data = self.env.unwrapped.data  # type: ignore[attr-defined]
        return np.concatenate([data.qpos, data.qvel])

    def reset_to(self, physics: np.ndarray, seed: int) -> np.ndarray:
        """float32[O]: the first observation of an episode that begins at these positions and velocities.

        What an observation says of forces belongs to the step before, which there was none of: only an estimate.
        """
        inner: Any = self.env.unwrapped
        size = len(self.physics())
        physics = np.asarray(physics, np.float64)
        if physics.shape != (size,) or not np.isfinite(physics).all():
            raise UserError(
                f"A physical state of '{self.name}' has shape {list(physics.shape)} or holds NaN; expected {size} "
                f"finite numbers, {inner.model.nq} positions and then {inner.model.nv} velocities."
            )
        self.reset(seed)
        inner.set_state(physics[: inner.model.nq], physics[inner.model.nq :])
        mujoco.mj_rnePostConstraint(inner.model, inner.data)  # contact forces, which some robots feel
        return self._checked(np.array(inner._get_obs(), np.float32))

    def close(self) -> None:
        self.env.close()
