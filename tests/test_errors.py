"""Messages of other libraries, quoted in ours."""

import pytest

from triphase.errors import clipped, first_line_of


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [
        ("an elm", 6, "an elm"), ("an elm tree", 6, "an elm…"), ("an elm tree", 9, "an elm…"), ("elms", 3, "elm…"),
        ("    ", 3, "   …"),
    ],
)  # fmt: skip
def test_a_long_text_ends_after_a_whole_word(text: str, most: int, shown: str) -> None:
    assert clipped(text, most) == shown


def test_a_message_is_its_first_line_or_its_type() -> None:
    assert first_line_of(ValueError("\nan elm\nand more")) == "an elm"
    assert first_line_of(ValueError()) == "ValueError"
