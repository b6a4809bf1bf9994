"""Where foreign files meet this program: whatever a damaged or hostile file makes a library raise becomes one sentence,
and no file may ask for far more memory than it takes on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from unified_irl.errors import UserError

SLACK = 64 * 2**20
"""Bytes that any file may unpack to."""
MOST_COMPRESSION = 100
"""How many times its own size a file may unpack to beyond the slack; recorded motion compresses ten times at most."""
MOST_BYTES = 32 * 2**30
"""What one padded batch may take in memory."""


@contextmanager
def reading(path: Path | str, what: str) -> Iterator[None]:
    """Turns errors of the libraries that read a file into a UserError; our own sentences pass.

    File libraries answer damage with nearly every exception there is, so all of them are caught, here and only here.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".") or type(error).__name__
        raise UserError(
            f"{path} cannot be read as {what}: {reason[:300]}. Restore a copy, or write it again."
        ) from error


def refuse_bombs(path: Path, declared: int) -> None:
    """A UserError where the file says it holds far more bytes than it can; to be asked before anything is allocated."""
    size = path.stat().st_size
    if declared > SLACK + MOST_COMPRESSION * size:
        raise UserError(
            f"{path} says it holds {declared:.3g} bytes but takes {size} on disk; it is damaged or made to exhaust "
            "memory. Restore a copy, or write it again with less compression."
        )


def numbers(array: object, field: str, where: str) -> np.ndarray:
    """The array as float32, or a UserError where it holds something other than real numbers."""
    given = np.asarray(array)
    if given.dtype.kind not in "fiub":
        held = "rows of different lengths or no numbers" if given.dtype.kind == "O" else str(given.dtype)
        raise UserError(f"{where}: '{field}' holds {held}; expected an array of numbers.")
    with np.errstate(over="ignore"):  # becomes infinite, which the checks name
        return given.astype(np.float32, copy=False)


def listed(names: Iterable[str]) -> str:
    """What a file holds, for a sentence; names in a damaged file may be anything."""
    some = [name if name.isprintable() else ascii(name) for name in sorted(names)[:20]]
    return ", ".join(some) or "nothing"


def flags(array: object, field: str, where: str) -> np.ndarray:
    """The array as bool[N], or a UserError where it holds something other than true and false."""
    given = np.asarray(array)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim != 1 or given.dtype.kind not in "fiub" or not np.isin(given, (0, 1)).all():
        raise UserError(
            f"{where}: '{field}' has shape {list(given.shape)} of {given.dtype}; expected one true or false per step."
        )
    return given.astype(bool)
