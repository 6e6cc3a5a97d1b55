"""A file has at most 300 lines."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MOST_LINES = 300


def source_files() -> list[Path]:
    """All but migrations, which are records of the past and are never rearranged."""
    return sorted(path for path in (ROOT / "src").rglob("*.py") if "versions" not in path.parts)


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT / "src" / "triphase")))
def test_a_source_file_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_the_planner_is_small() -> None:
    """Phases declare what they need; a machine that is not at hand is a task of its own (docs/decisions.md)."""
    paths = (ROOT / "src" / "triphase" / "planning").glob("*.py")
    lines = {path.name: len(path.read_text().splitlines()) for path in paths}
    elsewhere = lines.pop("machine.py") + lines.pop("machine_plan.py")
    assert sum(lines.values()) <= 650 and elsewhere <= 350, lines


def test_no_file_is_named_after_nothing() -> None:
    named = {path.stem for path in source_files()}
    assert not named & {"utils", "util", "helpers", "common", "misc", "core"}
