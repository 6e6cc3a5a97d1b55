"""Characters that act or hide are written out; all others stay."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triphase.records.visible import visible, visible_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x07", "⟦U+001B⟧[2J⟦U+0007⟧"),
        ("a\u202eb", "a⟦U+202E⟧b"),
        ("\u2066x\u2069", "⟦U+2066⟧x⟦U+2069⟧"),
        ("zero\u200bwidth\ufeff", "zero⟦U+200B⟧width⟦U+FEFF⟧"),
        ("\ud800", "⟦U+D800⟧"),
        ("tag\U000e0041", "tag⟦U+E0041⟧"),
        ("\x7f\x85", "⟦U+007F⟧⟦U+0085⟧"),
        ("one\r\ntwo\rthree", "one\ntwo⟦U+000D⟧three"),
        ("line\n\ttab", "line\n\ttab"),
        ("שלום, Grüße, 你好, नमस्ते", "שלום, Grüße, 你好, नमस्ते"),
        ("👩\u200d🔬 <b> 👁\ufe0f\u200d🗨\ufe0f ❤\ufe0f ↔\ufe0f 1\ufe0f\u20e3", None),
        ("می\u200cخواهم क्\u200dष", None),
        ("\u0600١٢", None),
        ("pass\u200dword", "pass⟦U+200D⟧word"),
        ("a\ufe0fb", "a⟦U+FE0F⟧b"),
        ("é\ufe0f", "é⟦U+FE0F⟧"),
        ("\ufe0f", "⟦U+FE0F⟧"),
    ],
)
def test_signs(text: str, shown: str | None) -> None:
    assert visible(text) == (text if shown is None else shown)


HIDING = "\u3164\u115f\u1160\uffa0\u034f\u180b\u17b4\ufe00\U000e0100\u2800\U0001d173\U00013430\u00ad\u2061\U000e0001"


@pytest.mark.parametrize("sign", HIDING)
def test_a_character_that_shows_nothing_is_written(sign: str) -> None:
    assert visible(f"a{sign}b") == f"a⟦U+{ord(sign):04X}⟧b"


@given(st.text(alphabet=st.characters(categories=("Cc", "Cf", "Cs", "Zl", "Zp", "Lo", "So", "Mn", "Ll"))))
def test_any_text_can_be_written_and_is_done_at_once(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    assert visible(shown) == shown
    assert not any(unicodedata.category(sign) == "Cc" and sign not in "\n\t" for sign in shown)


@given(st.text(alphabet=st.characters(codec=None, exclude_categories=())))
def test_json_loses_nothing_and_shows_everything(text: str) -> None:
    written = visible_json({"a": text, text: [text]})
    assert json.loads(written) == {"a": text, text: [text]}
    assert "\n" not in written and visible(written) == written
    assert json.loads(visible_json([text], indent=1)) == [text]


@pytest.mark.parametrize("sign", HIDING + "\x7f\x9b\u202e\ud800")
def test_json_escapes_what_hides_and_no_other_letter(sign: str) -> None:
    assert visible_json(f"é{sign}你") == f'"é{json.dumps(sign)[1:-1]}你"'


def test_nothing_that_unicode_calls_ignorable_is_left_out() -> None:
    """Default_Ignorable_Code_Point of another implementation, over every code point."""
    regex = pytest.importorskip("regex")
    ignorable = regex.compile(r"\p{Default_Ignorable_Code_Point}")
    found = [sign for sign in map(chr, range(0x110000)) if ignorable.match(sign)]
    assert len(found) > 4000
    assert not [f"U+{ord(sign):04X}" for sign in found if visible(f"a{sign}b") == f"a{sign}b"]
