"""experts TASK [flags]: train a task's own experts, resumably, and store three tiers of them with demonstrations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments import command
from unified_irl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Flags:
    """How long, and where to."""

    out: str = ""
    """The run directory; by default runs/experts-TASK. A run that is there goes on."""
    into: str = ""
    """The file of policies and demonstrations; by default where the package looks for them."""
    rounds: int = 0
    """Rounds of the run (for MuJoCo's larger tasks a round is 1,000 updates); 0 takes the usual number."""
    seed: int = 0
    """Seed of the run."""
    episodes: int = 10
    """Demonstrations stored."""
    only_harvest: bool = False
    """Do not train: take what the run has reached so far."""

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.rounds < 0:
            raise UserError(f"episodes is {self.episodes} and rounds {self.rounds}; expected 1 and 0 or more.")


def main(arguments: list[str]) -> None:
    (name,), rest = command.split_words(arguments, ("task",), "experts")
    config = command.flags(Flags, rest, f"experts {name}")
    from envs.robots.snapshots import path_of
    from envs.robots.table import robot
    from experiments.experts import harvest_experts, train_experts
    from experiments.show import metric_table

    bar = robot(name).expert_bar
    path = Path(config.out or f"runs/experts-{name}")
    into = Path(config.into) if config.into else path_of(name)
    if not config.only_harvest:
        train_experts(name, path, config.seed, config.rounds, command.typed())
    told = harvest_experts(name, path, into, config.episodes, command.typed())
    for tier, numbers in told["tiers"].items():
        metric_table(f"{name}, {tier}", numbers)
    reached = told["tiers"]["expert"]["return"]
    print(f"Stored in {into} ({into.stat().st_size / 1e6:.1f} MB).")
    if bar is not None:
        verdict = (
            "reached"
            if reached >= bar
            else "NOT reached yet; the same command goes on with the run until its last round"
        )
        print(f"An expert's return is {bar:,.0f} or more: {verdict} ({reached:,.0f}).")
