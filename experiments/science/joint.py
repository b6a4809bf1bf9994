"""Joint beats separate: aihf against the methods that use one kind of feedback, or one after the other.

Every method gets the same data under the same seed, the same number of descent steps, and its own step size, the best
of an equal grid on seeds that are not used again. Methods with an explicit reward learn it in the given function class
and act by the exact soft-optimal policy; methods without one learn a policy of the same class, and so does the cloning
stage of rlhf. (rlhf sets a fifth of its comparisons aside, to know when to stop fitting its reward.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from envs.walks.config import DemonstratorConfig, WalksConfig
from experiments.compare import commit_of
from experiments.science.joint_config import METHODS, JointConfig
from experiments.tasks import task
from experiments.train import TrainConfig, config_to_json, run_lean_cell
from unified_irl import statistics
from unified_irl.cells import Cell, Outcome, run_cells
from unified_irl.descent_config import DescentConfig
from unified_irl.methods import CLONE, Method, method
from unified_irl.run_config import RunConfig
from unified_irl.tracking import TrackingConfig

STEPS, STEPS_TO_THE_OPTIMUM = 100, 1500
"""Descent steps of every stage of every method; and where free tables are to reach their optimum, as a theorem asks."""
FIRST_TUNING_SEED = 1000
METRICS = ("score", "unseen/score", "kl_expert", "unseen/kl_expert", "demonstration_nll")
EQUAL_BY_THEOREM = (("ml-irl", "bc"), ("aihf", "direct-aihf"))
"""With one free reward per time, goal, node and action these maximise the same likelihood."""


@dataclass(frozen=True)
class Place:
    """One cell of the grid, without method and seed."""

    kind: str
    slips: float
    num_demonstrations: int
    num_preferences: int


def row_of(name: str, kind: str) -> Method:
    """The method as it is run here: equal numbers of descent steps, an exact inner policy."""
    steps = STEPS_TO_THE_OPTIMUM if kind == "free" else STEPS
    row = method(name.removesuffix(" from base"))
    row = replace(row, init="base") if name.endswith("from base") else row
    phases = tuple(
        replace(
            phase,
            rounds=steps if phase.reward_steps else 1,
            policy_updates=WalksConfig().horizon if phase.policy_updates else 0,
            until="rounds" if phase.until == "policy" else phase.until,
            preference_sharpness=WalksConfig().labeller.rationality,
        )
        for phase in row.phases
    )
    row = replace(task("walks").tuned(row), phases=phases)
    if row.init == "clone":
        row = replace(row, warm_start=replace(CLONE, rounds=steps))
    if kind != "free":
        return row
    slowing = DescentConfig(learning_rate=0.1, schedule="cosine", total_steps=steps)
    return replace(row, reward_descent=slowing, policy_descent=slowing)


def cell_config(name: str, place: Place, seed: int, learning_rate: float) -> dict[str, Any]:
    """The run of one method at one place, with what it does not use left out, so that equal runs are equal cells."""
    row = row_of(name, place.kind)
    row = replace(
        row,
        policy_descent=replace(row.policy_descent, learning_rate=row.policy_descent.learning_rate * learning_rate),
        reward_descent=replace(row.reward_descent, learning_rate=row.reward_descent.learning_rate * learning_rate),
    )
    small = {"num_nodes": 8, "horizon": 6} if place.kind == "free" else {}
    world = WalksConfig(
        **small,
        graph_seed=seed,
        demonstrator=DemonstratorConfig(slips=place.slips if row.uses_demonstrations else 0.0),
        num_demonstrations=place.num_demonstrations if row.uses_demonstrations else 0,
        num_preferences=place.num_preferences if row.uses_preferences else 0,
        reward=place.kind,  # type: ignore[arg-type]
    )
    config: TrainConfig[WalksConfig] = TrainConfig(
        task=world,
        method=row,
        seed=seed,
        run=RunConfig(evaluate_every=0),
        tracking=TrackingConfig(progress="quiet"),
    )
    return config_to_json("walks", config)


def places(config: JointConfig) -> Iterator[Place]:
    for kind in config.kinds:
        for slips in config.slips:
            for num_demonstrations in config.num_demonstrations:
                for num_preferences in config.num_preferences:
                    yield Place(kind, slips, num_demonstrations, num_preferences)
    if config.theorem_case:
        middle = (config.num_demonstrations[len(config.num_demonstrations) // 2], config.num_preferences[-1])
        yield Place("free", 0.0, *middle)


def run(config: JointConfig, report: Callable[[str], None]) -> dict[str, Any]:
    """Tune every method, run the grid, and pair everything against the joint method."""
    rates = _tuned_rates(config, report)
    wanted = [
        (name, place, seed, cell_config(name, place, seed, rates[name, place.kind]))
        for place in places(config)
        for name in METHODS
        for seed in range(config.seeds)
    ]
    outcomes = _outcomes(config, [cell for *_, cell in wanted], report)
    rows = []
    for name, place, seed, cell in wanted:
        outcome = outcomes[_name(cell)]
        final = {} if outcome.result is None else outcome.result["final"]
        scores = {metric: round(final[metric], 6) for metric in METRICS if metric in final}
        rows.append({"method": name, **vars(place), "seed": seed, "failure": outcome.failure, **scores})
    summary = [_compared(place, [row for row in rows if _at(row, place)]) for place in places(config)]
    return {
        "learning_rates": [{"method": name, "kind": kind, "multiple": rate} for (name, kind), rate in rates.items()],
        "descent_steps": STEPS,
        "cells_of_commits": sorted({commit_of(one.cell.directory(_root(config))) for one in outcomes.values()}),
        "places": summary,
        "rows": rows,
    }


def _at(row: dict[str, Any], place: Place) -> bool:
    return all(row[key] == value for key, value in vars(place).items())


def _tuned_rates(config: JointConfig, report: Callable[[str], None]) -> dict[tuple[str, str], float]:
    """The multiple of the step size that each method does best with, in the middle of the grid, on tuning seeds."""
    kinds = list(dict.fromkeys(config.kinds))
    middle = len(config.num_demonstrations) // 2
    wanted = {}
    for kind in kinds:
        place = Place(kind, config.slips[0], config.num_demonstrations[middle], config.num_preferences[-1])
        for name in METHODS:
            for rate in config.learning_rates:
                seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + config.tuning_seeds)
                wanted[name, kind, rate] = [cell_config(name, place, seed, rate) for seed in seeds]
    report(f"tuning: {len(wanted)} settings, {config.tuning_seeds} seeds each")
    outcomes = _outcomes(config, [cell for cells in wanted.values() for cell in cells], report)

    def quality(name: str, kind: str, rate: float) -> float:
        results = [outcomes[_name(cell)].result for cell in wanted[name, kind, rate]]
        return sum(-1.0 if result is None else result["final"]["score"] for result in results)

    tuned = {
        (name, kind): max(config.learning_rates, key=lambda rate: quality(name, kind, rate))
        for kind in kinds
        for name in METHODS
    }
    return tuned | {(name, "free"): 1.0 for name in METHODS}


def _name(cell: dict[str, Any]) -> str:
    from unified_irl.serialise import content_hash

    return f"{cell['method']['name']}-{content_hash(cell)}"


def _root(config: JointConfig) -> Path:
    return Path(config.out) / "cells"


def _outcomes(config: JointConfig, wanted: list[dict[str, Any]], report: Callable[[str], None]) -> dict[str, Outcome]:
    """Every distinct run's outcome by its name."""
    cells = {_name(cell): Cell(name=_name(cell), config=cell) for cell in wanted}

    def said(done: int, count: int, outcome: Outcome) -> None:
        if outcome.failure or done % 50 == 0 or done == count:
            report(f"cell {done}/{count} {outcome.failure}")

    outcomes = run_cells(list(cells.values()), _root(config), run_lean_cell, num_workers=config.workers, report=said)
    return {outcome.cell.name: outcome for outcome in outcomes}


def _compared(place: Place, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and paired differences at one place; differences are the joint method's minus the other's."""
    per_seed = {
        name: {metric: {row["seed"]: row[metric] for row in rows if row["method"] == name and metric in row}
               for metric in METRICS}
        for name in METHODS
    }  # fmt: skip
    summary: dict[str, Any] = {**vars(place), "methods": {}}
    others = METHODS[:-1]
    p_values: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for name in METHODS:
        entry: dict[str, Any] = {}
        for metric in METRICS:
            values = per_seed[name][metric]
            seeds = sorted(set(values) & set(per_seed[METHODS[-1]][metric]))
            if not seeds:
                continue
            entry[metric] = _interval(statistics.mean_interval([values[seed] for seed in seeds]))
            if name in others and metric in METRICS[:4]:
                joint = [per_seed[METHODS[-1]][metric][seed] for seed in seeds]
                gap = statistics.paired_difference(joint, [values[seed] for seed in seeds])
                entry[metric]["joint_minus_this"] = _interval(gap.interval) | {"p": gap.p_value}
                p_values[metric].append(gap.p_value)
        summary["methods"][name] = entry
    for metric in METRICS[:4]:
        compared = [name for name in others if metric in summary["methods"][name]]
        if not compared:
            continue
        for name, adjusted in zip(compared, statistics.holm(p_values[metric]), strict=True):
            summary["methods"][name][metric]["joint_minus_this"]["p_holm"] = float(adjusted)
    if place.kind == "free":
        summary["equal_by_theorem"] = [_same_likelihood(first, second, per_seed) for first, second in EQUAL_BY_THEOREM]
    return summary


def _same_likelihood(first: str, second: str, per_seed: dict[str, Any]) -> dict[str, Any]:
    """The paired difference of the demonstrations' negative log-likelihood per decision, in nats."""
    sides = [per_seed[name]["demonstration_nll"] for name in (first, second)]
    seeds = sorted(set(sides[0]) & set(sides[1]))
    gap = statistics.paired_difference(*([side[seed] for seed in seeds] for side in sides))
    return {"first": first, "second": second, "difference": _interval(gap.interval)}


def _interval(interval: statistics.Interval) -> dict[str, float]:
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}


def table(result: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and lines: at every place the mean score of each method, and where aihf wins (+), loses (−) or ties."""
    headings = ("class", "slips", "demos", "prefs", *METHODS)
    lines = []
    for place in result["places"]:
        cells = []
        for name in METHODS:
            score = place["methods"][name].get("score")
            if score is None:
                cells.append("failed")
                continue
            gap = score.get("joint_minus_this")
            sign = "" if gap is None else " +" if gap["low"] > 0 else " −" if gap["high"] < 0 else " ="
            cells.append(f"{score['estimate']:.3f}{sign}")
        lines.append(
            (
                place["kind"],
                f"{place['slips']:g}",
                str(place["num_demonstrations"]),
                str(place["num_preferences"]),
                *cells,
            )
        )
    return headings, lines


def plot(result: dict[str, Any], path: Path) -> None:
    """One panel per class and demonstrator: paired differences of the true score with intervals, by place."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = list(dict.fromkeys((place["kind"], place["slips"]) for place in result["places"]))
    figure, grid = plt.subplots(
        1, len(panels), figsize=(3.4 * len(panels), 5.2), dpi=150, sharex=True, squeeze=False, layout="constrained"
    )
    for axes, (kind, slips) in zip(grid[0], panels, strict=True):
        here = [place for place in result["places"] if (place["kind"], place["slips"]) == (kind, slips)]
        labels = []
        for line, place in enumerate(here):
            labels.append(f"{place['num_demonstrations']} demos\n{place['num_preferences']} prefs")
            for number, name in enumerate(METHODS[:-1]):
                gap = place["methods"][name].get("score", {}).get("joint_minus_this")
                if gap is None:
                    continue
                height = line + (number - 2.5) * 0.13
                axes.plot([gap["low"], gap["high"]], [height, height], color=f"C{number}", linewidth=1.5)
                label = name if line == 0 else None
                axes.plot(gap["estimate"], height, "o", color=f"C{number}", markersize=3.5, label=label)
        axes.axvline(0.0, color="0.3", linewidth=1)
        axes.set(
            yticks=range(len(here)), yticklabels=labels, title=f"{kind}, slips {slips:g}", ylim=(len(here) - 0.5, -0.5)
        )
        axes.tick_params(axis="y", labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.25)
    figure.supxlabel("score of aihf minus score of the other (95 % interval of the paired difference)", fontsize=9)
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=6, frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
