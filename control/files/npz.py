"""D4RL's layout in a numpy archive. Nothing in it is ever unpickled."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from control.files import d4rl
from control.files.boundary import refuse_bombs
from control.files.recording import Recording
from envs.robots.episodes import Episode
from unified_irl.errors import UserError

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read(path: Path) -> Recording:
    with zipfile.ZipFile(path) as archive:
        held = [name.removesuffix(".npy") for name in archive.namelist()]
        wanted = [name for name in d4rl.KEYS if name in held]
        refuse_bombs(path, sum(_declared(archive, name, path) for name in wanted))
    with np.load(path, allow_pickle=False) as arrays:
        return d4rl.recording({name: arrays[name] for name in wanted}, held, str(path))


def write(path: Path, episodes: Sequence[Episode]) -> None:
    with path.open("wb") as file:  # given a name, numpy would put .npz behind it
        np.savez_compressed(file, **d4rl.columns(episodes))


def _declared(archive: zipfile.ZipFile, name: str, path: Path) -> int:
    """How many bytes the array will take, from its header alone."""
    with archive.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        if version not in _HEADERS:
            raise UserError(f"{path}: '{name}' is written in version {version} of numpy's format; expected 1 or 2.")
        shape, _, dtype = _HEADERS[version](member)
    if dtype.hasobject:
        raise UserError(f"{path}: '{name}' holds Python objects, which are never unpacked; expected numbers.")
    if any(side < 0 for side in shape):
        raise UserError(f"{path}: '{name}' has shape {list(shape)}; expected sides of 0 or more.")
    return math.prod(shape) * dtype.itemsize
