"""The embedded models and gold scores by their names in the settings."""

from collections.abc import Callable
from pathlib import Path

from triphase.demo.gold import warm_gold
from triphase.demo.smollm import smollm2_directory
from triphase.demo.tiny import grammar_gold, tiny_directory
from triphase.errors import SettingsError

PREFIX = "embedded:"
_MODELS = ("smollm2", "tiny")


def require_embedded(name: str) -> str:
    """The name of an embedded model after ``embedded:``.

    Raises:
        SettingsError: there is no such embedded model.
    """
    found = name.removeprefix(PREFIX)
    if found not in _MODELS:
        known = " or ".join(f"{PREFIX}{model}" for model in _MODELS)
        raise SettingsError(f"model.name: there is no embedded model {name!r}; write {known}")
    return found


def model_directory(name: str) -> Path:
    """The directory of ``embedded:smollm2`` or ``embedded:tiny``; created on the first call.

    Raises:
        SettingsError: there is no such embedded model.
    """
    return smollm2_directory() if require_embedded(name) == "smollm2" else tiny_directory() / "model"


def public_name(name: str) -> tuple[str, str]:
    """The public name of a model for users without the embedded one, and a note about it.

    An embedded model is in this machine's cache, which others do not have.
    """
    if name == f"{PREFIX}smollm2":
        return (
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            "It was trained on the 4-bit copy of that model which Triphase embeds, so outputs on the original differ a "
            "little; `triphase export` writes a checkpoint that needs neither.",
        )
    if name.startswith(PREFIX):
        return name, "That model is inside Triphase and nowhere else: `triphase export` writes a checkpoint without it."
    return name, ""


def gold_of(name: str) -> Callable[[str, str, bool], float]:
    """The gold score ``warm`` or ``grammar``: (prompt, response, finished) → number."""
    if name == "grammar":
        return grammar_gold

    return warm_gold
