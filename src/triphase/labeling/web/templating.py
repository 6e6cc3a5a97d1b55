"""Renders templates. Everything is escaped and made visible, except values that a form sends back unchanged."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from triphase.labeling.web.formatting import as_html, formatted
from triphase.labeling.web.markdown import markdown
from triphase.monitoring.wording import number, percent
from triphase.records.visible import in_template, visible

HERE = Path(__file__).parent


def _moment(seconds: float | None) -> str | Markup:
    if seconds is None:
        return "–"
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
        return Markup(f'<time datetime="{moment:%Y-%m-%dT%H:%MZ}">{moment:%Y-%m-%d %H:%M}</time>')  # noqa: S704
    except (OverflowError, ValueError, OSError):  # a store of an older version may contain any number
        return f"{seconds:g} s"


def _text(text: str) -> Markup:
    """A text of a model or a person: its Markdown formatted, or unformatted."""
    shown = visible(text)
    nodes = formatted(shown)
    if nodes is None:
        return Markup('<bdi class="text" dir="auto">{}</bdi>').format(shown)
    raw = Markup('<details><summary class="hint">as written</summary><bdi class="text" dir="auto">{}</bdi></details>')
    return Markup('<div class="text formatted" dir="auto">{}</div>{}').format(as_html(nodes), raw.format(shown))


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=in_template,
    )  # fmt: skip
    environment.filters |= {
        "visible": visible, "markdown": markdown, "formatted": _text, "moment": _moment, "percent": percent,
        "number": number, "exact": escape,
    }  # fmt: skip
    return environment


_templates = _environment()


def page(request: Request, template: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    """A page, with the person who is signed in and the token for its forms."""
    session = getattr(request.state, "session", None)
    known = {"session": session, "csrf": session.csrf if session else "", "path": request.url.path}
    return HTMLResponse(_templates.get_template(template).render({**known, **values}), status)
