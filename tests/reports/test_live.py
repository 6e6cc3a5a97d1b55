"""A report that is served during its run: when it is rewritten, and who may request it."""

import functools
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from email.message import Message
from pathlib import Path
from typing import NamedTuple

import pytest

from triphase.errors import RunError, SettingsError
from triphase.labeling.web import guard
from triphase.reports.live import PAUSE, LiveReport
from triphase.reports.server import HEADERS, ReportServer, serving
from triphase.runs.locking import is_worked_on, locked


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run that has done two steps of SFT, which is quick to report."""
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "metrics.jsonl").write_text('{"step": 1, "sft/loss": 2.0}\n{"step": 2, "sft/loss": 1.5}\n')
    return tmp_path


@pytest.fixture
def server(begun: Path) -> Iterator[ReportServer]:
    with serving(LiveReport(begun, is_worked_on=lambda: False), 0) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


class Answer(NamedTuple):
    status: int
    headers: Message
    text: str


def answer(server: ReportServer, path: str, method: str = "GET", **headers: str) -> Answer:
    with closing(http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)) as connection:
        connection.putrequest(method, path, skip_host="host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        with connection.getresponse() as found:
            return Answer(found.status, found.headers, found.read().decode())


def test_it_is_written_again_when_something_changed_and_not_all_the_time(begun: Path) -> None:
    now = [100.0]
    live = LiveReport(begun, is_worked_on=lambda: True, clock=lambda: now[0])
    first = json.loads(live.state())
    assert "The run is in progress (SFT step 2)" in first["says"] and f'data-live="{first["version"]}"' in live.page()
    with (begun / "sft" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "sft/loss": 1.0}\n')
    assert json.loads(live.state())["version"] == first["version"]  # too soon
    now[0] += PAUSE + 0.1
    second = json.loads(live.state())
    assert second["version"] != first["version"] and "SFT step 3" in second["says"]
    now[0] += 60
    assert json.loads(live.state()) == second  # nothing changed


def test_a_page_that_takes_long_is_written_seldom(begun: Path) -> None:
    now = [100.0]

    def slow() -> float:
        now[0] += 1.0  # a page takes some seconds of this clock
        return now[0]

    live = LiveReport(begun, is_worked_on=lambda: True, clock=slow)
    version = json.loads(live.state())["version"]
    (begun / "timings.json").write_text('{"sft": 1.0}')
    looks = 0
    while json.loads(live.state())["version"] == version:
        looks += 1
    assert looks >= 9


def test_what_is_damaged_meanwhile_leaves_the_page_and_is_said(begun: Path) -> None:
    now = [100.0]
    live = LiveReport(begun, is_worked_on=lambda: None, clock=lambda: now[0])
    page = live.page()
    (begun / "timings.json").write_text("{")
    now[0] += 60
    assert live.page() == page
    says = json.loads(live.state())["says"]
    assert "Not refreshed" in says and "timings.json: damaged" in says and "Another machine may be working" in says
    (begun / "timings.json").write_text('{"sft": 1.0}')
    now[0] += 60
    assert "Not refreshed" not in json.loads(live.state())["says"] and live.page() != page
    with pytest.raises(RunError, match="no such run directory"):
        LiveReport(begun / "nowhere", is_worked_on=lambda: False).page()


def test_headers_are_those_of_the_labeling_page(server: ReportServer) -> None:
    for path, kind in (("/", "text/html"), ("/state", "application/json"), ("/else", "text/plain")):
        found = answer(server, path)
        assert found.status == (404 if path == "/else" else 200) and found.headers["content-type"].startswith(kind)
        for name, value in guard._HEADERS.items():
            assert name == "content-security-policy" or found.headers[name] == value
        assert set(HEADERS) == set(guard._HEADERS) - {"content-security-policy"} | {"cache-control"}
        policy = found.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy
        assert "triphase" == found.headers["server"]
    html = answer(server, "/").text
    policy = answer(server, "/", "HEAD").headers["content-security-policy"]
    assert policy.removesuffix("; frame-ancestors 'none'").replace("'", "&#39;") in html
    assert "connect-src 'self'" in policy


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[::1", "", "localhost@evil.example:80"])
def test_other_hosts_are_refused(server: ReportServer, host: str) -> None:
    found = answer(server, "/", host=host)
    assert found.status == 400 and "<html" not in found.text
    assert answer(server, "/", host=f"localhost:{server.server_address[1]}").status == 200


def test_pages_of_other_sites_may_link_here_and_not_ask(server: ReportServer) -> None:
    assert answer(server, "/state", sec_fetch_site="cross-site", sec_fetch_mode="no-cors").status == 400
    assert answer(server, "/", sec_fetch_site="cross-site", sec_fetch_mode="navigate").status == 200
    assert answer(server, "/", "POST").status == 501


def test_a_port_that_is_taken_is_one_line(server: ReportServer, begun: Path) -> None:
    port = server.server_address[1]
    with (
        pytest.raises(SettingsError, match=rf"127.0.0.1:{port} cannot be served .*another --port"),
        serving(LiveReport(begun, is_worked_on=lambda: False), port),
    ):
        pass
    with pytest.raises(SettingsError, match="99999 cannot be served"):
        ReportServer(LiveReport(begun, is_worked_on=lambda: False), 99999)


def test_who_works_on_a_run_is_seen_without_a_lock(begun: Path) -> None:
    assert is_worked_on(begun) is False
    with locked(begun, "wait"):
        assert is_worked_on(begun) is True
    assert is_worked_on(begun) is True  # by this process, which is still there
    (begun / ".lock").write_text("process 999999999 on elsewhere\n")
    assert is_worked_on(begun) is None
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    (begun / ".lock").write_text(f"process {ended.stdout.decode().strip()} on {os.uname().nodename}\n")
    assert is_worked_on(begun) is False


def test_one_line_with_the_address_and_ctrl_c_ends_it(begun: Path) -> None:
    (begun / "config.yaml").write_text("settings: {}\n")
    command = [sys.executable, "-m", "triphase", "report", str(begun), "--serve", "--port", "0"]
    heard = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        line = running.stdout.readline()
        assert line.startswith("The report: http://127.0.0.1:") and line.endswith("(Ctrl-C ends)\n")
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 0
        assert running.stdout.read() == "" and running.stderr.read() == ""
    assert not (begun / "report.html").exists()
