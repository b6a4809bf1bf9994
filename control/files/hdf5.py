"""D4RL's layout in an HDF5 file, and what makes any HDF5 file safe to read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from control.files import d4rl
from control.files.boundary import refuse_bombs
from control.files.recording import Recording
from envs.robots.episodes import Episode
from unified_irl.errors import UserError


def read(path: Path) -> Recording:
    with h5py.File(path, "r") as file:
        sizes = declared(file, path)
        if "episode_0" in file:
            raise UserError(f"{path} is the data file of a Minari dataset; give the dataset's folder instead.")
        wanted = [name for name in d4rl.KEYS if name in sizes]
        refuse_bombs(path, sum(sizes[name] for name in wanted))
        arrays = {name: np.asarray(file[name]) for name in wanted}
    return d4rl.recording(arrays, list(sizes), str(path))


def write(path: Path, episodes: Sequence[Episode]) -> None:
    with h5py.File(path, "w") as file:
        for name, array in d4rl.columns(episodes).items():
            file.create_dataset(name, data=array, compression="gzip")


def declared(file: h5py.File, path: Path) -> dict[str, int]:
    """How many bytes each dataset takes once it is read.

    A dataset can promise any shape over data that are not there, and can send the reader to other files; both are
    refused.
    """
    sizes = {}
    for name, dataset in _datasets(file, path, "", set()):
        if dataset.is_virtual or dataset.external:
            raise UserError(f"{path}: '{name}' keeps its data in another file; expected everything in this one.")
        room, whole = _unpacked(dataset)
        if dataset.id.get_storage_size() > path.stat().st_size or not whole:
            raise UserError(
                f"{path}: '{name}' says it holds {dataset.nbytes} bytes, which are not in the file. Restore a copy."
            )
        sizes[name] = room
    return sizes


def _unpacked(dataset: h5py.Dataset) -> tuple[int, bool]:
    """How many bytes the dataset takes once unpacked, and whether the file holds data for all of it.

    What is missing would be filled in chunk by chunk, which for a large promise of small chunks takes for ever.
    """
    if dataset.shape is None:
        return 0, True
    if dataset.chunks is None:
        return dataset.nbytes, dataset.id.get_storage_size() >= dataset.nbytes
    count = math.prod(-(-side // chunk) for side, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    return count * math.prod(dataset.chunks) * dataset.dtype.itemsize, dataset.id.get_num_chunks() == count


def _datasets(group: h5py.Group, path: Path, prefix: str, seen: set[int]) -> Iterator[tuple[str, h5py.Dataset]]:
    place = h5py.h5o.get_info(group.id).addr
    if place in seen:
        raise UserError(f"{path}: the group '{prefix or '/'}' is there under two names; expected one for each.")
    seen.add(place)
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise UserError(f"{path}: '{prefix}{name}' points elsewhere; expected everything in this file itself.")
        found = group[name]
        if isinstance(found, h5py.Dataset):
            yield f"{prefix}{name}", found
        elif isinstance(found, h5py.Group):
            yield from _datasets(found, path, f"{prefix}{name}/", seen)
