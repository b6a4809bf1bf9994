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
        shown.add_column(heading, justify="right" if right else "left", overflow="fold")
    for line in lines:
        shown.add_row(*line)
    console = Console()
    if not _is_terminal():  # whoever reads a file finds every number in one piece
        console = Console(width=max(160, Console(width=10_000).measure(shown).maximum))
    console.print(shown)


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
    if (lost := forgotten(path, result["final"])) > FORGETTING:
        print(
            f"note: the demonstrations are less likely than they once were in this run, by {lost:.2f} nats a decision"
        )
    print(f"everything is in {path}")


FORGETTING = 0.1
"""Nats per decision from which it is told that the demonstrations are being forgotten, as self-play is known to do."""


def forgotten(path: Path, final: Mapping[str, float]) -> float:
    """How far the likelihood of the demonstrations has fallen since the examination that found it highest."""
    from unified_irl.rundir import read_metrics

    if "demonstration_nll" not in final:
        return 0.0
    seen = [row["eval/demonstration_nll"] for row in read_metrics(path) if "eval/demonstration_nll" in row]
    return float(final["demonstration_nll"] - min(seen, default=final["demonstration_nll"]))
