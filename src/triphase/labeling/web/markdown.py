"""Guidelines as HTML: the only text of the pages with its own formatting."""

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup

from triphase.records.visible import visible

_markdown = MarkdownIt("commonmark", {"html": False}).enable("table")


def markdown(text: str) -> Markup:
    """Guidelines as HTML: CommonMark and tables; HTML in the source is shown as text, and the result is sanitized."""
    rendered = _markdown.render(visible(text))
    tags = nh3.ALLOWED_TAGS - {"img"}  # an image from elsewhere would reveal that someone reads
    cleaned = nh3.clean(rendered, tags=tags, link_rel="noopener noreferrer", url_schemes={"https", "http", "mailto"})
    return Markup(cleaned)  # noqa: S704
