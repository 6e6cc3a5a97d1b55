"""Whatever a hub does, an exchange with it ends, and one request to stop ends the wait."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download
from tests.rollouts.hostile_server import BEHAVIORS, Line, hostile

from triphase.cli.push import push
from triphase.errors import ModelError, RunError
from triphase.models.places import fetched
from triphase.models.pretrained import open_tokenizer
from triphase.records import hub
from triphase.records.interruption import stoppable
from triphase.runs.base_license import license_of
from triphase.settings.schema import ModelSettings

SECONDS, GRACE = 0.6, 15.0
"""The deadline here, and how much longer a loaded machine may take; a wait without a deadline takes longer still."""
ENDING_AT_ONCE = ("says_only_line_ends", "closes_in_the_body", "switches_protocols")
"""These break the protocol, and the hub's own client tries again, with its own waits."""
HOSTILE = [name for name in BEHAVIORS if name not in ENDING_AT_ONCE]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "SECONDS", SECONDS)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_planted0123456789")


def at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub be there."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_fetched_is_not_waited_for_without_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile(BEHAVIORS[name]) as address:
        at(address, monkeypatch)
        begin = time.monotonic()
        with pytest.raises(ModelError, match=r"^model\.name: [^\n]+cannot be downloaded[^\n]+$"):
            fetched("owner/name")
        assert time.monotonic() - begin < SECONDS + GRACE


@pytest.mark.parametrize("name", ["silent", "drips_headers", "hints_at_full_speed", "drips_trailers"])
def test_an_upload_and_a_look_at_a_card_end_too(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    exported = tmp_path / "exported"
    exported.mkdir()
    for file in ("README.md", "model.safetensors"):
        (exported / file).write_text("x")
    with hostile(BEHAVIORS[name]) as address:
        at(address, monkeypatch)
        begin = time.monotonic()
        with pytest.raises(RunError, match=r"^owner/name: the hub cannot be reached \(HubTooSlow: the hub made no"):
            push(exported, "owner/name")
        assert license_of("owner/name") is None
        assert time.monotonic() - begin < 2 * SECONDS + GRACE


def test_a_long_answer_that_gets_on_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "LEAST", 1000)
    text = b'{"error": "' + b"x" * 60_000 + b'"}'

    def slowly(line: Line) -> None:
        line.hear()
        line.say(b"HTTP/1.1 404 Not Found\r\nX-Error-Code: RepoNotFound\r\nContent-Length: %d\r\n\r\n" % len(text))
        for start in range(0, len(text), 1000):
            line.say(text[start : start + 1000])
            line.rest()

    with hostile(slowly) as address:
        at(address, monkeypatch)
        begin = time.monotonic()
        with pytest.raises(ModelError, match=r"404"):
            fetched("owner/name")
        assert time.monotonic() - begin > 1.5 * SECONDS


def test_one_that_cannot_be_reached_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    at("http://127.0.0.1:9", monkeypatch)
    begin = time.monotonic()
    with pytest.raises(ModelError, match=r"cannot open the tokenizer of 'owner/name': [^\n]+check the spelling$"):
        open_tokenizer("owner/name", ModelSettings(name="owner/name"))
    with pytest.raises(ModelError, match=r"cannot be downloaded as a hub id [^\n]+ or the network$"):
        fetched("owner/name")
    assert time.monotonic() - begin < GRACE


@pytest.mark.parametrize("ask", [fetched, snapshot_download])
def test_a_request_to_stop_ends_the_wait(ask: Callable[[str], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "SECONDS", 60.0)
    begin = time.monotonic()
    hub.bound_hub()
    with hostile(BEHAVIORS["drips_headers"]) as address, stoppable(lambda: time.monotonic() - begin > 0.3):
        at(address, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            ask("owner/name")
    assert time.monotonic() - begin < GRACE
