"""TCP and TLS connections that keep one deadline for a whole exchange, and that one call ends from any thread.

The time-outs of an HTTP library apply to single reads, and a server that sends a byte now and then, interim responses
without end, or trailers, never exceeds one of them. Here each thread has one deadline; connecting, the handshake, and
every read and write wait for what is left of it. Waits are divided into slices, and ``check`` is called at each, so
that a request to stop is handled within a fraction of a second.
"""

import errno
import os
import queue
import select
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import httpcore

T = TypeVar("T")

_SLICE = 0.2
_LARGEST_WRITE = 1 << 16


class Exchanges:
    """The deadlines of the exchanges in progress, one for each thread, and the sockets they use."""

    def __init__(self, check: Callable[[], None]) -> None:
        """``check`` may raise to end the wait."""
        self._check = check
        self._here = threading.local()
        self._closed = threading.Event()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def begin(self, seconds: float) -> None:
        """Give this thread's exchange ``seconds`` from now on."""
        self._here.end = time.monotonic() + seconds

    def slice(self) -> float:
        """How long to wait before checking again.

        Raises:
            TimeoutError: nothing is left of this thread's deadline.
            ConnectionAbortedError: the connections were closed from another thread.
        """
        self._check()
        if self._closed.is_set():
            raise ConnectionAbortedError("the connection was closed")
        left = self._here.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return float(min(left, _SLICE))

    def wait(self, seconds: float) -> None:
        """Wait between two exchanges, as interruptible as an exchange."""
        self.begin(seconds)
        try:
            while True:
                self._closed.wait(self.slice())
        except TimeoutError:
            return

    def add(self, opened: socket.socket) -> None:
        """Register this socket with ``close``."""
        self._sockets.add(opened)

    def close(self) -> None:
        """Abort every exchange, in whatever thread."""
        self._closed.set()
        for opened in list(self._sockets):
            try:
                opened.shutdown(socket.SHUT_RDWR)
            except OSError:  # not connected any more
                continue


class DeadlineBackend(httpcore.NetworkBackend):
    """Opens connections for ``exchanges``."""

    def __init__(self, exchanges: Exchanges) -> None:
        self._exchanges = exchanges

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first of the host's addresses that responds, all of them within ``timeout``.

        Raises:
            httpcore.ConnectTimeout: none did in time.
            httpcore.ConnectError: none accepts connections.
        """
        end = time.monotonic() + (timeout or 0.0)
        failure = OSError(f"{host} has no address")
        try:
            for family, kind, protocol, _, address in self._addresses(host, port, end):
                try:
                    return self._connect(socket.socket(family, kind, protocol), address, end)
                except ConnectionAbortedError:
                    raise
                except OSError as error:
                    if isinstance(error, TimeoutError):
                        raise
                    failure = error
        except TimeoutError:
            raise httpcore.ConnectTimeout from None
        except OSError as error:
            failure = error
        raise httpcore.ConnectError(str(failure)) from failure

    def _connect(self, opened: socket.socket, address: Any, end: float) -> httpcore.NetworkStream:
        try:
            opened.setblocking(False)
            code = opened.connect_ex(address)
            if code == errno.EINPROGRESS:
                self._await_writable(opened, end)
                code = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            opened.close()
            raise
        return DeadlineStream(opened, self._exchanges)

    def _await_writable(self, opened: socket.socket, end: float) -> None:
        poll = select.poll()
        poll.register(opened, select.POLLOUT)
        while not poll.poll(1000 * min(self._exchanges.slice(), max(0.0, end - time.monotonic()))):
            if time.monotonic() >= end:
                raise TimeoutError

    def _addresses(self, host: str, port: int, end: float) -> list[Any]:
        """The addresses of the name. Resolvers have no time-out of their own, so a thread resolves, and may be
        abandoned."""
        found: queue.SimpleQueue[list[Any] | OSError] = queue.SimpleQueue()

        def resolve() -> None:
            try:
                found.put(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
            except (OSError, UnicodeError) as error:
                found.put(OSError(f"{host}: {error}"))

        threading.Thread(target=resolve, daemon=True, name=f"resolve {host}").start()
        while time.monotonic() < end:
            try:
                answer = found.get(timeout=min(self._exchanges.slice(), max(0.0, end - time.monotonic())))
            except queue.Empty:
                continue
            if isinstance(answer, OSError):
                raise answer
            return answer
        raise TimeoutError


class DeadlineStream(httpcore.NetworkStream):
    """One connection; the deadline of the exchange applies, not the time-outs of its caller."""

    def __init__(self, opened: socket.socket, exchanges: Exchanges) -> None:
        self._socket = opened
        self._exchanges = exchanges
        exchanges.add(opened)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Up to ``max_bytes`` bytes; none at the end of the connection.

        Raises:
            httpcore.ReadTimeout, httpcore.ReadError: the deadline passed; the connection broke.
        """
        try:
            return self._sliced(lambda: self._socket.recv(max_bytes))
        except TimeoutError:
            raise httpcore.ReadTimeout from None
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of ``buffer``.

        Raises:
            httpcore.WriteTimeout, httpcore.WriteError: the deadline passed; the connection broke.
        """
        left = memoryview(buffer)
        try:
            while left:
                part = left[:_LARGEST_WRITE]
                left = left[self._sliced(lambda part=part: self._socket.send(part)) :]  # type: ignore[misc]
        except TimeoutError:
            raise httpcore.WriteTimeout from None
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same connection under TLS.

        Raises:
            httpcore.ConnectTimeout, httpcore.ConnectError: the handshake did not end in time, or failed.
        """
        try:
            wrapped = ssl_context.wrap_socket(
                self._socket, server_hostname=server_hostname, do_handshake_on_connect=False
            )
            stream = DeadlineStream(wrapped, self._exchanges)
            stream._sliced(wrapped.do_handshake)
        except TimeoutError:
            self.close()
            raise httpcore.ConnectTimeout from None
        except OSError as error:
            self.close()
            raise httpcore.ConnectError(str(error)) from error
        return stream

    def _sliced(self, call: Callable[[], T]) -> T:
        """Repeats ``call``, which waits for the socket, until it does not time out."""
        while True:
            self._socket.settimeout(self._exchanges.slice())
            try:
                return call()
            except TimeoutError:
                continue
