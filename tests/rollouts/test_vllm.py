"""A real vLLM server (`make test-vllm`), started as a run starts it, on a tiny model in float32.

Servers take half a minute to come up, so one serves all tests of this module, in their order; the last two kill it.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.runs import small_run
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from triphase.datacheck.model_names import place_of
from triphase.demo.tiny import tiny_directory
from triphase.errors import ServerError
from triphase.models.loading import load_model
from triphase.models.roles import POLICY, SharedModel
from triphase.monitoring.metrics import read_metrics
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.probing import logprobs_of
from triphase.rollouts.server_checks import Probe
from triphase.rollouts.servers import Served, ServerGenerator
from triphase.rollouts.serving import Base, server_command, server_environment
from triphase.rollouts.started import StartedServers
from triphase.rollouts.types import Generated, Request
from triphase.settings.schema import RunSettings
from triphase.training.finals import save_policy

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
TRIPHASE = (sys.executable, "-m", "triphase")
GREEDY = """
import json, sys
from vllm import LLM, SamplingParams
model = LLM(sys.argv[1], dtype="float32", enforce_eager=True, max_model_len=64, kv_cache_memory_bytes=100_000_000)
prompts = [{"prompt_token_ids": ids} for ids in json.loads(sys.argv[2])]
found = model.generate(prompts, SamplingParams(temperature=0, max_tokens=12, ignore_eos=True), use_tqdm=False)
open(sys.argv[3], "w").write(json.dumps([list(each.outputs[0].token_ids) for each in found]))
"""
PYTHON = os.environ.get("TRIPHASE_VLLM_PYTHON", ".venv-vllm/bin/python")
REQUESTS = [Request((3 + n % 12, 4 + n % 5, 3 + (7 * n) % 12, 5), 11 * n) for n in range(24)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and the tiny model with heads of 32, the least that vLLM's attention on a processor takes."""
    folder = tmp_path_factory.mktemp("vllm")
    small_run.write_data(folder)
    source = tiny_directory() / "model"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "model").mkdir(exist_ok=True)
        (folder / "model" / name).write_bytes((source / name).read_bytes())
    config = LlamaConfig.from_pretrained(source)
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = 2, 1, 32
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    return folder


def settings(folder: Path, **changes: Any) -> RunSettings:
    return small_run.settings(
        folder,
        method="lora",
        model={"name": str(folder / "model"), "dtype": "float32", "max_length": 64},
        labeling={"source": "none"},
        rollouts={"servers": 1, "python": PYTHON, "arguments": ["--kv-cache-memory-bytes=100000000"]},
        **changes,
    )


class Policy:
    """The tiny model with an adapter that is drawn at random, and drawn again."""

    def __init__(self, folder: Path, chosen: RunSettings) -> None:
        self.shared = SharedModel(load_model(chosen.model, place_of), chosen.adapters, seed=0)
        self.shared.adapters.add(POLICY)
        self.directory = folder / f"serving-{chosen.adapters.rank}"
        self.draw(1)

    def draw(self, seed: int) -> None:
        torch.manual_seed(seed)
        state = self.shared.adapters.state(POLICY)
        self.shared.adapters.load(POLICY, {name: torch.randn_like(value) * 0.3 for name, value in state.items()})

    def publish(self) -> Path:
        save_policy(self.shared, POLICY, self.directory, with_value_head=False)
        return self.directory

    def probe(self, ids: Sequence[int]) -> Probe:
        base, now = (tuple(logprobs_of(self.shared, adapter, ids)) for adapter in (None, POLICY))
        return Probe(tuple(ids), base, now)

    def served(self, **changes: Any) -> Served:
        rank = self.shared.adapter_settings.rank
        return Served((1,), 15, **{"base": "base", "rank": rank, "room": 64, "probing": self.probe, **changes})

    def here(self, temperature: float) -> list[Generated]:
        local = LocalGenerator(self.shared, adapter=POLICY, batch_size=8)
        return local.generate(REQUESTS, temperature=temperature, max_response_tokens=12)


@pytest.fixture(scope="module")
def policy(folder: Path) -> Policy:
    return Policy(folder, settings(folder))


@pytest.fixture(scope="module")
def started(folder: Path) -> Iterator[StartedServers]:
    chosen = settings(folder)
    base = Base(str(folder / "model"), "float32", on_cpu=True)
    environment = server_environment(chosen.rollouts, on_cpu=True)
    with StartedServers(
        chosen.rollouts,
        lambda host, port: server_command(chosen, base, host, port),
        environment,
        folder / "logs",
        check=lambda: None,
        say=print,
    ) as found:
        yield found


def generator(
    started: StartedServers, policy: Policy, said: list[str] | None = None, **changes: Any
) -> ServerGenerator:
    chosen = started._settings.model_copy(update={"probe_tolerance": 1e-3})
    say = print if said is None else said.append
    return ServerGenerator(chosen, policy.publish, policy.served(**changes), started=started, say=say)


def test_greedy_tokens_and_logprobs_are_those_of_this_process(started: StartedServers, policy: Policy) -> None:
    asked = generator(started, policy)
    seen = []
    for seed in (1, 2):  # and an adapter that is pushed changes the next batch
        policy.draw(seed)
        found = asked.generate(REQUESTS, temperature=0.0, max_response_tokens=12)
        expected = policy.here(1e-6)
        assert [(each.ids, each.finished) for each in found] == [(each.ids, each.finished) for each in expected]
        seen.append([each.ids for each in found])
    assert seen[0] != seen[1]
    found = asked.generate(REQUESTS, temperature=0.7, max_response_tokens=12)
    assert found == asked.generate(REQUESTS, temperature=0.7, max_response_tokens=12)  # by the seeds
    for request, each in list(zip(REQUESTS, found, strict=True))[:4]:
        assert each.logprobs == pytest.approx(at_temperature(policy, request.prompt, each.ids, 0.7), abs=1e-5)
    asked.close()


def at_temperature(policy: Policy, prompt: tuple[int, ...], ids: tuple[int, ...], temperature: float) -> list[float]:
    """Log-probabilities by transformers' own forward pass."""
    model = policy.shared.backbone.model
    with torch.no_grad(), policy.shared.role(POLICY):
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    return (logits / temperature).log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0].tolist()


def test_another_base_is_refused(started: StartedServers, policy: Policy) -> None:
    def other(ids: Sequence[int]) -> Probe:
        true = policy.probe(ids)
        return Probe(true.ids, tuple(value - 0.1 for value in true.base), true.policy)

    with pytest.raises(ServerError, match=r"serves '.*model', but the run's base is base: .* nats per token"):
        generator(started, policy, probing=other).generate(REQUESTS, temperature=1.0, max_response_tokens=4)


def test_texts_that_are_too_long_are_refused(started: StartedServers, policy: Policy) -> None:
    with pytest.raises(ServerError, match=r"at most 64 tokens, .* may have 65"):
        generator(started, policy, room=65).generate(REQUESTS, temperature=1.0, max_response_tokens=4)


def test_a_rank_above_the_limit_is_refused(started: StartedServers, folder: Path) -> None:
    chosen = settings(folder, adapters={"layers": "all", "rank": 20})
    with pytest.raises(ServerError, match=r"adapters\.rank is 20: start it with --max-lora-rank 32"):
        generator(started, Policy(folder, chosen)).generate(REQUESTS, temperature=1.0, max_response_tokens=4)


def test_a_server_that_is_killed_is_replaced_and_no_prompt_is_lost(started: StartedServers, policy: Policy) -> None:
    said: list[str] = []
    asked = generator(started, policy, said)
    expected = asked.generate(REQUESTS, temperature=0.0, max_response_tokens=12)
    keeper = started._servers[0].keeper
    assert keeper is not None
    server = int(subprocess.run(["pgrep", "-P", str(keeper.pid)], capture_output=True, text=True).stdout.split()[0])
    threading.Timer(0.1, lambda: os.killpg(server, signal.SIGKILL)).start()
    many = [request for request in REQUESTS for _ in range(20)]
    found = asked.generate(many, temperature=0.0, max_response_tokens=12)
    asked.close()
    assert [each.ids for each in found] == [each.ids for each in expected for _ in range(20)]
    assert any("no vLLM server responds" in line for line in said), said
    assert any("is back, with the current adapter" in line for line in said) and started._servers[0].restarts == 1


@pytest.fixture(scope="module")
def config(folder: Path) -> Path:
    """Two iterations, sampled by a server of the run's own."""
    ppo = {"iterations": 2, "batch_size": 16, "minibatch_size": 8, "epochs": 1, "max_response_tokens": 10}
    chosen = settings(
        folder, ppo={**ppo, "temperature": 0.8, "scorer": {"function": "tests.rewards.functions:lengths"}}
    )
    path = folder / "run.yaml"
    path.write_text(json.dumps(chosen.model_dump(mode="json", by_alias=True)))
    return path


@pytest.fixture(scope="module")
def finished(folder: Path, config: Path) -> Path:
    """The directory of a finished run of that configuration."""
    done = subprocess.run([*TRIPHASE, "run", str(config)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "runs" / "small"


def test_a_run_from_the_command_line(finished: Path) -> None:
    rows = read_metrics(finished / "ppo" / "metrics.jsonl")
    assert len(rows) == 2 and rows[1]["ppo/reference_kl"] != 0
    assert all(row["ppo/sampler_difference_max"] < 1e-4 for row in rows)
    assert (finished / "log.jsonl").read_text().count("is loaded on") == 2


def test_a_trial_compares_the_server_with_this_process(folder: Path, config: Path) -> None:
    """The faster one samples the run, which goes through."""
    words = [*TRIPHASE, "run", str(config), "--name", "trial", "--rollouts.engine", "auto"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    run = folder / "runs" / "trial"
    lines = [json.loads(line)["message"] for line in (run / "log.jsonl").read_text().splitlines()]
    (chosen,) = [line for line in lines if line.startswith("rollouts.engine auto: ")]
    rates = re.search(r"([\d.e+]+) new tokens per second in this process, ([\d.e+]+) by servers; (.*)$", chosen)
    assert rates is not None and min(float(rates[1]), float(rates[2])) > 0, chosen
    here, served = float(rates[1]), float(rates[2])
    assert rates[3] == ("the servers sample this run" if served > here else "this process samples this run"), chosen
    assert len(read_metrics(run / "ppo" / "metrics.jsonl")) == 2


def test_an_exported_policy_opens_in_vllm(finished: Path, folder: Path) -> None:
    """The merged checkpoint, alone, gives the greedy tokens that transformers takes from the run's own weights."""
    merged = folder / "merged"
    done = subprocess.run(
        [*TRIPHASE, "export", str(finished), "--to", str(merged), "--what", "policy"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    prompts = [list(request.prompt) for request in REQUESTS]
    said = folder / "greedy.json"  # its engine writes to standard output too
    words = [PYTHON, "-c", GREEDY, str(merged), json.dumps(prompts), str(said)]
    opened = subprocess.run(words, capture_output=True, text=True)
    assert opened.returncode == 0, opened.stderr[-3000:]
    found = json.loads(said.read_text())

    assert found == [greedy(merged, prompt) for prompt in prompts]
    assert found != [greedy(folder / "model", prompt) for prompt in prompts]  # training has changed what it says


def greedy(model: Path, prompt: list[int]) -> list[int]:
    """Twelve tokens by transformers alone."""
    opened = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(12):
            ids.append(int(opened(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_kill_9_of_a_run_leaves_no_server(folder: Path, config: Path) -> None:
    others = running()  # the one that served the tests above
    killed = subprocess.Popen(
        [*TRIPHASE, "run", str(config), "--name", "killed"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    log = folder / "runs" / "killed" / "ppo" / "vllm-0.log"
    end = time.monotonic() + 300
    while time.monotonic() < end and not (log.exists() and "Starting vLLM server" in log.read_text()):
        time.sleep(0.2)
    assert running() - others
    killed.kill()
    killed.wait()
    end = time.monotonic() + 20
    while time.monotonic() < end and running() - others:
        time.sleep(0.2)
    assert not running() - others


def running() -> set[str]:
    """The vLLM servers, each with its process number."""
    found = subprocess.run(["pgrep", "-af", "vllm.entrypoints"], capture_output=True, text=True)
    return set(found.stdout.splitlines())
