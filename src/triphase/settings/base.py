"""The base class of every section of settings, and types shared by their values."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Temperature = Annotated[float, Field(ge=1e-6)]
"""Logits divided by less overflow."""
Share = Annotated[float, Field(ge=0, le=1)]
RUN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"


class Settings(BaseModel):
    """The base of each section: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


def tokens_at_once(setting: int | Literal["auto"] | None) -> int | None:
    """Maximum tokens of a pass; None is a suitable value for the machine, and so is an `auto` without a plan."""
    return None if setting == "auto" else setting
