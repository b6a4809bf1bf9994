"""Does the fast update learn as well as Stable-Baselines3's? Learning curves of both, on equal terms.

Same networks, batch, learning rate, temperature tuning, random steps at the start and one update per step; what differs
is the update (in bfloat16 between hidden layers, as the speed is told), the replay and the loop around them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control.sac_config import Precision
from unified_irl.cells import Cell, Outcome
from unified_irl.errors import UserError

STEPS = {"pendulum": 6_000, "inverted-double-pendulum": 30_000, "hopper": 100_000}
"""Simulated steps per task. The double pendulum learns to balance within 15,000 and is given as many again: two seeds
that differ by a thousand steps should not differ by a third of their areas."""
STARTS = {"hopper": 5_000}
FEWEST_STARTS = 500
CONTENDERS = ("ours", "stable-baselines3")


@dataclass(frozen=True, kw_only=True)
class BenchControlParityConfig:
    """How much is compared."""

    tasks: tuple[str, ...] = tuple(STEPS)
    """The tasks."""
    seeds: int = 5
    """Seeds of each contender."""
    share: float = 1.0
    """Of the usual number of steps; for a quick look."""
    hidden: tuple[int, ...] = (256, 256)
    """Units of the layers of actor and critics, of both contenders."""
    precision: Precision = "bfloat16"
    """Of our products between hidden layers; theirs are in float32."""
    num_examinations: int = 20
    """Points of a learning curve."""
    workers: int = 2
    """Cells at the same time."""
    work: str = "runs/control-parity"
    """Where the cells go; the same command again goes on with what is missing."""
    out: str = ""
    """A file for the numbers."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.tasks if name not in STEPS]:
            raise UserError(f"'{unknown[0]}' is not compared here; expected one of {', '.join(STEPS)}.")
        if self.seeds < 1 or self.workers < 1 or self.num_examinations < 2 or not 0.0 < self.share <= 1.0:
            raise UserError("expected seeds and workers of 1 or more, 2 or more examinations and a share in (0, 1].")


def run(config: BenchControlParityConfig, report: Callable[[str], None]) -> dict[str, Any]:
    """The mean score along the curve of every cell, and paired differences."""
    from unified_irl.cells import run_cells

    names = [(task, who, seed) for task in config.tasks for seed in range(config.seeds) for who in CONTENDERS]
    cells = [
        Cell(
            name=f"{task}-{who}-{seed}",
            config={
                "task": task,
                "contender": who,
                "seed": seed,
                "steps": round(STEPS[task] * config.share),
                "hidden": list(config.hidden),
                "num_examinations": config.num_examinations,
            }
            | ({"precision": config.precision} if who == "ours" else {}),
        )
        for task, who, seed in names
    ]

    def told(done: int, count: int, outcome: Outcome) -> None:
        said = f"{outcome.result['area']:.3f}" if outcome.result else f"FAILED: {outcome.failure}"
        report(f"cell {done}/{count}  {outcome.cell.name}  {said}")

    outcomes = run_cells(cells, Path(config.work), learn, num_workers=config.workers, report=told)
    if failed := [outcome for outcome in outcomes if outcome.result is None]:
        raise UserError(f"{failed[0].cell.name} failed: {failed[0].failure} The same command tries again.")
    results = {name: outcome.result for name, outcome in zip(names, outcomes, strict=True)}
    return {task: _compared(task, config.seeds, results, report) for task in config.tasks}


def _compared(
    task: str, num_seeds: int, results: dict[tuple[str, str, int], Any], report: Callable[[str], None]
) -> dict[str, Any]:
    from experiments.summary import shown
    from unified_irl.statistics import mean_interval, paired_difference

    areas = {who: [results[task, who, seed]["area"] for seed in range(num_seeds)] for who in CONTENDERS}
    theirs = mean_interval(areas["stable-baselines3"])
    difference = paired_difference(areas["ours"], areas["stable-baselines3"]).interval
    low, high = (bound / theirs.estimate for bound in (difference.low, difference.high))
    ours = mean_interval(areas["ours"])
    report(f"{task}: area under the curve, ours {shown(ours)}, Stable-Baselines3 {shown(theirs)}")
    report(f"  paired difference {difference.estimate / theirs.estimate:+.1%} [{low:+.1%}, {high:+.1%}] of theirs")
    curves = {who: [results[task, who, seed]["curve"] for seed in range(num_seeds)] for who in CONTENDERS}
    relative = {"estimate": difference.estimate / theirs.estimate, "low": low, "high": high}
    return {"areas": areas, "curves": curves, "difference": relative}


def learn(config: dict[str, Any], path: Path) -> None:
    """One cell: a learning curve, and the mean of its scores."""
    import torch

    from control.config import ControlConfig
    from control.domain import ControlDomain
    from envs.robots.config import PeopleConfig
    from unified_irl.serialise import write_json

    torch.set_num_threads(1)
    nobody = PeopleConfig(num_demonstrations=0, num_preferences=0)
    domain = ControlDomain(ControlConfig(robot=config["task"], people=nobody, num_examined=5), config["seed"])
    terms = (domain, config["seed"], config["steps"], config["hidden"], config["num_examinations"])
    curve = ours(*terms, config["precision"]) if config["contender"] == "ours" else stable_baselines3(*terms)
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "result.json", {"curve": curve, "area": sum(curve) / len(curve)})


def ours(
    domain: Any, seed: int, num_steps: int, hidden: list[int], num_examinations: int, precision: Precision
) -> list[float]:
    from control.acting import actions_of
    from control.ground_truth import TrueSteps
    from control.sac_config import SACConfig
    from control.trainer import Trainer
    from unified_irl.feed import stream

    draw, num_starts = stream(seed, "parity"), starts(domain.config.robot)
    settings = SACConfig(
        hidden=tuple(hidden),
        temperature="auto",
        learning_starts=num_starts,
        precision=precision,
        discount=domain.robot.discount,
        log_std_floor=-20.0,
    )
    simulators = domain.simulators(1)
    trainer = Trainer(simulators[0].env, simulators, settings, draw)
    curve: list[float] = []
    for k in range(1, num_examinations + 1):
        updates = max(0, round(k * num_steps / num_examinations) - num_starts) - trainer.num_updates
        trainer.train(TrueSteps(), 1.0, settings.discount, updates, draw)
        curve.append(examined(domain, actions_of(trainer.sac.actor, trainer.scales, None), seed))
    return curve


def stable_baselines3(domain: Any, seed: int, num_steps: int, hidden: list[int], num_examinations: int) -> list[float]:
    from stable_baselines3 import SAC

    options = {"learning_starts": starts(domain.config.robot), "gamma": domain.robot.discount, "buffer_size": num_steps}
    options |= {"policy_kwargs": {"net_arch": hidden}}
    model = SAC("MlpPolicy", domain.simulators(1)[0].env, seed=seed, device="cpu", **options)
    curve: list[float] = []
    for _ in range(num_examinations):
        model.learn(num_steps // num_examinations, reset_num_timesteps=not curve)
        curve.append(examined(domain, lambda seen: model.predict(seen, deterministic=True)[0], seed))
    return curve


def starts(task: str) -> int:
    return STARTS.get(task, FEWEST_STARTS)


def examined(domain: Any, act: Any, seed: int) -> float:
    """The score of five episodes, the same ones for both contenders and at all times."""
    from envs.robots.rollout import roll_out
    from unified_irl.feed import stream

    episodes = roll_out(act, domain.helpers, domain.config.num_examined, stream(seed, "parity", "examined"))
    returns = [float(episode.rewards.sum()) for episode in episodes]
    return float(domain.score(sum(returns) / len(returns)))
