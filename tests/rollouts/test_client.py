"""Whatever a server does, the client ends in bounded time, with a result or one line, and leaks no secrets."""

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.rollouts.fake_server import Asked, FakeServer, Reply, in_turn

from triphase.errors import ServerError
from triphase.rollouts.client import JsonClient
from triphase.settings.services import ServiceSettings


class Waits(list[float]):
    """Keeps the waits instead of waiting."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def client(address: str, waits: Waits | None = None, draw: float = 0.0, **changes: Any) -> JsonClient:
    values = {"timeout_seconds": 0.4, "connect_seconds": 0.4, "retries": 2, **changes}
    settings = ServiceSettings.model_validate(values)
    return JsonClient(
        address, settings, setting="ppo.scorer.address", sleep=Waits() if waits is None else waits, draw=lambda: draw
    )


def asked(reply: Callable[[Asked], Reply], **changes: Any) -> tuple[Any, FakeServer]:
    with FakeServer(reply).running() as server:
        made = client(server.address, **changes)
        try:
            return made.post("/score", {"a": 1}), server
        finally:
            made.close()


def refused(reply: Callable[[Asked], Reply], **changes: Any) -> tuple[str, int]:
    """The line of the error, and how often the server was asked."""
    server = FakeServer(reply)
    with server.running():
        made = client(server.address, **changes)
        with pytest.raises(ServerError) as caught:
            made.post("/score", {"a": 1})
        made.close()
    line = str(caught.value)
    assert "\n" not in line and line.startswith(f"ppo.scorer.address: {server.address}/score ")
    assert "then run the same command again" in line
    return line, len(server.asked)


def test_an_answer_comes_back_and_the_body_went_out() -> None:
    found, server = asked(lambda _: Reply(body={"scores": [1.5]}))
    assert found == {"scores": [1.5]}
    assert (server.asked[0].method, server.asked[0].path, server.asked[0].body) == ("POST", "/score", {"a": 1})


@pytest.mark.parametrize("failure", [Reply(500, "down"), Reply(503, "busy"), Reply(429, "slow"), Reply(drop=True)])
def test_a_failure_that_passes_is_tried_again(failure: Reply) -> None:
    waits = Waits()
    found, server = asked(in_turn(failure, failure, Reply(body=[7])), waits=waits, draw=1.0)
    assert found == [7] and len(server.asked) == 3
    assert waits == [0.5, 1.0]


def test_the_waits_are_drawn_between_half_and_whole() -> None:
    waits = Waits()
    asked(in_turn(Reply(500), Reply(body=[])), waits=waits, draw=0.0)
    assert waits == [0.25]


def test_the_waits_end_at_a_longest_one() -> None:
    waits = Waits()
    refused(in_turn(Reply(500)), waits=waits, draw=1.0, retries=9)
    assert max(waits) == 20.0 and len(waits) == 9


def test_a_failure_that_stays_ends_after_the_last_try() -> None:
    line, times = refused(in_turn(Reply(500, "no room")))
    assert "status 500" in line and "no room" in line and "(3 tries)" in line and times == 3


def test_what_a_client_did_wrong_is_not_tried_again() -> None:
    line, times = refused(in_turn(Reply(404, {"detail": "no such path\nat all"})))
    assert "status 404" in line and "no such path" in line and times == 1


def test_a_server_that_hangs_is_left() -> None:
    begin = time.monotonic()
    line, times = refused(in_turn(Reply(wait=30)), retries=1)
    assert "does not respond within 0.4 s (2 tries)" in line and times == 2
    assert time.monotonic() - begin < 5


def test_a_server_that_answers_byte_by_byte_is_left() -> None:
    line, _ = refused(in_turn(Reply(parts=[b" "] * 60, pause=0.1)), retries=0)
    assert "does not respond within 0.4 s (1 try)" in line


def test_a_huge_answer_is_not_read_to_its_end() -> None:
    sent: list[bytes] = [b" " * 100_000] * 400
    line, times = refused(in_turn(Reply(parts=sent)), most_megabytes=0.3, timeout_seconds=20)
    assert "more than most_megabytes 0.3" in line and times == 1


def test_a_compressed_answer_is_refused() -> None:
    line, _ = refused(in_turn(Reply(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})))
    assert "sends a compressed response" in line


def test_a_redirect_is_not_followed() -> None:
    with FakeServer(lambda _: Reply(body={"scores": []})).running() as elsewhere:
        to = {"Location": elsewhere.address}
        line, times = refused(in_turn(Reply(307, headers=to)))
        assert "redirect" in line and times == 1 and elsewhere.asked == []


@pytest.mark.parametrize("body", [b"<html>", b"", b"\xff\xfe", b"[" * 200_000])
def test_an_answer_that_is_no_json_is_refused(body: bytes) -> None:
    line, _ = refused(in_turn(Reply(body=body)))
    assert "not JSON" in line and len(line) < 1500


def test_nobody_there_is_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    made = client(address)
    with pytest.raises(ServerError, match=r"cannot be reached \(.*refused.*\) \(3 tries\); check the server"):
        made.post("", {})
    made.close()


def test_no_secret_and_no_cookie_goes_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    secrets = ("hf-value-1", "wandb-value-2", "netrc-value-3", "proxy-value-4")
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login me password {secrets[2]}\n")
    for name, value in zip(("HF_TOKEN", "WANDB_API_KEY"), secrets, strict=False):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://user:{secrets[3]}@127.0.0.1:9")
    server = FakeServer(lambda _: Reply(body=[], headers={"Set-Cookie": "session=planted; Path=/"}))
    with server.running():
        made = client(server.address)
        made.post("", {"n": 1})
        made.post("", {"n": 2})
        made.close()
    assert len(server.asked) == 2
    seen = json.dumps([[one.headers, one.body] for one in server.asked])
    assert not [value for value in (*secrets, "planted") if value in seen]
    assert {name.lower() for one in server.asked for name in one.headers} == {
        "host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length",
    }  # fmt: skip


def test_the_one_token_that_is_named_goes_out_and_is_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCORER_PASS", "open-sesame-77")
    found, server = asked(lambda _: Reply(body=[]), token_variable="SCORER_PASS")
    assert found == [] and server.asked[0].headers["Authorization"] == "Bearer open-sesame-77"
    line, _ = refused(lambda one: Reply(403, one.headers["Authorization"]), token_variable="SCORER_PASS")
    assert "open-sesame-77" not in line and "Bearer ***" in line


@pytest.mark.parametrize("value", [None, "", "two\nlines", "naïve"])
def test_a_token_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is not None:
        monkeypatch.setenv("SCORER_PASS", value)
    with pytest.raises(ServerError, match="token_variable names SCORER_PASS"):
        client("http://127.0.0.1:1", token_variable="SCORER_PASS")
