"""Trajectories as the `imitation` library saves them: a Hugging Face dataset with one row per trajectory.

obs[T + 1, O], acts[T, A], infos[T] (JSON text), terminal, and rews[T] where the trajectories carry rewards. There
`terminal` says that the episode was over, for whatever reason; that a time limit was the reason stands in the last info
as TimeLimit.truncated. The infos are written by a library that can put objects into JSON; only this one plain value is
ever looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from control.files.arrow import check_arrow
from control.files.boundary import listed
from control.files.recording import Recording
from envs.robots.episodes import Episode
from unified_irl.errors import UserError

NEEDED = ("obs", "acts", "terminal")
NAMES = {"observations": "obs", "actions": "acts", "rewards": "rews"}
LIMIT = "TimeLimit.truncated"


def read(folder: Path) -> Recording:
    from datasets import Dataset, load_from_disk

    for path in sorted(folder.glob("*.arrow")):
        check_arrow(path)
    dataset = load_from_disk(str(folder))
    if not isinstance(dataset, Dataset):
        raise UserError(
            f"{folder} holds several sets ({', '.join(dataset)}); give the folder of one of them, like "
            f"{folder / next(iter(dataset), 'train')}."
        )
    if missing := [name for name in NEEDED if name not in dataset.column_names]:
        raise UserError(
            f"{folder}: '{missing[0]}' is missing; the dataset holds {listed(dataset.column_names)}. "
            f"Expected {', '.join(NEEDED)} and, if known, rews and infos."
        )
    return Recording(episodes=_episodes(dataset, folder), names=NAMES, has_rewards="rews" in dataset.column_names)


def _episodes(dataset: Any, folder: Path) -> Iterator[Episode]:
    texts = dataset.select_columns("infos") if "infos" in dataset.column_names else None
    arrays = dataset.select_columns([name for name in ("obs", "acts", "rews") if name in dataset.column_names])
    ends = dataset.with_format(None)["terminal"]
    for number, row in enumerate(arrays.with_format("numpy")):
        terminal = ends[number]
        if not isinstance(terminal, bool):
            raise UserError(f"{folder}, episode {number}: 'terminal' is {terminal!r}; expected true or false.")
        limit = texts is not None and _cut_by_limit(texts[number]["infos"], f"{folder}, episode {number}")
        yield Episode(
            observations=row["obs"],
            actions=row["acts"],
            rewards=row["rews"] if "rews" in row else np.zeros(len(np.atleast_1d(row["acts"])), np.float32),
            terminated=terminal and not limit,
            truncated=limit or not terminal,
        )


def _cut_by_limit(infos: Any, where: str) -> bool:
    """Whether the last info says that a time limit ended the episode."""
    if not infos:
        return False
    try:
        last = json.loads(infos[-1])
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: the last of 'infos' is no JSON text; expected what `imitation` writes.") from error
    return isinstance(last, dict) and last.get(LIMIT) is True


def write(folder: Path, episodes: Sequence[Episode]) -> None:
    from datasets import Dataset, disable_progress_bars, enable_progress_bars
    from datasets.utils import are_progress_bars_disabled

    def infos(one: Episode) -> list[str]:
        cut = one.truncated and not one.terminated
        return ["{}"] * (len(one) - 1) + [json.dumps({LIMIT: True} if cut else {})]

    rows = {
        "obs": [one.observations for one in episodes],
        "acts": [one.actions for one in episodes],
        "infos": [infos(one) for one in episodes],
        "terminal": [one.terminated or one.truncated for one in episodes],
        "rews": [one.rewards for one in episodes],
    }
    silent = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        Dataset.from_dict(rows).save_to_disk(str(folder))
    finally:
        if not silent:
            enable_progress_bars()
