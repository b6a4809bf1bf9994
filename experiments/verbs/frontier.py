"""frontier DIRECTORY [flags]: what divergence from the start buys in true reward, and what the learnt one believes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments import command


@dataclass(frozen=True, kw_only=True)
class Flags:
    """All language runs and cells below the directory, each a curve through its examinations."""

    out: str = ""
    """Where the plots and the numbers go; by default into the directory."""


def main(arguments: list[str]) -> None:
    (directory,), rest = command.split_words(arguments, ("directory",), "frontier")
    config = command.flags(Flags, rest, "frontier DIRECTORY")
    from experiments.frontier import draw, gather
    from unified_irl.serialise import write_json

    out = Path(config.out or directory)
    runs = gather(Path(directory))
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "frontier.json", {"runs": runs})
    plots = draw(runs, out)
    print(f"runs: {len(runs)}\nnumbers: {out / 'frontier.json'}\nplots: {', '.join(map(str, plots))}")
