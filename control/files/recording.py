"""What a reader hands over, and the checks that every recording must pass whatever its format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from control.files.boundary import MOST_BYTES, numbers
from envs.robots.episodes import Episode
from unified_irl.errors import UserError
from unified_irl.feedback import Demonstrations

Spaces = tuple[int, int, float | np.ndarray, float | np.ndarray]
"""Observation dimensions, action dimensions, lowest and highest action (a number, or one per dimension)."""
SLIGHTLY = 0.01
"""Share of the action range by which an action may lie outside its bounds and still be clipped: rounding, not error."""


@dataclass(kw_only=True)
class Recording:
    """The episodes of a file. They are read one by one while somebody asks for them."""

    episodes: Iterable[Episode]
    names: dict[str, str] = field(default_factory=dict)
    """What the file calls observations, actions and rewards, where it calls them otherwise."""
    has_rewards: bool = True
    notes: list[str] = field(default_factory=list)
    """What became of the file on the way, for its provenance; grows while the episodes are read."""
    own: Demonstrations | None = None
    """The same with contexts, weights and makers, where the file holds them."""


class Checks:
    """Checks episodes one after the other, against the task and against the first of them."""

    def __init__(self, path: Path | str, names: dict[str, str], spaces: Spaces | None) -> None:
        self.path, self.names = path, names
        self.dimensions = None if spaces is None else spaces[:2]
        self.bounds = None if spaces is None else _bounds(spaces)
        self.clipped = 0

    def __call__(self, number: int, episode: Episode) -> Episode:
        """The episode in float32 with its actions inside the bounds, or a UserError with its number and the field."""
        where = f"{self.path}, episode {number}"
        fields = {
            name: numbers(getattr(episode, name), self._named(name), where)
            for name in ("observations", "actions", "rewards", "log_prob")
            if name != "log_prob" or episode.log_prob is not None
        }
        steps = fields["actions"].shape[0] if fields["actions"].ndim else 0
        if steps == 0:
            raise UserError(f"{where}: '{self._named('actions')}' holds no step; expected at least one. Remove it.")
        wanted = {"observations": steps + 1, "actions": steps, "rewards": steps, "log_prob": steps}
        for name, array in fields.items():
            self._check_shape(where, name, array, wanted[name])
            if not np.isfinite(array).all():
                step = int(np.argwhere(~np.isfinite(array))[0][0])
                raise UserError(
                    f"{where}: '{self._named(name)}' is NaN or infinite at step {step}; remove or repair the episode."
                )
        self._check_dimensions(where, fields["observations"].shape[1], fields["actions"].shape[1])
        if self.bounds is not None:
            fields["actions"] = self._inside(where, fields["actions"], *self.bounds)
        return replace(
            episode,
            observations=fields["observations"],
            actions=fields["actions"],
            rewards=fields["rewards"],
            log_prob=fields.get("log_prob"),
        )

    def _named(self, name: str) -> str:
        return self.names.get(name, name)

    def _check_shape(self, where: str, name: str, array: np.ndarray, rows: int) -> None:
        columns = 1 if name in ("observations", "actions") else 0
        if array.ndim != 1 + columns or array.shape[0] != rows or 0 in array.shape:
            wanted = f"[{rows}{', dimensions' * columns}]"
            more = " (one observation more than actions)" if name == "observations" else ""
            raise UserError(f"{where}: '{self._named(name)}' has shape {list(array.shape)}; expected {wanted}{more}.")

    def _check_dimensions(self, where: str, observation: int, action: int) -> None:
        expected = "the task" if self.bounds is not None else "the first episode"
        self.dimensions = self.dimensions or (observation, action)
        for name, given, wanted in zip(
            ("observations", "actions"), (observation, action), self.dimensions, strict=True
        ):
            if given != wanted:
                raise UserError(
                    f"{where}: '{self._named(name)}' has {given} dimensions but {expected} has {wanted}; "
                    "was it recorded in another environment, or another version of it?"
                )

    def _inside(self, where: str, actions: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        inside = np.clip(actions, low, high)
        excess = np.abs(actions - inside)
        if (excess > SLIGHTLY * (high - low)).any():
            step, dimension = np.unravel_index(np.argmax(excess), excess.shape)
            raise UserError(
                f"{where}: '{self._named('actions')}' holds {actions[step, dimension]:.4g} at step {step}, dimension "
                f"{dimension}; expected {low[dimension]:.4g} to {high[dimension]:.4g}. Rescale the actions to the "
                "units of the environment."
            )
        self.clipped += int((excess > 0).any(1).sum())
        return inside


def refuse_padding(path: Path | str, episodes: list[Episode]) -> None:
    """A batch is as long as its longest episode; a UserError where that would not fit into memory."""
    width = 2 * episodes[0].observations.shape[1] + episodes[0].actions.shape[1] + 5
    longest = max(len(one) for one in episodes)
    if len(episodes) * longest * width * 4 > MOST_BYTES:
        raise UserError(
            f"{path}: {len(episodes)} episodes padded to the longest ({longest} steps) take more than "
            f"{MOST_BYTES >> 30} GiB; read fewer with num_episodes, or cut the longest into several."
        )


def _bounds(spaces: Spaces) -> tuple[np.ndarray, np.ndarray]:
    low, high = (np.broadcast_to(np.asarray(one, dtype=np.float32), (spaces[1],)) for one in spaces[2:])
    return low, high
