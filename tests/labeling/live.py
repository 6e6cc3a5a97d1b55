"""The server in its own process, for tests that load or kill it."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

_TICKS = os.sysconf("SC_CLK_TCK")
CODE = """
import sys
from triphase.cli import label
if __name__ == "__main__":  # workers import this as another module
    label.serve(sys.argv[1], port=int(sys.argv[2]), create=True, workers=int(sys.argv[3]))
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def processor_seconds(pid: int) -> float:
    """Processor time of a process and of all that it started, those that have ended included."""
    parents, seconds = dict[int, int](), dict[int, float]()
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            words = (place / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        parents[int(place.name)], seconds[int(place.name)] = int(words[1]), sum(map(int, words[11:15])) / _TICKS
    found, open_ = 0.0, [pid]
    while open_:
        one = open_.pop()
        found += seconds.get(one, 0.0)
        open_ += [child for child, parent in parents.items() if parent == one]
    return found


class LiveServer:
    """Starts, and is killed without warning."""

    def __init__(self, where: str | Path, port: int, workers: int = 1) -> None:
        self.where, self.port, self.workers = str(where), port, workers
        self.address = f"http://127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, self.where, str(self.port), str(self.workers)], stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        ends = time.monotonic() + 120
        while time.monotonic() < ends:
            try:
                httpx.get(f"{self.address}/sign-in", trust_env=False)
                return
            except httpx.TransportError:
                assert self.process.poll() is None, "the server ended at once"
                time.sleep(0.05)
        raise AssertionError("the server did not start")

    @property
    def pid(self) -> int:
        """The number of its process."""
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)
