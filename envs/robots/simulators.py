"""Gymnasium environments as the control world uses them: vectors in, vectors out, checked, and resumable to the bit."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer
from gymnasium.spaces import Box, Space
from gymnasium.wrappers import OrderEnforcing, TimeLimit

from envs.robots import ants
from envs.robots.quiet import building
from envs.robots.table import robot
from unified_irl.errors import UserError

INTEGRATION = int(mujoco.mjtState.mjSTATE_INTEGRATION)
PLAIN_WRAPPERS = (TimeLimit, OrderEnforcing)
"""Wrappers that leave observations as they are."""
CONSTANT = (Space, mujoco.MjModel, mujoco.MjData, MujocoRenderer, FunctionType, MethodType, ModuleType, type)
CONSTANT_NAMES = {"env", "spec", "metadata", "fullpath", "screen", "clock", "_ezpickle_args", "_ezpickle_kwargs",
                  "_saved_kwargs", "_cached_spec"}  # fmt: skip
"""Attributes of an environment that say how it was built or shown, not where it is."""


class BrokenSimulator(UserError):
    """A simulator failed, or answered with something that is no observation or reward."""


def make(name: str, *, render_mode: str | None = None) -> gymnasium.Env:
    """The Gymnasium environment of this robot, with its time limit, or a UserError that says why it cannot be used."""
    ants.register()
    id_ = robot(name).id
    asked: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
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

    def __init__(self, name: str, *, render_mode: str | None = None) -> None:
        self.name = name
        self.env = make(name, render_mode=render_mode)
        self.horizon: int | None = None if self.env.spec is None else self.env.spec.max_episode_steps
        self.low, self.high = self.env.action_space.low, self.env.action_space.high  # type: ignore[attr-defined]
        self.observation_size, self.action_size = self.env.observation_space.shape[0], len(self.low)  # type: ignore[index]
        self.steps = 0
        """Of the current episode."""
        self.observation = np.zeros(self.observation_size, np.float32)
        """The last one."""
        self._layers = _layers(self.env)
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
            for name, value in _moving(layer):
                if not (isinstance(value, np.random.Generator) or _is_plain(value)):
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
            "layers": [_captured(layer) for layer in self._layers],
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
        for layer, captured in zip(self._layers, state["layers"], strict=True):
            _put_back(layer, captured)
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


class Physics:
    """A MuJoCo simulation: what its next step depends on, and what its last step left for an environment to read.

    Positions of bodies lag one substep behind the joints, so that computing them again would not give the same.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self.model, self.data = model, data
        self._size = mujoco.mj_stateSize(model, INTEGRATION)
        fresh = mujoco.MjData(model)  # holds no contacts yet: all of its arrays are of a size that never changes
        arrays = {name: getattr(fresh, name) for name in dir(fresh) if not name.startswith("_")}
        names = [name for name, value in arrays.items() if isinstance(value, np.ndarray) and value.dtype == np.float64]
        self._derived = [getattr(data, name) for name in names if arrays[name].size]

    def state(self) -> dict[str, np.ndarray]:
        integration = np.empty(self._size)
        mujoco.mj_getState(self.model, self.data, integration, INTEGRATION)
        return {"integration": integration, "derived": np.concatenate([array.ravel() for array in self._derived])}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        ends = np.cumsum([array.size for array in self._derived])
        if (state["integration"].size, state["derived"].size) != (self._size, ends[-1]):
            raise UserError(
                "The saved simulation has another size than this one; resume with the versions of MuJoCo and Gymnasium "
                "that the run began with."
            )
        mujoco.mj_setState(self.model, self.data, state["integration"], INTEGRATION)
        for array, values in zip(self._derived, np.split(state["derived"], ends[:-1]), strict=True):
            array[...] = values.reshape(array.shape)


def _layers(env: gymnasium.Env) -> list[gymnasium.Env]:
    """The environment, from its outermost wrapper to its core."""
    return [env, *_layers(env.env)] if isinstance(env, gymnasium.Wrapper) else [env]


def _moving(layer: gymnasium.Env) -> list[tuple[str, Any]]:
    """The attributes that can change while an episode runs."""
    attributes = vars(layer).items()
    return [(name, it) for name, it in attributes if name not in CONSTANT_NAMES and not isinstance(it, CONSTANT)]


def _is_plain(value: Any) -> bool:
    """Whether a checkpoint can hold it."""
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "biuf" and value.dtype.itemsize <= 8
    if type(value) is dict:
        return all(type(key) in (str, int) and _is_plain(item) for key, item in value.items())
    if type(value) in (list, tuple):
        return all(_is_plain(item) for item in value)
    return value is None or type(value) in (bool, int, float, str)


def _captured(layer: gymnasium.Env) -> dict[str, Any]:
    moving = _moving(layer)
    generators = {name: value.bit_generator.state for name, value in moving if isinstance(value, np.random.Generator)}
    plain = {name: value for name, value in moving if _is_plain(value)}
    return copy.deepcopy({"plain": plain, "generators": generators})


def _put_back(layer: gymnasium.Env, captured: Mapping[str, Any]) -> None:
    attributes = vars(layer)
    for name, value in captured["plain"].items():
        old: Any = attributes.get(name)
        are_arrays = isinstance(old, np.ndarray) and isinstance(value, np.ndarray)
        if are_arrays and (old.shape, old.dtype) == (value.shape, value.dtype) and old.flags.writeable:
            old[...] = value  # in its place: it may be a view of the simulation
        else:
            attributes[name] = copy.deepcopy(value)
    for name, state in captured["generators"].items():
        attributes[name].bit_generator.state = state


class Simulators:
    """Several simulators of one robot, stepped together. An episode that ends is followed by the next at once."""

    def __init__(self, name: str, count: int, seed_of: Callable[[int, int], int]) -> None:
        """`seed_of(n, k)` seeds episode k of simulator n."""
        if count < 1:
            raise UserError(f"The number of simulators is {count}; expected at least 1.")
        self.simulators = [Simulator(name) for _ in range(count)]
        self.episodes = [0] * count
        """Which episode each is in."""
        self._seed_of = seed_of
        self.observations = np.stack([one.reset(seed_of(n, 0)) for n, one in enumerate(self.simulators)])
        """float32[N, O]: what each sees now."""

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What came of actions[N, A]: observations [N, O], last ones included, rewards, terminated and truncated."""
        results = [one.step(action) for one, action in zip(self.simulators, actions, strict=True)]
        following, rewards, terminated, truncated = (np.array(column) for column in zip(*results, strict=True))
        self.observations = following.copy()
        for n in np.flatnonzero(terminated | truncated):
            self._next_episode(int(n))
        return following, rewards, terminated, truncated

    def _next_episode(self, n: int) -> None:
        self.episodes[n] += 1
        self.observations[n] = self.simulators[n].reset(self._seed_of(n, self.episodes[n]))

    def state(self) -> dict[str, Any]:
        """Where all of them are; None for simulators that cannot be saved within an episode."""
        return {
            "episodes": list(self.episodes),
            "simulators": [one.state() if one.can_restore else None for one in self.simulators],
        }

    def restore(self, state: Mapping[str, Any]) -> np.ndarray:
        """Return there. bool[N]: which of them could not be saved and begin their next episode instead."""
        given, own = len(state["simulators"]), len(self.simulators)
        if given != own:
            raise UserError(
                f"{given} simulators were saved and this run has {own}; resume with as many as it began with."
            )
        self.episodes = list(state["episodes"])
        for n, (one, saved) in enumerate(zip(self.simulators, state["simulators"], strict=True)):
            if saved is None:
                self._next_episode(n)
            else:
                self.observations[n] = one.restore(saved)
        return np.array([saved is None for saved in state["simulators"]])
