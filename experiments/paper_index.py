"""The page of claims: what the papers say, what tests it here, and what came out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from experiments.claims import Claim, verdict
from experiments.claims_joint import INVERSE, JOINT
from experiments.claims_related import RELATED
from experiments.claims_reward import GRID, REWARDS, SIX_TASKS, THEORY
from experiments.evidence import commits_and_hardware, stored
from experiments.show import markdown
from unified_irl.errors import UserError

SECTIONS: dict[str, tuple[Claim, ...]] = {
    "Theory": THEORY,
    "Joint learning: AIHF": JOINT,
    "Rewards from demonstrations: RFT, IRFT and SPIN": REWARDS,
    "Inverse reinforcement learning: ML-IRL": INVERSE,
    "Related papers": RELATED,
}
CLAIMS = tuple(claim for claims in SECTIONS.values() for claim in claims)
PREFACE = """\
# The papers' claims, and what became of them here

Written by `unified-irl papers --out docs/papers.md` from the stored results; no number of ours is typed by hand.

Each claim has its source, the command that tests it, the scale of that test, and what was measured: an estimate with
its 95 % interval over seeds, and whether it speaks for the claim (lies above zero, or at the rate of theory or beyond),
against it, or does not tell. The verdict follows from these readings: **reproduced** where all speak for the claim,
**partly** where some do, **not reproduced** where none does. It holds at the scale named beside it and no other; "by
large margins" is read as "ahead at all", and intervals are not corrected for their number. What the papers did with
large models has entries of its own, and none of that has been run here.
"""
LINK = "../experiments/results"


def page(results: Path) -> str:
    """The whole page, in Markdown."""
    if missing := sorted({one.file for claim in CLAIMS for one in claim.evidence if not (results / one.file).exists()}):
        raise UserError(f"{results} lacks {', '.join(missing)}; give the folder of stored results with --results.")
    parts = [PREFACE, _overview(results)]
    for title, claims in SECTIONS.items():
        parts += [f"## {title}\n", *("\n".join(_entry(claim, results)) + "\n" for claim in claims)]
        if claims is REWARDS:
            parts.append(_grid())
    return "\n".join([*parts, _origins(results)])


def _overview(results: Path) -> str:
    lines = [
        (f"[{claim.name}](#{claim.name})", claim.says, f"**{verdict(claim, claim.readings(results))}**")
        for claim in CLAIMS
    ]
    return markdown(("name", "claim", "verdict"), lines)


def _entry(claim: Claim, results: Path) -> Iterator[str]:
    readings = claim.readings(results)
    yield f"### {claim.name}\n"
    yield f"{claim.says}\n"
    yield f"- Source: {claim.source}"
    if claim.command:
        tested = "Tested by" if readings else "What would test it"
        yield f"- {tested}: `{claim.command}` ({claim.scale})"
    if claim.test:
        yield f"- Held by: `{claim.test}`"
    for one, reading in zip(claim.evidence, readings, strict=True):
        yield f"- Measured: {reading} ([{one.file}]({LINK}/{one.file}))"
    for file in sorted({one.file for one in claim.evidence}):
        yield f"- From: {file}, {commits_and_hardware(results / file)}"
    yield f"- Verdict: **{verdict(claim, readings)}**"
    if claim.remark:
        yield f"- {claim.remark}"


def _grid() -> str:
    lines = [(name, *(f"{value:.2f}" for value in row), "not run") for name, row in GRID.items()]
    return (
        "### The poster's table\n\n"
        "Zephyr-7B after SFT on UltraChat-200k, by the poster; K is two epochs on each part. Run by "
        "`unified-irl bench irft-grid`, examined by `unified-irl harness`.\n\n"
        f"{markdown(('', *SIX_TASKS, 'here'), lines)}"
    )


def _origins(results: Path) -> str:
    files = sorted({one.file for claim in CLAIMS for one in claim.evidence})
    lines = [(f"[{file}]({LINK}/{file})", f"`{_command(results / file)}`") for file in files]
    return f"## The stored results\n\n{markdown(('file', 'command'), lines)}"


def _command(path: Path) -> str:
    command: str = stored(path)["command"]
    return command.replace("|", r"\|")
