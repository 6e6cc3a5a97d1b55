"""vLLM servers that this process starts on this machine, and that end with it."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from triphase.errors import ServerAway, ServerError
from triphase.records.files import disk_errors, make_directory
from triphase.records.visible import visible
from triphase.rollouts import watchdog
from triphase.rollouts.client import JsonClient
from triphase.settings.services import RolloutSettings

_SETTING = "rollouts.servers"
_HOST = "127.0.0.1"
_POLL_SECONDS = 0.3
_LAST_LINES, _LINE_SIGNS, _TAIL_BYTES = 4, 200, 1 << 14
_MOST_RESTARTS = 3
_NOTICED_SECONDS = 1.0
"""Time in which a keeper notices that its server has ended."""
_COMMAND = "# "


@dataclass(slots=True)
class _Started:
    """One server: its keeper, its port, its log, and the number of its restarts."""

    port: int
    log: Path
    keeper: "subprocess.Popen[bytes] | None" = None
    restarts: int = 0


class StartedServers:
    """Servers behind a random token on free ports of the loopback interface.

    Attributes:
        token: the token that they require.
        addresses: the addresses of the servers.
    """

    def __init__(
        self,
        settings: RolloutSettings,
        command: Callable[[str, int], list[str]],
        environment: Mapping[str, str],
        logs: Path,
        *,
        check: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        """``command`` builds the command of a server for a host and port; ``logs`` is the directory of their logs.

        ``check`` is called a few times a second while waiting for them, and may raise to end the wait.
        """
        self._settings, self._command, self._environment = settings, command, environment
        self._check, self._say = check, say
        self.token = secrets.token_urlsafe(24)
        ports = free_ports(settings.servers)
        self._servers = [_Started(port, logs / f"vllm-{number}.log") for number, port in enumerate(ports)]
        self.addresses = tuple(f"http://{_HOST}:{port}" for port in ports)

    def __enter__(self) -> "StartedServers":
        """Start them, and wait until each responds.

        Raises:
            ServerError: one ends, or none responds in time; with the last lines of its log.
        """
        try:
            for number, server in enumerate(self._servers):
                make_directory(server.log.parent)
                self._start(number)
            self._await_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End them, and wait until they have ended."""
        keepers = [server.keeper for server in self._servers if server.keeper is not None]
        for each in keepers:
            with suppress(OSError):
                assert each.stdin is not None  # noqa: S101 - opened with the process
                each.stdin.close()
        for each in keepers:
            try:
                each.wait(watchdog.GRACE_SECONDS + 5)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()
            _end_group_of(each)
        for server in self._servers:
            server.keeper = None

    def require_running(self, number: int) -> None:
        """Restart a server that has ended.

        Raises:
            ServerError: it has ended too often.
        """
        server = self._servers[number]
        if server.keeper is not None and server.keeper.poll() is None:
            return
        if server.restarts >= _MOST_RESTARTS:
            raise ServerError(
                f"{_SETTING}: server {number} ended {_MOST_RESTARTS + 1} times; {self._end_of_log(server)}"
            )
        server.restarts += 1
        status = None
        if server.keeper is not None:
            assert server.keeper.stdin is not None  # noqa: S101 - opened with the process
            with suppress(OSError):
                server.keeper.stdin.close()
            status = server.keeper.returncode
            _end_group_of(server.keeper)
        what = "has ended" if status is None or status >= 0 else f"was ended, since its keeper {_killed(status)},"
        self._say(f"vLLM server {number} {what} and is restarted; {self._end_of_log(server)}")
        self._start(number)

    def end_of(self, number: int) -> str | None:
        """How a server has ended, with its last lines; None while it runs."""
        server = self._servers[number]
        if server.keeper is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            server.keeper.wait(_NOTICED_SECONDS)
        status = server.keeper.returncode
        return None if status is None else f"server {number} {_ended(status)}; {self._end_of_log(server)}"

    def _start(self, number: int) -> None:
        server, devices = self._servers[number], self._settings.devices
        visible_devices = {"CUDA_VISIBLE_DEVICES": devices[number]} if devices else {}
        command = self._command(_HOST, server.port)
        with disk_errors(server.log), server.log.open("ab") as log:
            log.write(f"\n{_COMMAND}{' '.join(command)}\n".encode())
        try:
            server.keeper = subprocess.Popen(  # noqa: S603 - our own keeper, and the server of the settings
                [sys.executable, "-P", watchdog.__file__, str(server.log), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,  # one line, the server's process group
                stderr=subprocess.DEVNULL,
                env={**self._environment, **visible_devices, "VLLM_API_KEY": self.token},
                start_new_session=True,  # Ctrl-C is for the run
            )
        except OSError as error:
            raise ServerError(f"{_SETTING}: the server cannot be started ({error})") from None

    def _await_ready(self) -> None:
        count, seconds = len(self._servers), self._settings.ready_seconds
        some = "a vLLM server" if count == 1 else f"{count} vLLM servers"
        self._say(f"starting {some} (log: {self._servers[0].log}); that may take up to {seconds:g} s")
        begin, waiting = time.monotonic(), list(range(count))
        clients = [
            JsonClient(address, self._settings, setting=_SETTING, check=self._check, token=self.token)
            for address in self.addresses
        ]
        try:
            while waiting:
                self._check()
                waiting = [number for number in waiting if not self._is_ready(number, clients[number])]
                if waiting and time.monotonic() - begin > seconds:
                    raise ServerError(
                        f"{_SETTING}: server {waiting[0]} does not respond within ready_seconds {seconds:g}; "
                        f"{self._end_of_log(self._servers[waiting[0]])}"
                    )
                if waiting:
                    time.sleep(_POLL_SECONDS)
        finally:
            for client in clients:
                client.close()
        self._say(f"{some} ready after {time.monotonic() - begin:.0f} s")

    def _is_ready(self, number: int, client: JsonClient) -> bool:
        server = self._servers[number]
        if server.keeper is None or server.keeper.poll() is not None:
            status = None if server.keeper is None else server.keeper.returncode
            raise ServerError(
                f"{_SETTING}: server {number} {_ended(status)} before it was ready; {self._end_of_log(server)}"
            )
        try:
            client.ask("GET", "/health", tries=1, seconds=5.0)
        except ServerAway:
            return False
        return True

    def _end_of_log(self, server: _Started) -> str:
        lines = last_lines(server.log)
        return f"the last lines of {server.log}: {' | '.join(lines)}" if lines else f"{server.log} is empty"


def _ended(status: int | None) -> str:
    return (
        f"ended with exit code {status}"
        if status is None or status >= 0
        else f"has lost its keeper, which {_killed(status)}"
    )


def _killed(status: int) -> str:
    return f"was killed by signal {-status}"


def _end_group_of(keeper: "subprocess.Popen[bytes]") -> None:
    """After a keeper was killed: end what its server had started. Otherwise the keeper has done so itself."""
    assert keeper.stdout is not None  # noqa: S101 - opened with the process
    if keeper.stdout.closed:
        return  # done before
    with keeper.stdout as output:
        group = output.readline().strip() if keeper.returncode is not None and keeper.returncode < 0 else b""
    if group.isdigit():
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(int(group), signal.SIGKILL)


def last_lines(log: Path) -> list[str]:
    """The last nonempty lines of a log, each truncated; the last one with an error comes first."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    text = text.rpartition(f"\n{_COMMAND}")[2].partition("\n")[2] or text  # of the last start
    lines = [visible(line.strip()) for line in text.splitlines() if line.strip() and not line.startswith(_COMMAND)]
    errors = [line for line in lines if "Error" in line]
    chosen = [*errors[-1:], *(line for line in lines[-_LAST_LINES:] if line not in errors[-1:])]
    return [line[:_LINE_SIGNS] for line in chosen]


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that are free now."""
    opened: Sequence[socket.socket] = [socket.socket() for _ in range(count)]
    try:
        for each in opened:
            each.bind((_HOST, 0))
        return [int(each.getsockname()[1]) for each in opened]
    finally:
        for each in opened:
            each.close()
