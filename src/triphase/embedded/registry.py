"""The embedded parts by the names that settings use."""

from collections.abc import Callable
from pathlib import Path

from triphase.errors import SettingsError

PREFIX = "embedded:"


def model_directory(name: str) -> Path:
    """The directory of ``embedded:smollm2`` or ``embedded:tiny``; made at the first call.

    Raises:
        SettingsError: there is no such embedded model.
    """
    from triphase.embedded.smollm import smollm2_directory
    from triphase.embedded.tiny import tiny_directory

    match name.removeprefix(PREFIX):
        case "smollm2":
            return smollm2_directory()
        case "tiny":
            return tiny_directory() / "model"
    raise SettingsError(f"model.name: there is no embedded model {name!r}; write embedded:smollm2 or embedded:tiny")


def gold_of(name: str) -> Callable[[str, str, bool], float]:
    """The gold score ``warm`` or ``grammar``: (prompt, response, finished) → number."""
    if name == "grammar":
        from triphase.embedded.tiny import grammar_gold

        return grammar_gold
    from triphase.embedded.gold import warm_gold

    return warm_gold
