"""Text of models and people made inert: what does not print is shown as a sign, so that it cannot act.

HTML is escaped by the template engine; this is about what escaping leaves alone: control characters, overrides of the
writing direction (which can make a text read as another), invisible characters, and halves of surrogate pairs (which
cannot be written as UTF-8).
"""

import re

_ACTIVE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but for tab and line feed
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # invisible, direction
    "\ud800-\udfff\ufffe\uffff"  # halves of pairs, no characters
    "\U000e0000-\U000e007f"  # tags
    "]"
)


def inert(text: str) -> str:
    """``text`` with each such character replaced by a visible sign: ␛ for the escape character, ⟨U+202E⟩ for others."""
    return _ACTIVE.sub(_sign, text.replace("\r\n", "\n"))


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return f"⟨U+{code:04X}⟩"
