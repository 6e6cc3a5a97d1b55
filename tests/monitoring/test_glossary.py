"""The declarations, the glossary and docs/metrics.md are one."""

from pathlib import Path

from triphase.monitoring.glossary import METRICS, PHASES, glossary_page

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_page_is_written_from_the_declarations() -> None:
    assert PAGE.read_text(encoding="utf-8") == glossary_page(), (
        "write it anew: python -m triphase.monitoring.glossary docs/metrics.md"
    )


def test_page_has_one_line_for_each_metric_and_no_other() -> None:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in lines] == list(METRICS)
    assert all(len(line.replace("\\|", "").strip("|").split("|")) == 7 for line in lines)


def test_every_metric_says_everything_and_is_declared_once() -> None:
    assert len(METRICS) == sum(len(metrics) for metrics in PHASES.values())
    for phase, metrics in PHASES.items():
        for metric in metrics:
            assert metric.name.startswith(f"{phase}/"), metric.name
            assert all((metric.formula, metric.unit, metric.over, metric.healthy)), metric.name
            assert metric.when is None or metric.when.words, metric.name
