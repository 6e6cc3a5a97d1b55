"""Results of `benchmarks.quality`: a table of both sides, the times to each seed's target, and the plot."""

import json
from pathlib import Path
from typing import Any

from benchmarks.curves import Point, Ratio, middle, ratio_of, reached, smoothed, target_of
from benchmarks.sides import Found, Row, print_table
from triphase.errors import RunError
from triphase.reports.drawing import MUTED, SERIES, drawing

COLUMNS = {
    "iterations": "iterations",
    "minutes": "minutes",
    "last": "last gold",
    "kl": "KL",
    "finished": "finished",
    "tokens": "tokens",
    "peak_gb": "peak GB",
}
NAMES = {"triphase": "triphase", "trl": "trl 1.12"}
Case = tuple[str, str]
"""(side, dtype)."""


def report(out: Path, seeds: list[int], *, target: float | None, plot: Path | None) -> Row:
    """Print what lies in ``out``, draw it where asked, and give the figures of the JSON line.

    Raises:
        RunError: a side of a seed is missing.
    """
    judged = read(out, seeds)
    start = json.loads((out / "sft.json").read_text(encoding="utf-8"))["found"]["gold"]
    curves = {case: [curve_of(start, run) for run in runs] for case, runs in judged.items()}
    print_table(table_of(judged, curves), ["side", "dtype"], COLUMNS)
    ours = next(case for case in curves if case[0] == "triphase")
    found: dict[Case, list[Row]] = {}
    for case in curves:
        if case != ours:
            pairs = zip(seeds, curves[ours], curves[case], strict=True)
            found[case] = [_compare(seed, mine, theirs, start, target) for seed, mine, theirs in pairs]
            _tell(case, found[case])
    ratios = {case: middle([row["ratio"] for row in rows if row["ratio"] is not None]) for case, rows in found.items()}
    if plot is not None:
        draw(curves, found, plot)
    return _figures(judged, start, found, ratios)


def read(out: Path, seeds: list[int]) -> dict[Case, list[Row]]:
    """What was judged, of each side and dtype, in the order of the seeds."""
    names = sorted({path.parent.name.rpartition("-")[0] for path in out.glob("*-seed*/judged.json")})
    found: dict[Case, list[Row]] = {}
    for name in names:
        side, _, dtype = name.partition("-")
        for seed in seeds:
            path = out / f"{name}-seed{seed}" / "judged.json"
            if not path.exists():
                raise RunError(f"{path} is not there yet; measure that seed, or leave it out of --seeds")
            found.setdefault((side, dtype), []).append(json.loads(path.read_text(encoding="utf-8")))
    if {side for side, _ in found} != set(NAMES):
        raise RunError(f"{out} has not both sides yet; give the command without --only-plot")
    return dict(sorted(found.items()))


def curve_of(start: float, run: Row) -> list[Point]:
    """Gold against minutes, from the SFT policy on."""
    return [(0.0, start), *((row["minutes"], row["heldout"]["gold"]) for row in run["rows"])]


def table_of(judged: dict[Case, list[Row]], curves: dict[Case, list[list[Point]]]) -> Found:
    """The end of each run, by side and dtype."""
    return {
        (NAMES[case[0]], case[1]): [
            {
                **{name: round(run["rows"][-1]["heldout"][name], 3) for name in ("kl", "finished", "tokens")},
                "iterations": run["rows"][-1]["iteration"],
                "minutes": round(run["rows"][-1]["minutes"], 2),
                "last": round(smoothed(curve)[-1][1], 3),
                "peak_gb": run["peak_gb"],
            }
            for run, curve in zip(runs, curves[case], strict=True)
        ]
        for case, runs in judged.items()
    }


def _compare(seed: int, ours: list[Point], peer: list[Point], start: float, target: float | None) -> Row:
    if target is None:
        target = target_of(start, ours, peer)
    if target is None:
        return {"seed": seed, "target": None, "ours": None, "peer": None, "ratio": None}
    minutes = {"ours": reached(ours, target), "peer": reached(peer, target)}
    return {"seed": seed, "target": target, **minutes, "ratio": ratio_of(ours, peer, target)}


def _tell(case: Case, rows: list[Row]) -> None:
    def minutes(value: float | None) -> str:
        return "not reached" if value is None else f"{value:.2f} min"

    for row in rows:
        if row["target"] is None:
            print(f"seed {row['seed']}: a side gained nothing over the SFT policy, so there is no target")
            continue
        print(
            f"seed {row['seed']}: gold {row['target']:.3f}: triphase {minutes(row['ours'])}, "
            f"{NAMES[case[0]]} {case[1]} {minutes(row['peer'])}, ratio {row['ratio'] or 'unknown'}"
        )


def _figures(judged: dict[Case, list[Row]], start: float, found: dict[Case, list[Row]], ratios: dict[Case, Any]) -> Row:
    """The peer is judged by its better dtype, the one with the lower ratio."""
    known = [(ratio.value, case) for case, ratio in ratios.items() if ratio is not None]
    best = min(known)[1] if known else None
    ratio: Ratio | None = None if best is None else ratios[best]
    differences = [run["checks"] for case in found for run in judged[case]]
    return {
        "ratio": None if ratio is None else round(ratio.value, 2),
        "ratio_is": None
        if ratio is None
        else {"=": "measured", ">": "a lower bound", "<": "an upper bound"}[ratio.sign],
        "peer_dtype": None if best is None else best[1],
        "sft_gold": round(start, 3),
        "seeds": {
            case[1]: [row | {"ratio": None if row["ratio"] is None else str(row["ratio"])} for row in rows]
            for case, rows in found.items()
        },
        **{name: max(each[name] for each in differences) for name in ("score_difference", "logit_difference")},
        # At the first iteration both sides sample the SFT policy.
        "first_rollouts": {
            "-".join(case): [{name: round(run["rows"][0][name], 3) for name in ("score", "kl")} for run in runs]
            for case, runs in judged.items()
        },
    }


def draw(curves: dict[Case, list[list[Point]]], found: dict[Case, list[Row]], path: Path) -> None:
    """Smoothed gold against minutes, one line a seed, and a dot where a seed's target was reached."""
    colors = {case: color for case, (color, _) in zip(curves, SERIES, strict=False)}
    ours = next(case for case in curves if case[0] == "triphase")
    described = "Held-out gold against minutes of training, one line a seed, ours and the peer's"
    with drawing("quality", described, width=620, height=340) as canvas:
        axes = canvas.axes
        for case, seeds in curves.items():
            for number, points in enumerate(seeds):
                x, y = zip(*smoothed(points), strict=True)
                label = None if number else f"{NAMES[case[0]]}, {case[1]}"
                axes.plot(x, y, color=colors[case], linewidth=1.4, label=label)
        for case, rows in found.items():
            dots = [
                (row[side], row["target"], colors[of]) for row in rows for side, of in (("ours", ours), ("peer", case))
            ]
            for minutes, target, color in dots:
                if minutes is not None:
                    axes.plot(minutes, target, "o", color=color, markersize=6)
        axes.axhline(curves[ours][0][0][1], color=MUTED, linewidth=0.8, linestyle=":", label="SFT policy")
        axes.set(xlabel="minutes of training", ylabel="held-out gold, mean of the last three")
        axes.set_xlim(left=0)
        axes.legend(loc="lower right")
        canvas.figure.savefig(path, facecolor="white", metadata={"Date": None} if path.suffix == ".svg" else None)
