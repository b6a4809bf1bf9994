"""D4RL's layout: the steps of all episodes in one row, with a flag where each of them ends.

observations[N, O], actions[N, A], rewards[N], terminals[N] (the world ended it), timeouts[N] (a limit did),
next_observations[N, O] (optional), infos/action_log_probs[N] (optional). Steps after the last flag are an unfinished
episode, which counts as truncated.

Without next_observations nobody knows what an episode's last step led to. An episode that was cut (by a timeout, or by
the end of the file) therefore loses its last step, so that a value can still be attached to its last observation; one
that the world ended keeps it, with its last observation standing in for the unknown one, because nothing follows there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from control.files.boundary import flags, listed, numbers
from control.files.recording import Recording
from envs.robots.episodes import Episode
from unified_irl.errors import UserError

NEEDED = ("observations", "actions", "rewards", "terminals")
LOG_PROB = "infos/action_log_probs"
KEYS = (*NEEDED, "timeouts", "next_observations", LOG_PROB)
ALMOST = 1e-4
"""How far a next observation may be from the observation that follows it: rounding when the file was written."""


def recording(arrays: dict[str, Any], held: Sequence[str], where: str) -> Recording:
    """The episodes in these arrays; `held` is everything that the file holds."""
    if missing := [name for name in NEEDED if name not in arrays]:
        raise UserError(
            f"{where}: '{missing[0]}' is missing; the file holds {listed(held)}. Expected {', '.join(NEEDED)}."
        )
    steps = len(arrays["observations"]) if np.ndim(arrays["observations"]) else 0
    for name, array in arrays.items():
        if np.ndim(array) == 0 or len(array) != steps:
            raise UserError(
                f"{where}: '{name}' has shape {list(np.shape(array))} but 'observations' holds {steps} steps; "
                "expected one entry per step in both."
            )
    ends = {name: flags(arrays[name], name, where) for name in ("terminals", "timeouts") if name in arrays}
    ends.setdefault("timeouts", np.zeros(steps, dtype=bool))
    columns = {name: _flat(array) if name == "rewards" else array for name, array in arrays.items()}
    made = Recording(episodes=())
    made.episodes = _episodes(columns | ends, where, made.notes)
    return made


def _episodes(arrays: dict[str, np.ndarray], where: str, notes: list[str]) -> Iterator[Episode]:
    steps = len(arrays["rewards"])
    stops = np.flatnonzero(arrays["terminals"] | arrays["timeouts"]) + 1
    if steps and (len(stops) == 0 or stops[-1] != steps):
        stops = np.append(stops, steps)
    starts = np.concatenate([[0], stops])[:-1].astype(int)
    if "next_observations" not in arrays and steps:
        notes.append("without next_observations: cut episodes lost their last step")
    for number, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        terminated = bool(arrays["terminals"][stop - 1])
        truncated = bool(arrays["timeouts"][stop - 1]) or not terminated
        observations = arrays["observations"][start:stop]
        if "next_observations" in arrays:
            observations = _joined(observations, arrays["next_observations"][start:stop], f"{where}, episode {number}")
        elif terminated:
            observations = np.concatenate([observations, observations[-1:]])
        elif stop - start == 1:
            continue
        else:
            stop -= 1
        yield Episode(
            observations=observations,
            actions=arrays["actions"][start:stop],
            rewards=arrays["rewards"][start:stop],
            terminated=terminated,
            truncated=truncated,
            log_prob=_flat(arrays[LOG_PROB])[start:stop] if LOG_PROB in arrays else None,
        )


def _joined(observations: np.ndarray, following: np.ndarray, where: str) -> np.ndarray:
    """The observations with the one after the last step, once each step is seen to lead to the next one."""
    observations, following = (
        numbers(observations, "observations", where),
        numbers(following, "next_observations", where),
    )
    if observations.shape != following.shape:
        raise UserError(
            f"{where}: 'next_observations' has shape {list(following.shape)}; expected {list(observations.shape)} like "
            "'observations'."
        )
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(observations[1:] - following[:-1]) > ALMOST * (1.0 + np.abs(following[:-1]))
    if apart.any():
        step = int(np.argwhere(apart)[0][0])
        raise UserError(
            f"{where}: 'next_observations' at step {step} is not 'observations' at step {step + 1}; expected steps in "
            "the order in which they happened, with every episode's end marked in 'terminals' or 'timeouts'."
        )
    return np.concatenate([observations, following[-1:]])


def _flat(array: np.ndarray) -> np.ndarray:
    return array[:, 0] if np.ndim(array) == 2 and array.shape[1] == 1 else array


def columns(episodes: Sequence[Episode]) -> dict[str, np.ndarray]:
    """The episodes as arrays of this layout."""
    last = [np.arange(len(one)) == len(one) - 1 for one in episodes]
    arrays = {
        "observations": np.concatenate([one.observations[:-1] for one in episodes]),
        "actions": np.concatenate([one.actions for one in episodes]),
        "rewards": np.concatenate([one.rewards for one in episodes]),
        "terminals": np.concatenate([end & one.terminated for end, one in zip(last, episodes, strict=True)]),
        "timeouts": np.concatenate([end & one.truncated for end, one in zip(last, episodes, strict=True)]),
        "next_observations": np.concatenate([one.observations[1:] for one in episodes]),
    }
    known = [one.log_prob for one in episodes if one.log_prob is not None]
    if len(known) == len(episodes):
        arrays[LOG_PROB] = np.concatenate(known)
    return arrays
