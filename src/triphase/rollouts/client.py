"""Asking a server for JSON: one address, bounded waits, bounded answers, few retries, and no secrets.

No redirect is followed, no cookie is kept, and nothing is taken from the environment (no proxy, no netrc) but the one
token whose variable the settings name for this server.
"""

import http.cookiejar
import json
import os
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from triphase import __version__
from triphase.errors import ServerError
from triphase.settings.services import ServiceSettings

if TYPE_CHECKING:
    import httpx

_REMEDY = "then give the same command again; what is finished is kept"
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 20.0
_SHOWN = 200


class _Passing(Exception):
    """A failure that another try may mend."""


class JsonClient:
    """Asks one server. Threads may share it.

    Attributes:
        address: where the server is.
    """

    def __init__(
        self,
        address: str,
        settings: ServiceSettings,
        *,
        setting: str,
        sleep: Callable[[float], None] = time.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """``setting`` is the name under which the address stands in the settings; errors name it.

        Raises:
            ServerError: the token's variable is not set, or httpx is not installed.
        """
        self.address = address
        self._settings = settings
        self._setting = setting
        self._sleep, self._draw = sleep, draw
        self._token = self._read_token()
        self._http = self._open()

    def post(self, path: str, body: Any, *, plain: bool = False, hint: str = "") -> Any:
        """The JSON answer to ``body``; with ``plain`` its text. ``hint`` is told beside a refusal.

        Raises:
            ServerError: there is no answer after the last try, or none that can be used.
        """
        try:
            answer = self.ask("POST", path, json.dumps(body, ensure_ascii=False, allow_nan=False).encode())
        except ServerError as error:
            raise ServerError(f"{error} ({hint})" if hint else str(error)) from None
        if plain:
            return answer.decode(errors="replace")
        try:
            return json.loads(answer)
        except (ValueError, RecursionError):
            raise self.error(path, f"answers with something that is not JSON: {_shown(answer)}") from None

    def ask(self, method: str, path: str, content: bytes | None = None) -> bytes:
        """The answer to one request, tried again where a failure may pass.

        Raises:
            ServerError: as ``post``.
        """
        tries = self._settings.retries + 1
        for number in range(tries):
            try:
                return self._once(method, path, content)
            except _Passing as failure:
                if number == tries - 1:
                    raise self.error(path, f"{failure} ({tries} {'try' if tries == 1 else 'tries'})") from None
            # The wait doubles; its random part keeps many runs from asking at the same moment again.
            self._sleep(min(_LONGEST_WAIT, _FIRST_WAIT * 2**number) * (0.5 + self._draw() / 2))
        raise AssertionError("unreachable")

    def error(self, path: str, problem: str) -> ServerError:
        """The error that says what is wrong with the server."""
        line = f"{self._setting}: {self.address}{path} {problem}; check the server and this setting, {_REMEDY}"
        return ServerError(line if self._token is None else line.replace(self._token, "***"))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _once(self, method: str, path: str, content: bytes | None) -> bytes:
        import httpx

        try:
            with self._http.stream(method, self.address + path, content=content) as response:
                body = self._read(response, path)
        except httpx.TimeoutException:
            raise _Passing(f"does not answer within {self._settings.timeout_seconds:g} s") from None
        except httpx.TransportError as error:
            raise _Passing(f"cannot be reached ({_one_line(error)})") from None
        status = response.status_code
        if status == 429 or status >= 500:
            raise _Passing(f"answers with status {status}: {_shown(body)}")
        if 300 <= status < 400:
            raise self.error(path, f"answers with a redirect (status {status}), and none is followed")
        if status != 200:
            raise self.error(path, f"answers with status {status}: {_shown(body)}")
        return body

    def _read(self, response: "httpx.Response", path: str) -> bytes:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise self.error(path, "compresses its answer, which was not asked for")
        most, end = int(self._settings.most_megabytes * 1e6), time.monotonic() + self._settings.timeout_seconds
        parts, size = [], 0
        for part in response.iter_raw():
            size += len(part)
            if size > most:
                raise self.error(path, f"answers with more than most_megabytes {self._settings.most_megabytes:g}")
            if time.monotonic() > end:
                raise _Passing(f"does not end its answer within {self._settings.timeout_seconds:g} s")
            parts.append(part)
        return b"".join(parts)

    def _read_token(self) -> str | None:
        name = self._settings.token_variable
        if name is None:
            return None
        token = os.environ.get(name, "").strip()
        if not token or not token.isascii() or not token.isprintable():
            raise ServerError(
                f"{self._setting}: token_variable names {name}, which is not set in the environment (or holds signs "
                "that no token has); set it, or leave token_variable out"
            )
        return token

    def _open(self) -> "httpx.Client":
        try:
            import httpx
        except ImportError:
            raise ServerError(
                f"{self._setting} needs the package httpx; install it with: pip install 'triphase[vllm]'"
            ) from None
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"triphase/{__version__}",
        }
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        refusing = http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        return httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(self._settings.timeout_seconds, connect=self._settings.connect_seconds, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            follow_redirects=False,
            trust_env=False,
            cookies=refusing,
        )


def _shown(body: bytes) -> str:
    text = body[:_SHOWN].decode(errors="replace")
    return repr(text) + ("…" if len(body) > _SHOWN else "")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
