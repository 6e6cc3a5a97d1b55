"""Results that a change has made stale: they are set aside, so that none is shown with newer ones."""

from pathlib import Path

from triphase.monitoring.sums import forget

_RESULTS = ("summary.json", "report.html")
_EVALUATION = "evaluation"


def has_results(run: Path) -> bool:
    """Whether the summary and the report of a run exist; they are removed when a phase starts again."""
    return all((run / name).is_file() for name in _RESULTS)


def remove_results(run: Path) -> None:
    """Remove the summary and the report, which the next evaluation, or `triphase report`, writes again."""
    for name in _RESULTS:
        (run / name).unlink(missing_ok=True)


def set_evaluation_aside(run: Path) -> Path | None:
    """Set the evaluation aside. Returns its new path; None if there was none."""
    remove_results(run)
    folder = run / _EVALUATION
    if not folder.is_dir():
        return None
    number = 1
    while (aside := run / f"{_EVALUATION}-before-{number}").exists():
        number += 1
    names = [f"{_EVALUATION}/{path.name}" for path in folder.iterdir()]
    folder.rename(aside)
    forget(run, names)
    return aside
