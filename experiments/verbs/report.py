"""report DIRECTORY … [flags]: comparisons as one page, with films of robots and completions of language models."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from experiments import command
from unified_irl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Flags:
    """One HTML file that needs no network, and the same tables as Markdown beside it. What takes long is kept beside
    the cells: the same command again goes on with what is missing."""

    out: str = ""
    """The page; by default report.html in the first directory."""
    title: str = ""
    """What stands above it."""
    films: bool = True
    """Whether the first seed of every robot task and method is filmed."""
    completions: int = 8
    """Prompts that the first seed of every language task and method completes; 0 for none."""

    def __post_init__(self) -> None:
        if self.out and Path(self.out).suffix != ".html":
            raise UserError(f"out is {self.out}; expected a name that ends in .html.")
        if self.completions < 0:
            raise UserError(f"completions is {self.completions}; expected 0 or more.")


def main(arguments: list[str]) -> None:
    (first,), rest = command.split_words(arguments, ("directory",), "report")
    end = next((place for place, word in enumerate(rest) if word.startswith("-")), len(rest))
    places = [Path(place) for place in (first, *rest[:end])]
    config = command.flags(Flags, rest[end:], "report DIRECTORY …")
    from experiments.report.making import write_rich
    from experiments.report.sources import gather
    from experiments.show import table
    from experiments.summary import across, headings, summary

    comparisons = gather(places)
    out = Path(config.out) if config.out else comparisons[0].folder / "report.html"
    missing = write_rich(comparisons, out, config.title, _tell, with_films=config.films, num_prompts=config.completions)
    for one in comparisons:
        title = f"{one.name}: means with 95 % intervals; differences are paired, against {one.methods[-1]}"
        table(title, headings(one.record), summary(one.record), numbers_from=2)
    tasks, worlds = across([one.record for one in comparisons])
    if worlds:
        table("final scores, task beside task; ▲ ahead of, ▼ behind the last method", tasks, worlds, numbers_from=1)
    for sentence in missing:
        print(sentence)
    print(f"page: {out}\nthe same as Markdown: {out.with_suffix('.md')}")


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
