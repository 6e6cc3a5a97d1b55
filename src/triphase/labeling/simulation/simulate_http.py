"""Simulated labelers as HTTP clients of the real server: they sign in, hold leases and submit, as people do."""

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from triphase.errors import StoreError
from triphase.labeling.simulation.simulated import SimulatedLabelers
from triphase.labeling.work.answer_content import places_of_ratings
from triphase.records.types import Message, Prompt, Response

_TOKEN = re.compile(r'<meta name="csrf" content="([^"]+)">')
_PATIENCE_SECONDS = 60.0


@dataclass(slots=True)
class Report:
    """Results of the clients. ``waits``: seconds from submitting until the next item was received."""

    submitted: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    first_waits: list[float] = field(default_factory=list)
    late: int = 0
    retries: int = 0

    def percentile(self, share: float) -> float | None:
        """A percentile of the waits; None if there were none."""
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


class HttpLabeler:
    """One signed-in client."""

    def __init__(self, client: httpx.AsyncClient, name: str, report: Report) -> None:
        self.client = client
        self.name = name
        self.report = report
        self._rounds: dict[str, int] = {}

    async def sign_in(self, password: str) -> None:
        """Sign in through the form, and take the token from the page."""
        answer = await self._patiently("POST", "/sign-in", data={"name": self.name, "password": password})
        if answer.status_code != 303:
            raise StoreError(f"{self.name} could not sign in: the server answered {answer.status_code}")
        page = await self._patiently("GET", "/rank")
        found = _TOKEN.search(page.text)
        if found is None:
            raise StoreError(f"{self.name}: the page has no CSRF token; is this the labeling server?")
        self.client.headers["x-csrf-token"] = found.group(1)

    async def work(self, labelers: SimulatedLabelers, most: int | None = None, think_seconds: float = 0.0) -> None:
        """Rank until nothing is left, or ``most`` were submitted; with pauses of ``think_seconds`` between two
        answers."""
        begun = time.perf_counter()
        item = (await self._json("GET", "/api/next"))["item"]
        self.report.first_waits.append(time.perf_counter() - begun)
        done = 0
        while item is not None and (most is None or done < most):
            if think_seconds:
                await asyncio.sleep(think_seconds)
            begun = time.perf_counter()
            taken = await self._json("POST", "/api/answers", json=self._answer(labelers, item))
            self.report.waits.append(time.perf_counter() - begun)
            self.report.submitted.append(taken["ranking"])
            self.report.late += taken["status"] == "late"
            item = taken["item"]
            done += 1

    def _answer(self, labelers: SimulatedLabelers, item: dict[str, Any]) -> dict[str, Any]:
        messages = tuple(Message(one["role"], one["content"]) for one in item["prompt"])
        prompt = Prompt(str(item["assignment"]), messages)
        shown = [
            Response(f"{position}", prompt.id, response["text"], "", response["finished"])
            for position, response in enumerate(item["responses"])
        ]
        round_ = self._rounds.get(prompt.text, -1) + 1
        self._rounds[prompt.text] = round_
        choice = labelers.choose(prompt, shown, self.name, round_)
        places = [choice.places[response.id] for response in shown]
        found = {
            "assignment": item["assignment"], "places": places, "seconds": choice.seconds, "receipt": item["receipt"],
        }  # fmt: skip
        if item["task"] is not None and item["task"]["kind"] == "rating":  # the ranking follows from the ratings
            ratings = [max(1, 8 - place) for place in places]
            found |= {"quality": ratings, "places": places_of_ratings(ratings)}
        return found

    async def _json(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        answer = await self._patiently(method, path, **content)
        if answer.status_code != 200:
            raise StoreError(f"{self.name}: {method} {path} answered {answer.status_code}: {answer.text[:200]}")
        found: dict[str, Any] = answer.json()
        return found

    async def _patiently(self, method: str, path: str, **content: Any) -> httpx.Response:
        """A request, repeated while the server is away: submitting twice is the same as once."""
        ends = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                answer = await self.client.request(method, path, **content)
                if answer.status_code != 503:
                    return answer
            except httpx.TransportError:
                if time.monotonic() > ends:
                    raise
            self.report.retries += 1
            await asyncio.sleep(0.1)


async def simulate_over_http(
    address: str,
    labelers: SimulatedLabelers,
    passwords: Sequence[tuple[str, str]],
    *,
    most: int | None = None,
    think_seconds: float = 0.0,
) -> Report:
    """Let every (name, password) rank at ``address`` concurrently, until nothing is left for them."""
    report = Report()

    async def one(name: str, password: str) -> None:
        async with httpx.AsyncClient(base_url=address, timeout=30.0, trust_env=False) as client:
            labeler = HttpLabeler(client, name, report)
            await labeler.sign_in(password)
            await labeler.work(labelers, most, think_seconds)

    async with asyncio.TaskGroup() as group:
        for name, password in passwords:
            group.create_task(one(name, password))
    return report
