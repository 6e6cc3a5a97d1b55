"""The curves of a run with several seeds: the mean of all, and the band of its 95 % interval."""

from triphase.reports.drawing import drawing, name_of, whole_steps
from triphase.reports.figure_readouts import columns
from triphase.reports.figures import run_colors
from triphase.reports.seeds import SeedFindings
from triphase.reports.tables import policy_name

_TITLES = {
    "ppo/proxy_score": "Proxy score",
    "ppo/gold_score": "Gold score",
    "ppo/reference_kl": "Reference KL, nats per response",
    "ppo/mean_length": "Mean length, tokens",
}


def seed_panels(found: SeedFindings) -> list[str]:
    """One figure for each metric, all variants in it."""
    drawn = []
    for metric, bands in found.bands.items():
        if all(len(band.steps) < 2 for band in bands.values()):
            continue
        title = _TITLES[metric]
        name = f"seeds-{metric.replace('/', '-')}"
        with drawing(name, f"{title} over iterations, mean of all seeds", width=258, height=190) as canvas:
            for color, band in zip(run_colors(len(bands)), bands.values(), strict=True):
                canvas.axes.fill_between(band.steps, band.low, band.high, color=color, alpha=0.18, linewidth=0)
                canvas.axes.plot(band.steps, band.mean, color=color, linewidth=1.5)
            canvas.axes.set_title(title)
            whole_steps(canvas.axes, "iteration")
            colors = [name_of(color) for color in run_colors(len(bands))]
            canvas.readouts = columns(
                "iteration",
                {
                    policy_name(name): (color, band.steps, band.mean)
                    for (name, band), color in zip(bands.items(), colors, strict=True)
                },
            )
        drawn.append(canvas.svg)
    return drawn
