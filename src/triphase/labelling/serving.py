"""Running the application with uvicorn: in the foreground for people, in a thread for simulations and tests."""

import ipaddress
import socket
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


def run(
    app: FastAPI, host: str, port: int, *, certificate: Path | None = None, key: Path | None = None, proxy: bool = False
) -> None:
    """Serve until interrupted; what was acknowledged is in the store."""
    uvicorn.run(
        app, host=host, port=port, log_level="warning", ssl_certfile=certificate, ssl_keyfile=key, server_header=False,
        proxy_headers=proxy, forwarded_allow_ips="127.0.0.1" if proxy else "", timeout_graceful_shutdown=5,
    )  # fmt: skip


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
