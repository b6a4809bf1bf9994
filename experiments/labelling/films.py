"""Segments of robots' episodes as queries, and the answers as a table that refers to the episodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from control.files import npz
from control.files.demonstrations import episodes_of, read_demonstrations
from control.files.preferences import Comparisons, write_preferences
from envs.robots.episodes import Episode
from envs.robots.table import robot
from experiments.labelling.book import Answer
from experiments.labelling.folder import Made
from experiments.labelling.material import comparisons
from experiments.labelling.studio import Segment, Studio
from unified_irl.errors import UserError

EPISODES, STATES, FILMS, PREFERENCES = "episodes.npz", "states.npz", "films", "preferences.parquet"
SIDES = ("first", "second")


class Films:
    """Queries of a labelling."""

    is_filmed = True
    words: Sequence[str] = ()

    def __init__(self, folder: Path, made: Made) -> None:
        self.folder, self.queries, self.summary = folder, made.queries, robot(made.facts["robot"]).summary
        self.behaviours = read_demonstrations(folder / EPISODES).trajectories
        episodes = _with_states(episodes_of(self.behaviours, str(folder / EPISODES)), folder / STATES)
        self.studio = Studio(folder / FILMS, made.facts["robot"], episodes, never_ends=made.facts["never_ends"])

    def __len__(self) -> int:
        return len(self.queries)

    def shown(self, pair: int) -> dict[str, Any]:
        return {"prompt": [{"role": "task", "text": self.summary}]}

    def expect(self, pairs: Iterable[int]) -> None:
        for pair in pairs:
            for side in range(len(SIDES)):
                self.studio.order(self._segment(pair, side))

    def film(self, pair: int, side: int) -> Path:
        try:
            return self.studio.order(self._segment(pair, side)).result()
        except CancelledError:
            raise UserError("The server is ending; start it again with the same command.") from None

    def fault(self, text: str) -> str:
        return "Robots are compared here; nothing can be written."

    def export(self, answers: Sequence[Answer]) -> list[str]:
        made, path = comparisons(answers), self.folder / PREFERENCES
        if not made:
            path.unlink(missing_ok=True)
            return []
        segments = [[self._segment(one.pair, side) for one in made] for side in range(len(SIDES))]

        def column(name: str, side: int) -> torch.Tensor:
            return torch.tensor([getattr(one, name) for one in segments[side]])

        table = Comparisons(
            episode_a=column("episode", 0),
            start_a=column("start", 0),
            episode_b=column("episode", 1),
            start_b=column("start", 1),
            length=column("length", 0),
            label=torch.tensor([one.label for one in made]),
            teacher=tuple(one.rater for one in made),
        )
        write_preferences(path, table, self.behaviours, self.folder / EPISODES)
        return [f"{len(made)} comparisons, ties included, in {path}, of episodes in {self.folder / EPISODES}"]

    def close(self) -> None:
        self.studio.close()

    def _segment(self, pair: int, side: int) -> Segment:
        return Segment(**self.queries[pair][SIDES[side]])


def keep(folder: Path, episodes: Sequence[Episode]) -> None:
    """Write the episodes, and beside them what it takes to draw them."""
    npz.write(folder / EPISODES, episodes)
    if all(one.physics is not None for one in episodes):
        np.savez_compressed(folder / STATES, physics=np.concatenate([one.physics for one in episodes]))
    elif all(one.seed is not None for one in episodes):
        np.savez_compressed(folder / STATES, seed=np.array([one.seed for one in episodes]))
    else:
        raise UserError("Neither the states nor the seeds of these episodes are known, so they cannot be drawn.")


def _with_states(episodes: list[Episode], path: Path) -> list[Episode]:
    with np.load(path, allow_pickle=False) as states:
        if "seed" in states:
            return [replace(one, seed=int(seed)) for one, seed in zip(episodes, states["seed"], strict=True)]
        ends = np.cumsum([len(one) + 1 for one in episodes])[:-1]
        parts = np.split(states["physics"], ends)
    return [replace(one, physics=part) for one, part in zip(episodes, parts, strict=True)]
