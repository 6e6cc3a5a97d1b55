"""A small server for one report, for this machine alone: two routes, no cookies, read-only."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from triphase.errors import RunError, SettingsError
from triphase.reports.layout import code_of, policy_of
from triphase.reports.live import LiveReport
from triphase.reports.page import SCRIPT

HOST = "127.0.0.1"
_NAMES = ("127.0.0.1", "localhost")
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
"""The same as for the labeling page."""
_BARE = "default-src 'none'; frame-ancestors 'none'"


class ReportServer(ThreadingHTTPServer):
    """Serves on loopback; a request with another host is refused, so that no other site's page can read it."""

    daemon_threads = True
    request_queue_size = 16

    def __init__(self, report: LiveReport, port: int) -> None:
        self.report = report
        self.policy = f"{policy_of(code_of(SCRIPT), live=True)}; frame-ancestors 'none'"
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise SettingsError(
                f"{HOST}:{port} cannot be served ({why}); choose another --port, or stop the program that uses it"
            ) from None

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores a connection that breaks off; any other error is a defect and keeps its traceback."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    timeout = 10
    server: ReportServer

    def do_GET(self) -> None:
        """The page, or its state."""
        self._answer(send_body=True)

    def do_HEAD(self) -> None:
        """The headers of the same."""
        self._answer(send_body=False)

    def version_string(self) -> str:
        """Hides the server's version."""
        return "triphase"

    def log_message(self, format: str, *args: Any) -> None:
        """No request log: the terminal shows one line, the address."""

    def _answer(self, *, send_body: bool) -> None:
        status, kind, text = self._reply()
        body = text.encode("utf-8", "backslashreplace")
        self.send_response(status)
        self.send_header("content-type", f"{kind}; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.send_header("content-security-policy", self.server.policy if kind == "text/html" else _BARE)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if send_body:
            self.wfile.write(body)

    def _reply(self) -> tuple[int, str, str]:
        if not self._is_ours():
            return 400, "text/plain", "This server does not serve that host.\n"
        if self.path not in ("/", "/state"):
            return 404, "text/plain", "There is nothing here; the report is at /.\n"
        try:
            if self.path == "/state":
                return 200, "application/json", self.server.report.state()
            return 200, "text/html", self.server.report.page()
        except RunError as error:
            return 503, "text/plain", f"{error}\n"

    def _is_ours(self) -> bool:
        """Whether the request names this machine as host, and is not made by a page of another site (a link is
        allowed)."""
        from_elsewhere = self.headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
        if from_elsewhere and self.headers.get("sec-fetch-mode") != "navigate":
            return False
        named = self.headers.get_all("host") or []
        try:
            return len(named) == 1 and urlsplit(f"//{named[0]}").hostname in _NAMES
        except ValueError:
            return False


@contextmanager
def serving(report: LiveReport, port: int) -> Iterator[ReportServer]:
    """A listening server; it is closed at the end of the block."""
    server = ReportServer(report, port)
    try:
        yield server
    finally:
        server.server_close()
