"""The server's end: one Ctrl-C, or two, as on a keyboard that repeats."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest


def _wait_for(address: str) -> None:
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
        said = ""
        while "/invitation/" not in said:
            said += server.stdout.readline()
        (address,) = re.findall(r"The page: (\S+)", said)
        _wait_for(f"{address}/health")
        for _ in range(times):
            server.send_signal(signal.SIGINT)
            time.sleep(0.01)
        said, _ = server.communicate(timeout=30)
    assert (server.returncode, said) == (0, "")
