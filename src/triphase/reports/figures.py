"""The figures of the report: records in, SVG text out. Absent data draws nothing: the callers leave the figure out."""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from triphase.monitoring.metrics import Row
from triphase.monitoring.wording import percent
from triphase.reports.drawing import (
    AMBER,
    BLUE,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    SERIES,
    drawing,
    marker_size,
    whole_steps,
)
from triphase.reports.evaluation import BestOfN, LengthStratified
from triphase.reports.findings import Point, RewardFindings
from triphase.reports.intervals import Interval
from triphase.reports.reward_quality import Reliability

Runs = Mapping[str, list[Row]]
Curve = tuple[list[int], list[float]]


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
    legend: Literal["upper right", "lower right"] = "upper right",
) -> str | None:
    """One figure of a phase over its steps: each step faint, their running mean, and the held-out values."""
    steps, values = curve(rows, metric)
    if not steps:
        return None
    with drawing(name, f"{label} over optimizer steps", height=290) as canvas:
        axes = canvas.axes
        axes.plot(steps, values, color=BLUE, alpha=0.35, linewidth=1)
        axes.plot(steps, _running_mean(values), color=BLUE, label="training, running mean")
        held_steps, held = curve(rows, heldout)
        if held_steps:
            axes.plot(held_steps, held, color=ORANGE, marker="s", linestyle="--", label="held-out")
        for number, (text, level) in enumerate((lines or {}).items()):
            if level is not None:
                axes.axhline(level, color=MUTED, linewidth=1.2, linestyle=("--", ":", "-.")[number % 3], label=text)
        axes.set_ylabel(label)
        whole_steps(axes, "optimizer step")
        axes.legend(loc=legend)
    return canvas.svg


_WHOLE_PERCENTS = 0.05


def run_colors(count: int) -> list[str]:
    """The colors of so many runs in the panels, in order."""
    return [color for color, _ in _styles(count)]


def iteration_panel(name: str, runs: Runs, metric: str, title: str, *, share: bool = False) -> str | None:
    """One metric of PPO over iterations, for all runs."""
    if not any(curve(rows, metric)[0] for rows in runs.values()):
        return None
    with drawing(name, f"{title} over iterations", width=258, height=190) as canvas:
        axes = canvas.axes
        for (color, marker), rows in zip(_styles(len(runs)), runs.values(), strict=True):
            steps, values = curve(rows, metric)
            axes.plot(steps, values, color=color, marker=marker, markersize=marker_size(steps) * 0.7, linewidth=1.5)
        axes.set_title(title)
        if share:
            axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
            axes.set_ylim(bottom=0)
            decimals = 0 if axes.get_ylim()[1] >= _WHOLE_PERCENTS else None  # few percents need a point
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=decimals, symbol=" %"))
        whole_steps(axes, "iteration")
    return canvas.svg


def overoptimization(
    paths: Mapping[str, list[Point]],
    best: Sequence[BestOfN],
    gold_scale: tuple[float, float] | None,
    start: str = "SFT",
) -> str | None:
    """Proxy and gold against √KL. Gold is brought to the proxy's unit where its spread at the start is known."""
    if not any(paths.values()):
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


def _path(axes: Axes, points: Sequence[tuple[float, float]], **style: Any) -> None:
    """The running mean of points along a path, which would be a tangle where the policy stays in one place."""
    axes.plot(*(_running_mean(side) for side in zip(*points, strict=True)), **style)


def win_rates(rates: Mapping[str, Interval], start: str = "the SFT policy") -> str | None:
    """Win rate of each policy against ``start``, with its interval, about the line of no difference."""
    return interval_chart("win-rates", f"Win rate against {start}", rates) if rates else None


def reward_accuracy(reward: RewardFindings) -> str | None:
    """Accuracy between its baseline and its ceiling."""
    if reward.accuracy is None:
        return None
    shown = {"reward model": reward.accuracy}
    if reward.longer_wins:
        shown["“longer wins”"] = reward.longer_wins
    return interval_chart(
        "reward-accuracy",
        "Accuracy on held-out judgments",
        shown,
        even="chance, 50 %",
        label="share of held-out judgments ordered as the labelers did",
        ceiling=reward.noise_ceiling,
    )


def reliability_diagram(found: Reliability) -> str:
    """How sure the reward model is against how often it is right. Bins under ½ mirror those above, and are left out."""
    bins = [each for each in found.bins if each.low >= 0.5 - 1e-9]
    with drawing("reliability", "Predicted against observed probability of preference", height=290) as canvas:
        axes = canvas.axes
        axes.plot([0.5, 1], [0.5, 1], color=MUTED, linestyle="--", linewidth=1.2, label="perfectly calibrated")
        axes.plot(
            [each.predicted for each in bins],
            [each.observed for each in bins],
            color=BLUE,
            marker="o",
            label="reward model",
        )
        for each in bins:
            axes.annotate(
                str(each.count), (each.predicted, each.observed), xytext=(0, -15), textcoords="offset points",
                ha="center", fontsize=10, color=MUTED,
            )  # fmt: skip
        lowest = min([0.5, *(each.observed for each in bins)])
        axes.set_xlim(0.48, 1.02)
        axes.set_ylim(lowest - 0.08, 1.02)
        axes.set_xlabel("predicted probability σ(Δ) of the response it prefers")
        axes.set_ylabel("share of labels that agree")
        axes.legend(loc="upper left")
    return canvas.svg


def gain_by_length(found: LengthStratified, start: str = "SFT") -> str:
    """Mean gold of both policies in bins of equal length."""
    with drawing("gain-by-length", "Mean gold by length of the response", height=290) as canvas:
        axes = canvas.axes
        places = np.arange(len(found.bins))
        sides = (
            (start, MUTED, "s", [each.second_mean for each in found.bins]),
            ("PPO", BLUE, "o", [each.first_mean for each in found.bins]),
        )
        for label, color, marker, values in sides:
            numbers = [np.nan if value is None else value for value in values]
            axes.plot(places, numbers, color=color, marker=marker, markersize=6, label=label)
        axes.set_xticks(places, [_bin_label(each.low, each.high) for each in found.bins])
        for place, each in zip(places, found.bins, strict=True):
            axes.annotate(
                f"{each.second_count} / {each.first_count}", (float(place), 0), xycoords=("data", "axes fraction"),
                xytext=(0, 4), textcoords="offset points", ha="center", fontsize=10, color=MUTED,
            )  # fmt: skip
        axes.margins(x=0.15, y=0.25)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.set_xlabel(f"tokens of the response (samples of {start} / PPO above the axis)")
        axes.set_ylabel("mean gold")
        axes.legend()
    return canvas.svg


def interval_chart(
    name: str,
    description: str,
    shown: Mapping[str, Interval],
    *,
    even: str = "even, 50 %",
    label: str = "win rate",
    ceiling: float | None = None,
) -> str:
    """Shares with their intervals, about the line of no difference."""
    with drawing(name, description, height=max(240, 110 + 42 * len(shown))) as canvas:
        axes = canvas.axes
        axes.axvline(0.5, color=MUTED, linestyle="--", linewidth=1.2)
        axes.annotate(even, (0.5, 1), xycoords=("data", "axes fraction"), xytext=(0, 4), textcoords="offset points",
                      ha="center", color=MUTED, fontsize=11)  # fmt: skip
        if ceiling is not None:
            axes.axvline(ceiling, color=AMBER, linewidth=1.6)
            axes.annotate(f"noise ceiling, {percent(ceiling)}", (ceiling, 1), xycoords=("data", "axes fraction"),
                          xytext=(0, 4), textcoords="offset points", ha="center", color=AMBER, fontsize=11)  # fmt: skip
        for row, interval in enumerate(shown.values()):
            _draw_interval(axes, row, interval, SERIES[row % len(SERIES)][0])
        axes.set_yticks(range(len(shown)), list(shown))
        axes.tick_params(axis="y", colors=INK)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(min([0.4, *(_low(each) - 0.05 for each in shown.values())]), 1.0)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(label)
    return canvas.svg


def _draw_interval(axes: Axes, row: int, interval: Interval, color: str) -> None:
    if interval.low is not None and interval.high is not None:
        axes.plot(
            [interval.low, interval.high], [row, row], color=color, linewidth=3, solid_capstyle="round", alpha=0.5
        )
    axes.plot([interval.value], [row], marker="o", markersize=8, color=color, markeredgecolor=PAPER)
    text, at = percent(interval.value), (interval.value, row)
    axes.annotate(
        text,
        at,
        xytext=(0, -19),
        textcoords="offset points",
        ha="center",
        fontsize=11,
        color=color,
        weight="bold",
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.5},
    )


def _low(interval: Interval) -> float:
    return interval.value if interval.low is None else interval.low


def _bin_label(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"


def _styles(count: int) -> list[tuple[str, str]]:
    return [SERIES[number % len(SERIES)] for number in range(count)]


def _running_mean(values: Sequence[float]) -> list[float]:
    """The mean of each value with its neighbors, more of them the longer the run; narrower at both ends."""
    reach = round(sqrt(len(values)) / 2)
    return [
        float(np.mean(values[at - span : at + span + 1]))
        for at in range(len(values))
        for span in [min(reach, at, len(values) - 1 - at)]
    ]
