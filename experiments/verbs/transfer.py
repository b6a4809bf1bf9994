"""transfer RUN [flags]: a fresh policy climbs the reward that a run has learnt, there or in another task."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from experiments import command
from unified_irl.errors import UserError

if TYPE_CHECKING:
    from control.domain import ControlDomain
    from experiments.robot_runs import RobotRun
    from unified_irl.cells import Cell, Outcome

HEADINGS = {"learnt": "fresh, learnt reward", "true": "fresh, true reward", "moved": "the run's own, moved"}
DIFFERENCES = {"learnt - true": ("learnt", "true"), "learnt - moved": ("learnt", "moved")}
LEAST_SEEDS = 3
"""An interval from two seeds is so wide that it says nothing."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Does the learnt reward teach? A fresh SAC climbs it, frozen, at the temperature that it was learnt with; another
    climbs the task's true reward, with an automatic temperature; and the run's own policy is put there without
    learning. With a reward of the state alone (trained with `--task.reward.inputs s` on transfer-ant, moved to
    crippled-ant) this is ML-IRL's transfer experiment. The same command again goes on with what is missing."""

    task: str = ""
    """The task: any with the same observations and actions; by default the run's own."""
    which: Literal["latest", "best"] = "latest"
    """The newest checkpoint, or the one with the best score."""
    updates: int = 0
    """Updates of each fresh policy; 0 takes as many as training has in that task."""
    seeds: int = 3
    """Seeds per reward, 0, 1, 2, …; from 3 on there are intervals."""
    workers: int = 2
    """Policies that learn at the same time."""

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.workers < 1 or self.updates < 0:
            raise UserError(
                f"seeds is {self.seeds}, workers {self.workers}, updates {self.updates}; expected 1, 1 and 0 or more."
            )


def main(arguments: list[str]) -> int:
    (run,), rest = command.split_words(arguments, ("run",), "transfer")
    config = command.flags(Flags, rest, "transfer RUN")
    from envs.robots.table import robot

    if config.task:
        robot(config.task)
    from experiments.robot_runs import load_robot_run

    learnt = load_robot_run(Path(run), config.which, "Rewards are moved between robot tasks only; give a run of one.")
    if learnt.reward is None:
        from unified_irl.methods import METHODS

        able = ", ".join(name for name, method in METHODS.items() if method.reward == "explicit")
        raise UserError(
            f"{run} has no learnt reward that could be moved: {learnt.why_no_reward}. Train with one of {able}."
        )
    record = transfer(learnt, config)
    return finish(record, learnt.path / f"transfer-{_as_file(record['task'])}.json")


def transfer(learnt: RobotRun, config: Flags) -> dict[str, Any]:
    """Compute what is missing, and gather everything into one JSON-able record."""
    from control import tuned
    from control.domain import ControlDomain
    from control.transfer import examined, refuse_other_shapes, work
    from experiments.robot_runs import alone
    from experiments.summary import origin
    from unified_irl.cells import run_cells
    from unified_irl.environment import describe_environment

    assert learnt.reward is not None
    task = replace(alone(learnt.config.task), robot=config.task or learnt.robot, learn_from="feedback")
    domain, pace = ControlDomain(task, learnt.config.seed), tuned.pace(task.robot)
    refuse_other_shapes(learnt.reward.model.features, domain, learnt.robot)
    config = replace(config, updates=config.updates or pace.round_ * pace.num_rounds)
    root = learnt.path / f"transfer-{_as_file(task.robot)}"
    cells = cells_of(learnt, domain, config, root)
    outcomes = run_cells(list(cells.values()), root, work, num_workers=config.workers, report=_report)
    rows = [
        {"policy": policy, "seed": seed, "failure": outcome.failure, **(outcome.result or {})}
        for (policy, seed), outcome in zip(cells, outcomes, strict=True)
    ]
    for seed in range(config.seeds):
        rows.append({"policy": "moved", "seed": seed, "failure": "", **examined(learnt.policy, domain, seed)})
    return {
        **origin(describe_environment(command.typed())),
        "run": {"robot": learnt.robot, "method": learnt.config.method.name, "seed": learnt.config.seed,
                "which": learnt.which, "round": learnt.round, "reward_inputs": learnt.config.task.reward.inputs},
        "task": task.robot,
        "updates": config.updates,
        "seeds": config.seeds,
        "temperature": {"learnt": learnt.config.method.beta, "true": "auto"},
        "num_examined": task.num_examined,
        "rows": rows,
        "intervals": {name: _intervals(rows, name) for name in ("return", "score") if name in rows[-1]},
    }  # fmt: skip


def cells_of(learnt: RobotRun, domain: ControlDomain, config: Flags, root: Path) -> dict[tuple[str, int], Cell]:
    """One lesson per reward and seed. The learnt reward lies beside them under the name of its content, so that a
    lesson in the reward of another checkpoint is another lesson."""
    from control.transfer import lesson
    from unified_irl.cells import Cell
    from unified_irl.serialise import to_json

    method, name = learnt.config.method, _saved_reward(learnt, root)
    return {
        (policy, seed): Cell(
            name=f"{policy}-{seed}",
            config=to_json(
                lesson(
                    domain.config,
                    reward=name if policy == "learnt" else "",
                    beta=method.beta,
                    gamma=method.gamma,
                    updates=config.updates,
                    seed=seed,
                    threads=learnt.config.run.threads,
                )
            ),
        )
        for seed in range(config.seeds)
        for policy in ("learnt", "true")
    }


def _saved_reward(learnt: RobotRun, root: Path) -> str:
    """The file's name. The same reward is the same file."""
    import hashlib
    import os

    from control.export_reward import save_reward

    assert learnt.reward is not None
    root.mkdir(exist_ok=True)
    temporary = root / f".{os.getpid()}.safetensors"
    save_reward(temporary, learnt.reward)
    name = f"reward-{hashlib.sha256(temporary.read_bytes()).hexdigest()[:12]}.safetensors"
    temporary.replace(root / name)
    return name


def _report(done: int, count: int, outcome: Outcome) -> None:
    """A line on standard error for every lesson that ends."""
    said = f"return {outcome.result['return']:.1f}" if outcome.result else f"FAILED: {outcome.failure}"
    print(f"cell {done}/{count}  {outcome.cell.name}  {said}", file=sys.stderr, flush=True)


def _intervals(rows: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    """Means, and paired differences, over seeds; none where a lesson failed, since leaving it out would be a claim."""
    from unified_irl.statistics import mean_interval, paired_difference

    columns = {policy: [row.get(metric) for row in rows if row["policy"] == policy] for policy in HEADINGS}
    whole: dict[str, list[Any]] = {policy: column for policy, column in columns.items() if None not in column}
    pairs = {
        name: paired_difference(whole[first], whole[second])
        for name, (first, second) in DIFFERENCES.items()
        if first in whole and second in whole
    }
    means = {policy: asdict(mean_interval(column)) for policy, column in whole.items()}
    return means | {name: {**asdict(one.interval), "p_value": one.p_value} for name, one in pairs.items()}


def finish(record: dict[str, Any], path: Path) -> int:
    """Write the record and show the table. The exit code: 1 if a lesson failed."""
    from experiments.show import table
    from unified_irl.serialise import write_json

    write_json(path, record)
    run, beta = record["run"], record["temperature"]["learnt"]
    table(
        f"{record['task']}: {record['updates']:,} updates under the reward of {run['robot']} {run['method']} "
        f"(seed {run['seed']}, {run['which']}: round {run['round']}; it sees {run['reward_inputs']})\n"
        f"temperature: fixed at {beta:g} under the learnt reward, automatic under the true one\n"
        f"true returns{' (and scores)' if 'score' in record['intervals'] else ''}, acting by the mean of the policy, "
        f"means of {record['num_examined']} episodes",
        ("seed", *HEADINGS.values(), *DIFFERENCES),
        [*_lines(record), *_last_lines(record)],
        numbers_from=1,
    )
    failed = [f"{row['policy']} seed {row['seed']}: {row['failure']}" for row in record["rows"] if row["failure"]]
    for sentence in failed:
        print(f"failed: {sentence}")
    print(f"numbers: {path}")
    return 1 if failed else 0


def _lines(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """One line per seed."""
    lines = []
    for seed in range(record["seeds"]):
        rows = {row["policy"]: row for row in record["rows"] if row["seed"] == seed}
        lines.append((str(seed), *(_cell(rows[policy]) for policy in HEADINGS), *(
            f"{rows[first]['return'] - rows[second]['return']:.1f}"
            if "return" in rows[first] and "return" in rows[second] else "–"
            for first, second in DIFFERENCES.values()
        )))  # fmt: skip
    return lines


def _cell(row: dict[str, Any]) -> str:
    if row["failure"]:
        return "failed"
    return f"{row['return']:.1f}" + (f" ({row['score']:.2f})" if "score" in row else "")


def _last_lines(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """Means over seeds, with 95 % intervals where there are enough of them."""
    enough, lines = record["seeds"] >= LEAST_SEEDS, []
    for metric, digits in (("return", 1), ("score", 2)):
        known = record["intervals"].get(metric)
        if known is not None:
            parts = [known.get(name) for name in (*HEADINGS, *DIFFERENCES)]
            heading = f"mean {metric}{', 95 %' if enough else ''}"
            lines.append((heading, *("–" if part is None else _said(part, digits, enough) for part in parts)))
    return lines


def _said(interval: dict[str, Any], digits: int, enough: bool) -> str:
    spread = f" [{interval['low']:.{digits}f}, {interval['high']:.{digits}f}]" if enough else ""
    return f"{interval['estimate']:.{digits}f}{spread}"


def _as_file(task: str) -> str:
    """gym:ALE/Name-v5 as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", task)
