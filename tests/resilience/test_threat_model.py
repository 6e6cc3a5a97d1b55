"""The threat model is kept true: each threat has its defense and a test that is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def rows() -> list[list[str]]:
    """The tables with a threat, a defense and a test."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8").partition("## Threats")[2].partition("## What is not")[0]
    text = re.sub(r"<!-- lifetimes: begin -->.*<!-- lifetimes: end -->", "", text, flags=re.S)  # has a test of its own
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return [row for row in cells if row[0] != "threat" and not set(row[0]) <= set("-")]


def test_every_threat_has_a_defense_and_a_test_that_exists() -> None:
    found = rows()
    assert len(found) >= 20
    named = False
    for threat, defense, test in found:
        assert defense, threat
        paths = re.findall(r"`(tests/[\w/.]+)`", test)
        assert paths or (test.startswith("the same") and named), threat
        named = True
        for path in paths:
            assert (ROOT / path).exists(), path


def test_the_page_says_what_a_threat_model_must() -> None:
    titles = re.findall(r"^## (.+)$", (ROOT / "SECURITY.md").read_text(encoding="utf-8"), re.M)
    assert titles == [
        "Assets",
        "Actors",
        "Trust boundaries",
        "Threats, defenses and tests",
        "What is not defended",
    ]


def test_security_rules_are_on_for_the_source() -> None:
    """Ruff's S rules hold everywhere in src; each exception stands in its line, with its rule."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    selected = re.search(r"^select = \[(.*)\]$", project, re.M)
    assert selected is not None and '"S"' in selected[1]
    assert not re.search(r'^"src[^"]*" = \[.*"S', project, re.M)
    for path in (ROOT / "src").rglob("*.py"):
        assert not re.search(r"#\s*(ruff|flake8):\s*noqa|#\s*noqa\s*$", path.read_text(encoding="utf-8"), re.M), path
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    check = makefile.partition("\ncheck:")[2].partition("\n\n")[0]
    assert "ruff check ." in check and "tests.audit" in check
