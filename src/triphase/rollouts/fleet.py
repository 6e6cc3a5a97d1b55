"""Several servers as one: dispatch of requests, and handling of servers that go away and come back."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from triphase.errors import ServerAway, ServerError

_SLICE = 0.2
_AGAIN_SECONDS = 2.0


class Fleet:
    """The servers of a run, by number. Threads may share it."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        again: Callable[[int], None],
        check: Callable[[], None],
        say: Callable[[str], None],
        away_seconds: float,
    ) -> None:
        """``again`` reconnects a server: checks that it responds, and loads the current adapter on it.

        ``check`` is called a few times a second while all are away, and may raise to end the wait.
        """
        self._addresses = addresses
        self._again, self._check, self._say, self._away_seconds = again, check, say, away_seconds
        self._changed = threading.Condition()
        self._is_up = [True] * len(addresses)
        self._under_way = [0] * len(addresses)
        self._none_since: float | None = None
        self._failure: Exception | None = None
        self._last: ServerError | None = None
        self._complaints: dict[int, str] = {}
        self._is_watched = threading.Event()

    @property
    def up(self) -> list[int]:
        """The servers that respond, as far as is known."""
        return [number for number, is_up in enumerate(self._is_up) if is_up]

    def take(self) -> int:
        """The server with the fewest requests in progress, with one more counted; waits while none is up.

        Raises:
            ServerError: none came back in time.
        """
        while True:
            with self._changed:
                if self._failure is not None:
                    raise self._failure
                if up := self.up:
                    number = min(up, key=lambda each: (self._under_way[each], each))
                    self._under_way[number] += 1
                    return number
                if not self._is_watched.is_set():
                    raise ServerError("rollouts: no further requests are sent to the servers")
                self._changed.wait(_SLICE)
            self._check()
            self._require_patience()

    def give_back(self, number: int) -> None:
        """A request is no longer in progress."""
        with self._changed:
            self._under_way[number] -= 1

    def is_alone(self, number: int) -> bool:
        """Whether no other server could do its work."""
        return self.up in ([number], [])

    def drain(self, number: int, error: ServerError) -> None:
        """Send a server no more requests, until it is back."""
        with self._changed:
            if not self._is_up[number]:
                return
            self._is_up[number], self._last = False, error
            left = len(self.up)
            if not left:
                self._none_since = time.monotonic()
        if left:
            self._say(f"{self._addresses[number]} is unreachable; its prompts go to the other {left} ({error})")
        else:
            self._say(
                f"no vLLM server responds: the run waits up to {self._away_seconds:g} s for one to come back ({error})"
            )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside this block servers that are away are polled."""
        ended = threading.Event()
        self._is_watched.set()
        thread = threading.Thread(target=self._watch, args=(ended,), daemon=True, name="rollout servers")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            self._is_watched.clear()
            thread.join()

    def _watch(self, ended: threading.Event) -> None:
        while True:
            for number in [number for number, is_up in enumerate(self._is_up) if not is_up]:
                try:
                    self._again(number)
                except ServerAway:
                    continue
                except ServerError as error:  # it is there and cannot be used: logged once, and polled again
                    if self._complaints.get(number) != str(error):
                        self._complaints[number] = str(error)
                        self._say(f"{self._addresses[number]} is back but is not used: {error}")
                    continue
                except Exception as error:  # a request to stop, or a defect: whoever waits for a server raises it
                    with self._changed:
                        self._failure = error
                    return
                self._return(number)
            if ended.wait(_AGAIN_SECONDS):
                return

    def _return(self, number: int) -> None:
        with self._changed:
            self._is_up[number], self._none_since = True, None
            self._complaints.pop(number, None)
            self._changed.notify_all()
        self._say(f"{self._addresses[number]} is back, with the current adapter")

    def _require_patience(self) -> None:
        since = self._none_since
        if since is not None and time.monotonic() - since > self._away_seconds:
            raise ServerAway(f"{self._last}; no server came back within rollouts.away_seconds {self._away_seconds:g}")
