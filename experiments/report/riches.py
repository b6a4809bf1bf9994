"""What a page shows of the first seed of every task and method: films of robots, completions of language models.

Both need the run itself, and are kept beside it once they are made, so that a page interrupted goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.report.sources import Comparison
from experiments.tasks import task as task_named
from unified_irl.errors import UserError
from unified_irl.serialise import read_json, write_json

COMPLETIONS = "report-completions.json"
GONE = "the run's directory is not beside the results"
Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Film:
    """A film of one run, or why there is none."""

    row: dict[str, Any]
    path: Path | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Speech:
    """What the runs of one task say to the same prompts."""

    task: str
    prompts: list[str]
    columns: dict[str, list[dict[str, Any]]]
    """For the start and every method a completion of each prompt, with its rewards."""
    arbiter: str = "true reward"
    """Who says how good a completion is."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Of methods that are missing."""

    @property
    def absences(self) -> list[str]:
        """A sentence for every reason."""
        return [f"No completions of {who}: {why}." for why, who in _by_reason(self.reasons)]


def films(comparison: Comparison, tell: Tell) -> Iterator[Film]:
    """One for every task and method of a comparison of robots."""
    from control.config import ControlConfig

    for row in _first_seeds(comparison):
        if _config_type(row["task"]) is not ControlConfig:
            continue
        cell = comparison.cell(row)
        if why := row["failure"] or ("" if cell else GONE):
            yield Film(row=row, path=None, reason=why)
            continue
        assert cell is not None
        yield _film(row, cell, tell)


def _film(row: dict[str, Any], cell: Path, tell: Tell) -> Film:
    from experiments.report.films import FILE, film

    if not (cell / FILE).is_file():
        tell(f"filming {row['task']} {row['method']}")
    try:
        made = film(cell)
    except UserError as error:
        return Film(row=row, path=None, reason=str(error).rstrip("."))
    return Film(row=row, path=made.path, reason=made.reason.removeprefix("No video: ").rstrip("."))


def why_no_films(filmed: Sequence[Film]) -> list[str]:
    """A sentence for every reason; a task that has no film at all for one of them is named as a whole."""
    reasons: dict[str, set[str]] = {}
    for one in filmed:
        reasons.setdefault(one.row["task"], set()).add(one.reason)
    missing = {
        one.row["task"] if len(reasons[one.row["task"]]) == 1 else f"{one.row['task']} {one.row['method']}": one.reason
        for one in filmed
        if one.path is None
    }
    return [f"No film of {who}: {why}." for why, who in _by_reason(missing)]


def _by_reason(reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    """Every reason once, with all whom it concerns."""
    return [
        (why, ", ".join(who for who, other in reasons.items() if other == why))
        for why in dict.fromkeys(reasons.values())
    ]


def speeches(comparison: Comparison, count: int, tell: Tell) -> Iterator[Speech]:
    """One for every task of a comparison of language models."""
    from llm.config import LanguageConfig

    for task in comparison.tasks:
        kind = _config_type(task)
        if kind is None or not issubclass(kind, LanguageConfig):
            continue
        said, reasons = {}, {}
        for row in _first_seeds(comparison):
            if row["task"] != task:
                continue
            cell = comparison.cell(row)
            if why := row["failure"] or ("" if cell else GONE):
                reasons[row["method"]] = why
                continue
            assert cell is not None
            try:
                said[row["method"]] = completions(cell, count, tell)
            except UserError as error:
                reasons[row["method"]] = str(error)
        yield _side_by_side(task, said, reasons)


def completions(cell: Path, count: int, tell: Tell = lambda _: None) -> dict[str, Any]:
    """Those of a run, from beside it where there are as many."""
    path = cell / COMPLETIONS
    if path.is_file() and (kept := read_json(path))["count"] == count:
        return dict(kept)
    from experiments.language_samples import said

    tell(f"listening to {cell.name}")
    told = {"count": count, **said(cell, "latest", count, 0)}
    write_json(path, told)
    return told


def _side_by_side(task: str, said: dict[str, dict[str, Any]], reasons: dict[str, str]) -> Speech:
    """One column per method; those that were asked something else are left out."""
    if not said:
        return Speech(task=task, prompts=[], columns={}, reasons=reasons)
    first = next(iter(said.values()))
    columns = {"at first": first["speakers"]["at first"]}
    for method, told in said.items():
        if told["prompts"] == first["prompts"]:
            columns[method] = told["speakers"]["now"]
        else:
            reasons[method] = "its task has other prompts"
    return Speech(task=task, prompts=first["prompts"], columns=columns, arbiter=first["arbiter"], reasons=reasons)


def _first_seeds(comparison: Comparison) -> list[dict[str, Any]]:
    """The first seed of every task and method, one that did not fail where there is one."""
    chosen: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(comparison.rows, key=lambda row: (bool(row["failure"]), row["seed"])):
        chosen.setdefault((row["task"], row["method"]), row)
    return [chosen[task, name] for task in comparison.tasks for name in comparison.methods if (task, name) in chosen]


def _config_type(task: str) -> type | None:
    """The kind of world; of tasks that are not known here, none."""
    try:
        return task_named(task.partition(" (")[0]).config
    except UserError:
        return None
