"""What a simulator has to remember so that continuing is exact to the bit."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer
from gymnasium.spaces import Space

from unified_irl.errors import UserError

INTEGRATION = int(mujoco.mjtState.mjSTATE_INTEGRATION)
CONSTANT = (Space, mujoco.MjModel, mujoco.MjData, MujocoRenderer, FunctionType, MethodType, ModuleType, type)
CONSTANT_NAMES = {"env", "spec", "metadata", "fullpath", "screen", "clock", "_ezpickle_args", "_ezpickle_kwargs",
                  "_saved_kwargs", "_cached_spec"}  # fmt: skip
"""Attributes of an environment that say how it was built or shown, not where it is."""


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


def layers_of(env: gymnasium.Env) -> list[gymnasium.Env]:
    """The environment, from its outermost wrapper to its core."""
    return [env, *layers_of(env.env)] if isinstance(env, gymnasium.Wrapper) else [env]


def moving(layer: gymnasium.Env) -> list[tuple[str, Any]]:
    """The attributes that can change while an episode runs."""
    attributes = vars(layer).items()
    return [(name, it) for name, it in attributes if name not in CONSTANT_NAMES and not isinstance(it, CONSTANT)]


def is_plain(value: Any) -> bool:
    """Whether a checkpoint can hold it."""
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "biuf" and value.dtype.itemsize <= 8
    if type(value) is dict:
        return all(type(key) in (str, int) and is_plain(item) for key, item in value.items())
    if type(value) in (list, tuple):
        return all(is_plain(item) for item in value)
    return value is None or type(value) in (bool, int, float, str)


def captured(layer: gymnasium.Env) -> dict[str, Any]:
    found = moving(layer)
    generators = {name: value.bit_generator.state for name, value in found if isinstance(value, np.random.Generator)}
    plain = {name: value for name, value in found if is_plain(value)}
    return copy.deepcopy({"plain": plain, "generators": generators})


def put_back(layer: gymnasium.Env, saved: Mapping[str, Any]) -> None:
    attributes = vars(layer)
    for name, value in saved["plain"].items():
        old: Any = attributes.get(name)
        are_arrays = isinstance(old, np.ndarray) and isinstance(value, np.ndarray)
        if are_arrays and (old.shape, old.dtype) == (value.shape, value.dtype) and old.flags.writeable:
            old[...] = value  # in its place: it may be a view of the simulation
        else:
            attributes[name] = copy.deepcopy(value)
    for name, state in saved["generators"].items():
        attributes[name].bit_generator.state = state
