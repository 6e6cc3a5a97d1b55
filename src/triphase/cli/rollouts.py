"""vLLM servers for the rollouts of a run, on this machine."""

import os
import shutil
import socket
import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from triphase.cli.arguments import Config, Overrides, settings_of
from triphase.datacheck.served_base import served_base
from triphase.errors import SettingsError
from triphase.records.visible import visible
from triphase.rollouts.serving import Base, require_vllm, server_command, server_environment

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EVERY = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


def rollouts(
    action: Annotated[Literal["serve"], Parameter(help="serve: start a server in the foreground; Ctrl-C stops it.")],
    config: Config,
    /,
    *overrides: Overrides,
    host: Annotated[str, Parameter(help="The interface to listen on; 0.0.0.0 is all of them.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port to listen on.")] = 8000,
) -> None:
    """Start a vLLM server for a run's rollouts."""
    settings = settings_of(config, overrides)
    require_vllm(settings.rollouts)
    _require_free(host, port)
    device = settings.model.device
    on_cpu = device == "cpu" or (device == "auto" and shutil.which("nvidia-smi") is None)
    command = server_command(settings, Base(served_base(settings), settings.model.dtype, on_cpu), host, port)
    place = socket.gethostname() if host in _EVERY else f"[{host}]" if ":" in host else host
    address = f"http://{place}:{port}"
    print(
        f"in the run's settings: rollouts: {{addresses: [{address}]}}; it reads the run directory under its path there"
    )
    if host not in _LOOPBACK and not os.environ.get("VLLM_API_KEY"):
        print(
            f"note: anyone who can reach {host}:{port} can load adapters; keep it in a private network, or behind https"
        )
    print(visible(f"starting: {' '.join(command)}"), flush=True)
    sys.stderr.flush()
    os.execve(command[0], command, server_environment(settings.rollouts, on_cpu=on_cpu))  # noqa: S606


def _require_free(host: str, port: int) -> None:
    """Refuse a port in use, or a host that is not this machine's.

    Raises:
        SettingsError: it cannot be listened on.
    """
    if not 0 < port < 1 << 16:
        raise SettingsError(f"--port {port}: is not allowed; it must be from 1 to 65535")
    try:
        kind, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        raise SettingsError(
            f"--port {port}: cannot listen on {host} ({error.strerror or error}); give another --port or --host"
        ) from None
