"""A folder imports only from the layers under it; records, store and labeling never bring torch in."""

import ast
import subprocess
import sys
from collections.abc import Iterator
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
