"""What people answered, in one file that only grows.

A line is one answer, or one that is taken back. It is on disk before anybody is told that it counts, and a line that a
crash cut off was never counted. An answer belongs to one showing of one query ("17.0": the 17th, not yet taken back),
so that the same answer sent twice, from two windows or by a browser that heard nothing, is one answer.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unified_irl.errors import UserError
from unified_irl.serialise import from_json

CHOICES = ("left", "right", "tie", "skip")
WRITTEN = "written"
Key = tuple[str, str]
"""Who was asked, and the showing."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one person said to one showing of a query."""

    rater: str
    showing: str
    """Which of the rater's queries, and how often it was taken back before."""
    pair: int
    """What was compared, or which prompt was answered."""
    swapped: bool
    """Whether the pair's first side stood on the right."""
    repeat: bool
    """Whether the rater had seen the pair before."""
    said: str
    """left, right, tie, skip; or written, where the answer is a text."""
    text: str = ""
    """What was written."""
    seconds: float
    """How long the query was looked at."""
    at: str
    """When it was answered, in UTC."""

    def __post_init__(self) -> None:
        if self.said not in (*CHOICES, WRITTEN):
            raise UserError(f"'{self.said}' is no answer; expected one of {', '.join(CHOICES)}, {WRITTEN}.")
        if not (math.isfinite(self.seconds) and self.seconds >= 0.0):
            raise UserError(f"seconds is {self.seconds}; expected a finite number of 0 or more.")

    @property
    def key(self) -> Key:
        return self.rater, self.showing

    @property
    def label(self) -> float | None:
        """The probability that the pair's first side is better; None where the rater did not say."""
        if self.said not in ("left", "right", "tie"):
            return None
        return 0.5 if self.said == "tie" else float((self.said == "left") != self.swapped)


class Book:
    """The answers in a file, those that were taken back apart. One process writes at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.was_torn = False
        """Whether the file ended in the middle of a line, which is gone."""
        self.answers: dict[Key, Answer] = {}
        """All that were ever given, in order."""
        self.withdrawn: set[Key] = set()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            for number, line in enumerate(self._whole_lines(), 1):
                self._read(line, f"{path}, line {number}")
        except BaseException:
            self.close()
            raise

    @property
    def standing(self) -> list[Answer]:
        """The answers that nobody took back."""
        return [one for key, one in self.answers.items() if key not in self.withdrawn]

    def add(self, answer: Answer) -> bool:
        """Write it down; False where this showing was answered before, and that answer stands."""
        if answer.key in self.answers:
            return False
        self._append({"answer": asdict(answer)})
        self.answers[answer.key] = answer
        return True

    def withdraw(self, key: Key) -> bool:
        """Take an answer back; False where that was done before."""
        if key not in self.answers or key in self.withdrawn:
            return False
        self._append({"withdrawn": {"rater": key[0], "showing": key[1]}})
        self.withdrawn.add(key)
        return True

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _whole_lines(self) -> list[bytes]:
        """The lines of the file, after its end was mended."""
        held = self.path.read_bytes()
        *lines, rest = held.split(b"\n")
        if rest:
            if _is_table(rest):  # only the line's end is missing
                self._write(b"\n")
                return [*lines, rest]
            self.was_torn = True
            os.ftruncate(self._descriptor, len(held) - len(rest))
            os.fsync(self._descriptor)
        return lines

    def _read(self, line: bytes, where: str) -> None:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and set(row) == {"answer"}:
            answer = from_json(Answer, row["answer"], where)
            self.answers.setdefault(answer.key, answer)
        elif isinstance(row, dict) and set(row) == {"withdrawn"} and isinstance(row["withdrawn"], Mapping):
            self.withdrawn.add((str(row["withdrawn"].get("rater")), str(row["withdrawn"].get("showing"))))
        else:
            raise UserError(f"{where} is no answer as `label` writes it; restore a copy of the file, or drop the line.")

    def _append(self, row: dict[str, Any]) -> None:
        self._write((json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode())

    def _write(self, line: bytes) -> None:
        """It is on disk, whole, when this returns."""
        end = os.fstat(self._descriptor).st_size
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, end)  # no torn line may stand before the next one
            raise UserError(
                f"{self.path} cannot be written: {error.strerror or error}. Mend that, and answer again."
            ) from error


def _is_table(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
