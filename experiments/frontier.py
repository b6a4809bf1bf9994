"""The KL–gold frontier, and proxy against gold: what runs reached, examination by examination.

Every run is a path from the start: its divergence from the start, the true (gold) reward there, and the reward that it
has learnt itself (the proxy). Where the proxy goes on rising and gold falls, the reward is being over-optimised.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.tuning import TRIES
from unified_irl.errors import UserError
from unified_irl.rundir import LABELS, read_metrics
from unified_irl.serialise import read_json

NAMES = {"kl": "eval/kl_to_start", "gold": "eval/gold", "start_gold": "eval/start_gold", "proxy": "eval/learnt_return"}


def gather(directory: Path) -> list[dict[str, Any]]:
    """The path of every language run below the directory, by the names that comparisons give their methods; what they
    only tried on other seeds is left out."""
    runs = []
    for file in sorted(directory.rglob("metrics.jsonl")):
        if not (file.parent / "config.json").is_file() or TRIES in file.relative_to(directory).parts:
            continue
        if path := path_of(file.parent):
            config = read_json(file.parent / "config.json")
            labels = read_json(file.parent / LABELS) if (file.parent / LABELS).is_file() else {}
            method = labels.get("kind") or config["method"]["name"]
            runs.append({"task": config["task_name"], "method": method, "seed": config["seed"]} | path)
    if not runs:
        raise UserError(
            f"{directory} holds no language run that was examined on its way; give the directory of a run or of a "
            "comparison (and let run.evaluate_every be above 0)."
        )
    return runs


def path_of(run: Path) -> dict[str, list[float | None]]:
    """Divergence and rewards of a run in a language task, examination by examination; nothing for any other run."""
    rows = [row for row in read_metrics(run) if NAMES["kl"] in row and NAMES["gold"] in row]
    return {name: [row.get(key) for row in rows] for name, key in NAMES.items()} if rows else {}


def changes(path: dict[str, list[Any]]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """√KL, and how far gold and the learnt reward have moved there, each in units of its own largest change."""
    distance = np.sqrt(np.clip(np.array(path["kl"], dtype=float), 0.0, None))
    moved = {}
    for name in ("gold", "proxy"):
        value = np.array([np.nan if one is None else one for one in path[name]], dtype=float)
        change = value - (path["start_gold"][0] if name == "gold" else value[0])
        moved[name] = change / (np.nanmax(np.abs(change)) or 1.0)
    return distance, moved


def draw(runs: list[dict[str, Any]], out: Path) -> list[Path]:
    """For each task: gold against KL for all methods; and for each that learns a reward, proxy and gold against √KL."""
    plots = []
    for task in dict.fromkeys(run["task"] for run in runs):
        here = [run for run in runs if run["task"] == task]
        plots.append(_frontier(task, here, out))
        if any(value is not None for run in here for value in run["proxy"]):
            plots.append(_over_optimisation(task, here, out))
    return plots


def _frontier(task: str, runs: list[dict[str, Any]], out: Path) -> Path:
    from experiments.plots import canvas, store

    figure, axes = canvas()
    methods = list(dict.fromkeys(run["method"] for run in runs))
    for run in runs:
        color, is_first = (
            f"C{methods.index(run['method'])}",
            run is next(r for r in runs if r["method"] == run["method"]),
        )
        kl, gold = [0.0, *run["kl"]], [run["start_gold"][0], *run["gold"]]
        axes.plot(kl, gold, color=color, linewidth=1, alpha=0.6, label=run["method"] if is_first else None)
        axes.plot(kl[-1], gold[-1], "o", color=color, markersize=4)
    axes.set(xlabel="KL to the start, nats per completion (k1)", ylabel="true reward", title=task)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return store(figure, out / f"{task}-frontier.png")


def _over_optimisation(task: str, runs: list[dict[str, Any]], out: Path) -> Path:
    """Gold (whole lines) and the learnt reward (dashed), each in units of its own largest change."""
    from experiments.plots import canvas, store

    figure, axes = canvas()
    learning = [run for run in runs if any(value is not None for value in run["proxy"])]
    methods = list(dict.fromkeys(run["method"] for run in learning))
    for run in learning:
        color, is_first = (
            f"C{methods.index(run['method'])}",
            run is next(r for r in learning if r["method"] == run["method"]),
        )
        distance, moved = changes(run)
        for name, style in (("gold", "-"), ("proxy", "--")):
            label = f"{run['method']}, {name}" if is_first else None
            axes.plot(distance, moved[name], style, color=color, linewidth=1, alpha=0.7, label=label)
    axes.set(xlabel="√KL to the start", ylabel="change, of its largest", title=f"{task}: gold and the learnt reward")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return store(figure, out / f"{task}-over-optimisation.png")
