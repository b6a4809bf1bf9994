"""Tables for people: in the terminal through rich, in files as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def table(title: str, headings: Sequence[str], lines: Iterable[Sequence[str]], numbers_from: int | None = None) -> None:
    """A table on standard output; columns from `numbers_from` on are aligned right."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title, title_justify="left", header_style="bold")
    for number, heading in enumerate(headings):
        right = numbers_from is not None and number >= numbers_from
        shown.add_column(heading, justify="right" if right else "left")
    for line in lines:
        shown.add_row(*line)
    Console(width=None if _is_terminal() else 160).print(shown)


def _is_terminal() -> bool:
    import sys

    return sys.stdout.isatty()


def markdown(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """The same table for a document."""
    rule = ["---"] * len(headings)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *lines)) + "\n"


def metric_table(title: str, metrics: Mapping[str, float]) -> None:
    table(title, ("metric", "value"), [(name, f"{value:.4f}") for name, value in metrics.items()], numbers_from=1)


def show_result(title: str, result: Mapping[str, Any], path: Path) -> None:
    """The end of a run: its final scores, its best one, and where everything is."""
    metric_table(title, result["final"])
    best = result["best"]
    print(f"best score {best['score']:.4f} in round {best['round']} of {result['rounds']}; {result['seconds']:.1f} s")
    print(f"everything is in {path}")
