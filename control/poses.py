"""Physical states from what was observed: enough to draw an episode of which nothing else was kept, or to begin in.

A robot's observations show its joints in one of a few layouts. Which of them it is, is not believed but tried: a
state counts where it makes the simulator observe what the episode holds. Where a layout leaves out how far a robot has
come, that is summed up from its speed.

Shape legend: T steps, O observed numbers, P positions and velocities.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from envs.robots.simulators import Simulator
from unified_irl.errors import UserError

MOST_ERROR = 1e-3
"""Between an observation and what the state found for it makes the simulator observe; velocities may be clipped."""
NUM_TRIED = 5
"""Steps of an episode at which a layout is tried."""


def physics_of(simulator: Simulator, observations: np.ndarray, otherwise: str) -> np.ndarray:
    """float64[T + 1, P], or a UserError where the observations do not tell, with what that means for whoever asked."""
    if simulator.can_reset_to:
        for layout in LAYOUTS:
            states = layout(simulator.env.unwrapped, observations)
            if states is not None and _observes(simulator, states, observations):
                return states
    raise UserError(f"The observations of '{simulator.name}' do not tell how its joints stood, so {otherwise}")


def _observes(simulator: Simulator, states: np.ndarray, observations: np.ndarray) -> bool:
    """Whether the states look as they should. Forces are no part of a state, and are left out."""
    inner: Any = simulator.env.unwrapped
    size = min(observations.shape[1], inner.model.nq + inner.model.nv)
    steps = np.unique(np.linspace(0, len(states) - 1, NUM_TRIED).astype(int))
    seen = np.stack([simulator.reset_to(states[step], seed=0) for step in steps])
    return bool(np.allclose(seen[:, :size], observations[steps, :size], atol=MOST_ERROR))


def _joints(hidden: int, inner: Any, observations: np.ndarray) -> np.ndarray | None:
    """All positions but the first `hidden` ones, then all velocities."""
    num_positions, num_velocities = inner.model.nq, inner.model.nv
    if observations.shape[1] < num_positions - hidden + num_velocities:
        return None
    shown = observations.astype(np.float64)
    positions = shown[:, : num_positions - hidden]
    velocities = shown[:, num_positions - hidden :][:, :num_velocities]
    travelled = np.cumsum(velocities[:, :hidden] * inner.dt, axis=0)
    return np.concatenate([travelled, positions, velocities], axis=1)


def _arm(inner: Any, observations: np.ndarray) -> np.ndarray | None:
    """Two angles as cosines and sines, where the target is, and how fast the angles change (Reacher)."""
    if (inner.model.nq, inner.model.nv) != (4, 4) or observations.shape[1] < 8:
        return None
    shown = observations.astype(np.float64)
    angles = np.arctan2(shown[:, 2:4], shown[:, :2])
    return np.concatenate([angles, shown[:, 4:6], shown[:, 6:8], np.zeros((len(shown), 2))], axis=1)


def _poles(inner: Any, observations: np.ndarray) -> np.ndarray | None:
    """A cart's place, two angles as sines and cosines, and all velocities (InvertedDoublePendulum)."""
    if (inner.model.nq, inner.model.nv) != (3, 3) or observations.shape[1] < 8:
        return None
    shown = observations.astype(np.float64)
    return np.concatenate([shown[:, :1], np.arctan2(shown[:, 1:3], shown[:, 3:5]), shown[:, 5:8]], axis=1)


LAYOUTS: tuple[Callable[[Any, np.ndarray], np.ndarray | None], ...] = (
    *(partial(_joints, hidden) for hidden in (0, 1, 2)),
    _arm,
    _poles,
)
