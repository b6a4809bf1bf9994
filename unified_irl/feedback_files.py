"""Demonstrations and preferences as files: one safetensors file each, with who made them in its header.

Reading runs no code and believes nothing: shapes, numbers and provenance are checked before anything learns from them.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from unified_irl.errors import UserError
from unified_irl.feedback import Demonstrations, Preferences, Provenance
from unified_irl.serialise import from_json, write_tensors
from unified_irl.trajectories import Trajectories

FORMAT = "unified-irl feedback 1"


def save_demonstrations(path: str | Path, demonstrations: Demonstrations) -> None:
    tensors = _flattened("trajectories", demonstrations.trajectories) | {"maker": demonstrations.maker}
    _write(path, tensors, {"kind": "demonstrations", "makers": [asdict(one) for one in demonstrations.makers]})


def save_preferences(path: str | Path, preferences: Preferences) -> None:
    tensors = _flattened("first", preferences.first) | _flattened("second", preferences.second)
    tensors |= {name: getattr(preferences, name) for name in ("label", "margin", "maker")}
    header = {"kind": "preferences", "level": preferences.level, "makers": [asdict(one) for one in preferences.makers]}
    _write(path, tensors, header)


def load_demonstrations(path: str | Path) -> Demonstrations:
    tensors, header = _read(path, "demonstrations")
    trajectories = _unflattened(tensors, "trajectories", path)
    maker = _tensor(tensors, "maker", path)
    return Demonstrations(trajectories=trajectories, maker=maker, makers=_makers(header, path)).validated(str(path))


def load_preferences(path: str | Path) -> Preferences:
    tensors, header = _read(path, "preferences")
    return Preferences(
        first=_unflattened(tensors, "first", path),
        second=_unflattened(tensors, "second", path),
        label=_tensor(tensors, "label", path),
        margin=_tensor(tensors, "margin", path),
        maker=_tensor(tensors, "maker", path),
        makers=_makers(header, path),
        level=str(header.get("level", "whole")),
    ).validated(str(path))


def _flattened(prefix: str, trajectories: Trajectories) -> dict[str, Tensor]:
    state = trajectories.state_dict()
    data = {f"data.{name}": value for name, value in state.pop("data").items()}
    # Cloned: fields may share memory (every step both chosen and rewarded), which the format refuses to hold.
    return {f"{prefix}.{name}": value.clone().contiguous() for name, value in {**state, **data}.items()}


def _unflattened(tensors: dict[str, Tensor], prefix: str, path: str | Path) -> Trajectories:
    data_prefix = f"{prefix}.data."
    data = {name.removeprefix(data_prefix): value for name, value in tensors.items() if name.startswith(data_prefix)}
    names = [name for name in Trajectories.__dataclass_fields__ if name != "data"]
    return Trajectories(data=data, **{name: _tensor(tensors, f"{prefix}.{name}", path) for name in names})


def _tensor(tensors: dict[str, Tensor], name: str, path: str | Path) -> Tensor:
    if name not in tensors:
        raise UserError(f"{path}: '{name}' is missing; the file holds {', '.join(sorted(tensors)) or 'nothing'}.")
    return tensors[name]


def _makers(header: dict[str, Any], path: str | Path) -> tuple[Provenance, ...]:
    return tuple(from_json(Provenance, one, f"{path}, maker {number}") for number, one in enumerate(header["makers"]))


def _write(path: str | Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(partial, tensors, {"unified_irl": json.dumps({"format": FORMAT, **header})})
        partial.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} could not be written: {error.strerror or error}. Free space or choose another place."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _read(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of a file of the given kind."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; expected a file of {kind} as `unified-irl collect` writes it.")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty; expected a file of {kind} as `unified-irl collect` writes it.")
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        _without_duplicate_keys(file.read(size) if size < path.stat().st_size else b"", path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not a whole safetensors file ({error}); was it cut short, or is it something else?"
        ) from error
    try:
        header = _without_duplicate_keys(metadata.get("unified_irl", ""), path)
        assert isinstance(header, dict)
        assert isinstance(header.get("makers"), list)
    except AssertionError:
        raise UserError(f"{path}: its header does not say who made it; expected a file of '{FORMAT}'.") from None
    if header.get("format") != FORMAT or header.get("kind") != kind:
        given = f"{header.get('kind')} in '{header.get('format')}'"
        raise UserError(f"{path}: holds {given}; expected {kind} in '{FORMAT}'.")
    return tensors, header


def _without_duplicate_keys(text: str | bytes, path: Path) -> Any:
    """The JSON data, None where it is no JSON. Readers differ on which of two equal keys counts, so nobody could know
    what was learnt from: that is refused."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = sorted(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        if twice:
            raise UserError(f"{path}: its header names {', '.join(twice)} twice; expected every key once.")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except UserError:
        raise
    except (ValueError, RecursionError):
        return None  # The callers say what is wrong with it.
