"""Programs that run as two ranks of one world."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence


def environment(rank: int, port: int, *, world: int = 2, **more: str) -> dict[str, str]:
    """The environment that torchrun sets for a rank."""
    names = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
    told = {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    quiet = {"GLOO_SOCKET_IFNAME": "lo", "TORCH_CPP_LOG_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"}
    return os.environ | quiet | told | more


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def begin(words: Sequence[str], *, each: Sequence[Mapping[str, str]] = ({}, {})) -> list[subprocess.Popen[str]]:
    """`python WORDS` as so many ranks as ``each`` has, with more in the environment of each."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, *words],
            env=environment(rank, port, world=len(each), **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, more in enumerate(each)
    ]


def ended(ranks: Sequence[subprocess.Popen[str]], *, timeout: float = 300) -> list[tuple[int, str]]:
    """The exit code and output of each, all ended afterwards."""
    try:
        return [(rank.wait(timeout), rank.stdout.read() if rank.stdout else "") for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            if rank.stdout:
                rank.stdout.close()
            rank.wait()
