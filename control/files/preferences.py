"""Comparisons of segments as a parquet table that refers to episodes instead of copying them.

One row per comparison: episode_a, start_a, episode_b, start_b, length (in steps), label (the probability that a is
better), teacher (who compared), and optionally margin. The file's metadata name the file of the episodes and its
sha256, because a row means nothing, or something else, with other episodes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from control.files.arrow import read_parquet
from control.files.boundary import MOST_BYTES, listed, reading
from envs.robots.episodes import with_absorbing
from unified_irl.errors import UserError
from unified_irl.feedback import Preferences, Provenance
from unified_irl.trajectories import Trajectories

WHOLE_NUMBERS = ("episode_a", "start_a", "episode_b", "start_b", "length")
NEEDED = (*WHOLE_NUMBERS, "label", "teacher")
HEADER = b"unified_irl"
FORMAT = "unified-irl comparisons 1"


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """The table: N comparisons of segments, each given by an episode's number, its first step and its length."""

    episode_a: Tensor
    """long[N]."""
    start_a: Tensor
    """long[N]: counted from 0."""
    episode_b: Tensor
    """long[N]."""
    start_b: Tensor
    """long[N]."""
    length: Tensor
    """long[N]: steps in either segment; a segment may reach beyond the end of its episode, where nothing follows."""
    label: Tensor
    """float[N]: the probability that a is better; 1 or 0 for a choice, ½ for a tie."""
    teacher: tuple[str, ...]
    """N names of who compared."""
    margin: Tensor | None = None
    """float[N]: by how much return the better one was said to be better, at least; 0 when nothing was said."""

    def __len__(self) -> int:
        return len(self.teacher)

    def validated(self, where: str, episodes: Trajectories) -> Comparisons:
        """Itself, or a UserError with the row of the first comparison that these episodes cannot answer."""
        steps = episodes.rewarded.sum(1)
        for side in ("a", "b"):
            episode, start = getattr(self, f"episode_{side}"), getattr(self, f"start_{side}")
            known = (episode >= 0) & (episode < len(episodes))
            _first(where, f"episode_{side}", episode, ~known, f"an episode from 0 to {len(episodes) - 1}")
            last = steps[episode] - 1
            _first(where, f"start_{side}", start, (start < 0) | (start > last), "a step of that episode", last)
        reasonable = (self.length >= 1) & (self.length <= episodes.num_steps)
        _first(where, "length", self.length, ~reasonable, f"1 to {episodes.num_steps} steps")
        _first(where, "label", self.label, ~((self.label >= 0) & (self.label <= 1)), "a probability from 0 to 1")
        if self.margin is not None:
            bad = ~(self.margin.isfinite() & (self.margin >= 0))
            _first(where, "margin", self.margin, bad, "a finite number of 0 or more")
        return self


def write_preferences(path: str | Path, comparisons: Comparisons, episodes: Trajectories, episodes_path: Path) -> None:
    """Write the table. `episodes` are those of the file (or folder) at `episodes_path`, all of them, in its order."""
    path = Path(path)
    comparisons.validated(str(path), episodes)
    table: dict[str, Any] = {name: getattr(comparisons, name).numpy() for name in (*WHOLE_NUMBERS, "label")}
    table["teacher"] = pa.array(comparisons.teacher, pa.string())
    if comparisons.margin is not None:
        table["margin"] = comparisons.margin.numpy()
    header = {
        "format": FORMAT,
        "episodes": Path(episodes_path).name,
        "num_episodes": len(episodes),
        "sha256": content_sha256(Path(episodes_path)),
    }
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table).replace_schema_metadata({HEADER: json.dumps(header)}), partial)
        partial.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} could not be written: {error.strerror or error}. Free space or choose another place."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def is_parquet(path: str | Path) -> bool:
    """Whether the file begins as parquet does; what cannot be opened is left to whoever reads it."""
    try:
        with Path(path).open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return False


def read_preferences(
    path: str | Path, episodes: Trajectories, episodes_path: str | Path | None = None, *, runs_on: bool = False
) -> Preferences:
    """The comparisons, with their segments cut from the episodes.

    With `runs_on`, a segment that runs into an end goes on in absorbing steps, as long as it was said to be.
    `episodes` are those of the file that the table names, all of them; `episodes_path` says where that file lies, if
    not beside the table.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; expected a parquet table of comparisons.")
    with reading(path, "a parquet table of comparisons"):
        table = read_parquet(path)
    comparisons = _comparisons(path, table)
    _check_episodes(path, (table.schema.metadata or {}).get(HEADER), episodes, episodes_path)
    seen = cut(comparisons, episodes, str(path))
    if not runs_on:
        return seen
    first, second = (with_absorbing(side, comparisons.length) for side in (seen.first, seen.second))
    return replace(seen, first=first, second=second)


def cut(comparisons: Comparisons, episodes: Trajectories, source: str) -> Preferences:
    """The compared segments, padded to the longest."""
    comparisons.validated(source, episodes)
    longest = int(comparisons.length.max())
    step_bytes = sum(value[:1, :1].nbytes for value in (*episodes.data.values(), episodes.behaviour_log_prob))
    if 2 * len(comparisons) * longest * step_bytes > MOST_BYTES:
        raise UserError(
            f"{source}: {len(comparisons)} comparisons of up to {longest} steps take more than {MOST_BYTES >> 30} GiB; "
            "use fewer or shorter segments."
        )
    teachers = tuple(dict.fromkeys(comparisons.teacher))
    margin = comparisons.margin
    return Preferences(
        first=_segments(episodes, comparisons.episode_a, comparisons.start_a, comparisons.length),
        second=_segments(episodes, comparisons.episode_b, comparisons.start_b, comparisons.length),
        label=comparisons.label,
        margin=torch.zeros_like(comparisons.label) if margin is None else margin,
        maker=torch.tensor([teachers.index(one) for one in comparisons.teacher]),
        makers=tuple(Provenance(maker="segments of episodes", labeller=one, source=source) for one in teachers),
        level="segment",
    ).validated(source)


def _segments(episodes: Trajectories, episode: Tensor, start: Tensor, length: Tensor) -> Trajectories:
    """One segment per row; those of one length are cut together, and come back in the order of the rows."""
    rows = [(length == one).nonzero().squeeze(1) for one in length.unique()]
    parts = [episodes[episode[row]].segment(start[row], int(length[row[0]])) for row in rows]
    return Trajectories.cat(parts)[torch.cat(rows).argsort()]


def _comparisons(path: Path, table: pa.Table) -> Comparisons:
    if missing := [name for name in NEEDED if name not in table.column_names]:
        raise UserError(
            f"{path}: the column '{missing[0]}' is missing; the table has {listed(table.column_names)}. "
            f"Expected {', '.join(NEEDED)}."
        )
    names = [*NEEDED, *(["margin"] if "margin" in table.column_names else [])]
    if twice := [name for name in names if table.column_names.count(name) > 1]:
        raise UserError(f"{path}: the column '{twice[0]}' is there twice; expected it once.")
    if table.num_rows == 0:
        raise UserError(f"{path}: the table is empty; expected at least one comparison.")
    for name in names:
        _check_type(path, name, table.column(name))
    longs = {name: torch.from_numpy(_plain(path, table, name, pa.int64())) for name in WHOLE_NUMBERS}
    floats = {
        name: torch.from_numpy(_plain(path, table, name, pa.float32())) for name in names if name in ("label", "margin")
    }
    return Comparisons(**longs, **floats, teacher=tuple(table.column("teacher").to_pylist()))


def _plain(path: Path, table: pa.Table, name: str, type_: pa.DataType) -> np.ndarray:
    with reading(path, "a parquet table of comparisons"):  # a number may not fit into its new type
        return np.array(table.column(name).cast(type_, safe=type_ == pa.int64()).to_numpy())


def _check_type(path: Path, name: str, column: pa.ChunkedArray) -> None:
    if name in WHOLE_NUMBERS:
        fits, wanted = pa.types.is_integer(column.type), "whole numbers"
    elif name == "teacher":
        fits, wanted = pa.types.is_string(column.type) or pa.types.is_large_string(column.type), "text"
    else:
        fits, wanted = pa.types.is_floating(column.type) or pa.types.is_integer(column.type), "numbers"
    if not fits:
        raise UserError(f"{path}: the column '{name}' holds {column.type}; expected {wanted}.")
    if column.null_count:
        row = column.is_null().index(True).as_py()
        raise UserError(f"{path}, row {row}: '{name}' is empty; expected every column filled. Fill it or drop the row.")


def _first(where: str, name: str, given: Tensor, bad: Tensor, wanted: str, last: Tensor | None = None) -> None:
    """A UserError about the first bad row, if there is one."""
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        upto = "" if last is None else f" (0 to {int(last[row])})"
        raise UserError(f"{where}, row {row}: '{name}' is {given[row].item():g}; expected {wanted}{upto}.")


def _check_episodes(path: Path, header: bytes | None, episodes: Trajectories, given: str | Path | None) -> None:
    """A UserError unless the episodes are those that the table was made from."""
    try:
        says = json.loads(header or b"")
        name, digest, count = str(says["episodes"]), says["sha256"], says["num_episodes"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UserError(
            f"{path}: its metadata do not name the file of its episodes and that file's sha256; expected a table of "
            f"'{FORMAT}', as write_preferences writes it."
        ) from None
    place = path.parent / Path(name).name if given is None else Path(given)
    if not place.exists():
        raise UserError(
            f"{path} compares segments of '{name}', which is not at {place}; say with people.compared_file where it is."
        )
    if content_sha256(place) != digest:
        raise UserError(
            f"{path} compares segments of a file '{name}' with other content than {place} (their sha256 differ); "
            "restore the file from which the comparisons were made."
        )
    if count != len(episodes):
        raise UserError(
            f"{path} counts {count} episodes in '{name}', but {len(episodes)} were handed over; its rows refer to "
            "all of them, so read that file without num_episodes and min_return."
        )


def content_sha256(place: Path) -> str:
    """Of a file: its sha256. Of a folder: that of its files' names and sha256, in the order of their names."""
    if place.is_file():
        with place.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(one for one in place.rglob("*") if one.is_file())
    listing = "".join(f"{content_sha256(one)}  {one.relative_to(place).as_posix()}\n" for one in files)
    return hashlib.sha256(listing.encode()).hexdigest()
