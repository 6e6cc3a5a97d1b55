"""The shared context of requests: the store, the settings, the clock, and threads for blocking calls."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import Connection

from triphase.labeling.quality.labeling_statistics import Statistics
from triphase.labeling.web.sessions import cookie_key
from triphase.settings.schema import LabelingSettings
from triphase.store import Store

Result = TypeVar("Result")
_POSTGRES_THREADS = 4
_SLOW_THREADS = 3


@dataclass(frozen=True)
class ServerSettings:
    """How the page is served.

    ``secure``: cookies are sent over TLS only (everywhere but on loopback). ``address``: the prefix of links to the
    page; if empty, the address of the request, whose host must then be one of ``allowed_hosts``.
    """

    secure: bool = False
    allowed_hosts: tuple[str, ...] = ("*",)
    address: str = ""
    seed: int = 0
    metrics_token: str = field(default="", repr=False)
    """The token for reading ``/metrics``; without one the route does not exist."""
    most_body_bytes: int = 128 * 1024
    """For any request except those with guidelines or rewritten responses, whose lengths their forms limit."""
    now: Callable[[], float] = time.time


@dataclass
class Context:
    """The parts of a running application."""

    store: Store
    settings: LabelingSettings
    server: ServerSettings
    key: str = field(init=False, repr=False)
    kept_statistics: dict[str | None, tuple[float, int, Statistics]] = field(
        init=False, default_factory=dict, repr=False
    )
    """By campaign, with their time and the last decision in the audit; None is all campaigns together."""

    def __post_init__(self) -> None:
        with self.store.transaction() as connection:
            self.key = cookie_key(connection)
        # SQLite has one writer at a time: one thread queues fairly where many would wake each other.
        width = _POSTGRES_THREADS if self.store.is_postgresql else 1
        self._quick = ThreadPoolExecutor(width, thread_name_prefix="labels")
        self._slow = ThreadPoolExecutor(_SLOW_THREADS, thread_name_prefix="pages")
        # A sign-in attempt counts as a failure while its password is compared: few at a time, so that many people who
        # sign in from one address at the same moment do not use up its limit.
        self.comparing = asyncio.Semaphore(_SLOW_THREADS)

    def now(self) -> float:
        """The time, seconds since the epoch."""
        return self.server.now()

    async def write(self, work: Callable[[Connection], Result]) -> Result:
        """Run ``work`` in a write transaction."""

        def run() -> Result:
            with self.store.transaction() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._quick, run)

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """Run ``work`` in a reading transaction."""

        def run() -> Result:
            with self.store.reading() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._quick, run)

    async def glance(self, work: Callable[[Connection], Result]) -> Result:
        """Run ``work``, which reads with one statement."""

        def run() -> Result:
            with self.store.glance() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._quick, run)

    async def slow(self, work: Callable[[], Result]) -> Result:
        """Run long work (statistics, passwords) outside of the quick queue."""
        return await asyncio.get_running_loop().run_in_executor(self._slow, work)

    def close(self) -> None:
        """Wait for running work, then stop the threads."""
        self._quick.shutdown()
        self._slow.shutdown()
