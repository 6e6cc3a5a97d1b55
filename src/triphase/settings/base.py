"""The base of every section of settings, and the types that its values share."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
RUN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"


class Settings(BaseModel):
    """The base of each section: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


def tokens_at_once(setting: int | Literal["auto"] | None) -> int | None:
    """Most tokens of a pass; None is what suits the machine, and so is an `auto` for which no plan was made."""
    return None if setting == "auto" else setting
