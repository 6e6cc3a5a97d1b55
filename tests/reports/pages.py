"""One page of each kind, of synthetic numbers, with names and texts of the greatest lengths."""

import shutil
from pathlib import Path
from random import Random

from tests.reports.synthetic import write_run

from triphase.reports.comparison import Compared, ComparisonFindings, by_scores, side_findings
from triphase.reports.comparison_page import write_comparison_page
from triphase.reports.intervals import Interval
from triphase.reports.overoptimization import Bounds, Fit
from triphase.reports.page import write_report
from triphase.reports.policy_comparison import best_of_n_kl
from triphase.reports.runs_page import write_runs_page
from triphase.reports.study import BestOfNFindings, Curve, StudyFindings, VariantFindings
from triphase.reports.study_page import write_study
from triphase.reports.sweep_page import write_sweep_page

LONG = "a-name-of-a-run-that-somebody-has-made-very-long-indeed-and-without-any-blank"


def write_pages(directory: Path) -> dict[str, Path]:
    """Report, comparison, sweep and study; reports of runs that have only begun too."""
    run = write_run(directory / "warm-demo")
    return {
        "report": write_report(run),
        "report of an empty run": write_report(_empty(directory)),
        "report of one iteration": write_report(_begun(run, directory / "begun")),
        "comparison": comparison(directory / "compared"),
        "sweep": sweep(run, directory / "swept"),
        "study": study(directory / "studied"),
        "runs": write_runs_page(directory / "runs.html", [run, directory / "swept" / "kl-1", directory / "begun"]),
    }


def _empty(directory: Path) -> Path:
    empty = directory / "empty"
    empty.mkdir(parents=True)
    return empty


def _begun(run: Path, directory: Path) -> Path:
    shutil.copytree(run, directory)
    shutil.rmtree(directory / "evaluation")
    for metrics in (*directory.glob("*/metrics.jsonl"), *directory.glob("arms/*/metrics.jsonl")):
        metrics.write_text(metrics.read_text().splitlines(keepends=True)[0])
    return directory


def comparison(directory: Path) -> Path:
    """Three sides by two criteria."""
    directory.mkdir(parents=True)
    draw, sides = Random(1), ("runs/warm-demo/sft", "runs/warm-demo/ppo", LONG)
    responses = [
        Compared(
            side, f"p{n}", f"Tell a colleague about number {n}.", 0, f"It is {side} " * draw.randrange(1, 30), True,
            draw.randrange(9, 60), draw.random() * 5,
            {"gold": draw.gauss(place, 1), "reward": draw.gauss(place, 1)},
        )
        for n in range(30)
        for place, side in enumerate(sides)
    ]  # fmt: skip
    asked = {
        "prompts": 30,
        "prompts_from": "held-out prompts of warm-demo",
        "samples": 1,
        "temperature": 1.0,
        "max_response_tokens": 64,
    }
    found = ComparisonFindings(
        tuple(side_findings(responses, side, "newest policy", seed=0) for side in sides),
        tuple(by_scores(responses, sides, name, "of the run", seed=0) for name in ("gold", "reward")),
        (f"{LONG} was cut",),
        asked,
    )
    return write_comparison_page(directory, found, responses)


def sweep(run: Path, directory: Path) -> Path:
    """Three copies of a run."""
    points = {f"kl-{value}": {"ppo.kl_coefficient": value, "ppo.optimizer.learning_rate": LONG} for value in "123"}
    for name in points:
        shutil.copytree(run, directory / name)
    return write_sweep_page(directory, points)


def study(directory: Path) -> Path:
    """Two variants and best of n."""
    directory.mkdir(parents=True)
    level, some = Interval(0.7, 0.6, 0.8, 40), Bounds(1.0, 0.8, None)
    fit = Fit("ppo", some, some, some, Bounds(1.2, 1.0, 1.4), seen=4.0)
    steps = tuple(0.2 * at for at in range(21))
    rising, turning = tuple(0.5 * at for at in steps), tuple(at * (1.0 - 0.25 * at) for at in steps)
    variants = tuple(
        VariantFindings(
            name, f"{LONG}, and more", (0, 1, 2), level, level, level, level, level, level,
            Curve(steps, rising, turning), fit,
        )
        for name in ("none", "a-variant-with-a-long-name")
    )  # fmt: skip
    sizes = (1, 2, 4, 8)
    roots = tuple(best_of_n_kl(n) ** 0.5 for n in sizes)
    curve = Curve(roots, tuple(0.8 * at for at in roots), tuple(0.6 * at for at in roots))
    best = BestOfNFindings(sizes, 8, (0, 1, 2), (level,) * 4, (level,) * 4, curve, fit)
    return write_study(directory, StudyFindings("studied", variants, best, ("one run failed",)))
