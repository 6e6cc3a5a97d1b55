"""Which test files touch a module, the nearest first, read from the imports."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def name_of(path: Path) -> str:
    """The module that a file of `src` or `tests` is."""
    base = ROOT / "src" if path.is_relative_to(ROOT / "src") else ROOT
    return ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")


@cache
def files() -> dict[str, Path]:
    """Every module of the package and of the tests, with its file."""
    return {
        name_of(path): path for folder in ("src/triphase", "tests") for path in sorted((ROOT / folder).rglob("*.py"))
    }


def _imports(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of every import in a file; the name is empty where a module is imported whole."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


@cache
def imported(module: str) -> frozenset[str]:
    """The modules that this one imports; what a package passes on counts as the module that it comes from."""
    found = set()
    for name, part in _imports(files()[module]):
        if f"{name}.{part}" in files():
            found.add(f"{name}.{part}")
        elif name in files() and files()[name].name == "__init__.py" and part:
            origins = [source for source, passed in _imports(files()[name]) if passed == part and source in files()]
            found.update(origins or [name])
        elif name in files():
            found.add(name)
    return frozenset(found - {module})


def distance(start: str, target: str) -> int | None:
    """How many imports lead from one module to another; None where none do."""
    seen, edge, steps = {start}, {start}, 0
    while edge:
        if target in edge:
            return steps
        edge = {name for module in edge for name in imported(module)} - seen
        seen |= edge
        steps += 1
    return None


def tests_of(module: str) -> list[Path]:
    """Test files of the same layer that reach the module, and all that import it; its own first, then the nearest."""
    layer = module.split(".")[1]
    near = []
    for name, path in files().items():
        if not path.name.startswith("test_") or (steps := distance(name, module)) is None:
            continue
        if steps == 1 or path.parent.name == layer:
            near.append((f"test_{module.split('.')[-1]}" != path.stem, path.parent.name != layer, steps, str(path)))
    return [Path(path) for *_, path in sorted(near)]
