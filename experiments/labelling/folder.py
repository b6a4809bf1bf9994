"""The folder of one labelling: what was asked for, the queries, the answers, and the files made of them.

The queries are made once and stay: whoever comes back later, or after them, judges the same ones, whatever has become
of the run or the file that they came from.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unified_irl.errors import UserError
from unified_irl.serialise import read_json, write_json, write_text

FORMAT = "unified-irl labelling 1"
HEADER, QUERIES, ANSWERS = "label.json", "queries.jsonl", "answers.jsonl"
Query = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Made:
    """What is shown, as it was made."""

    kind: str
    """'texts' or 'films'."""
    facts: dict[str, Any]
    """What its reader has to know besides the queries."""
    queries: list[Query]


def prepared(folder: Path, source: str, settings: dict[str, Any], make: Callable[[Path], Made]) -> None:
    """See that the folder holds the queries of this source and these settings. It appears when it is whole."""
    if (folder / HEADER).is_file():
        _refuse_others(folder, source, settings)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and holds no labelling; choose another place with --out.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        made = make(partial)
        write_text(partial / QUERIES, "".join(f"{json.dumps(one)}\n" for one in made.queries))
        header = {"format": FORMAT, "source": source, "settings": settings, "kind": made.kind, "facts": made.facts}
        write_json(partial / HEADER, header)
        partial.chmod(0o755)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read(folder: Path) -> Made:
    header = _header(folder)
    lines = (folder / QUERIES).read_text(encoding="utf-8").splitlines()
    return Made(kind=header["kind"], facts=header["facts"], queries=[json.loads(line) for line in lines])


def differences(earlier: dict[str, Any], now: dict[str, Any], prefix: str = "") -> Iterable[str]:
    """The settings that are not the same, by dotted name, with their earlier value."""
    for name in sorted(earlier.keys() | now.keys()):
        one, other = earlier.get(name), now.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from differences(one, other, f"{prefix}{name}.")
        elif one != other:
            yield f"{prefix}{name} (then {one}, now {other})"


def _header(folder: Path) -> dict[str, Any]:
    header = read_json(folder / HEADER)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise UserError(f"{folder / HEADER} is not of '{FORMAT}'; restore a copy, or choose another place with --out.")
    return header


def _refuse_others(folder: Path, source: str, settings: dict[str, Any]) -> None:
    header = _header(folder)
    changed = list(differences({"source": header["source"], **header["settings"]}, {"source": source, **settings}))
    if changed:
        raise UserError(
            f"{folder} holds other queries: {', '.join(changed)}. Go on with the command that began it, or choose "
            "another place with --out."
        )
