"""Message trees with one message per row (`message_id`, `parent_id`), assembled into rows of trees.

OpenAssistant's data sets exist in both formats. The messages of a tree are adjacent in them, so at most one tree is in
memory.
"""

from collections.abc import Iterator
from itertools import chain, groupby
from typing import Any

from triphase.errors import DataError
from triphase.records.lines import RefuseRow, Row, is_blank

_NEEDED = {"message_id", "message_tree_id", "text", "role"}
"""The columns of every message; exports without nulls leave out the ``parent_id`` of the first one of a tree."""
_COLUMNS = {*_NEEDED, "parent_id"}
_KEPT = ("text", "role", "review_result", "deleted", "rank")
_OF_THE_TREE = ("kind", "split", "tree_state")
"""Columns of the first message that are those of the whole tree."""
_ORPHANS = "messages that are not reached from the first of their tree"


def joined(rows: Iterator[Row], refused: RefuseRow) -> Iterator[Row]:
    """``rows`` unchanged; or those of whole trees, if the first one is a message of a tree."""
    first = next(rows, None)
    if first is None:
        return
    rows = chain([first], rows)
    yield from _trees(rows, refused) if first.values.keys() >= _NEEDED else rows


def _trees(rows: Iterator[Row], refused: RefuseRow) -> Iterator[Row]:
    seen: set[str] = set()
    for name, group in groupby(rows, lambda row: str(row.values.get("message_tree_id"))):
        messages = list(group)
        try:
            if name in seen:
                messages[0].refuse(
                    f"the messages of the tree {name[:40]!r} are not on consecutive lines; "
                    "sort the file by message_tree_id"
                )
            seen.add(name)
            yield _tree(messages)
        except DataError as error:
            refused(error)


def _tree(messages: list[Row]) -> Row:
    """One tree, at the location of its first message."""
    nodes: dict[str, dict[str, Any]] = {}
    for row in messages:
        name = row.values.get("message_id")
        if is_blank(name) or is_blank(row.values.get("message_tree_id")):
            row.refuse("a message needs its message_id and the message_tree_id of its tree; its tree is left out")
        if str(name) in nodes:
            row.refuse(f"the message_id {str(name)[:40]!r} appears twice in its tree; the tree is left out")
        nodes[str(name)] = _node(row)
    roots = []
    for row in messages:
        node, parent = nodes[str(row.values["message_id"])], row.values.get("parent_id")
        if is_blank(parent):
            roots.append((row, node))
        elif str(parent) in nodes:
            nodes[str(parent)]["replies"].append(node)
    if len(roots) != 1:
        messages[0].refuse(f"the tree has {len(roots)} messages without a parent_id; it begins with one")
    root, prompt = roots[0]
    kept = {name: root.values[name] for name in _OF_THE_TREE if name in root.values}
    values = {**kept, "message_tree_id": root.values["message_tree_id"], "prompt": prompt}
    made = Row(values, root.file, root.number, root.unit)
    for row in messages:
        made.ignored.update(set(row.unread()) - _COLUMNS - {*_KEPT, *_OF_THE_TREE})
    if _size(prompt) < len(messages):  # messages in a cycle are not reached
        made.ignored.add(_ORPHANS)
    return made


def _size(root: dict[str, Any]) -> int:
    """The number of messages reached from the first."""
    count, left = 0, [root]
    while left:
        count += 1
        left += left.pop()["replies"]
    return count


def _node(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {key: row.values.get(key) for key in _KEPT}
    for key in ("review_result", "deleted"):  # tables write them as text
        found[key] = {"true": True, "false": False}.get(str(found[key]).lower(), found[key])
    return {**found, "replies": []}
