"""Many at once over HTTP, and a server that is killed among it: nothing lost, nothing doubled, no slot too many."""

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from sqlalchemy import func, select
from tests.labeling.crowd import fill
from tests.labeling.light import simulate_lightly
from tests.labeling.live import LiveServer, free_port, processor_seconds
from tests.postgres_server import PostgresServer

from triphase.cli.label import simulated_accounts
from triphase.labeling.simulation.simulate_http import Report, simulate_over_http
from triphase.labeling.simulation.simulated import SimulatedLabelers
from triphase.labeling.work import item_plan
from triphase.labeling.work.campaign_plan import Campaign
from triphase.labeling.work.campaigns import add_campaign
from triphase.settings.schema import LabelingSettings
from triphase.store import Store, open_store
from triphase.store.schema import assignments, items, rankings

SETTINGS = LabelingSettings(overlap_share=0.5, overlap=3)
TASKS = (
    Campaign("style", share=30, overlap=2),
    Campaign("pairs", "ab", share=20, overlap=2),
    Campaign("duel", "policies", 10, 3, ("model-0", "model-2"), "train"),
)
"""Beside the main task, which has the other 40 percent."""


def labelers(count: int) -> SimulatedLabelers:
    return SimulatedLabelers(lambda _prompt, response, _finished: float(len(response) % 7), 5, count)


def prepare(where: str | Path, prompts: int, people: int, tasks: Sequence[Campaign] = ()) -> list[tuple[str, str]]:
    with open_store(where) as store:
        fill(store, prompts)
        item_plan.make_items(store, SETTINGS, seed=0, now=time.time())
        with store.transaction() as connection:
            for one in tasks:
                add_campaign(connection, one, "Be fair.", SETTINGS, seed=0, now=time.time(), by="test")
                for number in range(20):
                    known = {f"p{number:05d}-{place}": place + 1 for place in range(2)}
                    item_plan.add_gold(
                        connection, f"p{number:05d}", known, now=time.time(), by="test", campaign=one.name
                    )
        return simulated_accounts(store, labelers(people).names)


def check_nothing_lost_or_doubled(where: str | Path, report: Report) -> int:
    with open_store(where) as store:
        every = store.answers(counted=False)
        ids = [answer.ranking.id for answer in every]
        missing = set(report.submitted) - set(ids)
        assert not missing, f"{len(missing)} acknowledged rankings are gone"
        assert len(ids) == len(set(ids))
        active = [answer for answer in every if answer.status == "active"]
        assert len({answer.assignment_id for answer in active}) == len(active), "a slot was answered twice"
        labels = [answer for answer in active if answer.purpose == "label"]
        had = {(one.ranking.prompt_id, one.campaign, one.ranking.labeler) for one in labels}
        assert len(had) == len(labels), "a labeler had an item twice"
        given = Counter((one.ranking.prompt_id, one.campaign) for one in labels)
        with store.reading() as connection:
            of_items = select(items).where(items.c.kind == "label")
            slots = {(row.prompt_id, row.campaign): row.overlap for row in connection.execute(of_items)}
        assert given.keys() <= slots.keys(), "an answer to what was not asked"
        assert all(given[item] <= slots[item] for item in slots), "more answers than slots"
        return len(active)


def run_load(
    where: str | Path, prompts: int, people: int, most: int | None, think: float, workers: int = 1,
    tasks: Sequence[Campaign] = (), database: PostgresServer | None = None,
) -> Report:  # fmt: skip
    passwords = prepare(where, prompts, people, tasks)
    server = LiveServer(where, free_port(), workers)
    server.start()
    programs = {"server": server.pid, "clients": os.getpid()} | ({"database": database.pid} if database else {})
    begun, spent = time.perf_counter(), {name: -processor_seconds(pid) for name, pid in programs.items()}
    spent["clients"] += processor_seconds(server.pid)  # this process started the server
    try:
        report = asyncio.run(simulate_lightly(server.port, labelers(people), passwords, most=most, think=think))
        for name, pid in programs.items():
            spent[name] += processor_seconds(pid)
        spent["clients"] -= processor_seconds(server.pid)
    finally:
        server.stop()
    seconds = time.perf_counter() - begun
    assert check_nothing_lost_or_doubled(where, report) == len(report.submitted)
    done = len(report.submitted)
    median, p95, p99 = (f"{1000 * report.percentile(share):.0f} ms" for share in (0.5, 0.95, 0.99))
    sys.stderr.write(
        f"\n{people} labelers, think {think} s: {done} answers in {seconds:.0f} s ({done / seconds:.0f}/s); next item "
        f"median {median}, p95 {p95}, p99 {p99}; retries {report.retries}\n{cost_of(spent, done)}\n"
    )
    return report


def cost_of(spent: Mapping[str, float], answers: int) -> str:
    """The processor time of an answer, and the throughput that it allows on more cores, the clients elsewhere."""
    each = ", ".join(f"{name} {1000 * seconds / answers:.1f} ms" for name, seconds in spent.items())
    ours = sum(seconds for name, seconds in spent.items() if name != "clients") / answers
    cores = ", ".join(f"{count} cores {count / ours:.0f}" for count in (1, 2, 4, 8))
    return f"processor time of an answer: {each}; answers per second without clients, if all cores are busy: {cores}"


def run_kills(where: str | Path, prompts: int, people: int, kills: int, pause: float) -> None:
    passwords = prepare(where, prompts, people)
    server = LiveServer(where, free_port())
    server.start()
    ended = threading.Event()
    killed: list[float] = []

    def killer() -> None:
        draw = random.Random(3)
        for _ in range(kills):
            if ended.wait(pause * draw.uniform(0.7, 1.3)):
                return
            server.kill()
            killed.append(time.monotonic())
            server.start()

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        report = asyncio.run(simulate_lightly(server.port, labelers(people), passwords, most=None, think=0.0))
    finally:
        ended.set()
        thread.join()
        server.stop()
    assert len(killed) == kills, "the load ended before the last kill"
    assert report.retries > 0, "the kills came too late to matter"
    sys.stderr.write(f"\n{kills} kills among {len(report.submitted)} acknowledged answers; retries {report.retries}\n")
    check_nothing_lost_or_doubled(where, report)
    with open_store(where) as store:
        check_no_lease_is_stuck(store)


def check_no_lease_is_stuck(store: Store) -> None:
    """Whoever asks after the leases have run out gets what is left; and every slot was filled."""
    with store.reading() as connection:
        states = dict(connection.execute(select(assignments.c.state, func.count()).group_by(assignments.c.state)).all())
        assert set(states) == {"done"}, states
        assert connection.execute(select(func.count()).select_from(rankings)).scalar_one() == states["done"]


def test_the_processor_time_of_an_answer_and_what_follows_of_it() -> None:
    told = cost_of({"server": 30.0, "clients": 50.0, "database": 10.0}, 10_000)
    assert told.startswith("processor time of an answer: server 3.0 ms, clients 5.0 ms, database 1.0 ms; ")
    assert told.endswith("1 cores 250, 2 cores 500, 4 cores 1000, 8 cores 2000")
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    code = f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {burn!r}])\nprint(flush=True)\n"
    code += "time.sleep(9)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None and program.stdout.readline()
        seconds = processor_seconds(program.pid)
        assert 0.3 <= seconds < 3.0  # also of the one that has ended
        assert processor_seconds(os.getpid()) >= seconds
        program.kill()


def test_a_small_load(tmp_path: Path) -> None:
    report = run_load(tmp_path, prompts=40, people=8, most=None, think=0.0)
    assert len(report.submitted) >= 40


def check_shares(where: str | Path, tasks: Sequence[Campaign]) -> None:
    """Each campaign has about its share of the answers, while it has something to give, and its own gold items."""
    with open_store(where) as store:
        given = Counter(one.campaign for one in store.answers(counted=False) if one.purpose == "label")
        gold = Counter(one.campaign for one in store.answers(counted=False) if one.purpose == "gold")
    shares = {one.name: one.share / 100 for one in tasks}
    shares[""] = 1 - sum(shares.values())
    for name, share in shares.items():
        # Binomial, four deviations; and what nobody else had left goes to the others.
        slack = 4 * (share * (1 - share) / given.total()) ** 0.5 + 0.01
        assert abs(given[name] / given.total() - share) < slack, (name, share, given)
    assert all(gold[one.name] for one in tasks), gold


def test_a_small_load_with_campaigns(tmp_path: Path) -> None:
    report = run_load(tmp_path, prompts=120, people=8, most=30, think=0.0, tasks=TASKS)
    assert len(report.submitted) == 240
    check_shares(tmp_path, TASKS)


def test_killed_twice_in_a_small_load(tmp_path: Path) -> None:
    run_kills(tmp_path, prompts=150, people=6, kills=2, pause=0.6)


@pytest.mark.slow
@pytest.mark.parametrize("think", [0.5, 0.0])
def test_sixty_four_labelers_submit_ten_thousand(tmp_path: Path, think: float) -> None:
    report = run_load(tmp_path, prompts=5600, people=64, most=157, think=think)
    assert len(report.submitted) >= 10_000
    if think:
        assert report.percentile(0.95) < float(os.environ.get("TRIPHASE_P95_SECONDS", "0.15"))


@pytest.mark.slow
@pytest.mark.parametrize("think", [0.5, 0.0])
def test_sixty_four_labelers_in_four_tasks_submit_ten_thousand(tmp_path: Path, think: float) -> None:
    most = int(os.environ.get("TRIPHASE_LOAD_EACH", "157"))
    report = run_load(tmp_path, prompts=5600, people=64, most=most, think=think, tasks=TASKS)
    assert len(report.submitted) == 64 * most
    check_shares(tmp_path, TASKS)
    if think:
        assert report.percentile(0.95) < float(os.environ.get("TRIPHASE_P95_SECONDS", "0.15"))


@pytest.mark.slow
def test_killed_ten_times_in_the_load(tmp_path: Path) -> None:
    run_kills(tmp_path, prompts=5000, people=64, kills=10, pause=3.0)


@pytest.mark.postgres
def test_a_small_load_on_postgres(postgres: PostgresServer) -> None:
    run_load(postgres.new_database(), prompts=40, people=8, most=None, think=0.0, database=postgres)


@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("think", [0.5, 0.0])
def test_sixty_four_labelers_submit_ten_thousand_on_postgres(
    postgres: PostgresServer, think: float, workers: int
) -> None:
    where = postgres.new_database()
    report = run_load(where, prompts=5600, people=64, most=157, think=think, workers=workers, database=postgres)
    # Times are printed, not required: with one worker the 95th percentile was 85 to 310 ms on the same two cores.
    assert len(report.submitted) >= 10_000


@pytest.mark.postgres
def test_a_database_that_goes_away_and_comes_back(postgres: PostgresServer) -> None:
    where = postgres.new_database()
    passwords = prepare(where, 60, 4)
    server = LiveServer(where, free_port())
    server.start()

    def interrupt() -> None:
        time.sleep(0.5)
        postgres.stop("immediate")
        time.sleep(1.0)
        postgres.start()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        report = asyncio.run(simulate_over_http(server.address, labelers(4), passwords))
    finally:
        thread.join()
        server.stop()
    assert report.retries > 0
    check_nothing_lost_or_doubled(where, report)
