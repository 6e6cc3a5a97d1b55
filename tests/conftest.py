"""Applied to every test: no network, no user settings, one thread."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Before any library reads them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["COLUMNS"] = "120"
os.environ["NO_COLOR"] = "1"

# The same examples each time, and no clock: a loaded machine makes no test fail.
hypothesis.settings.register_profile("triphase", deadline=None, derandomize=True, max_examples=60)
hypothesis.settings.load_profile("triphase")

ROOT = Path(__file__).parent.parent
_loaded = 0


def pytest_collection_finish() -> None:
    """What the test modules have imported is there from here on."""
    pytest_runtest_logfinish()


def pytest_runtest_logfinish() -> None:
    """Keep the garbage collector from what libraries have made: each phase of each run would look through all of it.

    That is most of the time of a tiny run, and nobody's garbage. Again where many modules have come.
    """
    global _loaded
    if len(sys.modules) > _loaded + 100:
        _loaded = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of embedded models that all tests of this session share, and no user's."""
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "triphase-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIPHASE_CACHE", str(place))
        yield place


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
