"""Several servers: scheduling, failover and recovery; no prompt is lost, and none is sampled twice."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.rollouts.fake_server import Asked, FakeServer, Reply
from tests.rollouts.test_servers import REQUESTS, Servers, expected, like_vllm

from triphase.errors import ServerAway
from triphase.rollouts import fleet
from triphase.rollouts.fleet import Fleet

GONE = Reply(drop=True)


class Mortal:
    """A server that can be gone for a while, and forgets its adapter then, as a process that was started anew.

    Attributes:
        dies_at: the number of the request at which it goes away; 0 is never.
        forgets: whether it loses its adapter right behind the next push.
        waits: seconds before each response.
    """

    def __init__(self, *, dies_at: int = 0) -> None:
        self.is_gone, self.has_adapter, self.dies_at = False, False, dies_at
        self.forgets, self.waits, self.loads = False, 0.0, 0
        self.answered: list[int] = []
        self.lock = threading.Lock()

    def __call__(self, asked: Asked) -> Reply:
        with self.lock:
            if self.is_gone:
                return GONE
            if asked.path == "/v1/load_lora_adapter":
                self.has_adapter, self.forgets, self.loads = not self.forgets, False, self.loads + 1
            if asked.path != "/v1/completions":
                return Reply()
            if not self.has_adapter:
                return Reply(404, {"error": {"message": "The model does not exist"}})
            if self.dies_at and len(self.answered) + 1 >= self.dies_at:
                self.dies_at, self.is_gone, self.has_adapter = 0, True, False
                return GONE
            self.answered.append(asked.body["seed"])
            reply = like_vllm(asked)
            reply.wait = self.waits
            return reply


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_AGAIN_SECONDS", 0.05)


@contextmanager
def served(directory: Path, *mortals: Mortal, away_seconds: float = 20.0, **changes: Any) -> Iterator[Servers]:
    with ExitStack() as stack:
        there = [stack.enter_context(FakeServer(mortal).running()) for mortal in mortals]
        servers = Servers(directory, *there, away_seconds=away_seconds, **changes)
        yield servers
        servers.generator.close()


def test_the_server_with_the_fewest_requests_under_way_is_asked(tmp_path: Path) -> None:
    slow, quick = Mortal(), Mortal()
    slow.waits = 0.5
    with served(tmp_path, slow, quick, parallel=2) as servers:
        assert servers.generate() == [expected(request) for request in REQUESTS]
    # One waits for the slow server; all that comes meanwhile goes to the other.
    assert len(slow.answered) < len(quick.answered)


def test_least_loaded_by_hand() -> None:
    three = Fleet(["a", "b", "c"], again=lambda _: None, check=lambda: None, say=lambda _: None, away_seconds=1)
    assert [three.take() for _ in range(4)] == [0, 1, 2, 0]
    three.give_back(2)
    assert three.take() == 2
    three.drain(1, ServerAway("b is unreachable"))
    three.give_back(0)
    assert [three.take(), three.take(), three.take()] == [0, 2, 0]


def test_a_server_that_dies_is_drained_and_each_prompt_is_answered_once(tmp_path: Path) -> None:
    dying, other = Mortal(dies_at=2), Mortal()
    with served(tmp_path, dying, other) as servers:
        assert servers.generate() == [expected(request) for request in REQUESTS]
        # The next rollout is the other's alone, from its own adapter.
        assert servers.generate() == [expected(request) for request in REQUESTS]
    counts = Counter(dying.answered + other.answered)
    assert counts == {request.seed: 2 for request in REQUESTS}
    assert len(dying.answered) == 1
    assert any("is unreachable; its prompts go to the other 1" in line for line in servers.said)


def test_one_that_comes_back_is_given_the_adapter_and_asked_again(tmp_path: Path) -> None:
    dying, other = Mortal(dies_at=1), Mortal()
    with served(tmp_path, dying, other) as servers:
        servers.generate()
        dying.is_gone, other.waits = False, 0.3
        assert servers.generate() == [expected(request) for request in REQUESTS]
    assert dying.has_adapter and dying.answered
    assert any("is back, with the current adapter" in line for line in servers.said)


def test_one_that_forgot_its_adapter_is_given_it_again(tmp_path: Path) -> None:
    forgetful = Mortal()
    with served(tmp_path, forgetful) as servers:
        servers.generate()
        forgetful.forgets = True
        assert servers.generate() == [expected(request) for request in REQUESTS]
    assert forgetful.loads == 3 and forgetful.has_adapter


def test_a_fleet_that_is_gone_pauses_the_run_until_one_is_back(tmp_path: Path) -> None:
    first, second = Mortal(dies_at=2), Mortal(dies_at=2)
    with served(tmp_path, first, second) as servers:
        back = threading.Timer(0.5, lambda: setattr(second, "is_gone", False))
        back.start()
        begin = time.monotonic()
        assert servers.generate() == [expected(request) for request in REQUESTS]
        assert time.monotonic() - begin >= 0.4
    assert Counter(first.answered + second.answered) == {request.seed: 1 for request in REQUESTS}
    assert any(line.startswith("no vLLM server responds: the run waits up to 20 s") for line in servers.said)


def test_a_fleet_that_stays_away_ends_the_run_in_one_line(tmp_path: Path) -> None:
    mortal = Mortal(dies_at=2)
    with served(tmp_path, mortal, away_seconds=0.3) as servers:
        with pytest.raises(
            ServerAway, match=r"cannot be reached.*no server came back within rollouts.away_seconds 0.3"
        ):
            servers.generate()
        assert threading.active_count() < 60


def test_a_prompt_that_no_server_answers_ends_the_run(tmp_path: Path) -> None:
    def fails(asked: Asked) -> Reply:
        return Reply(500, "no") if "completions" in asked.path else Reply()

    with FakeServer(fails).running() as server:
        servers = Servers(tmp_path, server)
        with pytest.raises(ServerAway, match="status 500"):
            servers.generate()
        servers.generator.close()


def test_a_request_to_stop_ends_the_wait_for_a_fleet_that_is_gone(tmp_path: Path) -> None:
    class ToldToStop(Exception):
        pass

    mortal, since = Mortal(dies_at=1), time.monotonic()

    def check() -> None:
        if time.monotonic() - since > 1.0:
            raise ToldToStop

    with served(tmp_path, mortal) as servers:
        servers.generator._fleet._check = check
        with pytest.raises(ToldToStop):
            servers.generate()
