"""Runs with servers: remote scoring, remote sampling, and the failures of servers."""

import json
import math
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.rollouts.fake_server import Asked, FakeServer, Reply
from tests.runs import small_run
from tests.settings_text import settings_from_text

from triphase.batches.padding import pad_batch
from triphase.demo.embedded import gold_of
from triphase.errors import RunError, ServerError, SettingsError, TrainingError
from triphase.models.roles import POLICY
from triphase.monitoring.metrics import read_metrics
from triphase.reports.contents import read_run
from triphase.reports.findings import find
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.probing import logprobs_of
from triphase.rollouts.servers import Served
from triphase.rollouts.types import Request
from triphase.runs import generators, pipeline
from triphase.runs.session import Run
from triphase.runs.store_samples import sample_into
from triphase.settings.schema import RunSettings
from triphase.tokens.encoding import Encoded
from triphase.training.finals import load_policy
from triphase.training.stopping import Stopped

NOBODY = {"labeling": {"source": "none"}}
PPO = {"iterations": 2, "batch_size": 8, "minibatch_size": 8, "epochs": 1, "max_response_tokens": 10}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, and a run with phase 1 done."""
    folder = tmp_path_factory.mktemp("servers")
    small_run.write_data(folder)
    small_run.do(small_run.settings(folder, method="lora", **NOBODY), pipeline.run_sft)
    return folder


def settings(trained: Path, name: str, **changes: Any) -> RunSettings:
    """Another run that begins with phase 1 as it was left."""
    made = small_run.settings(trained, method="lora", **{**NOBODY, "name": name, **changes})
    part = trained / "runs" / name / "sft"
    if not part.is_dir():
        part.parent.mkdir(parents=True)
        shutil.copytree(trained / "runs" / "small" / "sft", part)
    return made


def scored_by(address: str, **changes: Any) -> dict[str, Any]:
    return {"ppo": {**PPO, "scorer": {"address": address, "retries": 0, "timeout_seconds": 5, **changes}}}


def graded(asked: Asked) -> Reply:
    gold = gold_of("grammar")
    items = asked.body["items"]
    return Reply(
        body={"scores": [gold(item["prompt"][-1]["content"], item["response"], item["finished"]) for item in items]}
    )


def test_a_server_scores_in_the_reward_models_place(trained: Path) -> None:
    with FakeServer(graded).running() as server:
        chosen = settings(trained, "scored", **scored_by(server.address, batch_size=3))
        run = small_run.do(chosen, pipeline.run_all)
    assert not (run.path / "reward").exists() and (run.path / "ppo" / "final").is_dir()
    rows = read_metrics(run.path / "ppo" / "metrics.jsonl")
    assert [row["ppo/proxy_score"] for row in rows] == pytest.approx([row["ppo/gold_score"] for row in rows], abs=1e-4)
    judged = [json.loads(line) for line in (run.path / "evaluation" / "samples.jsonl").read_text().splitlines()]
    assert judged and all(row["score"] == pytest.approx(row["gold"]) for row in judged)
    assert (run.path / "report.html").stat().st_size > 10_000
    assert max(len(one.body["items"]) for one in server.asked) == 3


def test_a_variant_with_a_scorer_of_its_own_is_judged_by_it(trained: Path) -> None:
    def shifted(asked: Asked) -> Reply:
        scores = graded(asked).body["scores"]  # type: ignore[index]
        return Reply(body={"scores": [100.0 + 10.0 * score for score in scores]})

    with FakeServer(graded).running() as server, FakeServer(shifted).running() as other:
        ppo = scored_by(server.address)["ppo"]
        variants = {"other": {"scorer": {"address": other.address, "retries": 0}}, "same": {"kl_coefficient": 0.0}}
        run = small_run.do(settings(trained, "judges", ppo=ppo, variants=variants), pipeline.run_all)
    rows = [json.loads(line) for line in (run.path / "evaluation" / "samples.jsonl").read_text().splitlines()]
    for row in rows:
        expected = 100.0 + 10.0 * row["gold"] if row["policy"] == "arm:other" else row["gold"]
        assert row["score"] == pytest.approx(expected), row["policy"]
    found = find(read_run(run.path)).policies
    for name in ("ppo", "arm:other", "arm:same"):
        factor = 10.0 if name == "arm:other" else 1.0
        gains = found[name].proxy_gain, found[name].gold_gain
        assert gains[0] is not None and gains[1] is not None
        assert gains[0].value == pytest.approx(factor * gains[1].value)


def test_a_rollout_without_scores_is_kept_skipped_and_counted(trained: Path) -> None:
    def reply(asked: Asked) -> Reply:
        scores: list[float | None] = [0.1 * number for number in range(len(asked.body["items"]))]
        return Reply(body={"scores": [None, *scores[1:]] if len(server.asked) == 1 else scores})

    server = FakeServer(reply)
    with server.running():
        run = small_run.do(settings(trained, "holes", **scored_by(server.address)), pipeline.run_ppo)
    rows = read_metrics(run.path / "ppo" / "metrics.jsonl")
    assert [row.get("ppo/skipped_steps") for row in rows] == [1.0, 0.0]
    assert rows[0]["nonfinite"] == ["ppo/proxy_score"]
    assert json.loads((run.path / "ppo" / "bad" / "000001.json").read_text())["nonfinite"] == ["scores"]


def test_scores_that_never_come_stop_the_run_at_its_last_checkpoint(trained: Path) -> None:
    with FakeServer(lambda asked: Reply(body={"scores": [math.nan] * len(asked.body["items"])})).running() as server:
        chosen = settings(trained, "nan", guards={"skipped_in_a_row": 2}, **scored_by(server.address))
        with pytest.raises(TrainingError, match="scores: not finite 2 steps in a row") as told:
            small_run.do(chosen, pipeline.run_ppo)
    assert f"The scorer {server.address} returned null, NaN or infinity for 8 of 8 responses" in str(told.value)
    assert "learning_rate" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "reply", "problem"),
    [
        ("raises", Reply(500, "KeyError: 'x'"), r"status 500.*KeyError.*\(1 try\)"),
        ("hangs", Reply(wait=30), "does not respond within 0.5 s"),
        ("short", Reply(body={"scores": []}), "returns 0 scores for 8 responses"),
    ],
)
def test_a_scorer_that_fails_ends_the_run_in_one_line_and_the_run_goes_on(
    trained: Path, name: str, reply: Reply, problem: str
) -> None:
    failing = FakeServer(lambda _: reply)
    with failing.running(), pytest.raises(ServerError, match=rf"^ppo.scorer.address: .*{problem}[^\n]*$"):
        small_run.do(settings(trained, name, **scored_by(failing.address, timeout_seconds=0.5)), pipeline.run_ppo)
    with FakeServer(graded).running() as mended:  # at another address, and with other waits: still the same run
        run = small_run.do(settings(trained, name, **scored_by(mended.address)), pipeline.run_ppo)
    assert [row["step"] for row in read_metrics(run.path / "ppo" / "metrics.jsonl")] == [1, 2]


def test_one_ctrl_c_ends_the_wait_for_a_scorer(trained: Path) -> None:
    with FakeServer(lambda _: Reply(wait=60)).running() as server:
        chosen = settings(trained, "patient", **scored_by(server.address, timeout_seconds=60))
        interrupt = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))

        def impatient(run: Run) -> None:
            server.reply = lambda _: [interrupt.start(), Reply(wait=60)][1]
            pipeline.run_ppo(run)

        begin = time.monotonic()
        with pytest.raises(Stopped):
            small_run.do(chosen, impatient)
        assert time.monotonic() - begin < 30


def test_whether_a_server_scores_cannot_change_once_ppo_has_begun(trained: Path) -> None:
    small_run.do(settings(trained, "fixed", **scored_by("http://127.0.0.1:9")))
    small_run.do(settings(trained, "fixed", ppo=PPO))  # nothing was scored yet
    with FakeServer(graded).running() as server:
        small_run.do(settings(trained, "fixed", **scored_by(server.address)), pipeline.run_ppo)
    with pytest.raises(RunError, match=r"ppo\.scorer\.address"):
        small_run.do(settings(trained, "fixed", ppo=PPO))


class VLLM:
    """A fake vLLM server: samples with its own model, from the adapter that it was asked to load."""

    def __init__(self, chosen: RunSettings, run: Run) -> None:
        self.lock = threading.Lock()
        self.shared = Run(chosen, run.directory, run.progress, run.stop).model()
        self.loads: list[str] = []
        self.rounding = 0.0

    def __call__(self, asked: Asked) -> Reply:
        with self.lock:
            if asked.path == "/v1/load_lora_adapter":
                load_policy(self.shared, POLICY, Path(asked.body["lora_path"]))
                self.loads.append(asked.body["lora_name"])
                return Reply(body=b"Success")
            if asked.path == "/v1/models":
                return Reply(body={"data": [{"id": "the-base", "root": "the-base", "max_model_len": 64}]})
            if asked.path != "/v1/completions":
                return Reply(body=b"")
            body = asked.body
            if "prompt_logprobs" in body:
                ids = body["prompt"]
                numbers = logprobs_of(self.shared, None if body["model"] == "the-base" else POLICY, ids)
                known = [{str(token): {"logprob": number}} for token, number in zip(ids[1:], numbers, strict=True)]
                return Reply(body={"choices": [{"prompt_logprobs": [None, *known]}]})
            found = LocalGenerator(self.shared, adapter=POLICY, batch_size=8).generate(
                [Request(tuple(body["prompt"]), body["seed"])],
                temperature=body["temperature"],
                max_response_tokens=body["max_tokens"],
            )
            ids = list(found[0].ids)
            return Reply(
                body={"choices": [{"token_ids": ids, "logprobs": {"token_logprobs": self._sampled(body, ids)}}]}
            )

    def _sampled(self, body: dict[str, Any], ids: list[int]) -> list[float]:
        """Log-probabilities of a response at the temperature that it was sampled at, off by as much as ``rounding``."""
        batch = pad_batch([Encoded(tuple(body["prompt"]), tuple(ids))], pad_id=0, device=self.shared.device)
        with torch.no_grad():
            found = self.shared.policy_output(batch, None, adapter=POLICY, temperature=body["temperature"])
        return [number + self.rounding for number in found.logprobs[0].tolist()]


def test_a_run_whose_rollouts_come_from_servers_ends_like_one_in_process(trained: Path) -> None:
    with FakeServer(graded).running() as scorer:
        changes = scored_by(scorer.address)
        alone = small_run.do(settings(trained, "alone", **changes), pipeline.run_ppo)
        stand_in = VLLM(alone.settings, alone)
        with FakeServer(stand_in).running() as first, FakeServer(stand_in).running() as second:
            rollouts = {"addresses": [first.address, second.address], "retries": 0}
            served = small_run.do(settings(trained, "served", rollouts=rollouts, **changes), pipeline.run_ppo)
    assert stand_in.loads == [stand_in.loads[0]] * 4 and len(first.asked) > 4 and len(second.asked) > 4
    finals = [small_run.files_of(run.path / "ppo", "final/*.safetensors") for run in (alone, served)]
    assert finals[0] and finals[0] == finals[1]
    rows = read_metrics(served.path / "ppo" / "metrics.jsonl")
    assert all(row["ppo/sampler_difference_max"] < 1e-5 for row in rows)


def test_a_run_that_samples_ahead_and_is_cut_continues_with_the_same_bytes(trained: Path) -> None:
    with FakeServer(graded).running() as scorer:
        ppo = {**scored_by(scorer.address)["ppo"], "iterations": 3, "importance_limit": 2.0}
        begun = small_run.do(settings(trained, "ahead", ppo=ppo, rollouts={"addresses": ["http://127.0.0.1:9"]}))
        stand_in = VLLM(begun.settings, begun)
        with FakeServer(stand_in).running() as server:
            rollouts = {"addresses": [server.address], "retries": 0, "ahead": 1}
            whole = small_run.do(settings(trained, "whole", rollouts=rollouts, ppo=ppo), pipeline.run_ppo)
            count = len(server.asked)
            scorer.reply = lambda asked: Reply(500) if len(scorer.asked) > scored + 2 else graded(asked)
            scored = len(scorer.asked)
            with pytest.raises(ServerError, match="status 500"):
                small_run.do(settings(trained, "cut", rollouts=rollouts, ppo=ppo), pipeline.run_ppo)
            scorer.reply = graded
            cut = small_run.do(settings(trained, "cut", rollouts=rollouts, ppo=ppo), pipeline.run_ppo)
    sampled = [one.body["seed"] for one in server.asked if "seed" in (one.body or {})]
    seeds = [one.body["seed"] for one in server.asked[:count] if "seed" in (one.body or {})]
    assert len(seeds) == 24 and set(sampled[24:]) == set(seeds) and len(sampled) > 48  # what was in flight, again
    finals = [small_run.files_of(run.path / "ppo", "final/*.safetensors") for run in (whole, cut)]
    assert finals[0] and finals[0] == finals[1]
    for run in (whole, cut):
        rows = read_metrics(run.path / "ppo" / "metrics.jsonl")
        assert [row["ppo/staleness"] for row in rows] == [0, 1, 1]
        assert rows[0]["ppo/sampler_difference"] < 1e-5 < rows[1]["ppo/sampler_difference"]
    with pytest.raises(RunError, match=r"rollouts\.ahead is 1 there and 0 here"):
        small_run.do(settings(trained, "cut", rollouts={**rollouts, "ahead": 0}, ppo=ppo))


def test_servers_sample_for_people_and_the_evaluation_too(trained: Path) -> None:
    with FakeServer(graded).running() as scorer:
        changes = {**scored_by(scorer.address), "labeling": {"source": "simulated"}}
        changes["ppo"]["iterations"] = 1
        changes["sampling"] = {"responses_per_prompt": 2, "max_response_tokens": 6}
        changes["evaluation"] = {"gold": "grammar", "samples_per_prompt": 1, "max_prompts": 3}
        steps = (pipeline.run_sampling, pipeline.run_ppo, pipeline.run_evaluation)
        alone = small_run.do(settings(trained, "asks-itself", **changes), *steps)
        stand_in = VLLM(alone.settings, alone)
        with FakeServer(stand_in).running() as server:
            rollouts = {"addresses": [server.address], "retries": 0, "sampling": True, "evaluation": True}
            chosen = settings(trained, "asks-servers", rollouts=rollouts, **changes)
            counts = []
            for step in steps:
                small_run.do(chosen, step)
                counts.append(sum("seed" in (one.body or {}) for one in server.asked))
            served = small_run.do(chosen)
            with served.store() as store:
                sample_into(
                    store, str(served.path), store.prompts()[:2], called="again", count=1, temperature=1.0,
                    max_response_tokens=8, seed=0,
                )  # fmt: skip
                again = [response.text for response in store.responses() if response.model == "again"]
            asked = sum("seed" in (one.body or {}) for one in server.asked)
    of_people = 2 * len(alone.prompts())
    assert counts == [of_people, of_people + 8, of_people + 8 + 2 * 3] and asked == counts[-1] + 2
    assert len(again) == 2
    judged, sampled = [], []
    for run in (alone, served):
        judged.append(run.part("evaluation", "samples.jsonl").read_text())
        with run.store() as store:
            sampled.append([(each.id, each.text, each.seed) for each in store.responses() if each.model != "again"])
    assert judged[0] == judged[1]
    assert len(sampled[0]) == of_people and sampled[0] == sampled[1]


def test_importance_weights_are_of_the_servers_own_logprobs(trained: Path) -> None:
    with FakeServer(graded).running() as scorer:
        ppo = {**scored_by(scorer.address)["ppo"], "iterations": 1, "importance_limit": 1.05}
        stand_in = VLLM(run.settings, run) if (run := small_run.do(settings(trained, "weighed", ppo=PPO))) else None
        assert stand_in is not None
        stand_in.rounding = -0.02  # every ratio is exp(0.02)
        with FakeServer(stand_in).running() as server:
            rollouts = {"addresses": [server.address], "retries": 0}
            done = small_run.do(settings(trained, "weighed", rollouts=rollouts, ppo=ppo), pipeline.run_ppo)
            row = read_metrics(done.path / "ppo" / "metrics.jsonl")[0]
            assert row["ppo/importance_weight"] == pytest.approx(math.exp(0.02), abs=1e-5)
            assert row["ppo/sampler_difference"] == pytest.approx(0.02, abs=1e-5) and row["ppo/importance_cut"] == 0
            stand_in.rounding = -0.7  # raw log-probabilities at a temperature, say
            with pytest.raises(TrainingError, match=r"0\.7 nats .* --logprobs-mode processed_logprobs"):
                small_run.do(settings(trained, "raw", rollouts=rollouts, ppo=ppo), pipeline.run_ppo)


def test_servers_at_a_wrong_address_end_the_run_in_one_line(trained: Path) -> None:
    with FakeServer(graded).running() as gone:
        pass
    chosen = settings(
        trained, "astray", rollouts={"addresses": [gone.address], "retries": 0}, **scored_by(gone.address)
    )
    with pytest.raises(ServerError, match=r"^rollouts.addresses: .*/health cannot be reached \(.*\) \(1 try\)[^\n]*$"):
        small_run.do(chosen, pipeline.run_ppo)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("rollouts: {addresses: [localhost:8000]}", "is not an http.s. address"),
        ("rollouts: {addresses: ['ftp://host']}", "is not an http.s. address"),
        ("rollouts: {addresses: ['http://me:secret@host']}", "no user name and no password"),
        ("rollouts: {addresses: ['http://me:secret@host:99999']}", "no user name and no password"),
        ("rollouts: {addresses: ['http://me:se/cret@host']}", "no user name and no password"),
        ("rollouts: {addresses: ['me:secret@host']}", "no user name and no password"),
        ("rollouts: {addresses: ['http:/me:secret@host']}", "no user name and no password"),
        ("rollouts: {addresses: ['http://host/?key=secret']}", "contains . or #"),
        ("rollouts: {adresses: ['http://host']}", "did you mean rollouts.addresses"),
        ("rollouts: {addresses: ['http://host'], token_variable: TOKEN}", "use https"),
        ("ppo: {scorer: {address: 'http://ho st'}}", "is not an http.s. address"),
        ("ppo: {scorer: {address: 'http://host:99999'}}", "is not an address"),
        ("ppo: {scorer: {url: 'http://host'}}", "unknown setting"),
        ("ppo: {scorer: {address: 'http://host', token_variable: my-token}}", "token_variable"),
        ("ppo: {scorer: {address: 'http://host', retries: -1}}", "at least 0|from 0 to 20"),
        ("variants: {other: {scorer: {address: 'host'}}}", "is not an http.s. address"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_its_line(line: str, problem: str) -> None:
    text = f"name: x\nmodel: {{name: m}}\ndata: {{prompts: [{{path: p.jsonl}}]}}\n{line}\n"
    with pytest.raises(SettingsError, match=problem) as caught:
        settings_from_text(text)
    assert "settings:4" in str(caught.value) and not re.search("secret|cret@", str(caught.value))


def test_a_token_may_go_to_this_machine_and_over_tls() -> None:
    for address in ("http://127.0.0.1:8000", "https://host/score/"):
        text = f"name: x\nmodel: {{name: m}}\ndata: {{}}\nppo: {{scorer: {{address: '{address}', token_variable: T}}}}"
        assert settings_from_text(text).ppo.scorer.address == address.rstrip("/")


def test_servers_are_verified_if_the_base_is_sharded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 computes the probe while the other ranks provide their parts (`tests.training.sharded`)."""
    served: list[Served] = []

    def opened(settings: Any, publish: Any, given: Served, **_: Any) -> Any:
        served.append(given)
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(generators, "ServerGenerator", opened)
    chosen = small_run.settings(tmp_path, rollouts={"addresses": ["http://localhost:1"]})
    backbone = SimpleNamespace(head_weight=torch.zeros(3, 2))
    shared = SimpleNamespace(template=SimpleNamespace(ends=(1,)), backbone=backbone, absent=None, base_name="m")
    run = SimpleNamespace(settings=chosen, strategy=SimpleNamespace(shards=True), say=None)
    run.raise_if_stop_requested = lambda: None
    policy = SimpleNamespace(model=shared, adapter="policy")
    made: Any = (run, policy, 1, tmp_path / "serving")
    with generators.generator_of(*made):
        assert served[0].probing is not None
