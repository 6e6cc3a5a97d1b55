"""JSON requests to a server: one address, bounded waits, bounded responses, few retries, and no secrets.

No redirect is followed, no cookie is stored, and nothing is taken from the environment (no proxy, no netrc) except the
token in the variable that the settings name for this server. An exchange, from connecting to the last byte, ends within
``timeout_seconds``, whatever the server does (``network.py``).
"""

import json
import math
import os
import random
from collections.abc import Callable
from typing import Any

import httpcore

from triphase import __version__
from triphase.errors import ServerAway, ServerError
from triphase.rollouts.redaction import shown, without_parts
from triphase.settings.services import ServiceSettings

try:
    from triphase.rollouts.network import DeadlineBackend, Exchanges
except ImportError:  # reported where a client is created; settings and messages need none
    _HAS_HTTPCORE = False
else:
    _HAS_HTTPCORE = True

_REMEDY = "then run the same command again; finished work is kept"
_READ_OF = 4096
"""Maximum bytes of a response that an error is built from; fewer are shown."""
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 20.0


class _Passing(Exception):
    """A failure that a retry may fix."""


def _go_on() -> None:
    """Never requests a stop."""


class JsonClient:
    """Sends requests to one server. Threads may share it.

    Attributes:
        address: the address of the server.
    """

    def __init__(
        self,
        address: str,
        settings: ServiceSettings,
        *,
        setting: str,
        check: Callable[[], None] = _go_on,
        sleep: Callable[[float], None] | None = None,
        draw: Callable[[], float] = random.random,
        token: str | None = None,
    ) -> None:
        """``setting`` is the name of the address in the settings; errors name it.

        ``check`` is called a few times a second while waiting for a server, and may raise to end the wait. ``token``
        replaces that of the settings' variable.

        Raises:
            ServerError: the token's variable is not set, or httpcore is not installed.
        """
        self.address = address
        self._settings = settings
        self._setting = setting
        self._token = token or self._read_token()
        self._exchanges, self._pool = self._open(check)
        self._sleep = self._exchanges.wait if sleep is None else sleep
        self._draw = draw

    def post(self, path: str, body: Any, *, tries: int | None = None) -> Any:
        """The JSON response to ``body``.

        Raises:
            ServerAway: there is no response after the last try.
            ServerError: the response cannot be used.
        """
        answer = self.ask("POST", path, json.dumps(body, ensure_ascii=False, allow_nan=False).encode(), tries=tries)
        return self.parsed(path, answer)

    def parsed(self, path: str, answer: bytes) -> Any:
        """A response as JSON.

        Raises:
            ServerError: it is not JSON.
        """
        try:
            return json.loads(answer)
        except (ValueError, RecursionError):
            raise self.error(path, f"responds with something that is not JSON: {self._quoted(answer)}") from None

    def ask(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        *,
        tries: int | None = None,
        seconds: float | None = None,
    ) -> bytes:
        """The response to one request, retried after temporary failures; ``tries`` times if given.

        ``seconds`` replaces the time-out for an exchange that takes less than others.

        Raises:
            ServerAway, ServerError: as ``post``.
        """
        tries = self._settings.retries + 1 if tries is None else tries
        for number in range(tries):
            try:
                return self._once(method, path, content, seconds)
            except _Passing as failure:
                if number == tries - 1:
                    line = self.error(path, f"{failure} ({tries} {'try' if tries == 1 else 'tries'})")
                    raise ServerAway(str(line)) from None
            # The wait doubles; its random part keeps many runs from retrying at the same moment.
            self._sleep(min(_LONGEST_WAIT, _FIRST_WAIT * 2**number) * (0.5 + self._draw() / 2))
        raise AssertionError("unreachable")

    def error(self, path: str, problem: str) -> ServerError:
        """The error that says what is wrong with the server; ``shown`` formats quotes of its responses."""
        line = f"{self._setting}: {self.address}{path} {problem}; check the server and this setting, {_REMEDY}"
        return ServerError(line if self._token is None else line.replace(self._token, "***"))

    def shown(self, text: str, most: int = 200) -> str:
        """The server's message, in quotes, truncated, and without the token or parts of it."""
        return shown(text, self._token, most)

    def holds_token(self, text: str) -> bool:
        """Whether a text from the server contains the token, a piece of it, or an encoding of one."""
        return without_parts(text, self._token) != text

    def _quoted(self, body: bytes) -> str:
        return self.shown(body[:_READ_OF].decode(errors="replace"))

    def close(self) -> None:
        """Abort the exchanges in progress, in every thread, and close the connections."""
        self._exchanges.close()
        self._pool.close()

    def _once(self, method: str, path: str, content: bytes | None, less: float | None) -> bytes:
        seconds = min(self._settings.timeout_seconds, less or math.inf)
        waits = {"connect": self._settings.connect_seconds, "read": seconds, "write": seconds, "pool": seconds}
        self._exchanges.begin(seconds)
        try:
            with self._pool.stream(
                method,
                self.address + path,
                headers=self._headers(),
                content=content,
                extensions={"timeout": waits},
            ) as response:
                body = self._read(response, path)
        except httpcore.ConnectTimeout:
            seconds = min(seconds, self._settings.connect_seconds)
            raise _Passing(f"does not accept a connection within {seconds:g} s") from None
        except httpcore.TimeoutException:
            raise _Passing(f"does not respond within {seconds:g} s") from None
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise _Passing(f"cannot be reached ({self.shown(_one_line(error))})") from None
        status = response.status
        if status == 200:
            return body
        if 300 <= status < 400:
            raise self.error(path, f"responds with a redirect (status {status}); redirects are not followed")
        problem = f"responds with status {status}: {self._quoted(body)}"
        if status == 429 or status >= 500:
            raise _Passing(problem)
        refusal = self.error(path, problem)
        refusal.status = status
        raise refusal

    def _read(self, response: "httpcore.Response", path: str) -> bytes:
        encodings = [value for name, value in response.headers if name.lower() == b"content-encoding"]
        if any(value.strip().lower() != b"identity" for value in encodings):
            raise self.error(path, "sends a compressed response, which was not requested")
        most = int(self._settings.most_megabytes * 1e6)
        parts, size = [], 0
        for part in response.iter_stream():
            size += len(part)
            if size > most:
                raise self.error(path, f"responds with more than most_megabytes {self._settings.most_megabytes:g}")
            parts.append(part)
        return b"".join(parts)

    def _read_token(self) -> str | None:
        name = self._settings.token_variable
        if name is None:
            return None
        token = os.environ.get(name, "").strip()
        if not token or not token.isascii() or not token.isprintable():
            raise ServerError(
                f"{self._setting}: token_variable names {name}, which is not set in the "
                f"environment (or contains characters that no token has); set it, or leave token_variable out"
            )
        return token

    def _headers(self) -> dict[bytes | str, bytes | str]:
        headers: dict[bytes | str, bytes | str] = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Connection": "close",
            "User-Agent": f"triphase/{__version__}",
        }
        return headers if self._token is None else headers | {"Authorization": f"Bearer {self._token}"}

    def _open(self, check: Callable[[], None]) -> "tuple[Exchanges, httpcore.ConnectionPool]":
        if not _HAS_HTTPCORE:
            raise ServerError(
                f"{self._setting} needs the package httpcore; install it with: pip install 'triphase[vllm]'"
            )
        exchanges = Exchanges(check)
        pool = httpcore.ConnectionPool(
            max_connections=None,
            max_keepalive_connections=0,  # data after a response is never taken for the next one
            http1=True,
            http2=False,
            retries=0,
            network_backend=DeadlineBackend(exchanges),
        )
        return exchanges, pool


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
