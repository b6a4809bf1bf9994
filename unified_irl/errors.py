"""Errors that speak to the person at the keyboard."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The message says what was given, what was expected and how to mend it; the CLI exits 2 with it."""


class Diverged(UserError):
    """A loss or a metric stopped being a usable number; the run ends with its last good checkpoint intact."""


class LostAnother(UserError):
    """This process could go on, but another that shares its work is gone."""


def unknown_name(kind: str, given: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a table, with the nearest ones suggested."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(names)}."
    return UserError(f"There is no {kind} called '{given}'. {hint}")
