"""Markdown tables that show every cell: by default a row with more cells than the header loses the others."""

from markdown_it.common.utils import mdTrim
from markdown_it.rules_block import StateBlock
from markdown_it.rules_block.table import escapedSplit, getLine, table


def whole_table(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    """Parse a table; False, as for any other text, if a row has more cells than the header."""
    before, kind = len(state.tokens), state.parentType
    if not table(state, first, last, silent):
        return False
    if silent:
        return True
    columns = sum(token.type == "th_open" for token in state.tokens[before:])
    if all(_cells(getLine(state, line)) <= columns for line in range(first + 2, state.line)):
        return True
    del state.tokens[before:]
    state.line, state.parentType = first, kind
    return False


def _cells(line: str) -> int:
    """The number of cells of a row, up to the last that is not empty."""
    cells = [cell.strip() for cell in escapedSplit(mdTrim(line))]
    if cells and not cells[0]:
        cells.pop(0)
    while cells and not cells[-1]:
        cells.pop()
    return len(cells)
