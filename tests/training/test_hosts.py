"""Two hosts on one machine, by network namespaces: the rendezvous, a link that is down for 20 s, and a slow one.

Making namespaces needs the rights of a system administrator; the tests say so and are skipped where they are missing.
"""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.training.test_distributed_runs import QUIET, config, figures, last_checkpoint, wait_for, write_data

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(900)]
DOWN_SECONDS = 20
_ADDRESSES = ("10.231.77.1", "10.231.77.2")


class Hosts:
    """Two namespaces with a link between them."""

    def __init__(self) -> None:
        name = f"tri{secrets.token_hex(2)}"
        self.names, self.links = [f"{name}-{end}" for end in "ab"], [f"{name}{end}" for end in "ab"]

    def make(self) -> None:
        first, second = self.links
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", first, "netns", self.names[0], "type", "veth", "peer", "name", second, "netns", self.names[1])
        for name, link, address in zip(self.names, self.links, _ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", link)
            for each in (link, "lo"):
                ip("-n", name, "link", "set", each, "up")

    def remove(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def begin(self, words: Sequence[str]) -> list[subprocess.Popen[str]]:
        """`triphase WORDS` by one process on each host, as torchrun starts it."""
        found = []
        for rank, (name, link, address) in enumerate(zip(self.names, self.links, _ADDRESSES, strict=True)):
            command = [
                "-m",
                "torch.distributed.run",
                "--nnodes",
                "2",
                "--nproc-per-node",
                "1",
                "--rdzv-backend",
                "c10d",
            ]
            command += ["--rdzv-endpoint", f"{_ADDRESSES[0]}:29500", "--rdzv-conf", f"is_host={int(rank == 0)}"]
            command += ["--local-addr", address, "-m", "triphase", *words]
            found.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", name, sys.executable, *command],
                    env=os.environ | QUIET | {"GLOO_SOCKET_IFNAME": link},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return found

    def set_link(self, state: str) -> None:
        ip("-n", self.names[1], "link", "set", self.links[1], state)

    def slow_down(self) -> str:
        """A link of 20 ms and 20 Mbit/s, where the kernel has netem, else of 20 Mbit/s."""
        made = ""
        for name, link in zip(self.names, self.links, strict=True):
            place = ["tc", "-n", name, "qdisc", "add", "dev", link, "root"]
            netem = subprocess.run(
                [*place, "netem", "delay", "10ms", "rate", "20mbit"], capture_output=True, check=False
            )
            made = "netem"
            if netem.returncode:
                made = "tbf"
                subprocess.run([*place, "tbf", "rate", "20mbit", "burst", "32kbit", "latency", "400ms"], check=True)
        return made


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    try:
        made.make()
    except (OSError, subprocess.CalledProcessError) as error:
        made.remove()
        why = getattr(error, "stderr", None) or str(error)
        pytest.skip(f"network namespaces cannot be made here (ip netns): {why.strip()}")
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hosts")
    write_data(made)
    return made


def finished(ranks: list[subprocess.Popen[str]], seconds: float = 600) -> list[str]:
    """What all of them said, once they have ended well."""
    said = []
    try:
        for each in ranks:
            said.append(each.communicate(timeout=seconds)[1])
            assert each.returncode == 0, said[-1]
    finally:
        for each in ranks:
            each.kill()
            each.wait()
    return said


def settings(folder: Path, name: str, iterations: int) -> Path:
    ppo = {"batch_size": 8, "minibatch_size": 8, "epochs": 1, "max_response_tokens": 10, "iterations": iterations}
    return config(folder, name, ppo=ppo)


def test_a_link_that_is_down_for_20_s_stops_both_hosts_for_that_time(folder: Path, hosts: Hosts) -> None:
    path, run = settings(folder, "dropped", 40), folder / "runs" / "dropped"
    ranks = hosts.begin(["run", str(path)])
    wait_for(lambda: any(each.poll() is not None for each in ranks) or last_checkpoint(run) >= 3)
    hosts.set_link("down")
    time.sleep(2)
    before = last_checkpoint(run)
    time.sleep(DOWN_SECONDS - 2)
    assert last_checkpoint(run) == before < 40, "the hosts do not need each other"
    hosts.set_link("up")
    said = finished(ranks)
    assert "2 processes train together" in said[0]
    assert [row["step"] for row in figures(run)["ppo"]] == list(range(1, 41))  # no gap and no double


def test_over_a_slow_link_the_run_ends_like_one_over_a_fast_one(folder: Path, hosts: Hosts) -> None:
    runs = []
    for name in ("fast", "slow"):
        if name == "slow":
            sys.stderr.write(f"\nthe link is slowed down by {hosts.slow_down()}\n")
        begun = time.monotonic()
        finished(hosts.begin(["run", str(settings(folder, name, 3))]))
        sys.stderr.write(f"{name}: {time.monotonic() - begun:.0f} s\n")
        runs.append(folder / "runs" / name)
    assert json.dumps(figures(runs[0])) == json.dumps(figures(runs[1]))
