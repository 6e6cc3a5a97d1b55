"""Chat templates that need no guard: those that concatenate their input in a single pass over the messages.

Everything else (arithmetic on texts, loops inside loops, macros, filters with arguments, a date …) is not wrong, but
could take forever or all memory inside one operation that cannot be interrupted: `sandbox` renders it in a separate
process. This is an allowlist, so everything unforeseen is guarded.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

_FILTERS = {"trim", "length", "count", "first", "last", "default", "tojson", "upper", "lower", "string"}
_GROWING_FILTERS = {"tojson", "upper", "lower", "string"}
_METHODS = {"strip", "lstrip", "rstrip", "startswith", "endswith", "split", "get", "items", "keys", "values"}
_FUNCTIONS = {"raise_exception", "namespace"}
_LIST = "messages"


@lru_cache(maxsize=64)
def needs_no_guard(template: str) -> bool:
    """Whether a chat template needs time and produces text in proportion to the conversation.

    No loop is nested in another, each is over the messages, and what is assigned uses at most one earlier assignment:
    so nothing doubles.
    """
    from jinja2 import Environment
    from jinja2.exceptions import TemplateError

    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=False).parse(template)  # noqa: S701 - never run
        return _is_plain(tree)
    except (TemplateError, RecursionError, ValueError):  # nested too deeply to be walked
        return False


def _is_plain(tree: Any) -> bool:
    from jinja2 import nodes

    allowed = (
        *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.NSRef, nodes.Getattr),
        *(nodes.Getitem, nodes.Slice, nodes.If, nodes.For, nodes.Assign, nodes.And, nodes.Or, nodes.Not, nodes.Compare),
        *(nodes.Operand, nodes.Test, nodes.CondExpr, nodes.Add, nodes.Sub, nodes.Concat, nodes.Neg, nodes.Mod),
        *(nodes.Filter, nodes.Call, nodes.Keyword, nodes.List, nodes.Tuple, nodes.Break, nodes.Continue),
    )
    assigned = {_name_of(node.target) for node in tree.find_all(nodes.Assign)}
    lists = {_LIST} | {
        str(node.target.name)
        for node in tree.find_all(nodes.Assign)
        if isinstance(node.target, nodes.Name) and _is_list(node.node)
    }
    others = {_name_of(node.target) for node in tree.find_all(nodes.Assign) if not _is_list(node.node)}
    for node in _all(tree):
        if not isinstance(node, allowed):
            return False
        if isinstance(node, nodes.For) and not _is_plain_loop(node, lists - others):
            return False
        if isinstance(node, nodes.Assign) and not _is_plain_assignment(node, assigned):
            return False
        if isinstance(node, nodes.Filter | nodes.Call | nodes.Mod) and not _is_plain_operation(node):
            return False
        if isinstance(node, nodes.List | nodes.Tuple) and not all(isinstance(item, nodes.Const) for item in node.items):
            return False
    return True


def _all(node: Any) -> Iterator[Any]:
    yield node
    for child in node.iter_child_nodes():
        yield from _all(child)


def _name_of(target: Any) -> str:
    return str(target.name)


def _is_list(value: Any) -> bool:
    """``messages``, or a slice of it."""
    from jinja2 import nodes

    if isinstance(value, nodes.Getitem) and isinstance(value.arg, nodes.Slice):
        value = value.node
    return isinstance(value, nodes.Name) and value.name == _LIST


def _is_plain_loop(node: Any, lists: set[str]) -> bool:
    from jinja2 import nodes

    over = (
        node.iter.node if isinstance(node.iter, nodes.Getitem) and isinstance(node.iter.arg, nodes.Slice) else node.iter
    )
    nested = any(isinstance(inner, nodes.For) for inner in _all(node) if inner is not node)
    return isinstance(over, nodes.Name) and over.name in lists and not nested and not node.recursive


def _is_plain_assignment(node: Any, assigned: set[str]) -> bool:
    from jinja2 import nodes

    if not isinstance(node.target, nodes.Name | nodes.NSRef):
        return False
    inside = list(_all(node.node))
    used = sum(isinstance(item, nodes.Name) and item.name in assigned for item in inside)
    grows = any(isinstance(item, nodes.Filter) and item.name in _GROWING_FILTERS for item in inside)
    return used <= 1 and not grows


def _is_plain_operation(node: Any) -> bool:
    from jinja2 import nodes

    if isinstance(node, nodes.Mod):  # of a number: on a text it would be a format, with a width
        left, right = node.left, node.right
        counts = isinstance(left, nodes.Getattr) and isinstance(left.node, nodes.Name) and left.node.name == "loop"
        return counts and isinstance(right, nodes.Const) and isinstance(right.value, int)
    if isinstance(node, nodes.Filter):
        plain = (not node.args and not node.kwargs) or node.name == "default"
        again = any(isinstance(item, nodes.Filter) and item.name in _GROWING_FILTERS for item in _all(node.node))
        return node.name in _FILTERS and plain and not (node.name in _GROWING_FILTERS and again)
    called = node.node
    if isinstance(called, nodes.Name):
        return called.name in _FUNCTIONS
    return isinstance(called, nodes.Getattr) and called.attr in _METHODS
