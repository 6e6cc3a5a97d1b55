"""Small faults of a module: a changed operator, comparison, constant, sign or statement."""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Pow: ast.Mult, ast.Mod: ast.FloorDiv,
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
NAMES = {
    "minimum": "maximum", "maximum": "minimum", "min": "max", "max": "min", "any": "all", "all": "any",
    "exp": "expm1", "mean": "sum",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault: the lines of the statement that it stands in, what was there, and what stands there now.

    Attributes:
        line: of the fault. lines: all lines of the smallest statement around it; of one with a body, its head alone.
        when_imported: whether it stands in no function's body, and so is executed when the module is imported.
        build: gives the whole module with the fault.
    """

    line: int
    before: str
    after: str
    build: Callable[[], str]
    lines: range = range(0)
    when_imported: bool = False

    @property
    def source(self) -> str:
        """The whole module with the fault."""
        return self.build()


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its nodes."""
    tree = ast.parse(source)
    skipped, places = _typing_and_text(tree), dict(_places(tree, range(0), True))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        for change in _changes(node):
            twin = copy.deepcopy(node)
            change(twin)
            lines, when_imported = places[node]
            build = partial(_faulty, tree, node, change)
            yield Mutant(getattr(node, "lineno", 0), ast.unparse(node), _shown(twin), build, lines, when_imported)


def _faulty(tree: ast.AST, node: ast.AST, change: Callable[..., None]) -> str:
    """The module with one node changed; the tree is as before afterwards."""
    sound = node.__dict__
    node.__dict__ = copy.deepcopy(sound)
    try:
        change(node)
        return ast.unparse(tree)
    finally:
        node.__dict__ = sound


def _places(node: ast.AST, lines: range, when_imported: bool) -> Iterator[tuple[ast.AST, tuple[range, bool]]]:
    """Each node with the lines of its statement, and whether importing the module executes it."""
    if isinstance(node, ast.stmt):
        body = getattr(node, "body", None)
        end = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
        lines = range(node.lineno, end + 1)
    elif isinstance(node, ast.ExceptHandler | ast.match_case):
        lines = range(node.body[0].lineno, node.body[0].lineno + 1)
    yield node, (lines, when_imported)
    for name, value in ast.iter_fields(node):
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and name == "body"
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _places(child, lines, when_imported and not inside)


def _shown(node: ast.AST) -> str:
    return "pass" if getattr(node, "deleted", False) else ast.unparse(node)


def _typing_and_text(tree: ast.AST) -> set[ast.AST]:
    """Annotations, imports, docstrings and messages: a change there is no fault of the numbers."""
    roots: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            roots.append(node.annotation)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            roots += [*node.decorator_list, *([node.returns] if node.returns else [])]
        if isinstance(node, ast.ClassDef):
            roots += node.decorator_list
        if isinstance(node, ast.Raise | ast.JoinedStr):
            roots += list(ast.iter_child_nodes(node))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            roots.append(node)
    return {inner for root in roots for inner in ast.walk(root)}


def _changes(node: ast.AST) -> Iterator[Callable[..., None]]:
    """What can be done to a node of the same kind, in place."""
    yield from _operators(node)
    if isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.Attribute) and node.attr in NAMES and isinstance(node.ctx, ast.Load):
        yield lambda twin: setattr(twin, "attr", NAMES[twin.attr])
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NAMES:
        yield lambda twin: setattr(twin.func, "id", NAMES[twin.func.id])
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield _delete
    elif isinstance(node, ast.IfExp):
        yield lambda twin: setattr(twin, "test", ast.UnaryOp(ast.Not(), twin.test))


def _operators(node: ast.AST) -> Iterator[Callable[..., None]]:
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS:
        yield lambda twin: setattr(twin, "op", OPERATORS[type(twin.op)]())
    elif isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            if type(operator) in COMPARISONS:
                yield lambda twin, place=place: twin.ops.__setitem__(place, COMPARISONS[type(twin.ops[place])]())
    elif isinstance(node, ast.BoolOp):
        yield lambda twin: setattr(twin, "op", ast.Or() if isinstance(twin.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not | ast.Invert):
        yield _without_sign


def _constants(node: ast.Constant) -> Iterator[Callable[..., None]]:
    if isinstance(node.value, bool):
        yield lambda twin: setattr(twin, "value", not twin.value)
    elif isinstance(node.value, int | float):
        yield lambda twin: setattr(twin, "value", twin.value + 1)


def _without_sign(node: ast.UnaryOp) -> None:
    """`-x` becomes `+x`; `not x` and `~x` become `x` negated once more."""
    node.operand = node.operand if isinstance(node.op, ast.USub) else ast.UnaryOp(node.op, node.operand)
    node.op = ast.UAdd() if isinstance(node.op, ast.USub) else node.op


def _delete(statement: ast.Expr) -> None:
    """The call is removed."""
    statement.value = ast.Constant(value=None)
    statement.deleted = True  # type: ignore[attr-defined]
