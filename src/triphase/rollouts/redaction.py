"""Shows what a server sent without showing secrets, whole or in parts, plain or encoded."""

import base64
import html
import re
import urllib.parse
from collections.abc import Iterator

_WINDOW = 6
"""This many consecutive characters count as a part of the secret."""
_SHOWN = 200
_WITHHELD = "(a text that contains the token in another spelling, and is not shown)"
_ESCAPED = re.compile(r"\\+u([0-9a-fA-F]{4})|\\+x([0-9a-fA-F]{2})")
_NOT_ALPHANUMERIC = re.compile(r"[^0-9A-Za-z]+")


def shown(text: str, secret: str | None, most: int = _SHOWN) -> str:
    """``text`` in quotes, its control characters escaped, and truncated; the secret is removed first.

    Args:
        secret: what must not be shown, nor six consecutive characters of it, nor an encoding of it; None without one.
        most: maximum number of characters shown.
    """
    cleared = without_parts(text, secret)
    return repr(cleared[:most]) + ("…" if len(cleared) > most else "")


def without_parts(text: str, secret: str | None) -> str:
    """``text`` with three asterisks for each part of the secret; nothing of it if it contains an encoded one."""
    if not secret:
        return text
    cleared = _blotted(text, secret)
    forms = {*_parts(secret), *_parts(_NOT_ALPHANUMERIC.sub("", secret)), *_encoded_parts(secret)}
    if any(form in spelling for spelling in _spellings(cleared) for form in forms):
        return _WITHHELD
    return cleared


def _blotted(text: str, secret: str) -> str:
    parts, width = _parts(secret), min(_WINDOW, len(secret))
    low = text.lower()
    if len(low) != len(text):  # some letters have a longer lowercase form
        low = text
    hidden = bytearray(len(text))
    for at in range(len(text) - width + 1):
        if low[at : at + width] in parts:
            hidden[at : at + width] = b"\x01" * width
    pieces, start = [], 0
    for run in re.finditer(rb"\x01+", bytes(hidden)):
        pieces += [text[start : run.start()], "***"]
        start = run.end()
    return "".join([*pieces, text[start:]])


def _parts(text: str) -> set[str]:
    """All runs of six characters of a text, and of its reverse, in lowercase."""
    low = text.lower()
    width = min(_WINDOW, len(low))
    return {form[at : at + width] for form in (low, low[::-1]) for at in range(len(low) - width + 1) if width}


def _encoded_parts(secret: str) -> set[str]:
    """Runs of the secret in base64, at any offset in a longer text, and in hexadecimal digits."""
    found = _parts(secret.encode().hex())
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + secret.encode()).decode()
        found |= _parts(encoded[4 * bool(before) : -4])
    return {part for part in found if len(part) == _WINDOW}


def _spellings(text: str) -> Iterator[str]:
    """The text as other readers would decode it, in lowercase."""
    yield text.lower()
    yield _ESCAPED.sub(lambda match: chr(int(match[1] or match[2], 16)), text).lower()
    yield urllib.parse.unquote_plus(text).lower()
    yield html.unescape(text).lower()
    yield _NOT_ALPHANUMERIC.sub("", text).lower()
