"""A hub on this machine that takes commits, as far as `huggingface_hub` needs it to."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeHub:
    """The requests that it received.

    Attributes:
        made: repositories with whether each is private.
        files: content of each file that was committed.
        refuses: answers everything with 401.
    """

    def __init__(self) -> None:
        self.made: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.refuses = False
        self.address = ""

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if self.refuses:
            return 401, {"error": "Invalid credentials"}
        if path.endswith("/repos/create"):
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.made[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
            return 200, {"url": f"{self.address}/{name}", "name": name, "id": "1"}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return 200, {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        if "/commit/" in path:
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return 200, {
                "success": True,
                "commitOid": "a" * 40,
                "commitUrl": f"{self.address}/org/name/commit/{'a' * 40}",
            }
        return 200, {"type": "user", "name": "org", "valid": True}


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """One that listens while the block lasts."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = hub.answer(self.path.partition("?")[0], body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
