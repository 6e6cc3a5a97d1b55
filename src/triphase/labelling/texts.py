"""Untrusted text on the way to a page: nothing in it can act, and nothing in it can hide."""

import unicodedata

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup

_KEPT = {"\n", "\t"}
_JOINERS = {"\u200c", "\u200d"}
"""Zero-width (non-)joiners are part of ordinary writing in many languages, and of emoji."""
_markdown = MarkdownIt("commonmark", {"html": False}).enable("table")


def visible(text: str) -> str:
    """The text with control, bidirectional and other invisible characters written out, as ⟦U+202E⟧."""
    text = text.replace("\r\n", "\n")
    if text.isascii() and text.isprintable():
        return text
    return "".join(_written(character) for character in text)


def markdown(text: str) -> Markup:
    """Guidelines as HTML: CommonMark and tables; HTML in the source is shown as text, and the result is cleaned."""
    rendered = _markdown.render(visible(text))
    tags = nh3.ALLOWED_TAGS - {"img"}  # a picture from elsewhere would tell that someone reads
    cleaned = nh3.clean(rendered, tags=tags, link_rel="noopener noreferrer", url_schemes={"https", "http", "mailto"})
    return Markup(cleaned)  # noqa: S704


def _written(character: str) -> str:
    if character in _KEPT or character in _JOINERS:
        return character
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return f"⟦U+{ord(character):04X}⟧"
    return character
