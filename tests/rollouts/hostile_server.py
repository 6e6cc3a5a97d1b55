"""A server on the bare socket that misbehaves as no real one does; each behavior lasts until the client gives up."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BEAT = 0.02
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Line:
    """One connection of a hostile server. ``say`` ends the behavior once the other side, or the test, has left."""

    def __init__(self, opened: socket.socket, stopping: threading.Event) -> None:
        self._socket, self._stopping = opened, stopping

    def hear(self) -> None:
        """Read the request, head and body."""
        self._socket.settimeout(5)
        heard = b""
        while b"\r\n\r\n" not in heard:
            heard += self._socket.recv(65536)
        head, _, body = heard.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
        while lengths and len(body) < int(lengths[0]):
            body += self._socket.recv(65536)

    def say(self, content: bytes) -> None:
        self._socket.sendall(content)

    def rest(self, seconds: float = BEAT) -> None:
        if self._stopping.wait(seconds):
            raise ConnectionAbortedError

    def drip(self, content: bytes, *, then: bytes = b"") -> None:
        """``content`` byte by byte, and then ``then`` for ever."""
        for at in range(len(content)):
            self.say(content[at : at + 1])
            self.rest()
        while then:
            self.say(then)
            self.rest()


def _silent(line: Line) -> None:
    line.hear()
    line.rest(60)


def _never_reads(line: Line) -> None:
    line.rest(60)


def _drips_the_status(line: Line) -> None:
    line.hear()
    line.drip(b"HTTP/1.1 200 " + b"O" * 2000)


def _drips_headers(line: Line) -> None:
    line.hear()
    line.say(_HEAD)
    line.drip(b"X-Slow: " + b"a" * 2000)


def _drips_whole_headers(line: Line) -> None:
    line.hear()
    line.say(_HEAD)
    line.drip(b"", then=b"X-One: more\r\n")


def _hints_without_end(line: Line) -> None:
    line.hear()
    line.drip(b"", then=b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")


def _hints_at_full_speed(line: Line) -> None:
    line.hear()
    while True:
        line.say(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)


def _continues_without_end(line: Line) -> None:
    line.hear()
    line.drip(b"", then=b"HTTP/1.1 100 Continue\r\n\r\n")


def _drips_the_body(line: Line) -> None:
    line.hear()
    line.say(_HEAD + b"Content-Length: 100000\r\n\r\n")
    line.drip(b"", then=b" ")


def _drips_chunks(line: Line) -> None:
    line.hear()
    line.say(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    line.drip(b"", then=b"1\r\n \r\n")


def _drips_a_chunk_extension(line: Line) -> None:
    line.hear()
    line.say(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;a=")
    line.drip(b"", then=b"x")


def _drips_trailers(line: Line) -> None:
    line.hear()
    line.say(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
    line.drip(b"", then=b"X-Trailer: more\r\n")


def _body_without_a_length(line: Line) -> None:
    line.hear()
    line.say(_HEAD + b"Connection: close\r\n\r\n{}")
    line.drip(b"", then=b" ")


def _says_only_line_ends(line: Line) -> None:
    line.hear()
    line.drip(b"", then=b"\r\n")


def _is_no_http(line: Line) -> None:
    line.hear()
    line.say(b"220 mail ready\r\n")
    line.rest(60)


def _closes_in_the_body(line: Line) -> None:
    line.hear()
    line.say(_HEAD + b"Content-Length: 100\r\n\r\n{")


def _says_more_than_its_length(line: Line) -> None:
    line.hear()
    line.say(_HEAD + b'Content-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"scores":[99]}')
    line.rest(60)


def _switches_protocols(line: Line) -> None:
    line.hear()
    line.say(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: upgrade\r\n\r\n")
    line.drip(b"", then=b"x")


Behavior = Callable[[Line], None]
BEHAVIORS: dict[str, Behavior] = {
    behavior.__name__.lstrip("_"): behavior
    for behavior in (
        _silent,
        _never_reads,
        _drips_the_status,
        _drips_headers,
        _drips_whole_headers,
        _hints_without_end,
        _hints_at_full_speed,
        _continues_without_end,
        _drips_the_body,
        _drips_chunks,
        _drips_a_chunk_extension,
        _drips_trailers,
        _body_without_a_length,
        _says_only_line_ends,
        _is_no_http,
        _closes_in_the_body,
        _says_more_than_its_length,
        _switches_protocols,
    )
}


@contextmanager
def hostile(behavior: Behavior) -> Iterator[str]:
    """The address of a server that treats every connection so, while the block lasts."""
    stopping = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(0.05)

    def serve(opened: socket.socket) -> None:
        with opened:
            try:
                behavior(Line(opened, stopping))
            except OSError:
                return

    def accept() -> None:
        while not stopping.is_set():
            try:
                opened, _ = listening.accept()
            except TimeoutError:
                continue
            threading.Thread(target=serve, args=(opened,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        stopping.set()
        thread.join()
        listening.close()
