"""Sampling on servers: the requests, and the rejected responses; `test_fleet` covers scheduling."""

import time
from pathlib import Path
from typing import Any

import pytest
from tests.rollouts.fake_server import Asked, FakeServer, Reply

from triphase.errors import ServerError
from triphase.rollouts.servers import Served, ServerGenerator
from triphase.rollouts.types import Generated, Request
from triphase.settings.services import RolloutSettings

END, VOCABULARY, LIMIT = 1, 50, 4
REQUESTS = [Request((7, 8, number + 10), 200 + 7 * number + 3) for number in range(6)]


def like_vllm(asked: Asked) -> Reply:
    """As vLLM answers: the last id of the prompt, the seed, and the end."""
    if asked.path == "/v1/completions":
        ids = [asked.body["prompt"][-1], asked.body["seed"] % VOCABULARY, END]
        return _ids(ids)
    return Reply(body=b"Success: LoRA adapter added successfully.")


def expected(request: Request) -> Generated:
    """What `like_vllm` writes."""
    return Generated((request.prompt[-1], request.seed % VOCABULARY, END), True, (-0.5, -1.5, -2.5))


class Servers:
    """Some fake servers, and a generator that asks them; the adapter changes at each rollout."""

    def __init__(
        self, directory: Path, *servers: FakeServer, absent: frozenset[int] = frozenset(), **changes: Any
    ) -> None:
        self.directory, self.published = directory, 0
        self.said: list[str] = []
        settings = {"addresses": [server.address for server in servers], "retries": 0, "parallel": 4, **changes}
        self.generator = ServerGenerator(
            RolloutSettings.model_validate(settings),
            self.publish,
            Served((END,), VOCABULARY, absent),
            say=self.said.append,
        )

    def publish(self) -> Path:
        self.published += 1
        (self.directory / "adapter_model.safetensors").write_bytes(bytes([self.published]))
        return self.directory

    def generate(self) -> list[Generated]:
        return self.generator.generate(REQUESTS, temperature=0.7, max_response_tokens=LIMIT)


def test_ids_go_in_and_come_out_in_order_and_each_is_asked_once(tmp_path: Path) -> None:
    with FakeServer(like_vllm).running() as first, FakeServer(like_vllm).running() as second:
        servers = Servers(tmp_path, first, second)
        found = servers.generate()
        servers.generator.close()
    assert found == [expected(request) for request in REQUESTS]
    for server in (first, second):
        assert [one.path for one in server.asked[:2]] == ["/health", "/v1/load_lora_adapter"]
    seeds = [one.body["seed"] for server in (first, second) for one in server.asked[2:]]
    assert sorted(seeds) == [request.seed for request in REQUESTS]


def test_a_request_says_all_that_decides_the_sample(tmp_path: Path) -> None:
    with FakeServer(like_vllm).running() as server:
        servers = Servers(tmp_path, server, parallel=1)
        servers.generate()
        servers.generate()
        servers.generator.close()
    loads = [one.body for one in server.asked if one.path == "/v1/load_lora_adapter"]
    assert loads[0] == loads[1] and loads[0]["load_inplace"] is True and loads[0]["lora_path"] == str(tmp_path)
    asked = [one.body for one in server.asked if one.path == "/v1/completions"]
    assert {body["model"] for body in asked} == {loads[0]["lora_name"]}
    first, later = asked[0], asked[len(REQUESTS)]
    assert first["prompt"] == list(REQUESTS[0].prompt) and first["seed"] == REQUESTS[0].seed
    assert (first["temperature"], first["max_tokens"], first["stop_token_ids"]) == (0.7, LIMIT, [END])
    assert first["ignore_eos"] and first["return_token_ids"]
    assert (first["top_p"], first["top_k"], first["min_p"], first["repetition_penalty"]) == (1.0, -1, 0.0, 1.0)
    # What a server keeps of a prompt under one adapter is not used under the next.
    assert first["cache_salt"] != later["cache_salt"]
    assert sum(one.path == "/health" for one in server.asked) == 1


def test_what_is_begun_uses_the_adapter_of_then_and_ends_with_the_phase(tmp_path: Path) -> None:
    reply = [like_vllm]
    with FakeServer(lambda asked: reply[0](asked)).running() as server:
        servers = Servers(tmp_path, server)
        result = servers.generator.begin(REQUESTS, temperature=0.7, max_response_tokens=LIMIT)
        assert servers.published == 1 and any("lora" in one.path for one in server.asked)
        assert result() == [expected(request) for request in REQUESTS]
        reply[0] = lambda asked: Reply(wait=30) if "completions" in asked.path else like_vllm(asked)
        servers.generator.begin(REQUESTS, temperature=0.7, max_response_tokens=LIMIT)
        begun = time.monotonic()
        servers.generator.close()
        assert time.monotonic() - begun < 10
        reply[0] = lambda asked: Reply(400, {"message": "no"}) if "completions" in asked.path else like_vllm(asked)
        again = Servers(tmp_path, server)
        result = again.generator.begin(REQUESTS, temperature=0.7, max_response_tokens=LIMIT)
        with pytest.raises(ServerError, match="status 400"):  # told where the responses are wanted
            result()
        again.generator.close()


def test_an_unfinished_response_is_one_of_all_tokens(tmp_path: Path) -> None:
    with FakeServer(lambda asked: _ids([5, 6, 7, 8]) if "completions" in asked.path else Reply()).running() as server:
        servers = Servers(tmp_path, server)
        assert servers.generate() == [Generated((5, 6, 7, 8), False, (-0.5, -1.5, -2.5, -3.5))] * len(REQUESTS)
        servers.generator.close()


def _ids(ids: Any) -> Reply:
    sampled = {"token_logprobs": [-0.5 - place for place in range(len(ids))]}
    return Reply(body={"choices": [{"index": 0, "token_ids": ids, "logprobs": sampled}]})


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Reply(body={"choices": [{"text": "hello"}]}), "without token_ids; vLLM returns them since 0.10.2"),
        (Reply(body={"error": "no"}), "without token_ids"),
        (_ids([]), "with 0 tokens, but 1 to 4"),
        (_ids([5, 5, 5, 5, END]), "with 5 tokens, but 1 to 4"),
        (_ids([5, VOCABULARY]), "token '50'"),
        (_ids([-1, END]), "token '-1'"),
        (_ids([5.0, END]), "token '5.0'"),
        (_ids([5, END, 5, END]), "after 4 tokens, which is not an end of the response"),
        (_ids([5, 6]), "after 2 tokens, which is not an end of the response"),
        (Reply(400, {"message": "max_lora_rank"}), "status 400.*max_lora_rank"),
    ],
)
def test_a_wrong_answer_is_told(tmp_path: Path, reply: Reply, problem: str) -> None:
    with FakeServer(lambda asked: reply if "completions" in asked.path else Reply()).running() as server:
        servers = Servers(tmp_path, server)
        with pytest.raises(ServerError, match=rf"rollouts.addresses: http\S+/v1/completions .*{problem}"):
            servers.generate()
        servers.generator.close()


def test_a_server_that_does_not_take_the_adapter_is_told(tmp_path: Path) -> None:
    reply = Reply(404, {"detail": "Not Found"})
    with FakeServer(lambda asked: reply if "lora" in asked.path else Reply()).running() as server:
        servers = Servers(tmp_path, server)
        with pytest.raises(ServerError, match=r"load_lora_adapter responds with status 404.*UPDATING"):
            servers.generate()
        servers.generator.close()


def test_a_server_that_is_away_is_told_before_anything_is_sampled(tmp_path: Path) -> None:
    with FakeServer(like_vllm).running() as there:
        with FakeServer(like_vllm).running() as gone:
            servers = Servers(tmp_path, there, gone)
        with pytest.raises(ServerError, match=rf"{gone.address}/health cannot be reached"):
            servers.generate()
        servers.generator.close()
    assert servers.published == 0 and [one.path for one in there.asked] == ["/health"]


def test_ids_without_a_token_are_not_asked_for_and_not_taken(tmp_path: Path) -> None:
    with FakeServer(like_vllm).running() as server:
        servers = Servers(tmp_path, server, absent=frozenset({3, 48}))
        with pytest.raises(ServerError, match="responds with the token '3', which this model does not have"):
            servers.generate()
        servers.generator.close()
    bodies = [one.body for one in server.asked if one.path == "/v1/completions"]
    assert bodies and all(body["logit_bias"] == {"3": -100.0, "48": -100.0} for body in bodies)
