"""A light HTTP client for the load tests, which share two cores with the server: what it costs, the server lacks."""

import asyncio
import json
import urllib.parse
from collections.abc import Sequence
from typing import Any

import httpx

from triphase.labeling.simulation.simulate_http import HttpLabeler, Report
from triphase.labeling.simulation.simulated import SimulatedLabelers


class Answer:
    """The server's response."""

    def __init__(self, status_code: int, content: bytes) -> None:
        self.status_code, self.content = status_code, content

    @property
    def text(self) -> str:
        return self.content.decode()

    def json(self) -> Any:
        return json.loads(self.content)


class LightClient:
    """One connection that is kept, one cookie, and as much of HTTP/1.1 as the labeling server speaks."""

    def __init__(self, port: int) -> None:
        self.port, self.cookie = port, ""
        self.headers: dict[str, str] = {}
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, *, data: dict[str, str] | None = None, json: Any = None) -> Answer:
        try:
            return await asyncio.wait_for(self._request(method, path, data, json), 30.0)
        except (OSError, EOFError, TimeoutError) as error:
            self.close()
            raise httpx.ReadError(str(error)) from error

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None

    async def _request(self, method: str, path: str, data: dict[str, str] | None, given: Any) -> Answer:
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        kind, body = "application/json", b"" if given is None else json.dumps(given).encode()
        if data is not None:
            kind, body = "application/x-www-form-urlencoded", urllib.parse.urlencode(data).encode()
        lines = [f"{method} {path} HTTP/1.1", f"host: 127.0.0.1:{self.port}", f"content-length: {len(body)}"]
        lines += [f"content-type: {kind}"] * bool(body) + [f"cookie: {self.cookie}"] * bool(self.cookie)
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        length = 0
        for line in head[1:]:
            name, _, value = line.partition(":")
            if name.lower() == "content-length":
                length = int(value)
            elif name.lower() == "set-cookie":
                self.cookie = value.strip().partition(";")[0]
        return Answer(int(head[0].split()[1]), await reader.readexactly(length))


async def simulate_lightly(
    port: int, labelers: SimulatedLabelers, passwords: Sequence[tuple[str, str]], *, most: int | None, think: float
) -> Report:
    """As ``simulate_over_http``, through ``LightClient``; what is measured begins when all are signed in."""
    report = Report()
    clients = [LightClient(port) for _ in passwords]
    people = [HttpLabeler(client, name, report) for client, (name, _) in zip(clients, passwords, strict=True)]
    for one, (_, password) in zip(people, passwords, strict=True):
        await one.sign_in(password)
    async with asyncio.TaskGroup() as group:
        for one in people:
            group.create_task(one.work(labelers, most, think))
    for client in clients:
        client.close()
    return report
