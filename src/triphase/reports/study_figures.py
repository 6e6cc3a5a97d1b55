"""Gains in gold, or in proxy, against √KL: the paths of variants and best of n, with the forms fitted to them."""

from typing import Literal

import numpy as np

from triphase.records.visible import visible
from triphase.reports.drawing import AMBER, BLUE, GREEN, MUTED, ORANGE, PURPLE, drawing, name_of
from triphase.reports.figure_readouts import Line, Readout, reading
from triphase.reports.study import StudyFindings

_COLORS = (ORANGE, BLUE, GREEN, PURPLE, AMBER)


def study_figure(found: StudyFindings, kind: Literal["gold", "proxy"]) -> str | None:
    """Points are iterations (the mean of all seeds), lines the fitted forms; None without data."""
    drawn = [(each, getattr(each.curve, kind)) for each in found.variants if each.curve is not None]
    drawn = [(each, values) for each, values in drawn if values is not None]
    if not drawn:
        return None
    title = f"Gain in {kind} against the root of the KL divergence"
    with drawing(f"study-{kind}", title, width=540, height=380) as canvas:
        axes = canvas.axes
        axes.axhline(0, color=MUTED, linewidth=0.8)
        for place, (each, values) in enumerate(drawn):
            color = _COLORS[place % len(_COLORS)]
            assert each.curve is not None  # noqa: S101 - only these are drawn
            name = visible(each.name)[:24]
            canvas.readouts += [
                Readout(x, y, f"{name} {at}", (Line(name_of(color), f"KL {reading(x * x)} nats"), Line("", reading(y))))
                for at, (x, y) in enumerate(zip(each.curve.root_kl, values, strict=True), start=1)
            ]
            fitted = kind == "gold" and each.fit is not None
            axes.plot(
                each.curve.root_kl, values, color=color, marker="o", markersize=3, linestyle="none", alpha=0.5,
                label=None if fitted else name,
            )  # fmt: skip
            if fitted and each.fit is not None:
                grid = np.linspace(0, max(each.curve.root_kl), 200)
                axes.plot(grid, [each.fit.at(float(at)) for at in grid], color=color, linewidth=1.8, label=name)
                if each.fit.peak.value is not None and each.fit.peak.value <= max(each.curve.root_kl):
                    axes.axvline(each.fit.peak.value, color=color, linewidth=0.8, linestyle=":")
        best = found.best_of_n
        values = None if best is None else best.curve.gold if kind == "gold" else best.curve.proxy
        if best is not None and values is not None:
            label = f"best of 1 … {best.sizes[-1]}"
            axes.plot(best.curve.root_kl, values, color=MUTED, marker="*", markersize=7, linestyle="none", label=label)
            canvas.readouts += [
                Readout(x, y, f"best of {n}", (Line("muted", f"KL ≤ {reading(x * x)} nats"), Line("", reading(y))))
                for n, x, y in zip(best.sizes, best.curve.root_kl, values, strict=True)
            ]
            if kind == "gold" and best.fit is not None:
                grid = np.linspace(0, max(best.curve.root_kl), 100)
                axes.plot(grid, [best.fit.at(float(at)) for at in grid], color=MUTED, linewidth=1.4)
        axes.set_title("Gold" if kind == "gold" else "Proxy")
        axes.set_xlabel("√KL to the reference, √nats per response")
        axes.set_ylabel("gain, standard deviations of SFT samples")
        axes.legend()
    return canvas.svg
