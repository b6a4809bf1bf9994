"""One rater before one list of queries: what comes next, what is written down, what is taken back.

Whatever a browser sends names the showing that it answers, so that nothing sent late, twice or from a second window can
answer anything else.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.labelling.agreement import sentences
from experiments.labelling.book import CHOICES, WRITTEN, Answer, Book
from experiments.labelling.config import LabelFlags
from experiments.labelling.material import Material
from experiments.labelling.plan import Showing, showings
from unified_irl.errors import UserError

AHEAD = 3
"""Queries that are made ready before they are looked at."""
MOST_CHARACTERS = 20_000
A_DAY = 86_400.0


class Stale(UserError):
    """An answer to something that is not being asked."""


class Desk:
    """May be asked from several threads; one answer is dealt with at a time."""

    def __init__(
        self, book: Book, plan: Sequence[Showing], material: Material, rater: str, title: str, mode: str
    ) -> None:
        self.book, self.plan, self.material, self.rater, self.title, self.mode = (
            book, plan, material, rater, title, mode
        )  # fmt: skip
        self._lock = threading.Lock()
        self._is_stopped = False
        self._times = Counter(int(key[1].partition(".")[0]) for key in book.answers if key[0] == rater)
        """How often each place of the list was answered, answers that were taken back included."""
        self._given = [one for one in book.standing if one.rater == rater]
        answered = {_place(one.showing) for one in self._given}
        self._open = sorted((place for place in range(len(plan)) if place not in answered), reverse=True)

    @property
    def is_done(self) -> bool:
        return not self._open

    def state(self) -> dict[str, Any]:
        """What the page shows now."""
        with self._lock:
            return self._state()

    def answer(self, showing: str, said: str, seconds: float, text: str = "") -> dict[str, Any]:
        """Write down an answer, unless this showing has one; what the page shows next."""
        with self._lock:
            self._check_open()
            earlier = self.book.answers.get((self.rater, showing))
            if earlier is None:
                self._write(showing, said, seconds, text)
            elif (earlier.said, earlier.text) != (said, _plain(text)):
                return self._state() | {
                    "notice": "That was answered before, in another window; the first answer stands."
                }
            return self._state()

    def undo(self, showing: str) -> dict[str, Any]:
        """Take back the last answer; its query comes again."""
        with self._lock:
            self._check_open()
            key = (self.rater, showing)
            if key not in self.book.withdrawn:
                if not self._given or self._given[-1].showing != showing:
                    raise Stale("Only the last answer can be taken back.")
                self.book.withdraw(key)
                self._given.pop()
                self._open.append(_place(showing))
            return self._state()

    def film(self, showing: str, side: str) -> Path:
        """What stands on that side."""
        place = _place(showing)
        if not (0 <= place < len(self.plan) and side in ("left", "right") and self.material.is_filmed):
            raise Stale("There is no such film.")
        one = self.plan[place]
        return self.material.film(one.pair, int((side == "right") != one.swapped))

    def export(self) -> list[str]:
        """Write the files that methods read."""
        with self._lock:
            return self.material.export(self.book.standing)

    def stop(self) -> None:
        """Take no more answers; one that is being written is written first."""
        with self._lock:
            self._is_stopped = True

    def agreement(self) -> list[str]:
        return sentences(self.book.standing) if self.mode == "compare" else []

    def _check_open(self) -> None:
        if self._is_stopped:
            raise Stale("The server is ending; start it again with the same command.")

    def _write(self, showing: str, said: str, seconds: float, text: str) -> None:
        if showing != self._showing:
            raise Stale("This is not being asked now; the page shows what is.")
        text = _plain(text)
        if said not in ((*CHOICES,) if self.mode == "compare" else (WRITTEN, "skip")):
            raise UserError(f"'{said}' is no answer here.")
        if not math.isfinite(seconds):
            raise UserError("The time taken is no number.")
        if said == WRITTEN and (fault := self._fault(text)):
            raise UserError(fault)
        one = self.plan[self._open[-1]]
        answer = Answer(
            rater=self.rater,
            showing=showing,
            pair=one.pair,
            swapped=one.swapped,
            repeat=one.repeat,
            said=said,
            text=text if said == WRITTEN else "",
            seconds=round(min(max(seconds, 0.0), A_DAY), 3),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self.book.add(answer)
        self._given.append(answer)
        self._times[self._open.pop()] += 1

    def _fault(self, text: str) -> str:
        if not text:
            return "Nothing is written there yet; write an answer, or skip."
        if len(text) > MOST_CHARACTERS:
            return f"The text has {len(text)} characters; expected {MOST_CHARACTERS} at most."
        return self.material.fault(text)

    @property
    def _showing(self) -> str:
        """What is being asked; empty where nothing is."""
        return f"{self._open[-1]}.{self._times[self._open[-1]]}" if self._open else ""

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "title": self.title,
            "rater": self.rater,
            "mode": self.mode,
            "filmed": self.material.is_filmed,
            "answered": len(self.plan) - len(self._open),
            "total": len(self.plan),
            "showing": self._showing,
            "undo": self._given[-1].showing if self._given else "",
            "agreement": self.agreement(),
        }
        if self._open:
            self.material.expect(self.plan[place].pair for place in self._open[-1 : -1 - AHEAD : -1])
            state |= self._query(self.plan[self._open[-1]])
        return state

    def _query(self, one: Showing) -> dict[str, Any]:
        shown = self.material.shown(one.pair)
        query: dict[str, Any] = {"prompt": shown.get("prompt", [])}
        if "sides" in shown:
            left, right = reversed(shown["sides"]) if one.swapped else shown["sides"]
            query |= {"left": left, "right": right}
        if self.mode == "demonstrate":
            query["words"] = list(self.material.words)
        return query


def seated(book: Book, material: Material, source: str, flags: LabelFlags) -> Desk:
    """The rater before their list."""
    plan = showings(len(material), flags.repeats, flags.seed, flags.rater, blind=flags.mode == "compare")
    return Desk(book, plan, material, flags.rater, source, flags.mode)


def _place(showing: str) -> int:
    number = showing.partition(".")[0]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 10 else -1


def _plain(text: str) -> str:
    """As it is kept; halves of characters, which no file takes, become question marks."""
    return text.replace("\r\n", "\n").strip().encode("utf-8", "replace").decode()
