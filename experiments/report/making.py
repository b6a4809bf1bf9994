"""From stored comparisons to the two files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.report.document import document
from experiments.report.page import page
from experiments.report.riches import Film, Speech, films, speeches
from experiments.report.sources import Comparison
from unified_irl.serialise import write_text


def write(
    comparisons: Sequence[Comparison], out: Path, title: str = "", rich: tuple[list[Film], list[Speech]] = ([], [])
) -> None:
    """`out` is the page; the Markdown lies beside it."""
    named = title or "Comparison of methods"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page(named, comparisons, *rich))
    write_text(out.with_suffix(".md"), document(named, comparisons))


def enrich(
    comparisons: Sequence[Comparison], *, with_films: bool, num_prompts: int, tell: Callable[[str], None]
) -> tuple[list[Film], list[Speech]]:
    """Films and completions, as far as they were asked for."""
    filmed = [film for one in comparisons for film in films(one, tell)] if with_films else []
    spoken = [speech for one in comparisons for speech in speeches(one, num_prompts, tell)] if num_prompts else []
    return filmed, spoken
