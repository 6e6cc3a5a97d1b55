"""A folder imports only from the layers under it; records, store and labeling never bring torch in."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "triphase"
LAYERS = (
    ("errors", "settings", "records"),
    ("tokens", "objectives"),
    ("batches", "store"),
    ("models",),
    ("training", "monitoring", "rollouts"),
    ("phases", "labeling", "reports"),
    ("demo",),
    ("datacheck",),
    ("planning",),
    ("runs",),
    ("cli",),
)
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
# Inside the lowest layer: who may import whom.
WITHIN = {("settings", "errors"), ("records", "errors"), ("records", "settings")}
# Inside a folder with rooms, lowest first: a room imports only from itself and from the rooms under it.
ROOMS = {"labeling": (("quality",), ("work",), ("exchange",), ("web", "simulation"))}
# Without cycles between modules, and without imports inside functions.
STRAIGHT = ("labeling",)
OPTIONAL = ("pyarrow",)  # in extras that a user may leave out, so imported where it is used
WITHOUT_TORCH = ("errors", "settings", "records", "store", "labeling")


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of each import, at whatever depth it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def folder_of(name: str) -> str | None:
    """The folder of the package that ``name`` is in; None for other packages and for the package itself."""
    parts = name.split(".")
    return parts[1] if parts[0] == "triphase" and len(parts) > 1 and parts[1] in HEIGHT else None


def is_allowed(importer: str, other: str) -> bool:
    return importer == other or HEIGHT[other] < HEIGHT[importer] or (importer, other) in WITHIN


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def violations(path: Path, source: str) -> list[str]:
    top = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if top in ("__init__", "__main__"):
        return []
    found = []
    for line, name in imported(ast.parse(source)):
        other = folder_of(name)
        if other is not None and not is_allowed(top, other):
            found.append(f"{path.relative_to(PACKAGE)}:{line} imports {name}")
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_folder_imports_only_from_the_layers_under_it(path: Path) -> None:
    assert violations(path, path.read_text()) == []


def test_every_folder_has_its_layer() -> None:
    folders = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in modules()}
    assert folders - {"__init__", "__main__"} <= set(HEIGHT)


def test_a_planted_import_upwards_is_found() -> None:
    planted = "def f():\n    from triphase.training.step import Updater\n"
    assert violations(PACKAGE / "objectives" / "proximal.py", planted) == [
        "objectives/proximal.py:2 imports triphase.training.step.Updater"
    ]
    assert violations(PACKAGE / "training" / "x.py", "import triphase.monitoring.metrics\n") != []
    assert violations(PACKAGE / "settings" / "x.py", "from triphase.records.files import fingerprint\n") != []


def room_violations(path: Path, source: str) -> list[str]:
    """Imports of a room that stands higher, or beside."""
    folder, room, *_ = path.relative_to(PACKAGE).parts
    height = {name: height for height, names in enumerate(ROOMS.get(folder, ())) for name in names}
    if room not in height:
        return []
    found = []
    for line, name in imported(ast.parse(source)):
        parts = name.split(".")
        other = parts[2] if parts[:2] == ["triphase", folder] and len(parts) > 2 else room
        if other != room and height.get(other, len(height)) >= height[room]:
            found.append(f"{path.relative_to(PACKAGE)}:{line} imports {name}")
    return found


@pytest.mark.parametrize("folder", ROOMS)
def test_a_room_imports_only_from_the_rooms_under_it(folder: str) -> None:
    paths = sorted((PACKAGE / folder).rglob("*.py"))
    assert [found for path in paths for found in room_violations(path, path.read_text())] == []
    rooms = {path.relative_to(PACKAGE / folder).parts[0] for path in paths}
    assert rooms - {"__init__.py"} == {name for names in ROOMS[folder] for name in names}


def test_a_planted_import_from_a_higher_room_is_found() -> None:
    planted = "from triphase.labeling.web import guard\n"
    path = PACKAGE / "labeling" / "work" / "plan.py"
    assert room_violations(path, planted) == ["labeling/work/plan.py:1 imports triphase.labeling.web.guard"]
    assert room_violations(PACKAGE / "labeling" / "simulation" / "x.py", planted) != []
    assert room_violations(PACKAGE / "labeling" / "web" / "x.py", planted) == []


def module_name(path: Path) -> str:
    return ".".join(("triphase", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def cycles(sources: Mapping[str, str]) -> list[str]:
    """Modules on an import cycle; imports for type checkers alone count too."""
    reached = {
        module: {other for _, name in imported(ast.parse(source)) for other in (name, name.rpartition(".")[0])}
        & set(sources) - {module}
        for module, source in sources.items()
    }
    for _ in sources:
        further = {module: others.union(*(reached[other] for other in others)) for module, others in reached.items()}
        if further == reached:
            break
        reached = further
    return sorted(module for module, others in reached.items() if module in others)


def inner_imports(source: str) -> list[int]:
    """Lines of imports inside functions, those of optional packages aside."""
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return sorted(
        {line for function in functions for line, name in imported(function) if name.split(".")[0] not in OPTIONAL}
    )


@pytest.mark.parametrize("folder", STRAIGHT)
def test_no_module_is_on_an_import_cycle_and_no_function_imports(folder: str) -> None:
    sources = {module_name(path): path.read_text() for path in (PACKAGE / folder).rglob("*.py")}
    assert cycles(sources) == []
    assert {module: lines for module, source in sources.items() if (lines := inner_imports(source))} == {}


def test_a_planted_cycle_and_a_planted_inner_import_are_found() -> None:
    planted = {"triphase.a": "from triphase import b", "triphase.b": "from triphase.c import x", "triphase.d": ""}
    assert cycles({**planted, "triphase.c": "def f():\n    import triphase.a"}) == [
        "triphase.a",
        "triphase.b",
        "triphase.c",
    ]
    assert cycles({**planted, "triphase.c": "import triphase.d"}) == []
    assert inner_imports("import a\nasync def f():\n    from b import c") == [3]


@pytest.mark.parametrize("folder", WITHOUT_TORCH)
def test_torch_is_not_imported(folder: str) -> None:
    for path in modules():
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") == folder:
            heavy = [name for _, name in imported(ast.parse(path.read_text())) if name.split(".")[0] == "torch"]
            assert heavy == [], path


def test_the_labeling_side_starts_where_torch_cannot_be_imported() -> None:
    names = [
        ".".join(("triphase", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in modules()
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") in WITHOUT_TORCH
        and "versions" not in path.parts
        and path.name != "env.py"
    ]
    names += ["triphase.cli.main", "triphase.cli.actions", "triphase.cli.check", "triphase.cli.label"]
    program = (
        "import importlib, sys\n"
        "for heavy in ('torch', 'transformers', 'peft', 'datasets'): sys.modules[heavy] = None\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
