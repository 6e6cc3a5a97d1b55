"""study.html and study.json: variants over seeds and best of n, on one self-contained page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from triphase.records.files import write_atomically, write_json
from triphase.reports.interval_wording import moved, signed
from triphase.reports.intervals import Interval
from triphase.reports.layout import rendered
from triphase.reports.overoptimization import Bounds, Fit
from triphase.reports.sections import Section
from triphase.reports.study import StudyFindings, VariantFindings
from triphase.reports.study_figures import study_figure

FILE_NAME, JSON_NAME = "study.html", "study.json"


def write_study(directory: Path, found: StudyFindings) -> Path:
    """Write the page and the JSON of a study; returns the page's path."""
    write_json(directory / JSON_NAME, plain_study(found))
    path = directory / FILE_NAME
    write_atomically(path, study_page(found))
    return path


def study_page(found: StudyFindings) -> str:
    """The page as HTML."""
    figures = {kind: study_figure(found, kind) for kind in ("gold", "proxy")}
    shown = {kind: Markup(svg) for kind, svg in figures.items() if svg}  # noqa: S704 - text in it is escaped
    contents = (
        Section("verdict", "Findings", "Verdict"),
        Section("end", "At the end, on held-out prompts", "At the end"),
        Section("curves", "Gain against KL", "Curves") if shown else None,
        Section("turns", "Where it peaks", "Where it peaks"),
        Section("method", "How it was measured", "Method"),
    )
    return rendered(
        "study.html.j2",
        dict(
            found=found,
            contents=[each for each in contents if each is not None],
            headline=headline(found),
            figures=shown,
            peak=peak_text,
            bounds=bounds_text,
            height=height_text,
        ),
    )


def headline(found: StudyFindings) -> list[str]:
    """The findings of the study, in sentences."""
    said = [sentence for variant in found.variants for sentence in _peaked(variant)]
    first = found.variants[0].name if found.variants else ""
    for variant in found.variants[1:]:
        over = variant.over_first
        if over is None or over.low is None or over.high is None:
            continue
        if over.low > 0 or over.high < 0:
            better = "above" if over.low > 0 else "below"
            said.append(f"{variant.name} ends {signed(over)} in gold {better} {first}: the interval excludes 0.")
        else:
            said.append(f"{variant.name} against {first}: {signed(over)} in gold, which may be noise.")
    best = found.best_of_n
    if best is not None and (gains := best.gold or best.proxy):
        judge = "gold" if best.gold else "the score that selects it"
        said.append(f"Best of {best.sizes[-1]} without training gains {signed(gains[-1])} in {judge}.")
    return said


def _peaked(variant: VariantFindings) -> list[str]:
    """A sentence if a variant ended below the peak of its fitted form, which it reached, or only lost gold."""
    fit, curve = variant.fit, variant.curve
    if fit is None or curve is None or curve.gold is None:
        return []
    if fit.falls and curve.gold[-1] < 0:
        end = f"it ended with proxy {moved(curve.proxy[-1])} and gold {moved(curve.gold[-1])}"
        return [f"{variant.name} has no peak, since its gold fell from the start: {end}."]
    if not _is_reached(fit):
        return []
    ended, height = curve.gold[-1], fit.height.value or 0.0
    if ended >= height:
        return []
    certain = fit.peak.high is not None and fit.peak.high <= fit.seen
    return [
        f"{variant.name} {'went' if certain else 'may have gone'} past its peak at √KL {peak_text(fit)}: it ended with "
        f"proxy {moved(curve.proxy[-1])} and gold {moved(ended)}, of {moved(height)} at the peak."
    ]


def peak_text(fit: Fit | None) -> str:
    """1.93 (1.70 to 2.31), or that the peak was not reached, so that the data does not determine it, or is none."""
    if fit is None:
        return "–"
    if fit.falls:
        return "none: gold falls"
    if not _is_reached(fit):
        return f"not reached up to {fit.seen:.2f}"
    return bounds_text(fit.peak)


def height_text(fit: Fit) -> str:
    """The gain at a peak that was reached."""
    return bounds_text(fit.height) if _is_reached(fit) else "–"


def _is_reached(fit: Fit) -> bool:
    return fit.peak.value is not None and fit.peak.value <= fit.seen


def bounds_text(bounds: Bounds | None) -> str:
    """1.93 (1.70 to 2.31); a bound that is not finite is open."""
    if bounds is None or bounds.value is None:
        return "–"
    low, high = ("…" if bound is None else f"{bound:.2f}" for bound in (bounds.low, bounds.high))
    return f"{bounds.value:.2f} ({low} to {high})".replace("-", "−")


def plain_study(found: StudyFindings) -> dict[str, Any]:
    """The study as plain values; an unknown value is null."""
    best = found.best_of_n
    return {
        "name": found.name,
        "notes": list(found.notes),
        "variants": [
            {
                "name": each.name,
                "about": each.about,
                "seeds": list(each.seeds),
                "gold_win_rate": _interval(each.win_rate),
                "gold_gain": _interval(each.gold_gain),
                "proxy_gain": _interval(each.proxy_gain),
                "gold_over_first": _interval(each.over_first),
                "reference_kl": _interval(each.reference_kl),
                "mean_length": _interval(each.tokens),
                "curve": None if each.curve is None else _lists(each.curve),
                "fit": _fit(each.fit),
            }
            for each in found.variants
        ],
        "best_of_n": None
        if best is None
        else {
            "n": list(best.sizes),
            "seeds": list(best.seeds),
            "proxy_gain": [_interval(each) for each in best.proxy],
            "gold_gain": [_interval(each) for each in best.gold],
            "curve": _lists(best.curve),
            "fit": _fit(best.fit),
        },
    }


def _lists(curve: Any) -> Mapping[str, Any]:
    return {
        "root_kl": list(curve.root_kl),
        "proxy_gain": list(curve.proxy),
        "gold_gain": None if curve.gold is None else list(curve.gold),
    }


def _fit(fit: Fit | None) -> dict[str, Any] | None:
    if fit is None:
        return None
    figures = ("alpha", "beta", "peak", "height")
    return {"form": fit.form, "seen": fit.seen, **{name: _bounds(getattr(fit, name)) for name in figures}}


def _bounds(bounds: Bounds) -> dict[str, float | None]:
    return {"value": bounds.value, "low": bounds.low, "high": bounds.high}


def _interval(interval: Interval | None) -> dict[str, float | None] | None:
    return {"value": interval.value, "low": interval.low, "high": interval.high} if interval else None
