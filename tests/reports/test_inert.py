"""Characters that act are shown; all others stay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triphase.reports.inert import inert


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x07", "␛[2J␇"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\u2066x\u2069", "⟨U+2066⟩x⟨U+2069⟩"),
        ("zero\u200bwidth\ufeff", "zero⟨U+200B⟩width⟨U+FEFF⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("tag\U000e0041", "tag⟨U+E0041⟩"),
        ("\x7f\x85", "⟨U+007F⟩⟨U+0085⟩"),
        ("one\r\ntwo\rthree", "one\ntwo␍three"),
        ("line\n\ttab", "line\n\ttab"),
        ("שלום, Grüße, 你好, नमस्ते", "שלום, Grüße, 你好, नमस्ते"),
        ("👩\u200d🔬 <b>", "👩\u200d🔬 <b>"),
    ],
)
def test_signs(text: str, shown: str) -> None:
    assert inert(text) == shown


@given(st.text(alphabet=st.characters()))
def test_any_text_can_be_written_and_is_done_at_once(text: str) -> None:
    shown = inert(text)
    shown.encode("utf-8")
    assert inert(shown) == shown
    assert not any(ord(sign) < 0x20 and sign not in "\n\t" for sign in shown)
