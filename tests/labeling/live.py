"""The server in its own process, for tests that load or kill it."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

CODE = """
import sys
from triphase.cli import label
if __name__ == "__main__":  # workers import this as another module
    label.serve(sys.argv[1], port=int(sys.argv[2]), create=True, workers=int(sys.argv[3]))
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


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

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)
