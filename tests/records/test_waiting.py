"""The thread in which code of others is called ends with what called it."""

import gc
import threading

from triphase.records.bounded_calls import Worker
from triphase.runs.checked_score import CheckedScore


def test_a_worker_that_nobody_closes_ends_with_it() -> None:
    worker = Worker(lambda value: value + 1, seconds=5.0, name="short-lived worker")
    assert worker.call(1) == (2, None)
    (thread,) = (one for one in threading.enumerate() if one.name == "short-lived worker")
    del worker
    gc.collect()
    thread.join(5.0)
    assert not thread.is_alive()


def test_a_score_of_a_run_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    score = CheckedScore(lambda prompt, response, finished: 1.0, "one")
    assert score("p", "r", True) == 1.0 and threading.active_count() == before + 1
    (thread,) = (one for one in threading.enumerate() if one.name == "scorer one")
    del score
    gc.collect()
    thread.join(5.0)
    assert not thread.is_alive()
