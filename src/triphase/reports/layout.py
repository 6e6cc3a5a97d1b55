"""The common parts of every page: templates, style, and a policy that lets nothing be fetched or run.

A page may contain one script of ours. The policy then allows its SHA-256 hash and nothing else: no text on the page can
run, and the script can fetch nothing (of a page that is served, only its own address).
"""

import hashlib
from base64 import b64encode
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from triphase.monitoring.wording import number, percent
from triphase.records.visible import in_template
from triphase.reports.interval_wording import is_below, percent_interval, signed
from triphase.reports.tables import clock, policy_name

TEMPLATES = Path(__file__).parent / "templates"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def rendered(template: str, values: dict[str, Any], *, start: str = "SFT", script: str = "", live: bool = False) -> str:
    """A page as HTML; ``start`` is the name of the reference, ``script`` the file next to the templates that runs."""
    code = code_of(script)
    page: str = (
        environment(start)
        .get_template(template)
        .render(
            {
                "contents": [],
                "live": live,
                "policy": policy_of(code, live=live),
                "script": Markup(code),  # noqa: S704 - our own file
                "style": Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
                **values,
            }
        )
    )
    return page


def code_of(script: str) -> str:
    """The text of a script next to the templates; empty for none."""
    return (TEMPLATES / script).read_text(encoding="utf-8") if script else ""


def policy_of(code: str, *, live: bool) -> str:
    """The content security policy of a page with this script, which may fetch from its own server if ``live``."""
    parts = [_POLICY]
    if code:
        parts.append(f"script-src 'sha256-{b64encode(hashlib.sha256(code.encode()).digest()).decode()}'")
    if live:
        parts.append("connect-src 'self'")
    return "; ".join(parts)


def environment(start: str) -> Environment:
    """Templates in which every text is escaped and made visible; ``start`` is the name of the reference."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=in_template,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["below"] = is_below
    environment.filters |= {
        "clock": lambda value: clock(value).replace(" ", "\N{NO-BREAK SPACE}"),
        "number": number,
        "percent": lambda value: _tight(percent(value)),
        "percent_interval": lambda value: _tight(percent_interval(value)),
        "policy_name": partial(policy_name, start=start),
        "signed": signed,
        "tight": _tight,
    }
    return environment


def _tight(text: str) -> str:
    """Joins a number and its percent sign by a no-break space."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")
