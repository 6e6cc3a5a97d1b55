"""The base of every section of settings, and the types that its values share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
RUN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"


class Settings(BaseModel):
    """The base of each section: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())
