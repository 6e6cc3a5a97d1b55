"""A server with vLLM's interface that samples with Triphase's own decoder: for `benchmarks.ahead`.

    python -m benchmarks.stand_in RUN --port 8123

It serves the base of a run in a process of one thread, loads the adapters that it is sent, and samples the requests
that wait at the same moment as one batch. Each has its own seed, so the batch decides nothing.
"""

import argparse
import json
import queue
import sys
import threading
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from triphase.batches.padding import pad_batch
from triphase.models.roles import POLICY
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.probing import logprobs_of
from triphase.rollouts.types import Request
from triphase.runs.opening import open_run
from triphase.tokens.encoding import Encoded
from triphase.training.finals import load_policy

BASE = "the-base"
BATCH = 128
_GATHERED_SECONDS = 0.005


class Engine:
    """The model of a run; one thread works on it."""

    def __init__(self, run: Path) -> None:
        self.shared = open_run(run).model()
        self._waiting: queue.Queue[tuple[dict[str, Any], Future[Any]]] = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        """The reply to one request."""
        if path == "/v1/models":
            return {"data": [{"id": BASE, "root": BASE}]}
        if path not in ("/v1/completions", "/v1/load_lora_adapter"):
            return {}
        found: Future[Any] = Future()
        self._waiting.put((body, found))
        return found.result()

    def _work(self) -> None:
        while True:
            some = [self._waiting.get()]
            while len(some) < BATCH:
                try:
                    some.append(self._waiting.get(timeout=_GATHERED_SECONDS))
                except queue.Empty:
                    break
            sampled = [each for each in some if "seed" in each[0]]
            for body, found in (each for each in some if "seed" not in each[0]):
                found.set_result(self._load(body) if "lora_path" in body else self._probed(body))
            if sampled:
                for (_, found), reply in zip(sampled, self._sampled([body for body, _ in sampled]), strict=True):
                    found.set_result(reply)

    def _load(self, body: dict[str, Any]) -> Any:
        load_policy(self.shared, POLICY, Path(body["lora_path"]))
        return {}

    def _probed(self, body: dict[str, Any]) -> Any:
        ids = body["prompt"]
        found = logprobs_of(self.shared, None if body["model"] == BASE else POLICY, ids)
        known = [{str(token): {"logprob": number}} for token, number in zip(ids[1:], found, strict=True)]
        return {"choices": [{"prompt_logprobs": [None, *known]}]}

    @torch.no_grad()
    def _sampled(self, bodies: list[dict[str, Any]]) -> list[Any]:
        requests = [Request(tuple(body["prompt"]), body["seed"]) for body in bodies]
        temperature, limit = bodies[0]["temperature"], bodies[0]["max_tokens"]
        found = LocalGenerator(self.shared, adapter=POLICY, batch_size=BATCH).generate(
            requests, temperature=temperature, max_response_tokens=limit
        )
        rows = [Encoded(request.prompt, each.ids) for request, each in zip(requests, found, strict=True)]
        batch = pad_batch(rows, pad_id=self.shared.template.pad_id, device=self.shared.device)
        logprobs = self.shared.policy_output(batch, None, adapter=POLICY, temperature=temperature).logprobs.tolist()
        return [
            {"choices": [{"token_ids": list(each.ids), "logprobs": {"token_logprobs": row[: len(each.ids)]}}]}
            for each, row in zip(found, logprobs, strict=True)
        ]


def serving(engine: Engine, port: int) -> ThreadingHTTPServer:
    """The server, on a port of the loopback interface; 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            reply = json.dumps(engine.answer(self.path, json.loads(self.rfile.read(size) or b"{}"))).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = BATCH

    return Server(("127.0.0.1", port), Handler)


def main() -> int:
    """Serve until the process is ended; the first line of the output is the address."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    server = serving(Engine(options.run), options.port)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
