"""The settings of who scores responses."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from triphase.settings.base import Positive
from triphase.settings.services import Address, ServiceSettings

SHIPPED = ("model", "remote", "function", "classifier", "length", "repetition", "pattern", "json")
"""The kinds of scorers that come with Triphase; the first is the run's reward model."""


class ScorerSettings(ServiceSettings):
    """Who scores responses (docs/extending.md): the run's reward model, a server (docs/servers.md), or a function."""

    kind: (
        Annotated[
            str,
            Field(
                pattern=r"^[a-z][a-z0-9_-]*$",
                json_schema_extra={"words": " | ".join(f"`{kind}`" for kind in SHIPPED) + " | your own"},
            ),
        ]
        | None
    ) = None
    """`model` (the run's reward model), `remote` (a server), `function`, `classifier` (any sequence classifier), a rule
    (`length`, `repetition`, `pattern`, `json`; docs/rewards.md has their options), or a kind that you added; none takes
    what the other settings name, and the reward model where they name nothing."""
    address: Address | None = None
    """`remote`: where responses are scored, by POST. Scores of any scale and offset do: they are brought to the unit of
    `kl_coefficient` by `score_normalization`."""
    function: (
        Annotated[
            str,
            Field(
                pattern=r"^([A-Za-z_]\w*(\.[A-Za-z_]\w*)*|[^\x00-\x1f]*[^/\x00-\x1f]\.py):[A-Za-z_]\w*$",
                json_schema_extra={"words": "`file.py:function` | `package.module:function`"},
            ),
        ]
        | None
    ) = None
    """`function`: a Python function, in a file (its path relative to the settings file) or in a module. With a
    parameter `completions` it is called as TRL calls reward functions, else with `prompts` (each a list of `role` and
    `content`) and `responses` (texts); it gives a list of numbers, or a mapping with `total` and further names."""
    options: dict[str, Any] = {}  # noqa: RUF012
    """Options by name: of the function, the classifier, the rule, or of a kind that you added."""
    batch_size: Positive = 64
    """Responses in one request, or one call."""

    @field_validator("options")
    @classmethod
    def _plain(cls, options: dict[str, Any]) -> dict[str, Any]:
        """The options as the run's config.yaml gives them back, so that every start of a run has the same ones."""
        try:
            plain: dict[str, Any] = json.loads(json.dumps(options, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            raise ValueError(
                "options are finite numbers, texts, yes and no, and lists and mappings of these; write a date in quotes"
            ) from None
        return plain

    @property
    def chosen(self) -> str:
        """The kind of scorer: the one that is named, else the one whose setting is given."""
        return chosen_kind(self.kind, self.address, self.function)

    @property
    def takes_columns(self) -> bool:
        """Whether it may ask for the columns of the prompts' records."""
        return self.chosen == "function" or self.chosen not in SHIPPED

    @property
    def identity(self) -> tuple[Any, ...]:
        """What two runs must share for their scores to be of one unit."""
        return self.chosen, self.address, self.function, self.options

    @model_validator(mode="after")
    def _private(self) -> Self:
        self._require_private(() if self.address is None else (self.address,))
        return self

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if self.kind is None and self.address is not None and self.function is not None:
            raise ValueError("address and function are both given; keep one of them, or say which by kind")
        for kind, name in (("remote", "address"), ("function", "function")):
            given = getattr(self, name) is not None
            if self.chosen == kind and not given:
                raise ValueError(f"kind is {kind}, and {name} is not given; give it")
            if given and self.chosen != kind and self.chosen in SHIPPED:
                raise ValueError(f"{name} is given, and kind is {self.chosen}; remove {name}, or set kind to {kind}")
        if self.options and self.chosen in ("model", "remote"):
            raise ValueError(f"options are given, and a scorer of kind {self.chosen} has none; remove them")
        return self


def chosen_kind(kind: str | None, address: str | None, function: str | None) -> str:
    """The kind of scorer that settings with these values choose."""
    return kind or ("remote" if address else "function" if function else "model")


def laid_over(main: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The section `ppo.scorer` of an arm: its differences over the main run's, whose kind gives way to its own."""
    own = ("kind", "address", "function")
    dropped = (*own, "options") if any(name in changes for name in own) else ()
    return {**{name: value for name, value in main.items() if name not in dropped}, **changes}
