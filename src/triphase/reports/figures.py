"""The figures of the report: records in, SVG text out. Absent data gives None: the callers leave the figure out."""

from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from triphase.monitoring.metrics import Row
from triphase.reports.drawing import (
    BLUE,
    MUTED,
    ORANGE,
    SERIES,
    drawing,
    marker_size,
    name_of,
    percents,
    whole_steps,
)
from triphase.reports.figure_readouts import Line, Readout, columns, percent_reading, reading
from triphase.reports.findings import Point
from triphase.reports.policy_comparison import BestOfN

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Runs = Mapping[str, list[Row]]
Curve = tuple[list[int], list[float]]
_LONGEST = 22


def curve(rows: Sequence[Row], metric: str) -> Curve:
    """The steps that have ``metric``, and its values."""
    have = [row for row in rows if metric in row]
    return [row["step"] for row in have], [row[metric] for row in have]


def training_curve(
    name: str,
    rows: Sequence[Row],
    metric: str,
    heldout: str,
    label: str,
    *,
    lines: Mapping[str, float | None] | None = None,
) -> str | None:
    """One metric of a phase over its steps: each step faint, their running mean, and the held-out values."""
    steps, values = curve(rows, metric)
    if len(steps) < 2:
        return None
    with drawing(name, f"{label} over optimizer steps", height=290) as canvas:
        axes = canvas.axes
        means = _running_mean(values)
        axes.plot(steps, values, color=BLUE, alpha=0.35, linewidth=1)
        axes.plot(steps, means, color=BLUE, label="training, smoothed")
        held_steps, held = curve(rows, heldout)
        if held_steps:
            axes.plot(held_steps, held, color=ORANGE, marker="s", linestyle="--", label="held-out")
        for number, (text, level) in enumerate((lines or {}).items()):
            if level is not None:
                axes.axhline(level, color=MUTED, linewidth=1.2, linestyle=("--", ":", "-.")[number % 3], label=text)
        axes.set_ylabel(label)
        whole_steps(axes, "optimizer step")
        axes.legend()
        shown = {"": ("blue", steps, values), "mean": ("blue", steps, means), "held-out": ("orange", held_steps, held)}
        canvas.readouts = columns("step", shown)
    return canvas.svg


def run_colors(count: int) -> list[str]:
    """The colors of this many runs in the panels, in order."""
    return [color for color, _ in _styles(count)]


def iteration_panel(name: str, runs: Runs, metric: str, title: str, *, share: bool = False) -> str | None:
    """One metric of PPO over iterations, for all runs; None if no run has two values: one dot is no figure."""
    curves = {name: curve(rows, metric) for name, rows in runs.items()}
    if all(len(steps) < 2 for steps, _ in curves.values()):
        return None
    with drawing(name, f"{title} over iterations", width=258, height=190) as canvas:
        axes = canvas.axes
        for (color, marker), (steps, values) in zip(_styles(len(runs)), curves.values(), strict=True):
            axes.plot(steps, values, color=color, marker=marker, markersize=marker_size(steps) * 0.7, linewidth=1.5)
        axes.set_title(title)
        if share:
            percents(axes.yaxis)
            axes.set_ylim(bottom=0)
        whole_steps(axes, "iteration")
        named = len(curves) > 1
        canvas.readouts = columns(
            "iteration",
            {
                label if named else "": (name_of(color) if named else "", *found)
                for (label, found), (color, _) in zip(curves.items(), _styles(len(curves)), strict=True)
            },
            percent_reading if share else reading,
        )
    return canvas.svg


def overoptimization(
    paths: Mapping[str, list[Point]],
    best: Sequence[BestOfN],
    gold_scale: tuple[float, float] | None,
    start: str = "SFT",
) -> str | None:
    """Proxy and gold against √KL, from the second iteration on. Gold is scaled to the proxy's unit if its spread at
    the start is known."""
    if not any(len(points) > 1 for points in paths.values()):
        return None
    mean, deviation = gold_scale or (0.0, 1.0)
    unit = f"standard deviations of {start} samples" if gold_scale else "score (proxy) and gold, each in its own unit"
    with drawing(
        "overoptimization", "Gold and proxy score against the root of the KL divergence", width=1080, height=420
    ) as canvas:
        axes = canvas.axes
        axes.axhline(0, color=MUTED, linewidth=0.8)
        for (color, marker), (name, points) in zip(_styles(len(paths)), paths.items(), strict=True):
            points = sorted(points, key=lambda point: point.iteration)
            proxy = [(point.root_kl, point.proxy) for point in points]
            gold = [(point.root_kl, (point.gold - mean) / deviation) for point in points if point.gold is not None]
            _path(axes, proxy, color=color, linestyle="--", linewidth=1.3, label=f"{name}: proxy")
            canvas.readouts += _stations(name, name_of(color), points, gold)
            if gold:
                _path(axes, gold, color=color, label=f"{name}: gold")
                axes.plot(
                    *zip(*gold, strict=True), color=color, marker=marker, markersize=3.5, linestyle="none", alpha=0.45
                )
        if len(best) > 1:
            roots = [point.root_kl for point in best]
            axes.plot(roots, [point.proxy for point in best], color=MUTED, linestyle="--", linewidth=1.3)
            scaled = [(point.gold - mean) / deviation for point in best]
            axes.plot(
                roots, scaled, color=MUTED, marker="*", markersize=7, label=f"best of 1 … {best[-1].n} by the proxy"
            )
        axes.set_xlabel("√KL to the reference, √nats per response")
        axes.set_ylabel(unit)
        axes.legend()
    return canvas.svg


def _path(axes: "Axes", points: Sequence[tuple[float, float]], **style: Any) -> None:
    """Draw a path as a running mean: its points would be a tangle while the policy stays in one place."""
    axes.plot(*(_running_mean(side) for side in zip(*points, strict=True)), **style)


def _stations(name: str, color: str, points: Sequence[Point], gold: Sequence[tuple[float, float]]) -> Iterator[Readout]:
    """The tooltip of each iteration of a path."""
    heights = [height for _, height in gold] if len(gold) == len(points) else [None] * len(points)
    for point, height in zip(points, heights, strict=True):
        said = [f"KL {reading(point.root_kl**2)} nats", f"proxy {reading(point.proxy)}"]
        said += [] if height is None else [f"gold {reading(height)}"]
        lines = [Line(color if place == 0 else "", text) for place, text in enumerate(said)]
        title = f"{name[:_LONGEST]} {point.iteration}"
        yield Readout(point.root_kl, point.proxy if height is None else height, title, tuple(lines))


def _styles(count: int) -> list[tuple[str, str]]:
    return [SERIES[number % len(SERIES)] for number in range(count)]


def _running_mean(values: Sequence[float]) -> list[float]:
    """The mean of each value with its neighbors, more of them for longer runs; a narrower window at both ends."""
    reach = round(sqrt(len(values)) / 2)
    return [
        float(np.mean(values[at - span : at + span + 1]))
        for at in range(len(values))
        for span in [min(reach, at, len(values) - 1 - at)]
    ]
