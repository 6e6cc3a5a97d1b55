"""The clock of the machine is set back: a run, its metrics and the labeling page are unaffected."""

import itertools
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.labeling.crowd import PLAIN, prepared
from tests.runs import small_run

from triphase.labeling.quality.labeling_statistics import collect
from triphase.labeling.web import sessions
from triphase.labeling.work import accounts
from triphase.labeling.work.answer_content import Submission
from triphase.labeling.work.assignment import next_assignment
from triphase.labeling.work.submission import submit
from triphase.monitoring.metrics import MetricsWriter, read_metrics
from triphase.runs import pipeline
from triphase.store import Store, open_store
from triphase.store.schema import assignments, sign_ins

NOW, HOUR = 1_000_000.0, 3600.0


def going_back() -> Callable[[], float]:
    """A clock that is an hour earlier at every call."""
    start, calls = time.time(), itertools.count()
    return lambda: start - HOUR * next(calls)


def numbers(value: object, key: str = "") -> list[tuple[str, float]]:
    if isinstance(value, dict):
        return [pair for name, item in value.items() for pair in numbers(item, name)]
    if isinstance(value, list):
        return [pair for item in value for pair in numbers(item, key)]
    return [(key, value)] if isinstance(value, int | float) else []


def test_a_run_ends_as_with_a_steady_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_run.write_data(tmp_path)
    steady = small_run.do(small_run.settings(tmp_path, output="steady"), pipeline.run_all)
    monkeypatch.setattr(time, "time", going_back())
    monkeypatch.setattr(logging.time, "time", time.time)
    run = small_run.do(small_run.settings(tmp_path), pipeline.run_all)
    assert small_run.files_of(run.path, "**/final/*.safetensors") == small_run.files_of(
        steady.path, "**/final/*.safetensors"
    )
    for part in ("sft", "reward", "ppo"):
        rows = read_metrics(run.path / part / "metrics.jsonl")
        assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
        assert [later["time"] < earlier["time"] for earlier, later in itertools.pairwise(rows)].count(False) == 0
        assert not [pair for row in rows for pair in numbers(row) if "seconds" in pair[0] and pair[1] < 0]
    timings = json.loads((run.path / "timings.json").read_text())
    seconds = [value for value in timings.values() if not isinstance(value, dict)]
    assert min(seconds) >= 0 and set(timings) == set(json.loads((steady.path / "timings.json").read_text()))
    assert json.loads((run.path / "summary.json").read_text())["seconds"] > 0
    assert (run.path / "report.html").stat().st_size > 10_000


def test_tensorboard_keeps_the_order_of_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(time, "time", going_back())
    with MetricsWriter(tmp_path) as writer:
        for step in range(1, 6):
            writer.write(step, {"sft/loss": float(step)})
    shown = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in shown.Scalars("sft/loss")] == [1, 2, 3, 4, 5]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    with open_store(tmp_path) as opened:
        yield opened


def take(store: Store, name: str, now: float):  # type: ignore[no-untyped-def]
    with store.transaction() as connection:
        return next_assignment(connection, name, PLAIN, seed=0, now=now)


def test_a_lease_from_a_clock_that_was_ahead_does_not_last_until_then(store: Store) -> None:
    """ann took the item at an hour that is still to come; bob gets it now."""
    prepared(store, PLAIN, 1, "ann", "bob")
    first = take(store, "ann", NOW + 2 * HOUR)
    assert take(store, "bob", NOW).id == first.id


def test_who_looks_at_an_item_keeps_it_when_the_clock_goes_back(store: Store) -> None:
    prepared(store, PLAIN, 1, "ann", "bob")
    first = take(store, "ann", NOW + 2 * HOUR)
    assert take(store, "ann", NOW).id == first.id
    assert take(store, "bob", NOW + 1) is None
    assert take(store, "bob", NOW - 30) is None  # two servers' clocks may differ by so much
    assert take(store, "bob", NOW + PLAIN.lease_minutes * 60 + 1).id == first.id


def test_no_answer_takes_less_than_no_time(store: Store) -> None:
    prepared(store, PLAIN, 2, "ann")
    for now, back in ((NOW, HOUR), (NOW, 0.0)):
        taken = take(store, "ann", now)
        with store.transaction() as connection:
            submit(connection, "ann", taken.id, Submission([1, 2, 3, 4], seconds=12.5), now=now - back)
            leased = connection.execute(select(assignments.c.leased_at).where(assignments.c.id == taken.id)).scalar()
        assert leased is not None
    assert sorted(ranking.seconds for ranking in store.rankings()) == [2.0, 12.5]


def test_forecast_and_pace_are_never_negative(store: Store) -> None:
    prepared(store, PLAIN, 12, "ann")
    times = [NOW, NOW + 20, NOW + 40 - HOUR, NOW + 60 - HOUR, NOW + 80 - 2 * HOUR, NOW + 100]
    for now in times:
        taken = take(store, "ann", now)
        with store.transaction() as connection:
            submit(connection, "ann", taken.id, Submission([1, 2, 3, 4], seconds=5.0), now=now)
    progress = collect(store, NOW - 3 * HOUR).progress
    assert progress.filled == len(times)
    assert progress.per_hour is None or progress.per_hour > 0
    assert progress.seconds_left is None or progress.seconds_left >= 0


def test_a_session_that_was_ended_stays_ended(store: Store) -> None:
    with store.transaction() as connection:
        hashed = accounts.hashed("a long password")
        accounts.add_account(connection, "ann", "labeler", hashed, now=NOW, by="test")
        token = sessions.start(connection, "ann", hashed, now=NOW)
        again = sessions.start(connection, "ann", hashed, now=NOW)
        assert sessions.find(connection, token, NOW) and sessions.find(connection, again, NOW)
        sessions.end(connection, sessions.digest(token))
        accounts.set_password(connection, "ann", accounts.hashed("another password"), now=NOW, by="test")
        for now in (NOW, NOW - HOUR, NOW - 100 * HOUR):
            assert sessions.find(connection, token, now) is None
            assert sessions.find(connection, again, now) is None


def test_failures_from_a_clock_that_was_ahead_never_count(store: Store) -> None:
    with store.transaction() as connection:
        for _ in range(sessions.MOST_FAILURES_OF_NAME):
            sessions.attempt(connection, "ann", "1.2.3.4", NOW + 24 * HOUR)
        sessions.succeeded(connection, sessions.attempt(connection, "ann", "1.2.3.4", NOW))  # the clock was set right
        sessions.attempt(connection, "ann", "1.2.3.4", NOW + 24 * HOUR + 1)  # and comes to that time again


def test_failures_that_are_over_are_not_kept(store: Store) -> None:
    with store.transaction() as connection:
        for minute in range(200):
            sessions.attempt(connection, f"name {minute}", f"{minute}", NOW + 60.0 * minute)
        assert len(connection.execute(select(sign_ins)).all()) <= 16
