"""From stored comparisons to the two files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.report.document import document
from experiments.report.page import page
from experiments.report.riches import Film, Speech
from experiments.report.sources import Comparison
from unified_irl.serialise import write_text


def write(
    comparisons: Sequence[Comparison],
    out: Path,
    title: str = "",
    filmed: Sequence[Film] = (),
    spoken: Sequence[Speech] = (),
) -> None:
    """`out` is the page; the Markdown lies beside it."""
    named = title or "Comparison of methods"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page(named, comparisons, filmed, spoken))
    write_text(out.with_suffix(".md"), document(named, comparisons))
