"""Makes untrusted text visible: control and invisible characters are written as codes, all others are unchanged.

Escaping markup is the template engine's job; this handles what escaping leaves alone: control characters, overrides of
the writing direction (which make a text read as another), invisible characters (Unicode's Default_Ignorable_Code_Point,
and blanks that other rules treat as letters or symbols), and halves of surrogate pairs (which cannot be encoded in
UTF-8).
"""

import json
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Any

_IGNORABLE = (
    (0x00AD, 0x00AD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
    (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
)  # fmt: skip
"""Default_Ignorable_Code_Point of DerivedCoreProperties.txt, Unicode 16."""
_BLANK = ((0x2800, 0x2800), (0x13430, 0x1345F), (0xFFFE, 0xFFFF))
"""The blank Braille pattern, format controls of Egyptian hieroglyphs, and noncharacters."""
_SHOWN_FORMATS = ((0x0600, 0x0605), (0x06DD, 0x06DD), (0x070F, 0x070F), (0x0890, 0x0891), (0x08E2, 0x08E2),
                  (0x110BD, 0x110BD), (0x110CD, 0x110CD))  # fmt: skip
"""Number signs in Arabic, Syriac and Kaithi: of category Cf, but visible."""
_KEPT = "\n\t"
_JOINERS = "\u200c\u200d"
_EMOJI_STYLE = "\ufe0f"


def visible(text: str) -> str:
    """``text`` with each control or invisible character written as ⟦U+202E⟧.

    Three kinds stay where they are ordinary writing: line feed and tab, a joiner next to a character that is not ASCII
    (Persian, Hindi, emoji), and the emoji style right after a symbol.
    """
    text = text.replace("\r\n", "\n")
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"⟦U+{ord(sign):04X}⟧" if _hides(sign) and not _is_ordinary(text, at) else sign for at, sign in enumerate(text)
    )


def in_template(value: object) -> object:
    """``value`` as a template writes it: a text is made visible, markup and other types are unchanged."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def visible_json(value: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """``value`` as JSON with an escape for each control or invisible character: nothing is lost or interpreted."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=default)
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(
        json.dumps(sign)[1:-1] if _hides(sign) and not _is_ordinary(text, at) else sign for at, sign in enumerate(text)
    )


def without_marks(text: str, original: str) -> str:
    """A text that was edited from ``visible(original)``, with its marks replaced by the original characters."""
    shown = visible(original)
    for sign in set(original):
        mark = f"⟦U+{ord(sign):04X}⟧"
        if mark in shown and mark not in original:
            text = text.replace(mark, sign)
    return text


def as_code(text: str, *, in_table: bool = False) -> str:
    """``text`` as inline code in Markdown, from which nothing in it can break out."""
    line = " ".join(visible(text).split()) or " "
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    marks, room = "`" * (longest + 1), " " if line.startswith("`") or line.endswith("`") else ""
    if in_table:
        line = line.replace("|", "\\|")
    return f"{marks}{room}{line}{room}{marks}"


@lru_cache(maxsize=4096)
def _hides(sign: str) -> bool:
    code = ord(sign)
    if 0x20 <= code < 0x7F:
        return False
    category = unicodedata.category(sign)
    if category in ("Cc", "Cs", "Zl", "Zp"):
        return True
    if category == "Cf" and not _within(code, _SHOWN_FORMATS):
        return True
    return _within(code, _IGNORABLE) or _within(code, _BLANK)


def _is_ordinary(text: str, at: int) -> bool:
    sign = text[at]
    if sign in _KEPT:
        return True
    before, after = text[at - 1 : at] if at else "", text[at + 1 : at + 2]
    if sign in _JOINERS:
        return any(
            near and not near.isascii() and (near == _EMOJI_STYLE or not _hides(near)) for near in (before, after)
        )
    if sign != _EMOJI_STYLE or not before:
        return False
    if before.isascii():
        return before in "#*0123456789"
    return unicodedata.category(before) in ("So", "Sm", "Po", "Pd")


def _within(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(low <= code <= high for low, high in ranges)
