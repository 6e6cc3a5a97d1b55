"""Whatever a server does, an exchange with it ends within its timeout, and one request to stop ends the wait."""

import base64
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.rollouts.fake_server import Asked, FakeServer, Reply
from tests.rollouts.hostile_server import BEHAVIORS, hostile

from triphase.errors import ServerError
from triphase.records.types import Message, Prompt
from triphase.rewards.remote import RemoteScorer
from triphase.rewards.types import Answer
from triphase.rollouts.client import JsonClient
from triphase.rollouts.redaction import shown
from triphase.rollouts.servers import Served, ServerGenerator
from triphase.rollouts.types import Request
from triphase.settings.scorer import ScorerSettings
from triphase.settings.services import RolloutSettings, ServiceSettings

SECONDS, GRACE = 0.6, 2.0
# Large enough that a server which reads nothing fills every buffer of the connection.
_LONG = "x" * 6_000_000
ANSWERS = [Answer(Prompt("p", (Message("user", "who?"),)), "text", True)]
SILENT = BEHAVIORS["silent"]


def _scores(address: str, text: str = "text", check: Callable[[], None] = lambda: None) -> list[float]:
    settings = ScorerSettings(address=address, timeout_seconds=SECONDS, connect_seconds=SECONDS, retries=0)
    scorer = RemoteScorer(settings, check=check)
    try:
        return list(scorer.score([Answer(ANSWERS[0].prompt, text, True)]).total)
    finally:
        scorer.close()


def _generates(
    address: str, directory: Path, check: Callable[[], None] = lambda: None, seconds: float = SECONDS
) -> None:
    (directory / "adapter_model.safetensors").write_bytes(b"1")
    settings = RolloutSettings(
        addresses=(address,), timeout_seconds=seconds, connect_seconds=seconds, retries=0, parallel=4, away_seconds=0.1
    )
    generator = ServerGenerator(settings, lambda: directory, Served((1,), 9), check=check)
    try:
        generator.generate([Request((3,), n) for n in range(4)], temperature=1.0, max_response_tokens=4)
    finally:
        generator.close()


@pytest.mark.parametrize("name", BEHAVIORS)
def test_an_exchange_with_a_scorer_ends_in_time_in_one_line(name: str) -> None:
    text = _LONG if name == "never_reads" else "text"
    with hostile(BEHAVIORS[name]) as address:
        begin = time.monotonic()
        with pytest.raises(ServerError, match=r"^ppo\.scorer\.address: [^\n]+$"):
            _scores(address, text)
        assert time.monotonic() - begin < SECONDS + GRACE


@pytest.mark.parametrize("name", [name for name in BEHAVIORS if name != "says_more_than_its_length"])
def test_an_exchange_with_a_rollout_server_ends_in_time_in_one_line(name: str, tmp_path: Path) -> None:
    with hostile(BEHAVIORS[name]) as address:
        begin = time.monotonic()
        with pytest.raises(ServerError, match=r"^rollouts\.addresses: [^\n]+$"):
            _generates(address, tmp_path)
        assert time.monotonic() - begin < SECONDS + GRACE


def test_a_rollout_server_that_turns_hostile_later_is_left_too(tmp_path: Path) -> None:
    def reply(asked: Asked) -> Reply:
        return Reply(parts=[b" "] * 3000, pause=0.02) if "completions" in asked.path else Reply()

    with FakeServer(reply).running() as server:
        begin = time.monotonic()
        with pytest.raises(ServerError, match=r"completions does not respond within 0\.6 s"):
            _generates(server.address, tmp_path)
        assert time.monotonic() - begin < SECONDS + GRACE


def test_an_answer_behind_the_answer_is_not_taken_for_the_next_one() -> None:
    behavior = BEHAVIORS["says_more_than_its_length"]
    with hostile(behavior) as address:
        settings = ServiceSettings(timeout_seconds=SECONDS, retries=0)
        client = JsonClient(address, settings, setting="s")
        assert [client.post("", {}), client.post("", {})] == [{}, {}]
        client.close()


class _AskedToStop(Exception):
    pass


def _stopping_soon() -> Callable[[], None]:
    begin = time.monotonic()

    def check() -> None:
        if time.monotonic() - begin > 0.3:
            raise _AskedToStop

    return check


def test_a_request_to_stop_ends_the_wait_for_a_scorer() -> None:
    settings = ScorerSettings(address="http://127.0.0.1:1", timeout_seconds=60, retries=5)
    with hostile(SILENT) as address:
        scorer = RemoteScorer(settings.model_copy(update={"address": address}), check=_stopping_soon())
        begin = time.monotonic()
        with pytest.raises(_AskedToStop):
            scorer.score(ANSWERS)
        scorer.close()
        assert time.monotonic() - begin < GRACE


def test_a_request_to_stop_ends_the_wait_between_two_tries() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    client = JsonClient(address, ServiceSettings(retries=20), setting="s", check=_stopping_soon(), draw=lambda: 1.0)
    begin = time.monotonic()
    with pytest.raises(_AskedToStop):
        client.post("", {})
    assert time.monotonic() - begin < GRACE


def test_a_request_to_stop_ends_the_wait_for_rollouts_and_leaves_no_thread(tmp_path: Path) -> None:
    with FakeServer(lambda asked: Reply(wait=30) if "completions" in asked.path else Reply()).running() as server:
        begin = time.monotonic()
        with pytest.raises(_AskedToStop):
            _generates(server.address, tmp_path, _stopping_soon(), seconds=60)
        left = [thread for thread in threading.enumerate() if thread.name.startswith("rollout")]
        for thread in left:
            thread.join(timeout=GRACE)
        assert not any(thread.is_alive() for thread in left)
        assert time.monotonic() - begin < 2 * GRACE


def test_closing_ends_a_wait_in_another_thread() -> None:
    with hostile(SILENT) as address:
        client = JsonClient(address, ServiceSettings(timeout_seconds=60, retries=0), setting="s")
        caught: list[BaseException] = []

        def ask() -> None:
            try:
                client.post("", {})
            except BaseException as error:
                caught.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.2)
        client.close()
        thread.join(timeout=GRACE)
        assert not thread.is_alive() and isinstance(caught[0], ServerError)


def test_a_host_without_an_address_is_one_line() -> None:
    client = JsonClient("http://no-such-host.invalid", ServiceSettings(retries=0), setting="s")
    with pytest.raises(ServerError, match=r"cannot be reached \(.*no-such-host"):
        client.post("", {})
    client.close()


TOKEN = "wq8Zr2-LkP7.xTm4_VbN9cYs1hGfD5aJ"
ECHOES: dict[str, str] = {
    "plain": TOKEN,
    "behind a long text": "." * 180 + TOKEN,
    "cut at the end of what is shown": "." * 185 + TOKEN,
    "the first half": TOKEN[:14],
    "the second half": TOKEN[14:],
    "capital letters": TOKEN.upper(),
    "backwards": TOKEN[::-1],
    "JSON escapes": "".join(f"\\u{ord(sign):04x}" for sign in TOKEN),
    "Python escapes": "".join(f"\\x{ord(sign):02x}" for sign in TOKEN),
    "percent signs": "".join(f"%{ord(sign):02X}" for sign in TOKEN),
    "HTML": "".join(f"&#{ord(sign)};" for sign in TOKEN),
    "base 64": base64.b64encode(TOKEN.encode()).decode(),
    "base 64 of more": base64.b64encode(b"Bearer " + TOKEN.encode() + b" end").decode(),
    "hexadecimal": TOKEN.encode().hex(),
    "spaced": " ".join(TOKEN),
    "one sign a line": "\n".join(TOKEN),
    "twice": TOKEN + TOKEN,
}


@pytest.mark.parametrize("name", ECHOES)
@pytest.mark.parametrize("where", ["status", "not JSON", "score", "header"])
def test_a_server_that_echoes_the_token_is_quoted_without_it(
    name: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo = ECHOES[name]
    monkeypatch.setenv("SCORER_PASS", TOKEN)
    replies = {
        "status": Reply(403, echo.encode()),
        "not JSON": Reply(body=echo.encode()),
        "score": Reply(body={"scores": [echo]}),
        "header": Reply(headers={f"Bad {echo}".replace("\n", " "): "x"}),
    }
    with FakeServer(lambda _: replies[where]).running() as server:
        settings = ScorerSettings(address=server.address, token_variable="SCORER_PASS", retries=0)
        scorer = RemoteScorer(settings)
        with pytest.raises(ServerError) as caught:
            scorer.score(ANSWERS)
        scorer.close()
    said = str(caught.value).lower()
    spellings = {said, "".join(sign for sign in said if sign.isalnum()), said.replace("\\\\", "\\")}
    forms = [TOKEN, TOKEN[::-1], echo, "".join(filter(str.isalnum, TOKEN)), json.dumps(echo)[1:-1]]
    for form in forms:
        parts = {form[at : at + 9].lower() for at in range(len(form) - 8)} - {"." * 9}
        assert not [part for part in parts if any(part in spelling for spelling in spellings)]


def test_what_is_no_secret_is_quoted_as_it_is() -> None:
    assert shown("no such path\n", TOKEN) == r"'no such path\n'"
    assert shown("a" * 300, None) == repr("a" * 200) + "…"
    assert shown("key wq8Zr2-LkP7.xTm4_VbN9cYs1hGfD5aJ.", TOKEN) == "'key ***.'"
    assert shown("abc", "abc") == "'***'"
