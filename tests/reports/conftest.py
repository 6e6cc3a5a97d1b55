"""A finished synthetic run for all tests of the reports; tests that change it use a copy."""

import shutil
from pathlib import Path

import pytest
from tests.reports.synthetic import write_run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "warm-demo")


@pytest.fixture
def run_directory(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "warm-demo"))
