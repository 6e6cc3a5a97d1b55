"""Running the application with uvicorn: in the foreground for people, in a thread for simulations and tests."""

import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from triphase.errors import SettingsError


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_safe(host: str, certificate: Path | None, behind_proxy: bool) -> None:
    """Refuse to send passwords over a network in clear text."""
    if not is_loopback(host) and certificate is None and not behind_proxy:
        raise SettingsError(
            f"host {host} can be reached from other machines, and passwords would travel in clear text; give "
            "--certificate and --key, or --behind-proxy where a proxy with TLS stands before it"
        )


def listener(host: str, port: int) -> socket.socket:
    """A socket at this address, so that what is in the way is known before anything else is done."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise SettingsError(
            f"{host}:{port} cannot be served ({error.strerror or error}); give another --port, or end what serves there"
        ) from error


def check_certificate(certificate: Path | None, key: Path | None) -> None:
    """Refuse a certificate that cannot be used."""
    if certificate is None:
        if key is not None:
            raise SettingsError(f"--key {key} belongs to a certificate; give --certificate too")
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except OSError as error:  # what ssl itself finds wrong is an OSError too
        raise SettingsError(
            f"--certificate {certificate} with --key {key} cannot be used ({error.strerror or error}); give both as PEM"
        ) from error


def run(
    app: FastAPI, listening: socket.socket, *, certificate: Path | None = None, key: Path | None = None,
    proxy: bool = False,
) -> None:  # fmt: skip
    """Serve until interrupted; what was acknowledged is in the store."""
    config = uvicorn.Config(
        app, log_level="warning", ssl_certfile=certificate, ssl_keyfile=key, server_header=False,
        proxy_headers=proxy, forwarded_allow_ips="127.0.0.1" if proxy else "", timeout_graceful_shutdown=5,
    )  # fmt: skip
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def in_thread(app: FastAPI, port: int = 0) -> Iterator[str]:
    """Serve on loopback while the block runs; gives the address."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
