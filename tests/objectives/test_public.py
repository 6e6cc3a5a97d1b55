import ast
import inspect
from pathlib import Path

import pytest

from triphase import objectives

SOURCES = sorted(Path(inspect.getfile(objectives)).parent.glob("*.py"))
PAGE = Path(__file__).parents[2] / "docs" / "objectives.md"


def test_every_public_name_has_its_line_in_the_docs() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in objectives.__all__ if f"`{name}" not in page] == []


def test_every_public_function_and_record_says_what_it_is() -> None:
    for name in objectives.__all__:
        thing = getattr(objectives, name)
        if inspect.isfunction(thing) or inspect.isclass(thing):
            assert inspect.getdoc(thing), name


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_objectives_import_torch_and_one_another_alone(source: Path) -> None:
    allowed = ("torch", "triphase.objectives", "dataclasses", "math", "statistics", "typing", "collections.abc")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert [module for module in modules if not module.startswith(allowed)] == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_files_stay_small(source: Path) -> None:
    assert len(source.read_text(encoding="utf-8").splitlines()) < 250
