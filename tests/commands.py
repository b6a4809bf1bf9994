"""What commands answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What it complained of, without the frame that tyro draws around it and without line breaks."""
        return re.sub(r"[\s│─╭╮╰╯]+", " ", self.err).strip()


Command = Callable[..., Said]
Refused = Callable[..., str]


def contents(place: Path) -> dict[str, bytes]:
    """Every file, but for the name of the last process in a lock."""
    files = (path for path in place.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path): path.read_bytes() for path in files}
