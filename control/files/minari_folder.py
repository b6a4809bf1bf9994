"""Minari datasets, in each of their storages, through Minari itself.

Minari believes what a dataset's metadata say, down to which code makes its environment. So the metadata are looked at
first: vectors of numbers for observations and actions, both described in the file.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from control.files.arrow import check_arrow, read_parquet
from control.files.boundary import refuse_bombs
from control.files.hdf5 import declared
from control.files.recording import Recording
from envs.robots.episodes import Episode
from unified_irl.errors import UserError
from unified_irl.serialise import read_json

METADATA = "metadata.json"
HDF5 = "main_data.hdf5"


def folder_of(name: str) -> Path | None:
    """Where the dataset of this id lies or would lie; None where the name cannot be an id."""
    from minari.dataset.minari_dataset import DATASET_ID_RE
    from minari.storage.datasets_root_dir import get_dataset_path

    match = DATASET_ID_RE.fullmatch(name)
    return get_dataset_path(name) if match and match.group("version") else None


def downloaded(name: str) -> Path:
    """Fetches the dataset from Minari's remote and says where it lies."""
    import minari

    try:
        minari.download_dataset(name)
    except Exception as error:
        raise UserError(
            f"minari:{name} could not be downloaded: {error}. Check its name with `minari list remote`, and the "
            "network."
        ) from error
    folder = folder_of(name)
    assert folder is not None
    return folder


def read(folder: Path) -> Recording:
    """`folder` is the dataset's, or the folder 'data' in it."""
    data = folder / "data" if (folder / "data" / METADATA).exists() else folder
    _check_metadata(data / METADATA)
    _check_storage(data)
    return Recording(episodes=_episodes(data))


def _episodes(data: Path) -> Iterator[Episode]:
    from minari import MinariDataset

    for number, one in enumerate(MinariDataset(data).iterate_episodes()):
        ends = {"terminations": np.asarray(one.terminations), "truncations": np.asarray(one.truncations)}
        for name, flags in ends.items():
            if flags.shape != (len(one.actions),) or not np.isin(flags, (0, 1)).all():
                raise UserError(
                    f"{data}, episode {number}: '{name}' has shape {list(flags.shape)} of {flags.dtype} for "
                    f"{len(one.actions)} actions; expected one true or false for each."
                )
            if flags[:-1].any():
                raise UserError(
                    f"{data}, episode {number}: '{name}' is true before the last step; expected episodes that stop "
                    "where they end."
                )
        terminated, truncated = (bool(flags[-1:].any()) for flags in ends.values())
        yield Episode(
            observations=one.observations,
            actions=one.actions,
            rewards=one.rewards,
            terminated=terminated,
            truncated=truncated or not terminated,
        )


def _check_metadata(path: Path) -> None:
    metadata = read_json(path)
    if not isinstance(metadata, dict):
        raise UserError(f"{path} holds no table of settings; expected the metadata of a Minari dataset.")
    for name in ("observation_space", "action_space"):
        if not isinstance(metadata.get(name), str):
            raise UserError(
                f"{path}: '{name}' is missing; datasets that leave it to code elsewhere are not read. Write the "
                "dataset again with a current Minari."
            )
        space: Any = json.loads(metadata[name])
        kind, shape, low, high = (space.get(key) for key in ("type", "shape", "low", "high"))
        if kind != "Box" or not isinstance(shape, list) or len(shape) != 1:
            raise UserError(
                f"{path}: '{name}' is a {kind} of shape {shape}; expected vectors of numbers (a Box of one dimension)."
            )
        if not isinstance(low, list) or not isinstance(high, list) or not len(low) == len(high) == shape[0]:
            raise UserError(f"{path}: '{name}' has shape {shape}, but its bounds have another. Restore a copy.")
    episodes = metadata.get("total_episodes")
    if not isinstance(episodes, int) or not 0 < episodes < 10**8:
        raise UserError(f"{path}: 'total_episodes' is {episodes!r}; expected a number of at least 1.")


def _check_storage(data: Path) -> None:
    main = data / HDF5
    if main.exists():
        with h5py.File(main, "r") as file:
            refuse_bombs(main, sum(declared(file, main).values()))
    for path in sorted(data.glob("*/*.arrow")):
        check_arrow(path)
    for path in sorted(data.glob("*/*.parquet")):
        read_parquet(path)


def write(name: str, episodes: Sequence[Episode]) -> Path:
    """A local dataset of this id, in Minari's own place for it; says where."""
    import minari
    from gymnasium.spaces import Box

    folder = folder_of(name)
    if folder is None:
        raise UserError(
            f"'{name}' is no id of a Minari dataset; expected a name with a version, like pendulum/mine-v0."
        )
    if folder.exists():
        raise UserError(
            f"{folder} already holds a dataset, which is never overwritten; choose another name or version."
        )
    buffers = [
        minari.data_collector.EpisodeBuffer(
            observations=one.observations,
            actions=one.actions,
            rewards=one.rewards,
            terminations=_at_the_end(len(one), one.terminated),
            truncations=_at_the_end(len(one), one.truncated),
        )
        for one in episodes
    ]
    first = episodes[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # asks for an author, an address and a link to code
        minari.create_dataset_from_buffers(
            name,
            buffers,
            observation_space=Box(-np.inf, np.inf, first.observations.shape[1:], np.float32),
            action_space=Box(-np.inf, np.inf, first.actions.shape[1:], np.float32),
        )
    return folder


def _at_the_end(steps: int, value: bool) -> np.ndarray:
    return np.arange(steps) == (steps - 1 if value else steps)
