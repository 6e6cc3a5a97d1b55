"""Footprints agree with what the phases allocate: the same phases run under a meter, on tensors with data."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.small import shared_model

from triphase.footprints.cost import CostModel
from triphase.footprints.moments import (
    ACTIVATIONS,
    ADAPTERS,
    ALLOCATOR,
    BASE,
    CACHE,
    CHUNK,
    GRADIENTS,
    KERNELS,
    MOMENTS,
    PACKED,
    TEMPORARY,
    TRUNK,
    Footprint,
    Moment,
)
from triphase.footprints.work import Shape, Work
from triphase.footprints.workload import Lengths, Workload
from triphase.models.policies import policy_for
from triphase.models.roles import POLICY, REFERENCE, REWARD, SharedModel
from triphase.models.tracing import Meter
from triphase.phases.ppo import PPOPhase
from triphase.phases.ppo_footprint import ppo_footprint
from triphase.phases.reward import RewardPhase
from triphase.phases.reward_footprint import reward_footprint
from triphase.phases.sampling_footprint import sampling_footprint
from triphase.phases.sft import SupervisedPhase
from triphase.phases.sft_footprint import sft_footprint
from triphase.planning.every_phase import footprints_of
from triphase.planning.remedies import remedies_of
from triphase.records.types import Message, Pair, Prompt
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.types import Request
from triphase.settings.schema import RunSettings
from triphase.tokens.encoding import Encoded, EncodedGroup

LAYERS, SIZES = 6, {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
PROMPT, RESPONSE, ANSWERS = 20, 12, 4
OPTIMIZER = {"learning_rate": 1e-3}


def run_settings(**changes: Any) -> RunSettings:
    values = {
        "name": "x",
        "model": {"name": "small", "dtype": "float32"},
        "adapters": {"layers": 3, "rank": 4, "trunk_file_gb": 0.0},
        "data": {},
        "sft": {"batch_size": 24, "microbatch_tokens": 512, "optimizer": OPTIMIZER},
        "sampling": {"batch_size": 16, "max_response_tokens": RESPONSE},
        "reward": {"batch_size": 8, "microbatch_tokens": 512, "epochs": 2, "optimizer": OPTIMIZER},
        "ppo": {"batch_size": 32, "minibatch_size": 16, "max_response_tokens": RESPONSE, "microbatch_tokens": 512},
    }
    return RunSettings.model_validate({**values, **changes})


def model(adapted: int | str = 3) -> SharedModel:
    shared = shared_model("llama", adapted=adapted, layers=LAYERS, **SIZES)
    shared.template.ends = (-1,)
    return shared


def planner(
    settings: RunSettings, shared: SharedModel, *, dtype: torch.dtype = torch.float32, process_bytes: float = 0.0
) -> CostModel:
    recompute = settings.model.recompute_activations
    config = shared.backbone.model.config
    work = Work(config, dtype, settings.adapters, recompute=recompute, trusted=False)
    prompts, none = Lengths([(PROMPT,)] * 64, 64), Lengths()
    shown, groups = Lengths([(PROMPT, RESPONSE)] * 64, 64), Lengths([(PROMPT, *[RESPONSE] * ANSWERS)] * 24, 24)
    return CostModel(settings, work, Workload(shown, none, 128, prompts, prompts, groups), process_bytes=process_bytes)


def planned(found: Footprint, name: str) -> float:
    """Bytes at one moment that come and go, the trunk's included."""
    parts = next(moment for moment in found.moments if moment.name == name).parts
    return sum(parts.get(part, 0.0) for part in (ACTIVATIONS, CACHE, CHUNK, TEMPORARY, TRUNK))


def tokens(count: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(3, 26, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


def metered(work: Any) -> float:
    work()
    with Meter() as meter:
        work()
    return meter.peak


@pytest.mark.parametrize("adapted", [3, "all"])
def test_an_update_of_sft(adapted: int | str) -> None:
    shared, settings = model(adapted), run_settings(adapters={"layers": adapted, "rank": 4})
    made = [Encoded(tokens(PROMPT, n), tokens(RESPONSE, 99 + n)) for n in range(64)]
    phase = SupervisedPhase(shared, made, [*range(64)] * 2, [], settings.sft)
    found = sft_footprint(planner(settings, shared))
    kept = found.moments[-3].parts.get(TRUNK, 0.0)
    assert planned(found, "update") - kept == pytest.approx(metered(lambda: phase.advance(0)), rel=0.15)


def test_full_fine_tuning() -> None:
    shared = model("all")
    settings = run_settings(
        adapters={"layers": "all", "rank": 4},
        sft={"method": "full", "batch_size": 24, "microbatch_tokens": 512, "optimizer": OPTIMIZER},
    )
    made = [Encoded(tokens(PROMPT, n), tokens(RESPONSE, 99 + n)) for n in range(64)]
    phase = SupervisedPhase(shared, made, [*range(64)] * 2, [], settings.sft)
    found = sft_footprint(planner(settings, shared))
    gradients = found.moments[0].parts["gradients"]
    assert planned(found, "update") + gradients == pytest.approx(metered(lambda: phase.advance(0)), rel=0.15)


def test_what_is_there_at_every_moment_by_hand() -> None:
    """float32: an adapter of n numbers has 4n bytes, its gradients as many, Adam's moments twice; SFT has one adapter,
    and a step over every weight holds two copies of the largest."""
    shared, few = model(), run_settings()
    shared.adapters.add(REFERENCE)
    adapter = sum(each.numel() for each in shared.adapters.state(REFERENCE).values())
    reset = run_settings(ppo={**few.ppo.model_dump(), "reference_reset_every": 2})
    whole = run_settings(
        adapters={"layers": "all", "rank": 4},
        sft={"method": "full", "optimizer": OPTIMIZER},
        ppo={"method": "full", "optimizer": OPTIMIZER},
    )
    base = sum(each.numel() for each in shared.backbone.base_tensors().values())
    largest = max(each.numel() for each in shared.backbone.base_tensors().values())
    footprint: Any
    for settings, footprint, variant, adapters, trained, temporary in (
        (few, sft_footprint, (), 1, adapter, 0),
        (few, ppo_footprint, (None,), 3, adapter, 0),  # a head of 129 numbers is not counted
        (reset, ppo_footprint, (None,), 4, adapter, 0),  # and the reference that it began with
        (whole, sft_footprint, (), None, base, largest),
        (whole, ppo_footprint, (None,), None, base, largest),
    ):
        parts = next(
            one for one in footprint(planner(settings, model()), *variant).moments if one.name == "optimizer step"
        ).parts
        assert parts["gradients"] == 4 * trained and parts[TEMPORARY] == 8 * temporary
        if adapters is not None:
            assert parts["adapters"] == 4 * adapters * adapter


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_and_moments_of_every_weight_have_the_dtype_of_the_weights(dtype: torch.dtype) -> None:
    shared = shared_model("llama", adapted="all", layers=LAYERS, dtype=dtype, **SIZES)
    whole = {"method": "full", "batch_size": 8, "optimizer": OPTIMIZER}
    settings = run_settings(adapters={"layers": "all", "rank": 4}, sft=whole)
    made = [Encoded(tokens(PROMPT, n), tokens(RESPONSE, 99 + n)) for n in range(8)]
    phase = SupervisedPhase(shared, made, [*range(8)], [], settings.sft)
    phase.advance(0)
    moments = [each for name, each in phase.state.updater.tensors().items() if name.startswith("exp_avg")]
    parts = moment(sft_footprint(planner(settings, shared, dtype=dtype)), "optimizer step").parts
    assert parts[MOMENTS] == sum(each.nbytes for each in moments) == 2 * parts[GRADIENTS]


def test_an_update_of_the_reward_model() -> None:
    shared, settings = model(), run_settings()
    shared.adapters.add(REFERENCE)
    groups = [EncodedGroup(tokens(PROMPT, n), tuple(tokens(RESPONSE, k) for k in range(ANSWERS))) for n in range(24)]
    pairs = [[Pair(0, 1, 1.0, 0.0)] for _ in groups]
    phase = RewardPhase(shared, groups, pairs, [], [], settings.reward, seed=0)
    found = reward_footprint(planner(settings, shared))
    assert all(not one.parts.get(CHUNK) for one in found.moments)  # a reward model has no logits
    kept = found.peak.parts[TRUNK]
    assert kept == 24 * (PROMPT + ANSWERS * RESPONSE) * 128 * 4
    assert planned(found, "update") - kept == pytest.approx(metered(lambda: phase.advance(0)), rel=0.15)


@pytest.mark.parametrize(
    ("recompute", "times", "critic"),
    [(False, 1, "value-head"), (True, 1, "value-head"), (False, 4, "value-head"), (False, 1, "adapter")],
)
def test_an_iteration_of_ppo(recompute: bool, times: int, critic: str) -> None:
    settings = run_settings(
        model={"name": "small", "dtype": "float32", "recompute_activations": recompute},
        ppo={
            **run_settings().ppo.model_dump(),
            "max_approximate_kl": None,
            "responses_per_prompt": times,
            "critic": critic,
        },
    )
    shared = model()
    if recompute:
        upper = shared.backbone._upper
        upper._modules["layers"] = shared.backbone.recomputation.wrap(upper.layers)
    for name in (REFERENCE, REWARD):
        shared.adapters.add(name)
    prompts = [Prompt(str(n), (Message("user", "x"),)) for n in range(64)]
    generator = LocalGenerator(shared, adapter=POLICY, batch_size=32)
    ids = [tokens(PROMPT, n) for n in range(64)]
    number = itertools.count()
    phase = PPOPhase(shared, prompts, ids, generator, settings.ppo, seed=0)
    found = ppo_footprint(planner(settings, shared), None)
    expected = max(planned(found, moment.name) for moment in found.moments)
    assert expected == pytest.approx(metered(lambda: phase.advance(next(number))), rel=0.15)


def test_an_iteration_of_ppo_with_full_weights() -> None:
    changes = {"method": "full", "max_approximate_kl": None, "microbatch_tokens": 256}
    settings = run_settings(ppo={**run_settings().ppo.model_dump(), **changes})
    shared, number = model(), itertools.count()
    for name in (REFERENCE, REWARD):
        shared.adapters.add(name)
    policy = policy_for(shared, "full")
    policy.model.template.ends = (-1,)
    prompts = [Prompt(str(n), (Message("user", "x"),)) for n in range(64)]
    ids = [tokens(PROMPT, n) for n in range(64)]
    generator = LocalGenerator(policy.model, adapter=policy.adapter, batch_size=32)
    phase = PPOPhase(shared, prompts, ids, generator, settings.ppo, seed=0, policy=policy)
    found = ppo_footprint(planner(settings, shared), None)
    update = next(moment for moment in found.moments if moment.name == "update")
    base = sum(each.nbytes for each in shared.backbone.base_tensors().values())
    assert update.parts[BASE] == pytest.approx(2 * base, rel=0.01)  # the policy is a copy
    expected = planned(found, "update") + update.parts["gradients"]
    assert expected == pytest.approx(metered(lambda: phase.advance(next(number))), rel=0.15)


@pytest.mark.parametrize(("window", "share"), [(None, (PROMPT + 4 * RESPONSE) / (4 * (PROMPT + RESPONSE))), (8, 1.0)])
def test_a_shared_prompt_counts_once_where_the_model_packs(window: int | None, share: float) -> None:
    shared = shared_model("mistral", adapted=3, layers=LAYERS, sliding_window=window, **SIZES)
    settings = run_settings(variants={"four": {"responses_per_prompt": 4}})
    one, four = (ppo_footprint(planner(settings, shared), variant) for variant in (None, "four"))
    assert (one.phase, four.phase) == ("ppo", "arms/four")
    trunk = [next(moment.parts[TRUNK] for moment in found.moments if moment.name == "update") for found in (one, four)]
    assert trunk[1] / trunk[0] == pytest.approx(share)
    # What the last layer and the heads do for response tokens alone stays as it was.
    assert share - 0.01 < four.flops["training"] / one.flops["training"] < share + 0.15
    assert four.flops["decoding"] == one.flops["decoding"]


def test_what_sampling_for_ppo_records_is_planned_and_no_pass_for_it() -> None:
    shared, settings = model(), run_settings()
    shared.adapters.add(REFERENCE)
    prompts = [Prompt(str(n), (Message("user", "x"),)) for n in range(64)]
    ids = [tokens(PROMPT, n) for n in range(64)]
    phase = PPOPhase(shared, prompts, ids, LocalGenerator(shared, adapter=POLICY, batch_size=32), settings.ppo, seed=0)
    cost = planner(settings, shared)
    found = ppo_footprint(cost, None)
    sampling = next(moment for moment in found.moments if moment.name == "sampling")
    taken = phase.rollouts.sampled(0, phase.rollouts.prompts(0))
    assert taken.trunk is not None and sampling.parts[TRUNK] == taken.trunk.nbytes
    cost.work.records_trunk = False
    without = ppo_footprint(cost, None)
    assert next(moment for moment in without.moments if moment.name == "sampling").parts[TRUNK] == 0
    tokens_of_run = settings.ppo.iterations * settings.ppo.batch_size * (PROMPT + RESPONSE)
    layers = LAYERS - cost.work.adapted_layers
    spared = (without.flops["forward"] - found.flops["forward"]) / tokens_of_run / layers
    assert spared == pytest.approx(2 * cost.work.layer_numbers, rel=0.2)  # and attention


def test_sampling() -> None:
    shared, settings = model(), run_settings()
    shared.adapters.add(REFERENCE)
    generator = LocalGenerator(shared, adapter=REFERENCE, batch_size=16)
    requests = [Request(tokens(PROMPT, n), n) for n in range(32)]
    found = sampling_footprint(planner(settings, shared))
    peak = metered(lambda: generator.generate(requests, temperature=1.0, max_response_tokens=RESPONSE))
    assert max(planned(found, moment.name) for moment in found.moments) == pytest.approx(peak, rel=0.15)
    cache = 2 * LAYERS * 16 * 2 * (PROMPT + RESPONSE) * 32 * 4
    assert found.peak.parts[CACHE] == pytest.approx(cache, rel=0.15)  # and the hidden state, and masks


def test_resident_memory_holds_pieces_of_the_cache_and_what_bfloat16_compiles() -> None:
    shared, settings = model(), run_settings()
    moments = {
        each.name: each.parts for each in sampling_footprint(planner(settings, shared, process_bytes=5e8)).moments
    }
    exact = moments["sampling"]
    assert exact[ALLOCATOR] == 0.5 * exact[CACHE] > 0
    narrow = planner(settings, shared, dtype=torch.bfloat16, process_bytes=5e8)
    assert exact[KERNELS] == 0.0 and sampling_footprint(narrow).peak.parts[KERNELS] == 80e6
    assert all(moment.parts[KERNELS] for found in footprints_of(narrow) for moment in found.moments)
    # On a GPU nothing is the process's.
    assert sampling_footprint(planner(settings, shared, dtype=torch.bfloat16)).peak.parts[KERNELS] == 0.0


def test_operations_follow_from_shapes() -> None:
    shared, settings = model("all"), run_settings(adapters={"layers": "all", "rank": 4})
    found = sft_footprint(planner(settings, shared))
    numbers = LAYERS * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 256)
    through = 4 * numbers * 128 * (PROMPT + RESPONSE)  # forward, and back to the inputs: the base has no gradient
    assert through < found.flops["training"] < 1.35 * through


def test_packed_weights_are_in_memory_while_sampling_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triphase.footprints.work.packs", lambda dtype, device: dtype == torch.bfloat16)
    shared, plain = model(), run_settings()
    off = run_settings(model={"name": "small", "packed_decoding": False})
    by_servers = run_settings(rollouts={"engine": "vllm", "addresses": ["http://h:1"], "sampling": True})
    found, without, elsewhere = (
        sampling_footprint(planner(settings, shared, dtype=torch.bfloat16)) for settings in (plain, off, by_servers)
    )
    numbers = LAYERS * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 256 + 2 * 128)
    assert all(moment.parts[PACKED] == 2 * numbers for moment in found.moments)
    assert found.peak.total - without.peak.total == 2 * numbers
    assert dict(remedies_of(found, plain, adapted_layers=3))["model.packed_decoding: false"] == 2 * numbers
    assert not any(moment.parts.get(PACKED) for each in (without, elsewhere) for moment in each.moments)
    assert not any(moment.parts.get(PACKED) for moment in sampling_footprint(planner(plain, shared)).moments)  # float32


def test_half_as_many_rows_save_half_of_the_cache_and_its_pieces() -> None:
    shared, settings = model(), run_settings()
    before = sampling_footprint(planner(settings, shared))
    promised = dict(remedies_of(before, settings, adapted_layers=3))["sampling.batch_size: 8"]
    half = run_settings(sampling={"batch_size": 8, "max_response_tokens": RESPONSE})
    assert before.peak.total - sampling_footprint(planner(half, shared)).peak.total == pytest.approx(promised, rel=0.1)


@pytest.mark.parametrize("setting", ["recompute_activations", "microbatch_tokens"])
def test_what_a_remedy_promises_is_what_it_saves(setting: str) -> None:
    settings = run_settings(sft={"batch_size": 64, "microbatch_tokens": 2048, "optimizer": OPTIMIZER})
    shared = model()
    before = sft_footprint(planner(settings, shared))
    promised = dict(
        (text.split(":")[0], (text, saved)) for text, saved in remedies_of(before, settings, adapted_layers=3)
    )
    text, saved = next(value for name, value in promised.items() if name.endswith(setting))
    value = text.split(": ")[1]
    if setting == "microbatch_tokens":
        changed = {"sft": {"batch_size": 64, "microbatch_tokens": int(value), "optimizer": OPTIMIZER}}
    else:
        changed = {"sft": settings.sft.model_dump(), "model": {"name": "small", "recompute_activations": True}}
    after = sft_footprint(planner(run_settings(**changed), shared))
    assert before.peak.total - after.peak.total == pytest.approx(saved, rel=0.35)


def test_bfloat16_saves_what_its_base_is_smaller() -> None:
    shared, settings = model(), run_settings()
    saved = dict(remedies_of(sampling_footprint(planner(settings, shared)), settings, adapted_layers=3))[
        "model.dtype: bfloat16"
    ]
    config, adapters = shared.backbone.model.config, settings.adapters
    wide, narrow = (
        Work(config, dtype, adapters, recompute=False, trusted=False).base_bytes
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert saved == wide - narrow > 0


def test_kept_trunk_states_stay_within_their_budget() -> None:
    shared = model()
    budget = run_settings(adapters={"layers": 3, "rank": 4, "trunk_cache_gb": 1e-4, "trunk_file_gb": 0.0})
    found = sft_footprint(planner(budget, shared))
    assert found.peak.parts[TRUNK] == pytest.approx(1e5)
    none = run_settings(adapters={"layers": 3, "rank": 4, "trunk_cache_gb": 0.0, "trunk_file_gb": 0.0})
    assert sft_footprint(planner(none, shared)).flops["forward"] > found.flops["forward"]


def moment(found: Footprint, name: str) -> Moment:
    return next(each for each in found.moments if each.name == name)


def test_gradients_are_there_during_an_update_of_several_passes() -> None:
    for most, several in ((512, True), (1024, False)):  # 24 rows of 32 tokens: two passes, or one
        settings = run_settings(sft={"batch_size": 24, "microbatch_tokens": most, "optimizer": OPTIMIZER})
        assert (moment(sft_footprint(planner(settings, model())), "update").parts["gradients"] > 0) is several


def test_held_out_demonstrations_are_cached_unless_every_weight_is_trained() -> None:
    whole = {"method": "full", "batch_size": 24, "microbatch_tokens": 512, "optimizer": OPTIMIZER}
    for changes, kept in (({}, (64 + 16) * (PROMPT + RESPONSE) * 128 * 4), ({"sft": whole}, None)):
        cost = planner(run_settings(**changes), model())
        held = Lengths([(PROMPT, RESPONSE)] * 16, 16)
        cost.load = replace(cost.load, heldout_demonstrations=held)
        found = sft_footprint(cost)
        looked = moment(found, "held-out loss")
        assert looked.parts.get(TRUNK) == kept and looked.parts["gradients"] == 0
        assert looked.shape == Shape(16, PROMPT + RESPONSE, 16 * RESPONSE)
        assert not any(each.shape.packed for each in found.moments)  # each has its own row


def test_scoring_by_the_reward_model_has_a_score_for_each_response() -> None:
    cost = planner(run_settings(), model())
    found, length = reward_footprint(cost), PROMPT + ANSWERS * RESPONSE
    rows = 512 // length
    shape = Shape(rows, length, rows * ANSWERS, packed=True)
    assert moment(found, "update").shape == moment(found, "scoring").shape == shape
    looked = max(cost.work.reward(shape, train=False).peak, cost.work.trunk(shape).peak)
    assert moment(found, "scoring").parts[TEMPORARY] == looked


def test_two_heads_score_every_ranking_once_more() -> None:
    plain, heads = (
        planner(run_settings(reward={**run_settings().reward.model_dump(by_alias=True), "length": kind}), model())
        for kind in ("free", "two-heads")
    )
    found, more = reward_footprint(plain), reward_footprint(heads)
    shape = moment(more, "update").shape
    each = heads.work.reward(shape, train=False).flops / shape.tokens
    added = 24 * (PROMPT + ANSWERS * RESPONSE) * 2  # of two epochs
    assert more.flops["forward"] - found.flops["forward"] == pytest.approx(each * added)
    assert more.tokens["forward"] - found.tokens["forward"] == added


@pytest.mark.parametrize(
    ("members", "witness", "adapters", "passes"),
    [(1, False, 2, 1), (1, True, 3, 1), (3, False, 4, 2), (3, True, 5, 1.5)],
)
def test_members_and_a_witness_are_adapters_and_passes_of_their_own(
    members: int, witness: bool, adapters: int, passes: float
) -> None:
    """A member of three trains on two thirds of the rankings; with a witness each side has half of them."""
    reward = {**run_settings().reward.model_dump(by_alias=True), "ensemble": {"members": members}, "witness": witness}
    cost = planner(run_settings(reward=reward), model())
    found = reward_footprint(cost)
    assert moment(found, "update").parts[ADAPTERS] == 4 * adapters * cost.work.adapter_numbers
    rankings = 24 * (PROMPT + ANSWERS * RESPONSE) * 2  # of two epochs
    assert found.tokens["training"] == pytest.approx(rankings * passes, rel=0.06)


def test_a_reset_reference_and_a_critic_with_an_adapter_are_each_one_more_forward_pass() -> None:
    ppo = run_settings().ppo.model_dump()
    plain, reset, critic = (
        ppo_footprint(planner(run_settings(ppo={**ppo, **changes}), model()), None).flops["forward"]
        for changes in ({}, {"reference_reset_every": 2}, {"critic": "adapter"})
    )
    assert reset - plain == pytest.approx(critic - plain) and reset > plain


def test_demonstrations_that_are_mixed_in_are_an_update_of_their_own() -> None:
    ppo = {**run_settings().ppo.model_dump(), "sft_mix": 0.5, "iterations": 3}
    settings = run_settings(ppo=ppo, data={"demonstrations": [{"path": "d.jsonl"}]})
    cost = planner(settings, model())
    found = moment(ppo_footprint(cost, None), "update on demonstrations")
    assert found.shape == Shape(16, PROMPT + RESPONSE, 16 * RESPONSE)
    assert found.parts[ACTIVATIONS] == cost.work.policy(found.shape, train=True, again=True).kept
