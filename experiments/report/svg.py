"""Figures as SVG text: lines with bands, and dots with intervals. Colours are classes, so that a page can be dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from zlib import crc32

import numpy as np

from experiments.report.inks import colour_of, dash_of

WIDTH, HEIGHT = 440.0, 280.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 12.0, 42.0
ROW = 24.0
Points = Sequence[float] | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a method, with a band where limits are known."""

    method: str
    x: Points
    y: Points
    low: Points = ()
    high: Points = ()
    dash: str | None = None
    """SVG's pattern; by default the method's own."""
    has_end: bool = False
    """Whether a dot stands where it ends."""
    told: str = ""
    """What is said of it when it is pointed at; by default the method's name."""


@dataclass(frozen=True, kw_only=True)
class Dots:
    """A row of dots: every seed, their mean, and its interval. Without seeds it says so in words."""

    method: str
    told: str
    values: Points = ()
    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What stands around the lines."""

    title: str
    """Read out, not drawn."""
    x_label: str
    y_label: str = ""
    guides: dict[float, str] = field(default_factory=dict)
    """Values that deserve a line across, with its name."""


def lines(drawn: Sequence[Line], frame: Frame, methods: Sequence[str]) -> str:
    """A chart of lines. Bands may reach beyond it: few seeds have wide intervals, and would flatten everything else."""
    x_axis = _Axis(*_span([[0.0], *(one.x for one in drawn)]), LEFT, WIDTH - RIGHT)
    low, high = _span([*(one.y for one in drawn), *([list(frame.guides)] if frame.guides else [])])
    room = 0.12 * (high - low)
    y_axis = _Axis(low - room, high + room, HEIGHT - BOTTOM, TOP)
    clip = f"c{crc32(f'{frame.title} {frame.x_label}'.encode()):x}"
    inside = "".join(_line(one, x_axis, y_axis, methods) for one in drawn)
    box = f'x="{LEFT - 5:g}" y="{TOP:g}" width="{WIDTH - LEFT - RIGHT + 10:g}" height="{HEIGHT - TOP - BOTTOM:g}"'
    return _svg(
        HEIGHT,
        frame,
        f'<clipPath id="{clip}"><rect {box}/></clipPath>'
        + _x_ticks(x_axis, HEIGHT - BOTTOM, frame.x_label, HEIGHT)
        + _y_ticks(y_axis, frame)
        + f'<g clip-path="url(#{clip})">{inside}</g>',
    )


def dots(drawn: Sequence[Dots], frame: Frame, methods: Sequence[str]) -> str:
    """A row for each method."""
    left = 14.0 + 6.6 * max((len(one.method) for one in drawn), default=0)
    height = TOP + ROW * len(drawn) + BOTTOM
    low, high = _span([*(one.values for one in drawn), *([list(frame.guides)] if frame.guides else [])])
    room = 0.06 * (high - low)
    axis = _Axis(low - room, high + room, left, WIDTH - RIGHT)
    body = _x_ticks(axis, height - BOTTOM, frame.x_label, height)
    for value in frame.guides:
        body += f'<line class="guide" x1="{axis(value)}" x2="{axis(value)}" y1="{TOP:g}" y2="{height - BOTTOM:g}"/>'
    for place, one in enumerate(drawn):
        body += _dots(one, TOP + ROW * (place + 0.5), axis, methods)
    return _svg(height, frame, body)


class _Axis:
    """From values to places on the paper."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> str:
        share = (float(value) - self.low) / (self.high - self.low)
        return f"{self.start + share * (self.end - self.start):.1f}"

    def ticks(self, most: int) -> list[float]:
        """Round numbers between the ends."""
        rough = (self.high - self.low) / most
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _span(several: Sequence[Points]) -> tuple[float, float]:
    """The least and the greatest, never the same."""
    values = [float(value) for one in several for value in one if math.isfinite(value)] or [0.0]
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _line(one: Line, x_axis: _Axis, y_axis: _Axis, methods: Sequence[str]) -> str:
    known = [place for place in range(len(one.x)) if math.isfinite(one.x[place]) and math.isfinite(one.y[place])]
    if not known:
        return ""
    path = " ".join(f"{x_axis(one.x[place])},{y_axis(one.y[place])}" for place in known)
    band = ""
    sides = [place for place in known if len(one.low) and math.isfinite(one.low[place])]
    if sides:
        upper = [f"{x_axis(one.x[place])},{y_axis(one.high[place])}" for place in sides]
        lower = [f"{x_axis(one.x[place])},{y_axis(one.low[place])}" for place in reversed(sides)]
        band = f'<polygon class="band" points="{" ".join([*upper, *lower])}"/>'
    dash = dash_of(one.method) if one.dash is None else one.dash
    body = band + (f'<polyline points="{path}" stroke-dasharray="{dash}"/>' if len(known) > 1 else "")
    if one.has_end or len(known) == 1:
        body += f'<circle cx="{x_axis(one.x[known[-1]])}" cy="{y_axis(one.y[known[-1]])}" r="3.5"/>'
    return _group(one.method, one.told or one.method, body, methods)


def _dots(one: Dots, y: float, axis: _Axis, methods: Sequence[str]) -> str:
    body = f'<text class="name" x="0" y="{y + 4:g}">{escape(one.method)}</text>'
    if not len(one.values):
        text = f'<text class="failed" x="{axis.start:g}" y="{y + 4:g}">{escape(one.told)}</text>'
        return _group(one.method, one.told, body + text, methods)
    body += "".join(f'<circle class="seed" cx="{axis(value)}" cy="{y:g}" r="3"/>' for value in one.values)
    if math.isfinite(one.low):
        ends = [min(max(end, axis.low), axis.high) for end in (one.low, one.high)]
        body += f'<line class="interval" x1="{axis(ends[0])}" x2="{axis(ends[1])}" y1="{y:g}" y2="{y:g}"/>'
    body += f'<circle cx="{axis(one.mean)}" cy="{y:g}" r="5"/>'
    return _group(one.method, one.told, body, methods)


def _group(method: str, told: str, body: str, methods: Sequence[str]) -> str:
    colour, name = f"m{colour_of(method, methods)}", escape(method)
    return f'<g class="{colour}" data-method="{name}"><title>{escape(told)}</title>{body}</g>'


def _x_ticks(axis: _Axis, floor: float, label: str, height: float) -> str:
    marks = "".join(
        f'<line class="grid" x1="{axis(one)}" x2="{axis(one)}" y1="{TOP:g}" y2="{floor:g}"/>'
        f'<text x="{axis(one)}" y="{floor + 15:g}" text-anchor="middle">{_said(one)}</text>'
        for one in axis.ticks(5)
    )
    middle = (axis.start + axis.end) / 2
    return f'{marks}<text class="label" x="{middle:g}" y="{height - 8:g}" text-anchor="middle">{escape(label)}</text>'


def _y_ticks(axis: _Axis, frame: Frame) -> str:
    body = "".join(
        f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{axis(one)}" y2="{axis(one)}"/>'
        f'<text x="{LEFT - 6:g}" y="{float(axis(one)) + 4:g}" text-anchor="end">{_said(one)}</text>'
        for one in axis.ticks(5)
    )
    for value, name in frame.guides.items():
        y = axis(value)
        body += f'<line class="guide" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y}" y2="{y}"/>'
        body += (
            f'<text class="guided" x="{WIDTH - RIGHT:g}" y="{float(y) - 4:g}" text-anchor="end">{escape(name)}</text>'
        )
    return body


def _said(value: float) -> str:
    """A number on an axis."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}".replace("-", "−") if abs(value) > 1e-12 else "0"


def _svg(height: float, frame: Frame, body: str) -> str:
    label = escape(f"{frame.title}; {frame.y_label} against {frame.x_label}" if frame.y_label else frame.title)
    return f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{label}">{body}</svg>'
