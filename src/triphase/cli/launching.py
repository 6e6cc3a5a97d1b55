"""Several processes of one command on this machine: started together, monitored, and ended together.

Each is what torchrun would start (`RANK`, `WORLD_SIZE`, `MASTER_ADDR` …), and ends with this process however that ends.
Rank 0 writes to the terminal; Ctrl-C goes to it, and it stops the others at the end of a step.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from triphase.errors import SettingsError
from triphase.records.visible import visible

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 15.0
"""Time for rank 0 to report what it knows and end by itself, once another has failed."""
_LAST_SECONDS = 3.0
"""Time for the others, once rank 0 has failed."""
_HOST = "127.0.0.1"


class _Group:
    """The processes of one run.

    Attributes:
        failed: the first rank that ended with an error; None while none has.
    """

    def __init__(self, words: Sequence[str], processes: int, port: int) -> None:
        command = [sys.executable, "-m", "triphase.cli.attended", *words]
        self.failed: int | None = None
        self._failed_at = 0.0
        self._asked = 0
        self._ranks: list[subprocess.Popen[bytes]] = []
        for rank in range(processes):
            # Separate sessions: a terminal's Ctrl-C reaches only this process.
            process = subprocess.Popen(  # noqa: S603 - the program itself
                command,
                env=_environment(rank, processes, port),
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            self._ranks.append(process)

    def watch(self) -> list[int]:
        """Wait for all, end those that cannot end any more, and return their exit codes."""
        while any(process.poll() is None for process in self._ranks):
            time.sleep(_POLL_SECONDS)
            self._note_failure()
            if self.failed is not None and time.monotonic() > self._failed_at + self._grace():
                self.kill()
        self._note_failure()
        return [process.returncode for process in self._ranks]

    def ask_to_stop(self, number: int, frame: object) -> None:
        """Handle the user's signal: the first lets the current step finish, the second ends all ranks at once."""
        self._asked += 1
        if self._asked > 1:
            self.kill()
        elif self._ranks:
            with suppress(ProcessLookupError):
                self._ranks[0].send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End all remaining ones."""
        for process in self._ranks:
            if process.poll() is None:
                process.kill()

    def _grace(self) -> float:
        return _LAST_SECONDS if self._ranks[0].poll() is not None else _GRACE_SECONDS

    def _note_failure(self) -> None:
        if self.failed is None:
            codes = {rank: code for rank, process in enumerate(self._ranks) if (code := process.poll())}
            if codes:
                # Of several, one that a signal has ended: the others may have failed for want of it.
                self.failed, self._failed_at = min(codes, key=lambda rank: (codes[rank] > 0, rank)), time.monotonic()


def launch(words: Sequence[str], processes: int, logs: Path) -> int:
    """Run `triphase WORDS` in this many processes; returns the exit code.

    ``logs`` is the directory for the logs of ranks other than 0.

    Raises:
        SettingsError: the port in MASTER_PORT is in use.
    """
    group = _Group(words, processes, _port())
    before = {number: signal.signal(number, group.ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        codes = group.watch()
    finally:
        group.kill()
        for number, handler in before.items():
            signal.signal(number, handler)
    if group.failed is not None and _is_worth_saying(codes, group.failed):
        print(visible(f"error: {_reason(group.failed, codes[group.failed], logs)}"), file=sys.stderr, flush=True)
        return 1
    return codes[0] if codes[0] >= 0 else 1


def _is_worth_saying(codes: Sequence[int], failed: int) -> bool:
    """Whether rank 0 has not reported by itself why the run ended."""
    return codes[0] < 0 or (failed != 0 and codes[0] in (0, 1))


def _reason(rank: int, code: int, logs: Path) -> str:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    log = logs / f"{rank}.log"
    where = f" ({_last_line(log)}; {log})" if rank and log.is_file() else ""
    return (
        f"rank {rank} {how}{where}, so the others were stopped too. Finished work is kept: the same command resumes "
        "from the last checkpoint"
    )


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "its log is empty"


def _environment(rank: int, processes: int, port: int) -> dict[str, str]:
    names = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": processes,
        "LOCAL_WORLD_SIZE": processes,
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": port,
    }
    defaults = {"GLOO_SOCKET_IFNAME": "lo", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return {**defaults, **os.environ, **{name: str(value) for name, value in names.items()}}


def _port() -> int:
    """The port of MASTER_PORT, or a free one.

    Raises:
        SettingsError: it is in use.
    """
    given = os.environ.get("MASTER_PORT", "0")
    if not (given.isascii() and given.isdigit() and len(given) <= 5) or int(given) > 65535:
        raise SettingsError(f"MASTER_PORT={given[:20]}: is not a port; use a number below 65536, or leave it out")
    with socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET) as probe:
        try:
            probe.bind(("", int(given)))  # every interface, like the ranks' store
        except OSError:
            raise SettingsError(
                f"MASTER_PORT={given}: the port is in use; choose another, or leave MASTER_PORT out for a free one"
            ) from None
        return int(probe.getsockname()[1])
