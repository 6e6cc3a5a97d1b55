"""The figures of judgments: win rates and accuracy with their intervals, calibration, and gold by length."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from triphase.monitoring.wording import percent
from triphase.reports.drawing import AMBER, BLUE, INK, MUTED, PAPER, SERIES, drawing, name_of, percents
from triphase.reports.figure_readouts import Line, Readout, percent_reading, reading
from triphase.reports.findings import RewardFindings
from triphase.reports.intervals import Interval
from triphase.reports.policy_comparison import LengthStratified
from triphase.reports.reward_quality import Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def win_rates(rates: Mapping[str, Interval], start: str = "the SFT policy") -> str | None:
    """Win rate of each policy against ``start``, with its interval; None for a single one: one dot is no figure."""
    return interval_chart("win-rates", f"Win rate against {start}", rates) if len(rates) > 1 else None


def reward_accuracy(reward: RewardFindings) -> str | None:
    """Accuracy between its baseline and its ceiling."""
    if reward.accuracy is None or reward.longer_wins is None:
        return None
    shown = {"reward model": reward.accuracy, "“longer wins”": reward.longer_wins}
    return interval_chart(
        "reward-accuracy",
        "Accuracy on held-out judgments",
        shown,
        even="chance, 50 %",
        label="share of held-out judgments ordered as the labelers did",
        ceiling=reward.noise_ceiling,
    )


def reliability_diagram(found: Reliability) -> str | None:
    """The reward model's confidence against its accuracy. Bins below ½ mirror those above, and are left out."""
    bins = [each for each in found.bins if each.low >= 0.5 - 1e-9]
    if len(bins) < 2:
        return None
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
        percents(axes.xaxis)
        percents(axes.yaxis)
        axes.legend(loc="upper left")
        canvas.readouts = [
            Readout(
                each.predicted,
                each.observed,
                f"{each.count} judgments",
                (
                    Line("", f"sure {percent_reading(each.predicted)}"),
                    Line("", f"right {percent_reading(each.observed)}"),
                ),
            )
            for each in bins
        ]
    return canvas.svg


def gain_by_length(found: LengthStratified, start: str = "SFT") -> str | None:
    """Mean gold of both policies in bins of equal length; None for one bin."""
    if len(found.bins) < 2:
        return None
    from matplotlib.ticker import MaxNLocator

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
        canvas.readouts = [
            Readout(
                float(place),
                None,
                f"{_bin_label(each.low, each.high)} token{'' if each.high == 1 else 's'}",
                tuple(
                    Line(name_of(color), f"{label} {'–' if (value := values[place]) is None else reading(value)}")
                    for label, color, _, values in sides
                ),
            )
            for place, each in enumerate(found.bins)
        ]
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
        percents(axes.xaxis)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(label)
        canvas.readouts = [
            Readout(interval.value, float(row), text, tuple(Line("", each) for each in _interval_lines(interval)))
            for row, (text, interval) in enumerate(shown.items())
        ]
    return canvas.svg


def _interval_lines(interval: Interval) -> Iterator[str]:
    yield percent_reading(interval.value)
    if interval.low is not None and interval.high is not None:
        yield f"95 %: {percent_reading(interval.low)} to {percent_reading(interval.high)}"
    if interval.prompts:
        yield f"{interval.prompts} prompts"


def _draw_interval(axes: "Axes", row: int, interval: Interval, color: str) -> None:
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
