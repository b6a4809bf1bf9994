"""The claims of the papers as data: who makes them, what tests them here, and which stored numbers answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.evidence import Evidence, Reading

Verdict = Literal["reproduced", "partly", "not reproduced", "not run here", "not measured", "holds by construction"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim, in words of our own."""

    name: str
    """A short name to refer to it by."""
    says: str
    source: str
    """The paper, and the place in it as far as it is known."""
    command: str = ""
    """What tests it here, as it would be typed; empty where nothing can."""
    scale: str = ""
    """How large that test is, beside what the paper did."""
    evidence: tuple[Evidence, ...] = ()
    """Where the measured numbers are read."""
    otherwise: Verdict = "not run here"
    """The verdict where there is no evidence."""
    remark: str = ""
    """Why it was not run, or what to keep in mind."""
    test: str = ""
    """The test that holds it, where it holds by construction."""

    def readings(self, results: Path) -> list[Reading]:
        return [one.read(results) for one in self.evidence]


def verdict(claim: Claim, readings: list[Reading]) -> Verdict:
    """Reproduced where every reading speaks for the claim, not where none does."""
    if not readings:
        return claim.otherwise
    speaking = sum(reading.side == "for" for reading in readings)
    return "reproduced" if speaking == len(readings) else "partly" if speaking else "not reproduced"
