"""Tables of Markdown of which each cell is shown: a row with more cells than the head has would lose the others."""

from markdown_it.common.utils import mdTrim
from markdown_it.rules_block import StateBlock
from markdown_it.rules_block.table import escapedSplit, getLine, table


def whole_table(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    """The rule of tables, of which one with cells left over is none."""
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
    """How many cells a row has, up to the last that is not empty."""
    cells = [cell.strip() for cell in escapedSplit(mdTrim(line))]
    if cells and not cells[0]:
        cells.pop(0)
    while cells and not cells[-1]:
        cells.pop()
    return len(cells)
