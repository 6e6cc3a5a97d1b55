"""Formulas in LaTeX as MathML, which browsers draw themselves: no script, no font, no network."""

import re
from html import unescape
from typing import Any
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from mdit_py_plugins.dollarmath import dollarmath_plugin

from triphase.records.visible import visible

MOST_CHARACTERS = 1_000
"""A longer formula is shown as written."""
_OPERATORS = "\u2061\u2062\u2063\u2064"
"""Invisible characters that MathML puts between factors or before arguments."""
ELEMENTS = frozenset(
    "math mrow mi mn mo ms mtext mspace msup msub msubsup mfrac msqrt mroot munder mover munderover mtable mtr mtd "
    "mpadded mstyle menclose mmultiscripts mprescripts none".split()
)
ATTRIBUTES = frozenset(
    "display stretchy fence mathvariant linethickness accent accentunder columnalign displaystyle scriptlevel "
    "separator form minsize maxsize movablelimits".split()
)
_VALUE = re.compile(r"[A-Za-z0-9. -]{1,40}")
_MOST_DEPTH = 40
_CLOSING = {"(": "\\)", "[": "\\]"}


def read_formulas(markdown: MarkdownIt) -> MarkdownIt:
    """Let ``markdown`` parse ``$…$``, ``$$…$$``, ``\\(…\\)`` and ``\\[…\\]`` as formulas; prices stay prices."""
    markdown.use(dollarmath_plugin, allow_space=False, allow_digits=False, allow_labels=False, double_inline=True)
    markdown.inline.ruler.before("escape", "bracketed_formula", _inline)
    markdown.block.ruler.before("fence", "bracketed_formula", _block, {"alt": ["paragraph", "reference", "blockquote"]})
    return markdown


def mathml(latex: str, *, block: bool) -> list[Any] | None:
    """A formula as a tree of the elements listed above; None if it cannot be parsed."""
    if len(latex) > MOST_CHARACTERS or not latex.strip():
        return None
    try:
        return _node(convert_to_element(latex, display="block" if block else "inline"), 0)
    except Exception:  # any error of the parser on invalid LaTeX: it is shown as written
        return None


class _Unlisted(Exception):
    """Something in the MathML that is not in the lists, or is hidden."""


def _node(element: Element, depth: int) -> list[Any]:
    name = str(element.tag).rpartition("}")[2]
    if name not in ELEMENTS or depth > _MOST_DEPTH:
        raise _Unlisted(name)
    attributes = {key: value for key, value in element.items() if key in ATTRIBUTES and _VALUE.fullmatch(value)}
    text = unescape(element.text or "")
    if visible(bare := text.translate(dict.fromkeys(map(ord, _OPERATORS)))) != bare:
        raise _Unlisted(text)
    children: list[Any] = [text] if text.strip() else []
    children += [_node(child, depth + 1) for child in element]
    return [name, None, children, attributes]


def _inline(state: StateInline, silent: bool) -> bool:
    source, start = state.src, state.pos
    closing = _CLOSING.get(source[start + 1 : start + 2]) if source[start] == "\\" else None
    end = -1 if closing is None else source.find(closing, start + 2, start + 2 + MOST_CHARACTERS)
    if closing is None or end < 0 or end + 2 > state.posMax:
        return False
    if not silent:
        token = state.push("math_inline" if closing == "\\)" else "math_inline_double", "math", 0)
        token.content, token.markup = source[start + 2 : end], source[start : start + 2]
    state.pos = end + 2
    return True


def _block(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    begin = state.bMarks[first] + state.tShift[first]
    if not state.src.startswith("\\[", begin):
        return False
    end = state.src.find("\\]", begin + 2, begin + 2 + MOST_CHARACTERS)
    line = first
    while line < last and end > state.eMarks[line]:
        line += 1
    if end < 0 or line >= last or state.src[end + 2 : state.eMarks[line]].strip():
        return False
    if not silent:
        token = state.push("math_block", "math", 0)
        token.block, token.content, token.markup = True, state.src[begin + 2 : end], "\\["
        token.map = [first, line + 1]
        state.line = line + 1
    return True
