"""The settings of the servers that a run uses."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from triphase.settings.base import Positive, PositiveFloat, Settings

_BARE = "an address must contain no user name and no password"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_OWN_ARGUMENTS = ("--model", "--host", "--port", "--uds", "--api-key", "--logprobs-mode")
"""vLLM arguments set by the run: with other values it would not find its servers, or misread log-probabilities."""


def _checked_address(text: str) -> str:
    """``text`` without a trailing slash.

    Raises:
        ValueError: it is not a plain http(s) address, or contains a password, a query or a fragment.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        if "@" in text:  # an invalid address may still contain a password
            raise ValueError(f"{_BARE}, and its port is a number") from None
        raise ValueError(f"{text!r} is not an address ({error}); write for example http://10.0.0.5:8000") from None
    if "@" in parts.netloc or ("@" in text and not (parts.scheme in ("http", "https") and host)):
        raise ValueError(f"{_BARE}; set token_variable to the variable that holds the token")
    if not (text.isascii() and text.isprintable()):
        raise ValueError(
            f"{text!r} contains characters that an address cannot; write the host as xn--… and the path with %XX"
        )
    if parts.scheme not in ("http", "https") or not host or port == 0 or any(sign.isspace() for sign in text):
        raise ValueError(f"{text!r} is not an http(s) address; write for example http://10.0.0.5:8000")
    if parts.query or parts.fragment:
        raise ValueError(f"{text.split('?')[0]!r} contains ? or #; write the address without them")
    return text.rstrip("/")


Address = Annotated[str, AfterValidator(_checked_address)]


class ServiceSettings(Settings):
    """Time-outs and retries of requests to a server."""

    connect_seconds: PositiveFloat = 5.0
    """Time-out of a connection attempt."""
    timeout_seconds: PositiveFloat = 120.0
    """Maximum time of one exchange, from connecting to the last byte of the response."""
    retries: Annotated[int, Field(ge=0, le=20)] = 4
    """Further tries if there is no connection or no response, or the server returns 429 or 5xx; the waits between them
    double, and are drawn at random."""
    most_megabytes: PositiveFloat = 16.0
    """Maximum size of a response; a larger one ends the run."""
    token_variable: (
        Annotated[
            str,
            Field(
                pattern=r"^[A-Z_][A-Z0-9_]*$", json_schema_extra={"words": "a name of capital letters, digits and `_`"}
            ),
        ]
        | None
    ) = None
    """Environment variable with the bearer token for this server; `null` sends no token."""

    def _require_private(self, addresses: tuple[str, ...]) -> None:
        for address in addresses if self.token_variable else ():
            parts = urlsplit(address)
            if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
                raise ValueError(f"token_variable is set, and {address} would carry the token unencrypted; use https")


class RolloutSettings(ServiceSettings):
    """vLLM servers that generate PPO's rollouts (docs/servers.md)."""

    engine: Literal["auto", "local", "vllm"] | None = None
    """The generator: `local` is this process, `vllm` are servers; `null` is vllm if servers or addresses are set. With
    `auto` both sample for about ten seconds when PPO begins, and the faster one samples the run: this process, if the
    servers cannot."""
    servers: Annotated[int, Field(ge=0, le=64)] = 0
    """Number of vLLM servers that the run starts on this machine when PPO begins, and stops at its end."""
    addresses: tuple[Address, ...] = ()
    """vLLM servers that are already running (`triphase rollouts serve`). They read the run directory under its path
    here. Each request goes to the one with the fewest in progress."""
    ahead: Annotated[int, Field(ge=0, le=1)] = 0
    """Iterations by which servers sample ahead: with 1 they sample the next rollout while this process trains on the
    one before, so that its policy is one iteration older. Needs servers, and ppo.importance_limit."""
    sampling: bool = False
    """Whether servers also sample the responses that people rank (`sample`, and `label sample` from this run)."""
    evaluation: bool = False
    """Whether servers also sample the responses of the evaluation."""
    parallel: Positive = 32
    """Requests in progress at the same time, over all servers."""
    python: str | None = None
    """Python of the environment in which vLLM is installed, for `servers`; by default the one that runs Triphase. A
    path is relative to the settings file."""
    devices: tuple[str, ...] = ()
    """The GPUs of each started server, as in CUDA_VISIBLE_DEVICES (`["1", "2,3"]`); an empty list leaves it
    unchanged."""
    arguments: tuple[str, ...] = ()
    """Further arguments of each started server, such as `--gpu-memory-utilization=0.5`."""
    ready_seconds: PositiveFloat = 600.0
    """Maximum wait until the started servers respond."""
    away_seconds: PositiveFloat = 600.0
    """How long a run waits for a server to come back once none responds; then it ends, and the same command continues
    it later."""
    probe_tolerance: PositiveFloat = 0.25
    """Maximum mean difference of a server's log-probabilities from the trainer's on a prompt, in nats per token, with
    the base and with each adapter that is pushed; a larger one ends the run. Half precision needs up to about 0.1."""

    @property
    def by_servers(self) -> bool:
        """Whether servers sample."""
        return bool(self.servers or self.addresses)

    @property
    def tries_both(self) -> bool:
        """Whether a trial decides if servers sample PPO's rollouts; none is needed if only they can."""
        return self.engine == "auto" and self.by_servers and not self.ahead

    @model_validator(mode="after")
    def _fit(self) -> Self:
        self._require_private(self.addresses)
        self._require_words()
        if self.servers and self.addresses:
            raise ValueError(
                f"servers {self.servers} starts servers, but addresses lists {self.addresses[0]}; set one of the two"
            )
        if self.engine == "local" and self.by_servers:
            raise ValueError("engine local samples in this process; leave servers and addresses out, or set vllm")
        if self.engine == "vllm" and not self.by_servers:
            raise ValueError("engine vllm needs servers; set servers: 1 to start one here, or list some in addresses")
        if self.ahead and not self.by_servers:
            raise ValueError(
                "ahead 1 samples while this process trains, which only servers can; set ahead: 0, servers or addresses"
            )
        for name in ("sampling", "evaluation"):
            if getattr(self, name) and not self.by_servers:
                raise ValueError(f"{name} true needs servers; set {name}: false, servers or addresses")
        if self.devices and len(self.devices) != self.servers:
            count = len(self.devices)
            raise ValueError(
                f"devices lists GPUs for {count} {'server' if count == 1 else 'servers'}, but "
                f"servers is {self.servers}; give one entry for each"
            )
        return self

    def _require_words(self) -> None:
        """Check that the further arguments are valid, and do not override those that the run sets."""
        given = (("python", (self.python or "",)), ("devices", self.devices), ("arguments", self.arguments))
        for name, words in given:
            for word in words:
                if any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in word):
                    raise ValueError(
                        f"{name} holds {word!r}, which contains a character that a command line cannot; remove it"
                    )
        for word in self.arguments:
            flag = word.partition("=")[0].replace("_", "-")
            if flag in _OWN_ARGUMENTS:
                raise ValueError(
                    f"arguments holds {flag}, which Triphase sets itself; leave it out"
                )  # and no value: a key
