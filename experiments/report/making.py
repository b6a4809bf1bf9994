"""From stored comparisons to the two files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.report.document import document
from experiments.report.page import page
from experiments.report.riches import Film, Speech, Tell, films, speeches, why_no_films
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


def write_rich(
    comparisons: Sequence[Comparison], out: Path, title: str, tell: Tell, *, with_films: bool, num_prompts: int
) -> list[str]:
    """The same with films and completions, as far as there are any: why some are missing, a sentence each."""
    filmed = [film for one in comparisons if with_films for film in films(one, tell)]
    spoken = [speech for one in comparisons if num_prompts for speech in speeches(one, num_prompts, tell)]
    write(comparisons, out, title, filmed, spoken)
    return [*why_no_films(filmed), *(said for speech in spoken for said in speech.absences)]
