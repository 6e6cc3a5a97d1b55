"""The hub's client, with a deadline that no server can exceed, and a wait that a request to stop ends.

The client of `huggingface_hub` limits only single reads, and some of them not at all, so that a hub, or a proxy before
it, that sends a byte now and then blocks forever. Here the header of a response has `SECONDS`, and the body must
deliver `LEAST` bytes in each `SECONDS`: the total time depends on a model's size, the minimum rate does not. A hub
that cannot be reached at all is tried once; its own client tries six times for each file. Large files may go through
hf-xet, which does not use Python.
"""

import math
import threading
import time
from typing import Any

from triphase.records.interruption import is_stop_asked

SECONDS = 120.0
LEAST = 100_000
_SLICE = 0.2
_LARGEST_WRITE = 1 << 16


class HubTooSlow(OSError):
    """The hub keeps a connection open without progress."""


def bound_hub() -> None:
    """Set deadlines in the hub's client, in this process from now on; does nothing if it is not installed."""
    try:
        from huggingface_hub import set_client_factory
        from huggingface_hub.utils import _http
    except ImportError:
        return
    if getattr(_http, "_GLOBAL_CLIENT_FACTORY", None) is not _bounded_client:
        set_client_factory(_bounded_client)


def _bounded_client() -> Any:
    from huggingface_hub.utils._http import default_client_factory

    client: Any = default_client_factory()
    for transport in {client._transport, *filter(None, client._mounts.values())}:
        _bound(transport)
    return client


def _bound(transport: Any) -> None:
    pace, plain = _Pace(), transport.handle_request
    transport._pool._network_backend = _Backend(transport._pool._network_backend, pace)

    def handle_request(request: Any) -> Any:
        pace.begin(is_head=True)
        try:
            return plain(request)
        finally:
            pace.begin(is_head=False)

    transport.handle_request = handle_request


class _Pace(threading.local):
    """The progress of an exchange, in each thread."""

    def __init__(self) -> None:
        self.begin(is_head=False)

    def begin(self, *, is_head: bool) -> None:
        """Start waiting for the header of a response, or for its body."""
        self._is_head, self._moved, self._since = is_head, 0, time.monotonic()

    def slice(self) -> float:
        """How long to wait before checking again.

        Raises:
            HubTooSlow: too little has arrived.
            KeyboardInterrupt: the user requested a stop. Libraries do not catch it.
        """
        if is_stop_asked():
            raise KeyboardInterrupt
        left = self._since + SECONDS - time.monotonic()
        if left <= 0:
            if self._is_head or self._moved < LEAST:
                raise HubTooSlow(
                    f"the hub made no progress within {SECONDS:g} s; try again, or set "
                    f"HF_HUB_OFFLINE=1 to use only cached files"
                )
            self.begin(is_head=False)
        return max(0.01, min(_SLICE, left))

    def came(self, count: int) -> None:
        """Count bytes received or sent."""
        self._moved += count


class _Backend:
    """Opens connections with a minimum rate."""

    def __init__(self, inner: Any, pace: _Pace) -> None:
        self._inner, self._pace, self._was_reached = inner, pace, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> "_Stream":
        """See httpcore."""
        from huggingface_hub.errors import OfflineModeIsEnabled

        self._pace.slice()
        seconds = SECONDS if timeout is None else min(timeout, SECONDS)
        try:
            found = self._inner.connect_tcp(host, port, timeout=seconds, **options)
        except Exception as error:
            if self._was_reached or type(error).__name__ not in ("ConnectError", "ConnectTimeout"):
                raise
            # As without a network: what is on this machine is used, and nothing is tried again.
            raise OfflineModeIsEnabled(f"{host} cannot be reached ({error})") from error
        self._was_reached = True
        return _Stream(found, self._pace)


class _Stream:
    """A connection with a minimum rate."""

    def __init__(self, inner: Any, pace: _Pace) -> None:
        self._inner, self._pace = inner, pace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """See httpcore. ``timeout`` is for the next byte, whichever it is."""
        silent = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            wait = min(self._pace.slice(), max(0.01, silent - time.monotonic()))
            try:
                found: bytes = self._inner.read(max_bytes, timeout=wait)
            except Exception as error:
                if type(error).__name__ != "ReadTimeout" or time.monotonic() >= silent:
                    raise
                continue
            self._pace.came(len(found))
            return found

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """See httpcore."""
        seconds = SECONDS if timeout is None else min(timeout, SECONDS)
        for start in range(0, len(buffer), _LARGEST_WRITE):
            self._pace.slice()
            part = buffer[start : start + _LARGEST_WRITE]
            self._inner.write(part, timeout=seconds)
            self._pace.came(len(part))

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> Any:
        """See httpcore."""
        seconds = SECONDS if timeout is None else min(timeout, SECONDS)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, seconds), self._pace)
