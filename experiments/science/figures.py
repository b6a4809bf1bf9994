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
    centres = []
    for number, (name, fit) in enumerate(slopes.items()):
        own = np.array([[point[x], point[y]] for point in points if point[group] == name])
        at = np.unique(own[:, 0])
        middle = np.array([centre(own[own[:, 0] == one, 1]) for one in at])
        centres.append(np.stack([at, middle]))
        apart = 1.0 + 0.05 * (number - 0.5 * (len(slopes) - 1))
        axes.plot(own[:, 0] * apart, own[:, 1], ".", color=f"C{number}", markersize=3, alpha=0.3, zorder=1)
        label = f"{name}: slope {fit['estimate']:.2f} [{fit['low']:.2f}, {fit['high']:.2f}]".replace("-", "−")
        label = label.replace(name.replace("-", "−"), name)
        axes.plot(at, middle, "o-", color=f"C{number}", markersize=5, linewidth=1.5, label=label)
    at, middle = np.concatenate(centres, axis=1)
    ends = np.array([at.min(), at.max()])
    for number, (exponent, name) in enumerate(references.items()):
        below = 0.6 * (middle / (at / ends[0]) ** exponent).min()
        style = ("--", ":")[number % 2]
        axes.plot(ends, below * (ends / ends[0]) ** exponent, style, color="0.3", linewidth=1.2, label=name)
    axes.set(xscale="log", yscale="log")
    axes.legend(frameon=False, fontsize=8)


def panels(rows: int, columns: int) -> tuple[Any, Any]:
    """A figure of several axes, in the style of the single ones."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    size = (5.2 * columns, 4.0 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, dpi=150, layout="constrained", squeeze=False)
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25)
    return figure, axes
