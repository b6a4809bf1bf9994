"""papers [flags]: the papers' claims, with what was measured here of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments import command


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What is written."""

    out: str = ""
    """The page; empty prints the table of verdicts instead."""
    results: str = "experiments/results"
    """The folder of stored results."""


def main(arguments: list[str]) -> int:
    config = command.flags(Flags, arguments, "papers")
    from experiments.claims import verdict
    from experiments.paper_index import CLAIMS, page
    from experiments.show import table
    from unified_irl.serialise import write_text

    results = Path(config.results)
    text = page(results)
    if config.out:
        write_text(Path(config.out), text)
        print(config.out)
        return 0
    lines = [(claim.name, claim.says, verdict(claim, claim.readings(results))) for claim in CLAIMS]
    table("The papers' claims", ("name", "claim", "verdict"), lines)
    return 0
