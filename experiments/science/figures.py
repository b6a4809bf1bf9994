"""How the measurements look: every point, their means, and dashed lines of the slopes that theory names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.plots import canvas, store

Centre = Callable[[np.ndarray], float]


def geometric_mean(values: np.ndarray) -> float:
    """The centre to draw where slopes are averaged over seeds: the slope of its logarithm is their average."""
    return float(np.exp(np.log(values).mean()))


def log_log(
    points: Sequence[dict[str, Any]],
    *,
    group: str,
    x: str,
    y: str,
    slopes: dict[str, dict[str, Any]],
    references: dict[float, str],
    labels: tuple[str, str],
    title: str,
    path: Path,
    centre: Centre = geometric_mean,
) -> Path:
    figure, axes = canvas()
    draw_log_log(axes, points, group=group, x=x, y=y, slopes=slopes, references=references, centre=centre)
    axes.set(xlabel=labels[0], ylabel=labels[1], title=title)
    return store(figure, path)


def draw_log_log(
    axes: Any,
    points: Sequence[dict[str, Any]],
    *,
    group: str,
    x: str,
    y: str,
    slopes: dict[str, dict[str, Any]],
    references: dict[float, str],
    centre: Centre = geometric_mean,
) -> None:
    """One colour per group: faint points, their centres on a line, the fitted slope in the legend."""
    everything = np.array([[point[x], point[y]] for point in points])
    for number, (name, fit) in enumerate(slopes.items()):
        own = np.array([[point[x], point[y]] for point in points if point[group] == name])
        at = np.unique(own[:, 0])
        mean = [centre(own[own[:, 0] == one, 1]) for one in at]
        jitter = 1.0 + 0.04 * (number - 0.5 * (len(slopes) - 1))
        axes.plot(own[:, 0] * jitter, own[:, 1], ".", color=f"C{number}", markersize=3, alpha=0.3, zorder=1)
        label = f"{name}: slope {fit['estimate']:.2f} [{fit['low']:.2f}, {fit['high']:.2f}]"
        axes.plot(at, mean, "o-", color=f"C{number}", markersize=5, linewidth=1.5, label=label)
    low, high = everything[:, 0].min(), everything[:, 0].max()
    for number, (exponent, name) in enumerate(references.items()):
        start = 1.6 * everything[everything[:, 0] == low, 1].max()
        ends = np.array([low, high])
        style = ("--", ":")[number % 2]
        axes.plot(ends, start * (ends / low) ** exponent, style, color="0.3", linewidth=1.2, label=name)
    axes.set(xscale="log", yscale="log")
    axes.legend(frameon=False, fontsize=8)
