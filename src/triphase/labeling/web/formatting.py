"""Markdown of models and people as a tree of allowed elements: no text can produce any others.

The browser builds the elements from the tree by name; no markup is written or parsed on the way. A node is a text, or
``[name, class, children, attributes]``. Links and images are shown as texts with their addresses: opening a page, or
loading an image from elsewhere, would reveal that someone reads.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

from triphase.labeling.web.code_colors import colored
from triphase.labeling.web.formulas import mathml, read_formulas
from triphase.labeling.web.tables import whole_table
from triphase.records.visible import visible

ELEMENTS = frozenset(
    "p h3 h4 h5 h6 ul ol li blockquote pre code em strong s br hr span table thead tbody tr th td div".split()
)
ATTRIBUTES = frozenset(("start", "dir", "tabindex", "role", "aria-label"))
MOST_CHARACTERS = 12_000
"""A longer text is shown unformatted: parsing Markdown takes superlinear time."""
_MOST_FORMULAS = 100
_MARKUP = re.compile(
    r"[*_`#|$\\~>\[&]|^ {0,3}(?:[-+]|\d+[.)])[ \t]|^(?: {4}|\t)|^ {0,3}(?:-{2,}|={2,})[ \t]*$", re.MULTILINE
)
_HEADINGS = {"h1": "h3", "h2": "h4", "h3": "h5"}
"""The page's own headings are of higher levels than those of a response."""
_ALIGNED = {"text-align:right": "right", "text-align:center": "center", "text-align:left": None}
_OWN_DIRECTION = ("p", "h3", "h4", "h5", "h6", "li", "td", "th", "blockquote")
_MOST_NESTED = 20
_MARKDOWN = read_formulas(
    MarkdownIt("commonmark", {"html": False, "maxNesting": _MOST_NESTED})
    .enable(["table", "strikethrough"])
    .disable("reference")
)
# Reference definitions would vanish from the page; labelers judge the whole text.
_MARKDOWN.block.ruler.at("table", whole_table, {"alt": ["paragraph", "reference"]})


def may_be_formatted(text: str) -> bool:
    """Whether ``text`` could contain Markdown; a quick check."""
    return len(text) <= MOST_CHARACTERS and _MARKUP.search(text) is not None


@lru_cache(maxsize=256)
def formatted(text: str) -> list[Any] | None:
    """The tree of ``text``, which went through ``visible``; None if it is shown unformatted."""
    if not may_be_formatted(text):
        return None
    tokens = _MARKDOWN.parse(text)
    if any(token.level >= _MOST_NESTED - 1 for token in tokens):
        return None  # deeper nesting is missing in the tokens
    nodes = _Tree().of(tokens)
    return None if all(_is_plain(node) for node in nodes) else nodes


def as_html(nodes: Sequence[Any]) -> Markup:
    """A tree as markup, for server-rendered pages; every text and attribute is escaped."""
    parts = []
    for node in nodes:
        if isinstance(node, str):
            parts.append(escape(node))
            continue
        name, kind, children, attributes = node
        given = {**({"class": kind} if kind else {}), **attributes}
        said = Markup("").join(Markup(' {}="{}"').format(key, value) for key, value in given.items())
        end = Markup("") if name in ("br", "hr") else Markup("</{}>").format(name)
        parts.append(Markup("<{}{}>{}{}").format(name, said, as_html(children), end))
    return Markup("").join(parts)


def _is_plain(node: Any) -> bool:
    return node[0] == "p" and all(isinstance(child, str) or child[0] == "br" for child in node[2])


class _Tree:
    """Builds a tree from tokens."""

    def __init__(self) -> None:
        self._formulas = 0

    def of(self, tokens: Sequence[Token]) -> list[Any]:
        """The nodes of a document or of a line."""
        open_: list[list[Any]] = [["", None, [], {}]]
        for token in tokens:
            into = open_[-1][2]
            if token.hidden:  # paragraphs of a list without blank lines
                continue
            if token.nesting == 1:
                open_.append(self._opened(token))
            elif token.nesting == -1:
                closed = open_.pop()
                open_[-1][2].extend(_closed(closed))
            elif token.type == "inline":
                into.extend(self.of(token.children or []))
            else:
                _append(into, self._leaf(token))
        return list(open_[0][2])

    def _opened(self, token: Token) -> list[Any]:
        if token.type == "link_open":
            return ["span", "link", [], {"href": _address(token, "href")}]
        name = _HEADINGS.get(token.tag, "h6" if token.tag in ("h4", "h5") else token.tag)
        attributes: dict[str, Any] = {"dir": "auto"} if name in _OWN_DIRECTION else {}
        if name == "ol" and isinstance(start := token.attrGet("start"), int):
            attributes["start"] = start
        return [name, _ALIGNED.get(str(token.attrGet("style") or "")), [], attributes]

    def _leaf(self, token: Token) -> Any:
        kind, content = token.type, token.content
        if kind in ("softbreak", "hardbreak"):  # each line of a response stays a line
            return ["br", None, [], {}]
        if kind == "code_inline":
            return ["code", None, [content], {"dir": "ltr"}]
        if kind in ("fence", "code_block"):
            return _code(content, visible(token.info.strip()))
        if kind.startswith("math_"):
            return self._formula(token)
        if kind == "image":
            return ["span", "link", [f"{visible(content)} ⟨{_address(token, 'src')}⟩"], {}]
        if kind == "hr":
            return ["hr", None, [], {}]
        return visible(content)  # text, and any other token, unformatted; `&#8238;` is a character by now

    def _formula(self, token: Token) -> Any:
        self._formulas += 1
        is_block = token.type != "math_inline"
        found = mathml(token.content, block=is_block) if self._formulas <= _MOST_FORMULAS else None
        if found is None:
            closing = {"\\(": "\\)", "\\[": "\\]"}.get(token.markup, token.markup)
            return ["code", "formula", [f"{token.markup}{token.content}{closing}"], {"dir": "ltr"}]
        if token.block:  # it may be wider than the card, and scrolls then
            return ["div", "formula", [found], {"dir": "ltr", "tabindex": "0"}]
        return ["span", "formula", [found], {"dir": "ltr"}]


def _code(content: str, info: str) -> list[Any]:
    language = info.split()[0] if info else ""
    named = [["span", "language", [info], {}]] if info else []
    code: list[Any] = ["code", None, colored(content, language), {}]
    return ["pre", "code", [*named, code], {"tabindex": "0", "dir": "ltr"}]


def _address(token: Token, attribute: str) -> str:
    title = token.attrGet("title")
    return visible(f"{token.attrGet(attribute)}" + (f' "{title}"' if title else ""))


def _closed(node: list[Any]) -> list[Any]:
    """The final form of a complete element."""
    name, kind, children, attributes = node
    if kind == "link":
        address = attributes.pop("href")
        label = "".join(child for child in children if isinstance(child, str))
        return [node] if label == address else [node, f" ⟨{address}⟩"]
    if name == "table":
        return [["div", "table", [node], {"tabindex": "0", "role": "group", "aria-label": "Table"}]]
    return [[name, kind, children, attributes]]


def _append(into: list[Any], node: Any) -> None:
    if isinstance(node, str) and into and isinstance(into[-1], str):
        into[-1] += node
    elif node:
        into.append(node)
