"""The server's end: one Ctrl-C, or two, as on a keyboard that repeats."""

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from triphase.labeling.web import serving


def _wait_for(address: str) -> None:
    assert not address.endswith(":0/health"), "the port that was taken is told"
    for _ in range(300):
        try:
            httpx.get(address, timeout=5)
            return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail(f"{address} never answered")


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_the_server_without_a_word(tmp_path: Path, times: int) -> None:
    command = [sys.executable, "-m", "triphase", "label", "serve", str(tmp_path / "labels.sqlite"), "--create"]
    with subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        try:
            said = ""
            while "/invitation/" not in said:
                said += server.stdout.readline()
            (address,) = re.findall(r"The page: (\S+)", said)
            _wait_for(f"{address}/health")
            for _ in range(times):
                server.send_signal(signal.SIGINT)
                time.sleep(0.01)
            said, _ = server.communicate(timeout=30)
        finally:
            server.kill()
    assert (server.returncode, said) == (0, "")


def test_the_address_names_the_port_that_was_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert serving.address_of("127.0.0.1", listening, tls=False) == f"http://127.0.0.1:{port}"
        assert serving.address_of("::1", listening, tls=True) == f"https://[::1]:{port}"
