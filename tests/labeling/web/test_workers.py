"""Two processes serve one store: nothing is lost when one is killed, and limits hold over both."""

import asyncio
import os
import re
import signal
import subprocess
import threading
import time

import httpx
import pytest
from tests.labeling.live import LiveServer, free_port
from tests.labeling.web.test_load import check_nothing_lost_or_doubled, labelers, prepare
from tests.postgres_server import PostgresServer

from triphase.labeling.simulation.simulate_http import simulate_over_http

pytestmark = pytest.mark.postgres


def workers_of(server: LiveServer) -> list[int]:
    assert server.process is not None
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(server.process.pid)], capture_output=True, text=True, check=True
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "spawn_main" in line]


def test_a_worker_that_is_killed_loses_nothing_and_is_started_anew(postgres: PostgresServer) -> None:
    where = postgres.new_database()
    passwords = prepare(where, 120, 6)
    server = LiveServer(where, free_port(), workers=2)
    server.start()
    before = workers_of(server)
    assert len(before) == 2

    def kill() -> None:
        time.sleep(1.5)
        os.kill(before[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    report = asyncio.run(simulate_over_http(server.address, labelers(6), passwords))
    thread.join()
    assert check_nothing_lost_or_doubled(where, report) >= 120
    ends = time.monotonic() + 60
    while len(workers_of(server)) < 2 and time.monotonic() < ends:
        time.sleep(0.2)
    after = workers_of(server)
    assert len(after) == 2 and before[1] in after and before[0] not in after
    server.stop()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in after), "a worker outlived its server"


def test_the_limit_of_sign_ins_holds_over_all_workers(postgres: PostgresServer) -> None:
    where = postgres.new_database()
    prepare(where, 2, 1)
    server = LiveServer(where, free_port(), workers=2)
    server.start()
    said = []
    for number in range(12):
        with httpx.Client(base_url=server.address, trust_env=False) as browser:  # a connection, and so a worker, each
            page = browser.get("/sign-in").text
            assert "password" in page
            form = {"name": "nobody", "password": f"wrong {number}"}
            said.append(browser.post("/sign-in", data=form).text)
    server.stop()
    limited = [bool(re.search("too many attempts", text, re.I)) for text in said]
    assert limited == [False] * 8 + [True] * 4
