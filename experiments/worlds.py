"""How each method works in each world, as its tuned row and the world's own note say it. No tensor library here."""

from __future__ import annotations

from experiments.tasks import Task, task
from unified_irl.methods import METHODS, Method

WORLDS = {
    "`walks`": "walks",
    "robots": "halfcheetah",
    "language": "walks-text",
    "files of your own (`hf`)": "hf",
}
"""The worlds, each by one of its tasks."""
MARKS = "¹²³⁴⁵⁶⁷⁸⁹"


def table() -> tuple[tuple[str, ...], list[tuple[str, ...]], list[str]]:
    """Headings, a line for each method, and the notes that its marks point to."""
    worlds = [task(name) for name in WORLDS.values()]
    notes: list[str] = []
    lines = [(f"`{row.name}`", *(_cell(one, row, notes) for one in worlds)) for row in METHODS.values()]
    return ("method", *WORLDS), lines, [f"{MARKS[number]} {note}" for number, note in enumerate(notes)]


def _cell(world: Task, method: Method, notes: list[str]) -> str:
    row = world.tuned(method)
    if row.reward == "none":
        return "clones"
    way = world.climbs if row.reward == "explicit" else "ratios"
    said = f"{way}, from a clone" if row.init == "clone" else way
    if not (note := world.note(row)):
        return said
    if note not in notes:
        notes.append(note)
    return said + MARKS[notes.index(note)]
