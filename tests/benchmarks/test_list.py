"""`make bench` lists every benchmark that a user can run; the one that it runs accepts the options that it passes."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as listing
from benchmarks import generate

OURS = [
    path for path in sorted(Path(generate.__file__).parent.glob("*.py")) if not path.name.startswith(("peer_", "__"))
]
"""All but the sides of peers, which need a peer."""


def test_every_command_is_in_the_list_with_its_meaning() -> None:
    names = {name.removeprefix("benchmarks.") for name in listing.commands()}
    assert {"generate", "ppo", "sft", "reward", "memory", "overhead", "scaling", "quality", "layers"} <= names
    assert not names & {"sides", "ours_ppo", "peer_ppo", "__main__", "curves"}
    assert all(listing.commands().values())


@pytest.mark.parametrize("source", OURS, ids=lambda source: source.stem)
def test_each_module_imports(source: Path) -> None:
    """Types are not checked here, so nothing else notices a function that has moved."""
    importlib.import_module(f"benchmarks.{source.stem}")


def test_the_list_is_printed() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks", "--list"], capture_output=True, text=True, check=True)
    assert "python -m benchmarks.generate\n    Generation compared" in done.stdout and "quick one" not in done.stdout


def test_the_quick_one_runs_with_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    class Began(Exception):
        pass

    def began(cases: object, *, rounds: int) -> None:
        assert rounds == 1
        raise Began

    module, *options = listing.QUICK
    assert module == generate.__name__
    monkeypatch.setattr(generate, "in_turn", began)
    monkeypatch.setattr(sys, "argv", [module, *options])
    with pytest.raises(Began):
        generate.main()
