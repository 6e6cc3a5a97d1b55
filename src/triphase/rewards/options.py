"""The options of a kind of scorer, validated by its own dataclass."""

from typing import TypeVar

from pydantic import ValidationError

from triphase.errors import SettingsError
from triphase.rewards.types import ScorerContext
from triphase.settings.base import Settings

Options = TypeVar("Options", bound=Settings)


def options_of(section: type[Options], context: ScorerContext) -> Options:
    """The options in the settings.

    Raises:
        SettingsError: one is unknown, missing or of another type.
    """
    try:
        return section.model_validate(context.settings.options)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(key) for key in first["loc"])
        place = f"{context.setting}.options{f'.{name}' if name else ''}"
        known = ", ".join(section.model_fields)
        kind = context.settings.chosen
        match first["type"]:
            case "extra_forbidden":
                problem = f"unknown option of kind {kind}; known are {known}"
            case "missing":
                problem = f"is missing; kind {kind} needs it"
            case _:
                problem = f"{str(first['input'])[:60]!r} is not allowed ({first['msg']})"
        raise SettingsError(f"{place}: {problem}") from None
