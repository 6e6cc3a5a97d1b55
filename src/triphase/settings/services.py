"""The settings of who scores responses, and of the servers that a run asks."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from triphase.settings.base import Positive, PositiveFloat, Settings

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def _checked_address(text: str) -> str:
    """``text`` without a slash at its end.

    Raises:
        ValueError: it is no plain http(s) address, or carries a password, a query or a fragment.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{text!r} is no address ({error}); write for example http://10.0.0.5:8000") from None
    if "@" in parts.netloc:
        raise ValueError("an address must hold no user and no password; name a token's variable in token_variable")
    if not (text.isascii() and text.isprintable()):
        raise ValueError(f"{text!r} holds signs that an address cannot; write the host as xn--… and the path with %XX")
    if parts.scheme not in ("http", "https") or not host or port == 0 or any(sign.isspace() for sign in text):
        raise ValueError(f"{text!r} is no http(s) address; write for example http://10.0.0.5:8000")
    if parts.query or parts.fragment:
        raise ValueError(f"{text.split('?')[0]!r} goes on with ? or #; write the address without them")
    return text.rstrip("/")


Address = Annotated[str, AfterValidator(_checked_address)]


class ServiceSettings(Settings):
    """How a server is asked."""

    connect_seconds: PositiveFloat = 5.0
    """Longest wait for a connection."""
    timeout_seconds: PositiveFloat = 120.0
    """Longest time for one exchange, from connecting to the last byte of the answer."""
    retries: Annotated[int, Field(ge=0, le=20)] = 4
    """Further tries where there is no connection or no answer, or the server says 429 or 5xx; the waits between them
    double, and are drawn at random."""
    most_megabytes: PositiveFloat = 16.0
    """Largest answer that is read; a larger one ends the run."""
    token_variable: (
        Annotated[
            str,
            Field(
                pattern=r"^[A-Z_][A-Z0-9_]*$", json_schema_extra={"words": "a name of capital letters, digits and `_`"}
            ),
        ]
        | None
    ) = None
    """Name of the environment variable with the bearer token meant for this server; none sends none."""

    def _require_private(self, addresses: tuple[str, ...]) -> None:
        for address in addresses if self.token_variable else ():
            parts = urlsplit(address)
            if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
                raise ValueError(f"token_variable is set, and {address} would carry the token unencrypted; use https")


class ScorerSettings(ServiceSettings):
    """Who scores responses (docs/extending.md): the run's reward model, a server (docs/servers.md), or a function."""

    kind: (
        Annotated[
            str,
            Field(
                pattern=r"^[a-z][a-z0-9_-]*$", json_schema_extra={"words": "`model` | `remote` | `function` | your own"}
            ),
        ]
        | None
    ) = None
    """`model` (the run's reward model), `remote` (a server), `function`, or a kind that you added; none takes what the
    other settings name, and the reward model where they name nothing."""
    address: Address | None = None
    """`remote`: where responses are scored, by POST. Scores of any scale and offset do: they are brought to the unit of
    `kl_coefficient` by `score_normalization`."""
    function: (
        Annotated[
            str,
            Field(
                pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
                json_schema_extra={"words": "`package.module:function`"},
            ),
        ]
        | None
    ) = None
    """`function`: a Python function, called with a list of prompts (each a list of `role` and `content`) and a list of
    responses; it gives a list of numbers, or a mapping with `total` and lists of further names."""
    options: dict[str, Any] = {}  # noqa: RUF012
    """Options by name: of the function, or of a kind that you added."""
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
            if given and self.chosen != kind and self.chosen in ("model", "remote", "function"):
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


class RolloutSettings(ServiceSettings):
    """vLLM servers that write PPO's rollouts (docs/servers.md)."""

    addresses: tuple[Address, ...] = ()
    """vLLM servers, asked in turn; none samples in this process. They read the run directory under its path here."""
    parallel: Positive = 32
    """Requests under way at the same time, over all servers."""

    @model_validator(mode="after")
    def _private(self) -> Self:
        self._require_private(self.addresses)
        return self
