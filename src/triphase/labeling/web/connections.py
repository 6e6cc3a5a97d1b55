"""Time-outs of the page's connections: no client can hold one by sending, or reading, without end.

uvicorn closes idle connections between two requests only. A client that sends half a request keeps its connection
forever, and a few hundred of those use up the file descriptors, after which nobody can connect. Here a request must be
complete within ``REQUEST_SECONDS`` and its response received within ``ANSWER_SECONDS``; when the limit of connections
is reached, the oldest connection without a complete request is closed for the new one. The TLS handshake is a part of
the request: asyncio reports a connection to a protocol only after its handshake, so here the protocol starts it.
"""

import asyncio
import logging
import resource
import ssl
import time
from contextlib import suppress
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 20.0
ANSWER_SECONDS = 600.0
MOST_CONNECTIONS = 2000
KEPT_DESCRIPTORS = 64
"""File descriptors for the store, the log, and everything else that the process opens."""
_MINUTE = 60.0
_log = logging.getLogger("triphase.labeling")


class OncePerMinute(logging.Filter):
    """Lets one line of a kind through per minute, and reports with the next how many were suppressed."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        kind, now = str(record.msg)[:80], time.monotonic()
        if now - self._last.get(kind, -_MINUTE) < _MINUTE:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return False
        self._last[kind] = now
        left_out = self._left_out.pop(kind, 0)
        if left_out:
            record.msg = f"{record.msg} ({left_out} such lines left out)"
        if "out of system resource" in kind:
            record.exc_info = None
        return True


def places() -> int:
    """The limit of open connections; the limit of descriptors is raised as far as possible."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + KEPT_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if raised > soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(8, min(MOST_CONNECTIONS, soft - KEPT_DESCRIPTORS))


def quiet_logs() -> None:
    """A flood of connections writes a line per minute, not a traceback each."""
    for name in ("asyncio", "uvicorn.error", "triphase.labeling"):
        logger = logging.getLogger(name)
        if not any(isinstance(one, OncePerMinute) for one in logger.filters):
            logger.addFilter(OncePerMinute())


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 on one connection, with a time-out for each part of it."""

    most = MOST_CONNECTIONS

    def __init__(self, *arguments: Any, tls: ssl.SSLContext | None = None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._tls = tls
        self._handshake: asyncio.Task[None] | None = None
        self._early: list[bytes] | None = None if tls is None else []  # received before the handshake's end is known
        self.since = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._answering: object = None
        self.given_up = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        if self._tls is None:
            super().connection_made(transport)
        else:
            transport.pause_reading()  # incoming data belongs to the handshake
            self.transport = transport
            self.connections.add(self)
            self._handshake = self.loop.create_task(self._begin_tls(transport, self._tls))
        if len(self.connections) > self.most:
            self._make_room()
        self._begin(REQUEST_SECONDS)

    async def _begin_tls(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        secured = None
        with suppress(OSError):  # ssl errors are a subclass, and so is a client's disconnect
            secured = await self.loop.start_tls(
                transport, self, context, server_side=True, ssl_handshake_timeout=REQUEST_SECONDS
            )
        if secured is None or secured.is_closing():
            transport.abort()
            self._end_timer()
            self.connections.discard(self)
            return
        super().connection_made(secured)
        early, self._early = self._early or [], None
        for data in early:
            self.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client, or this side, closed the connection."""
        self._end_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A part of a request arrived."""
        if self._early is not None:
            self._early.append(data)
            return
        super().data_received(data)
        if not self.waits and self._answering is not self.cycle:  # once: data after a request prolongs nothing
            self._answering = self.cycle
            self._begin(ANSWER_SECONDS)

    def on_response_complete(self) -> None:
        """A response is sent; the next request may arrive."""
        self.since = time.monotonic()
        self._begin(REQUEST_SECONDS)
        super().on_response_complete()

    @property
    def waits(self) -> bool:
        """Whether a request, or the rest of one, is still to arrive."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def give_up(self) -> None:
        """Close the connection even during a request, or while it is closing and its response is not received."""
        if self.transport is not None and not self.given_up:
            self.given_up = True
            self.transport.abort()

    def _time_out(self) -> None:
        """A client that still receives a response, which this side has finished, has the usual time for it."""
        left = self.since + ANSWER_SECONDS - time.monotonic()
        if self.waits and left > 0 and self.transport.get_write_buffer_size():
            self._begin(left)
        else:
            self.give_up()

    def _make_room(self) -> None:
        """Close the oldest connection without a complete request; this one if all others are in use."""
        there = [one for one in self.connections if isinstance(one, BoundedProtocol) and not one.given_up]
        if len(there) > self.most:
            _log.warning("more than %d connections; the oldest without a whole request are closed", self.most)
            min((one for one in there if one.waits), key=lambda one: one.since).give_up()

    def _begin(self, seconds: float) -> None:
        self._end_timer()
        self._timer = self.loop.call_later(seconds, self._time_out)

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
