"""The proof that a server samples from the policy: a stale adapter, another base, and rounding, each planted."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tests.rollouts.fake_server import Asked, FakeServer, Reply
from tests.rollouts.test_servers import END, VOCABULARY, like_vllm

from triphase.errors import ServerError
from triphase.rollouts.server_checks import Probe, distance, probed_of, unlike
from triphase.rollouts.servers import Served, ServerGenerator
from triphase.rollouts.types import Request
from triphase.settings.services import RolloutSettings

PROMPT = (7, 8, 9, 10)
BASE = (-2.0, -3.0, -1.0)


class Probed:
    """A server whose base and adapter return given numbers for the prompt; by default those of the trainer."""

    def __init__(self, *, base: Sequence[float] = BASE, longest: int = 100) -> None:
        self.base, self.longest = list(base), longest
        self.adapter: Sequence[float] = BASE
        self.policy: Sequence[float] = BASE
        self.is_stale, self.rounding, self.refusal = False, 0.0, ""

    def __call__(self, asked: Asked) -> Reply:
        if asked.path == "/v1/models":
            card = {"id": "Some/Model", "root": "/models/some", "parent": None, "max_model_len": self.longest}
            return Reply(body={"data": [card, {"id": "a", "parent": "Some/Model"}]})
        if asked.path == "/v1/load_lora_adapter":
            if self.refusal:
                return Reply(500, {"error": {"message": self.refusal}})
            if not self.is_stale:
                self.adapter = self.policy
            return Reply()
        if asked.path == "/v1/completions" and "prompt_logprobs" in asked.body:
            numbers = self.base if asked.body["model"] == "Some/Model" else [n + self.rounding for n in self.adapter]
            ids = asked.body["prompt"]
            found = [None, *({str(i): {"logprob": n}} for i, n in zip(ids[1:], numbers, strict=True))]
            return Reply(body={"choices": [{"prompt_logprobs": found}]})
        return like_vllm(asked)


class Run:
    """A generator that asks one probed server; ``policy`` is the trainer's numbers for the prompt."""

    def __init__(self, directory: Path, server: FakeServer, probed: Probed) -> None:
        self.directory, self.probed, self.pushes = directory, probed, 0
        settings = RolloutSettings(addresses=(server.address,), retries=0, away_seconds=0.1)
        served = Served((END,), VOCABULARY, base="Our/Model", rank=12, room=64, probing=self.probe)
        self.generator = ServerGenerator(settings, self.publish, served)

    def publish(self) -> Path:
        self.pushes += 1
        (self.directory / "adapter_model.safetensors").write_bytes(bytes([self.pushes]))
        return self.directory

    def probe(self, ids: Sequence[int]) -> Probe:
        assert tuple(ids) == PROMPT
        return Probe(PROMPT, BASE, tuple(self.probed.policy))

    def push(self, *policy: float) -> None:
        self.probed.policy = policy
        self.generator.generate([Request(PROMPT, 3)], temperature=1.0, max_response_tokens=4)


def pushed(
    directory: Path, probed: Probed, *policies: Sequence[float], then: Mapping[str, object] | None = None
) -> None:
    """Push the policies one after another; ``then`` is set on the server before the last."""
    with FakeServer(probed).running() as server:
        run = Run(directory, server, probed)
        try:
            for number, policy in enumerate(policies):
                if number == len(policies) - 1:
                    for name, value in (then or {}).items():
                        setattr(probed, name, value)
                run.push(*policy)
        finally:
            run.generator.close()


def test_a_sound_server_passes_push_after_push(tmp_path: Path) -> None:
    pushed(tmp_path, Probed(), BASE, (-2.1, -2.9, -1.0), (-1.5, -3.3, -1.2))


def test_another_base_is_refused_by_name_and_number(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"serves 'Some/Model \(/models/some\)'.* base is Our/Model.* 0\.6 nats"):
        pushed(tmp_path, Probed(base=(-2.6, -2.4, -1.6)), BASE)


def test_texts_that_are_too_long_for_the_server_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"at most 50 tokens, .* may have 64; start it with --max-model-len 64"):
        pushed(tmp_path, Probed(longest=50), BASE)


def test_an_adapter_of_too_high_a_rank_is_refused_at_once(tmp_path: Path) -> None:
    probed = Probed()
    probed.refusal = "LoRA rank 12 is greater than max_lora_rank 8."
    with pytest.raises(ServerError, match=r"adapters\.rank is 12: start it with --max-lora-rank 16"):
        pushed(tmp_path, probed, BASE)


def test_a_server_that_goes_on_with_the_adapter_before_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ServerError, match=r"does not sample from the adapter .* have not changed, .* changed by 0\.0667 nats"
    ):
        pushed(tmp_path, Probed(), (-2.1, -2.9, -1.0), (-2.2, -2.9, -1.1), then={"is_stale": True})


def test_a_first_push_that_is_lost_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="its log-probabilities have not changed"):
        pushed(tmp_path, Probed(), (-2.1, -2.9, -1.1), then={"is_stale": True})


def test_a_stale_server_with_rounding_of_its_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ServerError, match=r"changed by 0\.01 nats per token, unlike the policy's, which changed by 0\.21"
    ):
        pushed(tmp_path, Probed(), BASE, (-2.21, -3.21, -1.21), then={"is_stale": True, "rounding": 0.01})


def test_answers_far_from_the_trainers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"0\.4 nats per token from the trainer's, but rollouts\.probe_tolerance"):
        pushed(tmp_path, Probed(), BASE, (-2.1, -2.9, -1.0), then={"rounding": -0.4})


def test_rounding_and_a_policy_that_stood_still_pass(tmp_path: Path) -> None:
    # Under critic_warmup the same adapter is pushed again; half precision is off by some hundredths.
    pushed(tmp_path, Probed(), (-2.1, -2.9, -1.0), (-2.1, -2.9, -1.0), (-2.105, -2.9, -1.0), then={"rounding": 0.03})


def test_moves_that_are_lost_in_rounding_add_up(tmp_path: Path) -> None:
    # Each push moves the policy by less than what a server must show; four of them do not.
    steps = [tuple(value - 0.004 * number for value in BASE) for number in range(4)]
    with pytest.raises(ServerError, match=r"not changed, but the policy's changed by 0\.012"):
        with FakeServer(probed := Probed()).running() as server:
            run = Run(tmp_path, server, probed)
            run.push(*steps[0])
            probed.is_stale = True
            for step in steps[1:]:
                run.push(*step)


def test_distances_by_hand() -> None:
    assert distance([1.0, 2.0], [1.5, 1.0]) == 0.75
    assert unlike([1.0, 2.0], [0.0, 0.0], [5.0, 5.5], [4.0, 4.0]) == 0.25  # moved 1, 2 and 1, 1.5
    assert probed_of(range(100)) == tuple(range(36, 100))
    assert probed_of([7]) == (7, 7)
