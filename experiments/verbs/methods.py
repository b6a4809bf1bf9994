"""methods [--worlds]: the table of methods, or how each of them works in each world."""

from __future__ import annotations

from experiments import command
from unified_irl.methods import METHODS, Method, Phase


def demonstration_column(phase: Phase) -> str:
    if not phase.learns_demonstrations:
        return "–"
    against = (
        ", reference = previous self" if phase.needs_own_samples and phase.demonstration_reference == "previous" else ""
    )
    return {"likelihood": "−log π(demo)", "linear": "linear: R(own) − R(demo)", "pairwise": "−log σ(R(demo) − R(own))"}[
        phase.demonstration
    ] + against


def preference_column(phase: Phase, reward: str) -> str:
    if not phase.learns_preferences:
        return "–"
    against = f", reference = the {phase.preference_reference}" if reward == "implicit" else ""
    asked = f", {phase.queries} asked for per round ({phase.query})" if phase.queries else ""
    return f"Bradley-Terry{against}{asked}"


def inner_column(phase: Phase) -> str:
    return "–" if not phase.policy_updates else f"{phase.policy_updates} updates per round"


def rows(row: Method) -> list[tuple[str, str, str, str, str, str]]:
    """One line per phase of a method: name, phase, demonstrations, preferences, reward, inner step."""
    return [
        (
            row.name if number == 0 else "",
            f"{phase.name}, {'at most ' if phase.until != 'rounds' else ''}{phase.rounds} rounds",
            demonstration_column(phase),
            preference_column(phase, row.reward),
            "–" if row.reward == "none" or (phase.clones and not phase.learns_preferences) else row.reward,
            inner_column(phase),
        )
        for number, phase in enumerate(row.stages)
    ]


def main(arguments: list[str]) -> None:
    asks_for_worlds = arguments == ["--worlds"]
    if not asks_for_worlds:
        command.refuse(arguments, "methods [--worlds]")
    from experiments.show import markdown, table

    if asks_for_worlds:
        from experiments import worlds

        *shown, notes = worlds.table()
        print(markdown(*shown), *notes, sep="\n")
        return
    headings = ("method", "phase", "demonstration term", "preference term", "reward", "policy step")
    table("Methods", headings, [line for row in METHODS.values() for line in rows(row)])
    print("\n".join(f"{row.name:15} {row.summary}" for row in METHODS.values()))
