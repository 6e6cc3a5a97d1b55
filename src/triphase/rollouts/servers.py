"""Sampling on vLLM servers, through their OpenAI-compatible interface.

Before each rollout the policy's adapter is written to disk and every server loads it in place of the previous one (they
must run with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and see the file under the same path); that it is
in use is verified (`server_checks`). Each request goes to the server with the fewest in progress. A server that goes
away gets no more requests, its unanswered ones go to another, and it is used again once it is back.
"""

import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from triphase.errors import ServerAway, ServerError
from triphase.records.files import fingerprint
from triphase.rollouts.client import JsonClient
from triphase.rollouts.fleet import Fleet
from triphase.rollouts.server_checks import Probe, Probing, Proof, probed_of
from triphase.rollouts.started import StartedServers
from triphase.rollouts.types import Generated, Request
from triphase.rollouts.vllm_server import Sampling, VLLMServer
from triphase.settings.services import RolloutSettings

_SETTING = "rollouts.addresses"
_STARTED = "rollouts.servers"
_WEIGHTS = "adapter_model.safetensors"
_FORGOTTEN = 404
_MORE_TRIES = 4
"""Tries of one request beyond one for each server: what running servers cannot serve, they never will."""
_log = logging.getLogger(__name__)


class _Closed(Exception):
    """The phase has ended: whatever still waits for a server gives up."""


@dataclass(frozen=True, slots=True)
class Served:
    """What servers must know of the policy.

    Attributes:
        ends: the tokens that end a response.
        vocabulary_size: tokens that the model has; ``absent`` are ids below it without a token.
        base: the name of the base, for messages.
        rank: of the adapter.
        room: maximum tokens of a prompt with its response; None does not compare it.
        probing: the trainer's log-probabilities of a prompt; None checks nothing.
    """

    ends: tuple[int, ...]
    vocabulary_size: int
    absent: frozenset[int] = frozenset()
    base: str = ""
    rank: int = 1
    room: int | None = None
    probing: Probing | None = None


@dataclass(frozen=True, slots=True)
class _Push:
    """An adapter that is being pushed to the servers."""

    adapter: str
    directory: Path
    version: str
    probe: Probe | None


class ServerGenerator:
    """Samples on the servers of ``settings``, from the adapter that ``publish`` writes."""

    def __init__(
        self,
        settings: RolloutSettings,
        publish: Callable[[], Path],
        served: Served,
        *,
        started: StartedServers | None = None,
        check: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = _log.info,
    ) -> None:
        """``publish`` writes the policy's adapter to a directory, as peft reads it, and returns that directory.

        ``started`` are servers that this process has started. ``check`` is called a few times a second while waiting
        for a server, and may raise to end the wait; ``say`` shows a line to the user.
        """
        self._settings, self._publish, self._served, self._started = settings, publish, served, started
        self._push: _Push | None = None
        self._is_closed, self._check = threading.Event(), check
        self._sampling: threading.Thread | None = None
        check = self._go_on
        addresses = settings.addresses if started is None else started.addresses
        setting, token = (_SETTING, None) if started is None else (_STARTED, started.token)
        self._servers = [
            VLLMServer(JsonClient(address, settings, setting=setting, check=check, token=token))
            for address in addresses
        ]
        self._proofs = [Proof(settings.probe_tolerance, served.base) for _ in addresses]
        self._fleet = Fleet(addresses, again=self._enter, check=check, say=say, away_seconds=settings.away_seconds)

    def generate(self, requests: Sequence[Request], *, temperature: float, max_response_tokens: int) -> list[Generated]:
        """One response for each request, in order.

        Raises:
            ServerError: no server is there, or one rejects the adapter, or responds wrongly.
        """
        return self._collected(requests, self._pushed(requests, temperature, max_response_tokens))

    def begin(
        self, requests: Sequence[Request], *, temperature: float, max_response_tokens: int
    ) -> Callable[[], list[Generated]]:
        """See AheadGenerator: the servers have the policy's adapter when this returns.

        Raises:
            ServerError: as ``generate``.
        """
        sampling = self._pushed(requests, temperature, max_response_tokens)
        found: Future[list[Generated]] = Future()

        def work() -> None:
            try:
                found.set_result(self._collected(requests, sampling))
            except BaseException as error:  # whoever waits for the responses raises it
                found.set_exception(error)

        self._sampling = threading.Thread(target=work, daemon=True, name="rollout ahead")
        self._sampling.start()
        return found.result

    def close(self) -> None:
        """End what is being sampled, and close the connections."""
        self._is_closed.set()
        if self._sampling is not None:
            self._sampling.join()
        for server in self._servers:
            server.client.close()

    def _go_on(self) -> None:
        if self._is_closed.is_set():
            raise _Closed
        self._check()

    def _pushed(self, requests: Sequence[Request], temperature: float, limit: int) -> Sampling:
        """Give every server the current adapter; what the requests of this rollout have in common."""
        is_first = self._push is None
        if is_first:
            for server in self._servers:
                server.require_up()
        push = self._push = self._published(requests)
        for number in self._fleet.up:
            self._bring_up_to_date(number, is_first)
        served = self._served
        return Sampling(
            push.adapter, push.version, temperature, limit, served.ends, served.absent, served.vocabulary_size
        )

    def _collected(self, requests: Sequence[Request], sampling: Sampling) -> list[Generated]:
        with self._fleet.watching():
            pool = ThreadPoolExecutor(self._settings.parallel, thread_name_prefix="rollout")
            try:
                return list(pool.map(lambda request: self._sample(request, sampling), requests))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _published(self, requests: Sequence[Request]) -> _Push:
        """The policy's adapter on disk. Its name on the servers is the run's, its version the checksum of its
        weights."""
        directory = self._publish().resolve()
        name = f"triphase-{hashlib.sha256(str(directory).encode()).hexdigest()[:12]}"
        probing, before = self._served.probing, None if self._push is None else self._push.probe
        probe = None
        if probing is not None:
            probe = probing(probed_of(requests[0].prompt) if before is None else before.ids)
        return _Push(name, directory, fingerprint(directory / _WEIGHTS), probe)

    def _bring_up_to_date(self, number: int, is_first: bool) -> None:
        """Load the current adapter on a server; at the first time a server that is away ends the run, later not."""
        try:
            if is_first:
                self._greet(number)
            self._load(number)
        except ServerAway as error:
            if is_first:
                if self._started is not None and (end := self._started.end_of(number)) is not None:
                    raise ServerAway(f"{_STARTED}: {end}") from error
                raise
            self._fleet.drain(number, error)

    def _enter(self, number: int) -> None:
        """Use a server again that was away."""
        if self._started is not None:
            self._started.require_running(number)
        self._servers[number].require_up(tries=1)
        self._greet(number)
        self._load(number)

    def _greet(self, number: int) -> None:
        if self._push is not None and self._push.probe is not None:
            self._servers[number].look(self._served.room)
            self._proofs[number].begin(self._servers[number], self._push.probe)

    def _load(self, number: int) -> None:
        push, server = self._push, self._servers[number]
        assert push is not None  # noqa: S101 - published before anything is loaded
        server.load(push.adapter, push.directory, self._served.rank)
        if push.probe is not None:
            _log.info("%s", self._proofs[number].pushed(server, push.probe, push.adapter, push.version))

    def _sample(self, request: Request, sampling: Sampling) -> Generated:
        """The response of the first server that returns one; the last try raises its error."""
        for left in reversed(range(len(self._servers) + _MORE_TRIES)):
            number = self._fleet.take()
            try:
                tries = None if self._fleet.is_alone(number) else 1  # if another may do it, it does
                return self._servers[number].sample(request, sampling, tries=tries)
            except ServerError as error:
                # One that was restarted has no adapter, and loads it again.
                is_away = isinstance(error, ServerAway) or error.status == _FORGOTTEN
                if not is_away or not left:
                    raise
                self._fleet.drain(number, error)
            finally:
                self._fleet.give_back(number)
        raise AssertionError("unreachable")
