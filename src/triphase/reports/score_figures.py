"""Scores before and after as histograms, the path of score and length over the iterations, and an ensemble's band."""

from collections.abc import Mapping, Sequence

import numpy as np

from triphase.monitoring.metrics import Row
from triphase.reports.drawing import MUTED, SERIES, drawing, name_of, percents, whole_steps
from triphase.reports.figure_readouts import Line, Readout, percent_reading, reading
from triphase.reports.figures import Runs, run_colors

_BINS = 24
_DISAGREEMENT = "ppo/reward_disagreement"


def histogram(name: str, title: str, values: Mapping[str, Sequence[float]]) -> str | None:
    """The shares of values in bins of equal width, one outline for each label, the first in gray; None without two
    values that differ.
    """
    have = {label: np.asarray(each, dtype=np.float64) for label, each in values.items() if len(each)}
    if not have:
        return None
    everything = np.concatenate(list(have.values()))
    if everything.min() == everything.max():
        return None
    edges = np.linspace(everything.min(), everything.max(), _BINS + 1)
    shares = {label: np.histogram(each, edges)[0] / len(each) for label, each in have.items()}
    colors = [MUTED, *(color for color, _ in SERIES)]
    with drawing(name, f"{title}: share of the responses by score", height=290) as canvas:
        axes = canvas.axes
        for place, (label, heights) in enumerate(shares.items()):
            color = colors[place % len(colors)]
            axes.stairs(heights, edges, color=color, linewidth=1.8, label=label, fill=False)
            mean = float(have[label].mean())
            axes.axvline(mean, color=color, linewidth=1, linestyle="--" if place else ":")
        axes.set_xlabel(f"{title} of a response; lines down are means")
        axes.set_ylabel("share of the responses")
        percents(axes.yaxis)
        axes.set_ylim(bottom=0)
        axes.legend()
        canvas.readouts = [
            Readout(
                float(edges[at] + edges[at + 1]) / 2,
                None,
                f"{reading(float(edges[at]))} to {reading(float(edges[at + 1]))}",
                tuple(
                    Line(name_of(colors[place % len(colors)]), f"{label} {percent_reading(float(heights[at]))}")
                    for place, (label, heights) in enumerate(shares.items())
                ),
            )
            for at in range(_BINS)
        ]
    return canvas.svg


def score_and_length(runs: Runs) -> str | None:
    """Mean proxy score against mean length, an iteration a point, a run a path; None without two iterations."""
    paths = {label: _points(rows) for label, rows in runs.items()}
    paths = {label: points for label, points in paths.items() if len(points) > 1}
    if not paths:
        return None
    with drawing("score-and-length", "Mean score against mean length, iteration by iteration", height=290) as canvas:
        axes = canvas.axes
        for color, (label, points) in zip(run_colors(len(paths)), paths.items(), strict=True):
            across, up = [length for _, length, _ in points], [score for _, _, score in points]
            axes.plot(across, up, color=color, linewidth=1, alpha=0.6, label=label)
            axes.plot(across, up, color=color, linestyle="none", marker="o", markersize=2.5, alpha=0.6)
            axes.plot(across[-1:], up[-1:], color=color, linestyle="none", marker="s", markersize=7)
            canvas.readouts += [
                Readout(
                    length,
                    score,
                    f"iteration {step}",
                    (Line(name_of(color), label[:22]), Line("", f"{reading(length)} tokens, score {reading(score)}")),
                )
                for step, length, score in points
            ]
        axes.plot(*([each] for each in next(iter(paths.values()))[0][1:]), color=MUTED, marker="D", markersize=7)
        axes.set_xlabel("mean length, tokens (diamond: the start, square: the end)")
        axes.set_ylabel("mean proxy score")
        axes.legend()
    return canvas.svg


def _points(rows: Sequence[Row]) -> list[tuple[int, float, float]]:
    return [
        (row["step"], row["ppo/mean_length"], row["ppo/proxy_score"])
        for row in rows
        if "ppo/mean_length" in row and "ppo/proxy_score" in row
    ]


def ensemble_band(rows: Sequence[Row]) -> str | None:
    """How much the members of an ensemble disagree: mean and deviation over the responses; None for a single value."""
    have = [row for row in rows if _DISAGREEMENT in row]
    if len(have) < 2:
        return None
    steps = [row["step"] for row in have]
    means = np.array([row[_DISAGREEMENT] for row in have])
    deviations = np.array([row.get(f"{_DISAGREEMENT}_deviation", 0.0) for row in have])
    with drawing("ensemble-band", "Disagreement of the ensemble over iterations", height=290) as canvas:
        axes, color = canvas.axes, run_colors(1)[0]
        axes.axhline(1, color=MUTED, linewidth=1.2, linestyle="--", label="on samples of the reference")
        axes.fill_between(steps, means - deviations, means + deviations, color=color, alpha=0.18, linewidth=0)
        axes.plot(steps, means, color=color, label="on the rollout")
        axes.set_ylabel("disagreement, times the reference's")
        axes.legend()
        whole_steps(axes, "iteration")
        canvas.readouts = [
            Readout(
                step,
                None,
                f"iteration {step}",
                (Line("", reading(float(mean))), Line("", f"± {reading(float(spread))}")),
            )
            for step, mean, spread in zip(steps, means, deviations, strict=True)
        ]
    return canvas.svg
