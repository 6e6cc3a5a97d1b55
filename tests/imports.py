"""The imports of a package, read from its code: of which modules, at which line, and whether inside a function."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One imported name. ``inside``: a function imports it; ``typing``: only the type checker does."""

    line: int
    name: str
    inside: bool
    typing: bool


def imports_of(source: str) -> list[Import]:
    """Every import of a module, at whatever depth it stands."""
    return list(_imports(ast.parse(source), inside=False, typing=False))


def _imports(node: ast.AST, *, inside: bool, typing: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(node.lineno, alias.name, inside, typing) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: relative import"
        yield from (Import(node.lineno, f"{node.module}.{alias.name}", inside, typing) for alias in node.names)
    inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    typing = typing or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, inside=inside, typing=typing)


def sources_of(package: Path) -> dict[str, str]:
    """Dotted name → source of every module under a package."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        name = ".".join((package.name, *path.relative_to(package).with_suffix("").parts))
        found[name.removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return found


def module_of(name: str, modules: Mapping[str, object]) -> str | None:
    """The module that an imported name is, or stands in; None for other packages."""
    if name in modules:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in modules else None


def graph_of(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Module → the modules that it imports, at whatever depth; what only the type checker imports is left out."""
    graph: dict[str, set[str]] = {}
    for name, source in sources.items():
        found = (module_of(each.name, sources) for each in imports_of(source) if not each.typing)
        graph[name] = {other for other in found if other is not None and other != name}
    return graph


def cycles_of(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The sets of modules that import one another in a circle (strongly connected components, by reachability)."""
    reached = {name: reachable(name, graph) for name in graph}
    found = {frozenset(o for o in reached[name] if name in reached[o]) for name in graph if name in reached[name]}
    return sorted(sorted(members) for members in found)


def reachable(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    """The modules that importing one brings in; itself only where it stands in a cycle."""
    found: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph.get(name, ())
    return found


def imported_at_start(sources: Mapping[str, str], heavy: frozenset[str]) -> set[str]:
    """The modules that bring a heavy package in as soon as they are imported."""
    graph: dict[str, set[str]] = {}
    for name, source in sources.items():
        graph[name] = set()
        for each in imports_of(source):
            if not each.inside and not each.typing:
                top = each.name.partition(".")[0]
                other = top if top in heavy else module_of(each.name, sources)
                graph[name] |= {other} if other else set()
    return {name for name in graph if reachable(name, graph) & heavy}
