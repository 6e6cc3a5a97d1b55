"""The package has no unused code, and no two classes share a name."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.imports import sources_of

import triphase
from triphase import objectives

PACKAGE = Path(triphase.__file__).parent
PUBLIC = {*triphase.__all__, *objectives.__all__, "read_demonstrations", "read_prompts", "read_preferences"}
"""For others: the library, the objectives, and records as lists."""
CALLED_BY_LIBRARIES = {
    "allocate", "compose_node", "connect_tcp", "connection_lost", "do_GET", "do_HEAD", "emit", "format_ticks",
    "get_route_handler", "handle_error", "handle_exit", "log_message", "on_response_complete", "version_string",
}  # fmt: skip
BY_NAME = ("cli/main.py", "rewards/rule.py", "rewards/registry.py")
"""Files whose texts name functions that are looked up."""
REGISTERING = ("router", "validator", "serializer", "app.")
ONE_NAME = {"Run"}
"""`triphase.Run` for a library's user is a view of a run directory; `runs.session.Run` is the run that is open."""
MANY = 20
"""A function that is named so often is not named by itself alone."""
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def uses_in(node: ast.AST) -> Counter[str]:
    found: Counter[str] = Counter()
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            found[each.id] += 1
        elif isinstance(each, ast.Attribute):
            found[each.attr] += 1
        elif isinstance(each, ast.keyword) and each.arg:
            found[each.arg] += 1
        elif isinstance(each, ast.alias) and each.asname:
            found[each.name] += 1
    return found


def definitions_in(tree: ast.AST) -> Iterator[Definition]:
    for each in ast.walk(tree):
        if isinstance(each, Definition) and not each.name.startswith("__"):
            yield each


def unused_in(sources: Mapping[str, str], texts: str) -> list[str]:
    """Functions, methods and classes whose name stands nowhere outside of their own definition."""
    trees = {name: ast.parse(source) for name, source in sources.items() if ".migrations." not in name}
    total = sum((uses_in(tree) for tree in trees.values()), Counter())
    named = set(re.findall(r"\w+", texts))
    return [
        f"{name}:{each.lineno} {each.name}"
        for name, tree in trees.items()
        for each in definitions_in(tree)
        if total[each.name] < MANY
        and total[each.name] <= uses_in(each)[each.name]
        and each.name not in PUBLIC | CALLED_BY_LIBRARIES | named
        and not any(part in ast.unparse(mark) for mark in each.decorator_list for part in REGISTERING)
    ]


def texts_of_the_package() -> str:
    """Templates and the tables of names, in which functions are looked up."""
    found = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*") if path.suffix in (".html", ".j2")]
    tables = [ast.parse((PACKAGE / name).read_text(encoding="utf-8")) for name in BY_NAME]
    nodes = [node for tree in tables for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return " ".join([*found, *(node.value for node in nodes if isinstance(node.value, str) and "\n" not in node.value)])


def test_nothing_is_there_that_nothing_uses() -> None:
    assert unused_in(sources_of(PACKAGE), texts_of_the_package()) == []


def test_a_planted_function_that_nothing_uses_is_found() -> None:
    planted = (
        "def used(): ...\n\nclass A:\n    def lost(self): self.lost()\n\n    def kept(self): used()\n\nA().kept()\n"
    )
    assert unused_in({"triphase.x": planted}, "") == ["triphase.x:4 lost"]
    assert unused_in({"triphase.x": planted}, "<p>{{ a.lost }}</p>") == []


def classes_of(sources: Mapping[str, str]) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, source in sources.items():
        for each in ast.parse(source).body:
            if isinstance(each, ast.ClassDef) and ".migrations." not in name and not each.name.startswith("_"):
                found[each.name].append(name)
    return found


def test_no_two_classes_share_a_name() -> None:
    shared = {name: homes for name, homes in classes_of(sources_of(PACKAGE)).items() if len(homes) > 1}
    assert set(shared) == ONE_NAME, shared
    assert len(classes_of({"triphase.a": "class X: ...\n", "triphase.b": "class X: ...\n"})["X"]) == 2
