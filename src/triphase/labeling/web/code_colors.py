"""Syntax highlighting: keywords, names, strings and comments are marked by CSS classes."""

from typing import Any

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Generic, Keyword, Name, Number, Operator, String, _TokenType
from pygments.util import ClassNotFound

MOST_CHARACTERS = 8_000
"""Longer code is not highlighted."""
_KINDS: tuple[tuple[_TokenType, str], ...] = (
    (Comment, "c"), (Keyword, "k"), (Operator.Word, "k"), (String, "s"), (Number, "m"), (Name.Function, "f"),
    (Name.Class, "f"), (Name.Decorator, "f"), (Name.Tag, "k"), (Name.Builtin, "b"), (Generic.Deleted, "d"),
    (Generic.Inserted, "i"), (Generic.Heading, "k"),
)  # fmt: skip
CLASSES = frozenset(kind for _, kind in _KINDS)


def colored(code: str, language: str) -> list[Any]:
    """Texts and spans whose texts together are ``code``; one text if the language is unknown."""
    lexer = _lexer(language)
    if lexer is None or len(code) > MOST_CHARACTERS:
        return [code]
    found: list[Any] = []
    for of, text in lexer.get_tokens(code):
        kind = next((name for one, name in _KINDS if of in one), None)
        if kind is not None:
            found.append(["span", kind, [text], {}])
        elif found and isinstance(found[-1], str):
            found[-1] += text
        elif text:
            found.append(text)
    return found if "".join(one if isinstance(one, str) else one[2][0] for one in found) == code else [code]


def _lexer(language: str) -> Lexer | None:
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False) if language else None
    except ClassNotFound:
        return None
