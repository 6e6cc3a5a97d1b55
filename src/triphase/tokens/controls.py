"""Texts cannot contain control tokens: the name of one in user text is encoded as ordinary characters."""

import logging
import re
from collections.abc import Sequence
from typing import Any

from triphase.errors import DataError

# Two characters that Unicode reserves for internal use; they occur in no text.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_log = logging.getLogger(__name__)


def control_names(tokenizer: Any) -> re.Pattern[str]:
    """A pattern for the names of control tokens in a text, the longest first."""
    longest_first = sorted(_names_of(tokenizer), key=lambda name: (-len(name), name))
    return re.compile("|".join(re.escape(name) for name in longest_first) or "(?!)")


def _names_of(tokenizer: Any) -> set[str]:
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    names = {token for token in {*added, *map(str, tokenizer.all_special_tokens)} if token.strip()}
    # Any word that a tokenizer does not know becomes the unknown token, so its name has no further effect.
    return names - {str(tokenizer.unk_token)}


class ControlTokens:
    """The special tokens of a tokenizer, and the encoding of texts that contain their names as ordinary text.

    Texts without such names are not affected: their ids are those of the tokenizer.

    Attributes:
        told: whether it has been logged that texts contain such names.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids = {int(tokenizer.convert_tokens_to_ids(name)) for name in _names_of(tokenizer)}
        self._names = control_names(tokenizer)
        self._marked = re.compile(f"{_OPEN}({self._names.pattern}){_CLOSE}|[{_OPEN}{_CLOSE}]")
        self._newline = self._plain("\n")
        self.told = False

    def in_any(self, texts: Sequence[str]) -> bool:
        """Whether one of the texts contains the name of a control token; the first time, that is logged."""
        for text in texts:
            found = self._names.search(text)
            if found is not None:
                if not self.told:
                    self.told = True
                    _log.warning(
                        "texts contain %s, a control token of the tokenizer: here and in "
                        "further texts it is encoded as plain text "
                        "(model.texts_write_control_tokens: true encodes it as that token)",
                        found[0],
                    )
                return True
        return False

    def mark(self, text: str) -> str:
        """The text with each name of a control token marked, so that `ids` can tell it from those of a template."""
        bare = text.replace(_OPEN, "").replace(_CLOSE, "")
        return self._names.sub(f"{_OPEN}\\g<0>{_CLOSE}", bare)

    def ids(self, text: str) -> list[int]:
        """Ids of a text in which names of control tokens from user text are marked.

        Raises:
            DataError: the tokenizer has no other encoding for one.
        """
        # Splitting on the marks gives [text, marked name, text, marked name, …]; a lone mark has None as its name.
        found: list[int] = []
        for place, piece in enumerate(self._marked.split(text)):
            if piece:
                found += self._letters(piece) if place % 2 else self._following(piece, first=not found)
        return found

    def _letters(self, name: str) -> list[int]:
        for cut in range(1, len(name)):
            ids = [*self._following(name[:cut], first=False), *self._following(name[cut:], first=False)]
            if not self._ids & set(ids):
                return ids
        raise DataError(
            f"a text contains {name!r}, a control token that this tokenizer cannot encode as "
            f"plain text; remove it from the text, or set model.texts_write_control_tokens: true"
        )

    def _following(self, piece: str, *, first: bool) -> list[int]:
        """Ids of a piece after another one: some tokenizers put a space before the beginning of a text."""
        if not first:
            ids = self._plain("\n" + piece)
            if self._newline and ids[: len(self._newline)] == self._newline:
                return ids[len(self._newline) :]
        return self._plain(piece)

    def _plain(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)
