"""Runs the application with uvicorn: in the foreground for people, in a thread for simulations and tests."""

import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI

from triphase.errors import SettingsError
from triphase.labeling.web.connections import BoundedProtocol, places, quiet_logs

_EVERY_HOST = ("0.0.0.0", "::")  # noqa: S104


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_safe(host: str, certificate: Path | None, behind_proxy: bool, address: str | None = None) -> None:
    """Refuse to send passwords over a network unencrypted, and to guess the page's public name."""
    if (behind_proxy or host in _EVERY_HOST) and address is None:
        raise SettingsError(
            f"{'--behind-proxy' if behind_proxy else f'--host {host}'} needs --address, the address under which people "
            "reach the page (https://label.example.org): links contain it, and requests to other hosts are refused"
        )
    if address is not None and (not address.startswith(("http://", "https://")) or not host_of(address)):
        raise SettingsError(f"--address {address} is not an http(s) address; use for example https://label.example.org")
    if not is_loopback(host) and certificate is None and not behind_proxy:
        raise SettingsError(
            f"host {host} can be reached from other machines, and passwords would travel in clear text; give "
            "--certificate and --key, or --behind-proxy if a TLS proxy forwards to it"
        )


def host_of(address: str) -> str:
    """The host in an address, in lowercase; empty if there is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def hosts(host: str, address: str | None) -> tuple[str, ...]:
    """The hosts accepted in requests."""
    named = (host_of(address),) if address else ()
    here = ("127.0.0.1", "localhost", "::1") if is_loopback(host) else ()
    return (*here, host.lower(), *named)


def address_of(host: str, listening: socket.socket, *, tls: bool) -> str:
    """The address of a page served here; port 0 selected a free one."""
    shown, port = f"[{host}]" if ":" in host else host, listening.getsockname()[1]
    return f"{'https' if tls else 'http'}://{shown}:{port}"


def listener(host: str, port: int) -> socket.socket:
    """A socket at this address, so that a conflict is found before anything else is done."""
    if not 0 <= port < 1 << 16:
        raise SettingsError(f"--port {port}: is not allowed; it must be from 1 to 65535, or 0 for any that is free")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:  # an invalid name raises the second
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(
            f"{host}:{port} cannot be served ({reason}); choose another --port, or stop the program that uses it"
        ) from error


def check_certificate(certificate: Path | None, key: Path | None) -> None:
    """Refuse a certificate that cannot be used."""
    if certificate is None:
        if key is not None:
            raise SettingsError(f"--key {key} belongs to a certificate; give --certificate too")
        return
    try:
        tls_context(certificate, key)
    except OSError as error:  # ssl's own errors are OSErrors too
        raise SettingsError(
            f"--certificate {certificate} with --key {key} cannot be used ({error.strerror or error}); give both as PEM"
        ) from error


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """The TLS settings of the page."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


@dataclass(frozen=True)
class Listening:
    """How a server listens, in a form that can be passed to another process.

    Attributes:
        sockets: the listening sockets. certificate, key: its TLS. proxy: whether a proxy on this machine reports the
            clients' addresses.
    """

    sockets: list[socket.socket]
    certificate: Path | None = None
    key: Path | None = None
    proxy: bool = False

    def config(self, app: "FastAPI | Callable[[], FastAPI]", **more: Any) -> uvicorn.Config:
        """The server's configuration; an application that is still to be created needs ``factory=True``."""
        return uvicorn.Config(
            app, log_level="warning", server_header=False, ws="none",
            http=partial(_protocol, certificate=self.certificate, key=self.key),  # type: ignore[arg-type]  # only called
            proxy_headers=self.proxy, forwarded_allow_ips="127.0.0.1" if self.proxy else "",
            timeout_graceful_shutdown=5, **more,
        )  # fmt: skip


def prepare() -> None:
    """Preparations of a process before it serves."""
    BoundedProtocol.most = places()
    quiet_logs()


class PatientServer(uvicorn.Server):
    """Shuts down within a few seconds: a second Ctrl-C, which would interrupt that with a traceback, is ignored."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn."""
        if not self.should_exit:
            super().handle_exit(sig, frame)


def run(app: FastAPI, listening: Listening) -> None:
    """Serve until interrupted; what was acknowledged is in the store."""
    prepare()
    with contextlib.suppress(KeyboardInterrupt):
        PatientServer(listening.config(app)).run(sockets=listening.sockets)


def _protocol(*arguments: Any, certificate: Path | None, key: Path | None, **named: Any) -> BoundedProtocol:
    return BoundedProtocol(*arguments, tls=None if certificate is None else _kept_context(certificate, key), **named)


@cache
def _kept_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    return tls_context(certificate, key)


@contextmanager
def in_thread(app: FastAPI, port: int = 0) -> Iterator[str]:
    """Serve on loopback while the block runs; returns the address."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", server_header=False, http=BoundedProtocol, ws="none")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
