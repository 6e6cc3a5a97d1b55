"""Health endpoints report whether the server is alive and ready, and metrics with a token."""

import re

import pytest
from tests.labeling.crowd import Clock, client, fill, people, served

from triphase.errors import SettingsError, StoreError
from triphase.labeling.web.context import Context
from triphase.labeling.web.workers import check_workers, token_in
from triphase.store import Store

TOKEN = "a token of sixteen or more"


def test_a_server_that_lives_says_so_though_its_store_is_away(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(store, clock=clock) as app:
        browser = client(app)
        for path in ("/health", "/ready"):
            assert (browser.get(path).status_code, browser.get(path).json()) == (200, {"status": "ok"})

        def away(*_: object) -> None:
            raise StoreError("/secret/place/labels.sqlite is away")

        monkeypatch.setattr(Context, "glance", away)
        assert browser.get("/health").status_code == 200
        answer = browser.get("/ready")
        assert answer.status_code == 503 and "secret" not in answer.text


def test_figures_want_the_token_and_without_one_there_is_no_such_page(store: Store, clock: Clock) -> None:
    with served(store, clock=clock) as app:
        assert client(app).get("/metrics", headers={"authorization": "Bearer "}).status_code == 404
    with served(store, clock=clock, metrics_token=TOKEN) as app:
        browser = client(app)
        for given in ("", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x"):
            answer = browser.get("/metrics", headers={"authorization": given})
            assert answer.status_code == 401 and "triphase" not in answer.text
        assert browser.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_figures_are_the_stores(store: Store, clock: Clock) -> None:
    fill(store, 3)
    people(store, "ann", "bob")
    with served(store, clock=clock, metrics_token=TOKEN) as app:
        answer = client(app).get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    assert "triphase_labelers 2" in lines and "triphase_recent_rankings 0" in lines and "triphase_sessions 0" in lines
    assert all(re.fullmatch(r'triphase_[a-z_]+(\{[a-z]+="[a-z]+"\})? \d+', line) for line in lines)
    names = re.findall(r"# TYPE (\S+) gauge", answer.text)
    assert len(names) == len(set(names)) == 8


@pytest.mark.parametrize(
    ("workers", "where", "problem"),
    [(0, "x.sqlite", "--workers: 0"), (65, "postgresql://h/n", "--workers: 65"), (2, "runs/x", "need PostgreSQL")],
)
def test_processes_that_cannot_share_a_store_are_refused(workers: int, where: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        check_workers(workers, where)
    check_workers(1, where)
    check_workers(2, "postgresql+psycopg://u@h/n")


@pytest.mark.parametrize("value", [None, "", "short", "with a newline\nin the middle", "ümlaut" * 5])
def test_a_token_that_is_none_is_refused(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METRICS", raising=False)
    if value is not None:
        monkeypatch.setenv("METRICS", value)
    with pytest.raises(SettingsError, match="METRICS holds no token of at least 16"):
        token_in("METRICS")
    monkeypatch.setenv("METRICS", f"  {TOKEN} ")
    assert token_in("METRICS") == TOKEN
