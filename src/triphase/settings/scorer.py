"""The settings of the scorer of responses."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from triphase.settings.base import Positive
from triphase.settings.services import Address, ServiceSettings

_PART_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
SHIPPED = (
    "model",
    "remote",
    "function",
    "object",
    "classifier",
    "length",
    "repetition",
    "pattern",
    "json",
    "sentiment",
    "sum",
    "judge",
)
"""The kinds of scorers that come with Triphase; the first is the run's reward model."""


class ScorerSettings(ServiceSettings):
    """The scorer of responses (docs/extending.md): the run's reward model, a server (docs/servers.md), or a
    function."""

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
    """`model` (the run's reward model), `remote` (a server), `function`, `object` (passed to `triphase.train_ppo`),
    `classifier` (any sequence classifier), a rule (`length`, `repetition`, `pattern`, `json`, `sentiment`;
    docs/rewards.md has their options), a `sum`, a `judge`, or a kind that you added. By default it follows from the
    other settings, and is `model` if there are none."""
    address: Address | None = None
    """`remote`: the URL to which responses are sent for scoring, by POST. Scores may have any scale and offset: they
    are brought to the unit of `kl_coefficient` by `score_normalization`."""
    format: Literal["triphase", "openrlhf"] = "triphase"
    """`remote`: the format of requests and responses, ours or that of OpenRLHF's reward servers (docs/servers.md)."""
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
    `content`) and `responses` (texts); it returns a list of numbers, or a mapping with `total` and further names."""
    options: dict[str, Any] = {}  # noqa: RUF012
    """Options by name: of the function, the classifier, the rule, or of a kind that you added."""
    of: tuple[dict[str, Any], ...] = ()
    """`sum`: its parts, each a scorer with a `name` (its metric is `ppo/score_part/NAME`), a `weight` (1), and
    `calibrate` (true: its scores are divided by the standard deviation of those of the first rollout)."""
    batch_size: Positive = 64
    """Responses in one request, or one call."""

    @field_validator("options")
    @classmethod
    def _plain(cls, options: dict[str, Any]) -> dict[str, Any]:
        """The options as stored in the run's config.yaml, so that every start of a run has the same ones."""
        try:
            plain: dict[str, Any] = json.loads(json.dumps(options, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            raise ValueError(
                "options must be finite numbers, strings, booleans, or lists and mappings of "
                "these; write a date in quotes"
            ) from None
        return plain

    @property
    def chosen(self) -> str:
        """The kind of scorer: the one that is named, else the one whose setting is given."""
        return chosen_kind(self.kind, self.address, self.function, self.of)

    @property
    def parts(self) -> "tuple[SumPart, ...]":
        """The parts of a sum."""
        return tuple(_part(values) for values in self.of)

    @property
    def functions(self) -> tuple[str, ...]:
        """The scoring Python functions, including those of parts."""
        own = () if self.function is None else (self.function,)
        return own + tuple(name for part in self.parts for name in part.settings.functions)

    @property
    def by_reward_model(self) -> bool:
        """Whether the run's reward model scores, alone or as a part."""
        return self.chosen == "model" or any(part.settings.by_reward_model for part in self.parts)

    @property
    def takes_columns(self) -> bool:
        """Whether it may need the columns of the prompts' records."""
        asks = self.format == "openrlhf" or self.chosen == "object" or bool(self.functions)
        return asks or self.chosen not in SHIPPED

    @property
    def identity(self) -> tuple[Any, ...]:
        """What two runs must have in common for their scores to have the same unit."""
        return self.chosen, self.address, self.format, self.function, self.options, self.of

    @model_validator(mode="after")
    def _private(self) -> Self:
        self._require_private(() if self.address is None else (self.address,))
        return self

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if self.kind is None and self.address is not None and self.function is not None:
            raise ValueError("address and function are both given; keep one of them, or choose by kind")
        for kind, name in (("remote", "address"), ("function", "function")):
            given = getattr(self, name) is not None
            if self.chosen == kind and not given:
                raise ValueError(f"kind is {kind}, but {name} is missing; give it")
            if given and self.chosen != kind and self.chosen in SHIPPED and (self.chosen, name) != ("judge", "address"):
                raise ValueError(f"{name} is given, but kind is {self.chosen}; remove {name}, or set kind to {kind}")
        if self.format != "triphase" and self.chosen != "remote":
            raise ValueError(f"format applies to servers only, not to a scorer of kind {self.chosen}; remove format")
        if bool(self.of) != (self.chosen == "sum"):
            raise ValueError("kind sum needs a list of scorers under of, and no other kind has one")
        names = [part.name for part in self.parts]
        if len(set(names)) < len(names):
            raise ValueError(f"two parts of the sum have the same name ({', '.join(names)}); rename one")
        if self.of and not any(part.weight for part in self.parts):
            raise ValueError(
                "the weights of the sum are all 0, so every score would be 0; give one of them another weight"
            )
        if self.options and self.chosen in ("model", "remote", "sum"):
            raise ValueError(f"options are given, but a scorer of kind {self.chosen} has none; remove them")
        return self


@dataclass(frozen=True, slots=True)
class SumPart:
    """One scorer of a sum."""

    name: str
    weight: float
    calibrate: bool
    settings: ScorerSettings


def _part(values: Mapping[str, Any]) -> SumPart:
    """A part as written in the settings.

    Raises:
        ValueError: it is not a valid part.
    """
    rest = dict(values)
    name, weight, calibrate = rest.pop("name", None), rest.pop("weight", 1.0), rest.pop("calibrate", True)
    if not isinstance(name, str) or not _PART_NAME.fullmatch(name):
        raise ValueError(f"of: a part needs a name of small letters, digits and `_`, not {name!r}")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise ValueError(f"of.{name}: weight must be a number, not {weight!r}")
    if not isinstance(calibrate, bool):
        raise ValueError(f"of.{name}: calibrate must be true or false, not {calibrate!r}")
    if rest.get("of"):
        raise ValueError(f"of.{name}: a part must not be a sum itself; move its parts into this one")
    try:
        return SumPart(name, float(weight), calibrate, ScorerSettings.model_validate(rest))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(key) for key in first["loc"])
        why = first["msg"].removeprefix("Value error, ")  # pydantic's prefix for the message of our validators
        if first["type"] == "extra_forbidden":
            near = get_close_matches(place, [*ScorerSettings.model_fields, "name", "weight", "calibrate"], n=1)
            why = (
                f"unknown setting; did you mean {near[0]}?"
                if near
                else "unknown setting; a part has the settings of a scorer"
            )
        raise ValueError(f"of.{name}{f'.{place}' if place else ''}: {why}") from None


def chosen_kind(kind: str | None, address: str | None, function: str | None, of: Any = None) -> str:
    """The kind of scorer selected by settings with these values."""
    return kind or ("sum" if of else "remote" if address else "function" if function else "model")


def laid_over(main: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The section `ppo.scorer` of a variant: its differences over the main run's, whose kind is replaced by its own."""
    own = ("kind", "address", "function", "of")
    dropped = (*own, "options", "format") if any(name in changes for name in own) else ()
    return {**{name: value for name, value in main.items() if name not in dropped}, **changes}
