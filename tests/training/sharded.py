"""Results of ranks with a sharded base compared with one process: a program that each of them runs.

    RANK=… WORLD_SIZE=2 … python -m tests.training.sharded DIRECTORY

One launch holds many comparisons, because nearly all of it is imports.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tests.devices.steps import prompts_of, shared_on
from tests.small import random_model, samples, tokenizer
from tests.training.together import OF_PARTS, PHASES, change_of_world, equality
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy

from triphase.batches.padding import pad_batch
from triphase.models.backbone import layers_of
from triphase.models.loading import load_model
from triphase.models.policies import Policy, policy_for
from triphase.models.roles import REFERENCE, SharedModel
from triphase.models.sharded_loading import WeightFiles, local_part
from triphase.objectives.supervised import response_nll
from triphase.phases.frozen import FrozenWeights
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.probing import logprobs_of
from triphase.rollouts.types import Request
from triphase.settings.schema import ModelSettings
from triphase.training.distributed.environment import place_in
from triphase.training.distributed.joining import joined
from triphase.training.distributed.types import ALONE, Strategy


def memory(strategy: Strategy, folder: Path) -> dict[str, Any]:
    """The bytes that this rank keeps of the base, and that one process keeps; what is there after passes too."""
    whole, shared = shared_on("cpu"), shared_on("cpu", strategy=strategy)
    kept = [_bytes(shared.backbone.layers)]
    _write(shared, [Request((3, 5, 7), 1)], 4)
    kept.append(_bytes(shared.backbone.layers))
    strategy.barrier()
    return {
        "layers": _bytes(whole.backbone.layers),
        "kept": kept,
        "outside": _bytes(shared.backbone.model) - kept[1],
        "outside alone": _bytes(whole.backbone.model) - _bytes(whole.backbone.layers),
        "digest": FrozenWeights(shared).digest,
    }


def loading(strategy: Strategy, folder: Path) -> dict[str, Any]:
    """Models from their files: of several, with buffers of their own, in another dtype; what each rank reads."""
    found: dict[str, Any] = {}
    for kind, dtype in (("llama", "float32"), ("gpt2", "float32"), ("qwen3", "bfloat16")):
        place = folder / kind
        if strategy.is_lead:
            random_model(kind).save_pretrained(place, max_shard_size="30KB")
            tokenizer().save_pretrained(place)
        strategy.barrier()
        given = ModelSettings(name=str(place), dtype=dtype)
        whole = load_model(given).model
        strategy._offloads = kind == "gpt2"  # type: ignore[attr-defined]
        with _reading() as files:
            strategy.load_together(None)
            loaded = load_model(given, shard=strategy.shard)
        ids = torch.tensor([[3, 5, 7, 2]])
        with torch.no_grad():
            found[kind] = {
                "same": torch.equal(loaded.model(ids).logits, whole(ids).logits),
                "read": files[0].read,
                "half": _bytes(whole) - _bytes(nn.ModuleList(layers_of(whole))) // 2,
                "offloaded": _is_offloaded(loaded.model),
                "dtypes": sorted({str(value.dtype) for value in loaded.model.parameters()}),
            }
        strategy.barrier()
    return found


def _is_offloaded(model: Any) -> list[bool]:
    """Of each layer, whether FSDP2 itself keeps its parts in the machine's memory."""
    groups = [layer._get_fsdp_state()._fsdp_param_groups[0] for layer in layers_of(model)]
    return sorted({isinstance(group.offload_policy, CPUOffloadPolicy) for group in groups})


@contextmanager
def _reading() -> Iterator[list[WeightFiles]]:
    """The files that are opened for parts."""
    found: list[WeightFiles] = []
    plain = WeightFiles.__init__

    def opened(self: WeightFiles, directory: Path) -> None:
        plain(self, directory)
        found.append(self)

    WeightFiles.__init__ = opened  # type: ignore[method-assign]
    try:
        yield found
    finally:
        WeightFiles.__init__ = plain  # type: ignore[method-assign]


def _bytes(module: nn.Module) -> int:
    named = module.named_parameters()
    return sum(local_part(value).nbytes for name, value in named if ".lora_" not in name)


def _write(shared: SharedModel, requests: Sequence[Request], limit: int) -> list[list[int]]:
    generator = LocalGenerator(shared, adapter=REFERENCE, batch_size=2)
    found = generator.generate(requests, temperature=1.0, max_response_tokens=limit)
    return [list(each.ids) for each in found]


def _probe(shared: SharedModel, ids: Sequence[int]) -> list[list[float]]:
    return [logprobs_of(shared, adapter, ids) for adapter in (None, REFERENCE)]


def generation(strategy: Strategy, folder: Path) -> dict[str, Any]:
    """Each rank writes what it likes, one two tokens and another many; then rank 0 alone."""
    strategy._offloads = True  # type: ignore[attr-defined]
    whole, shared = shared_on("cpu"), shared_on("cpu", strategy=strategy)
    strategy._offloads = False  # type: ignore[attr-defined]
    _, ids = prompts_of(whole)
    mine = [Request(prompt, 10 * strategy.rank + place) for place, prompt in enumerate(ids[: 1 + 2 * strategy.rank])]
    limit = 2 + 10 * strategy.rank
    own = _write(shared, mine, limit)
    led = strategy.from_lead(lambda: _write(shared, [Request(ids[0], 77)], 9))
    probe = strategy.from_lead(lambda: _probe(shared, ids[0]))  # what servers are compared with
    # As before an iteration whose rollout is sampled ahead: the others go on meanwhile.
    probes = [probe, _probe(shared, ids[0]) if strategy.is_lead else probe]
    trunk = torch.tensor([[3, 5, 7]])
    with torch.no_grad():
        states = shared.backbone.trunk(trunk) if strategy.rank else shared.backbone.upper(torch.zeros(1, 2, 32))
    strategy.barrier()
    expected = whole.backbone.trunk(trunk) if strategy.rank else whole.backbone.upper(torch.zeros(1, 2, 32))
    return {
        "same": own == _write(whole, mine, limit),
        "lengths": [len(each) for each in own],
        "led": led == _write(whole, [Request(ids[0], 77)], 9),
        "probed": float((torch.tensor(probes) - torch.tensor(_probe(whole, ids[0]))).abs().max()),
        "offloaded": _is_offloaded(shared.backbone.model),
        "apart": float((states - expected).abs().max()),
    }


def second_model(strategy: Strategy, folder: Path) -> dict[str, bool]:
    """A copy with other weights beside the base: rank 0 alone computes both, from parts that the others provide."""
    whole, shared = shared_on("cpu"), shared_on("cpu", strategy=strategy)
    strategy.barrier()
    policies = policy_for(whole, "full"), policy_for(shared, "full", partial(strategy.shard, beside=True))
    with torch.no_grad():
        for policy in policies:
            for weight in policy.parameters().values():
                local_part(weight).mul_(1.5)
    states, ids = torch.ones(1, 2, 32), torch.tensor([[3, 5, 7]])

    def passes(model: SharedModel, policy: Policy) -> list[Any]:
        with torch.no_grad():
            return [policy.model.backbone.whole(ids).tolist(), model.backbone.upper(states).tolist()]

    found = strategy.from_lead(lambda: passes(shared, policies[1]))
    expected = passes(whole, policies[0])
    return {"same": found == expected, "differ": found[0] != found[1]}


def recomputation(strategy: Strategy, folder: Path) -> dict[str, float]:
    """Gradients with activations that are computed again, of another batch on each rank, and two losses in one."""
    found = []
    for each in (strategy, ALONE):
        shared = shared_on("cpu", strategy=each, recompute=True)
        shared.adapters.train_only(REFERENCE)
        batch = _batch(shared, strategy.rank)
        loss = torch.zeros(())
        for boundary in (shared.trunk(batch), None):
            output = shared.policy_output(batch, boundary, adapter=REFERENCE, temperature=1.0)
            loss = loss + response_nll(output.logprobs, batch.response_mask, token_count=64)[0]
        loss.backward()  # type: ignore[no-untyped-call]
        found.append({name: value.grad for name, value in shared.adapters.parameters(REFERENCE).items()})
    strategy.barrier()
    parts = [(a, found[1][name]) for name, a in found[0].items()]
    return {
        "gradients": max(float((a - b).abs().max()) for a, b in parts if a is not None and b is not None),
        "largest": max(float(b.abs().max()) for _, b in parts if b is not None),
    }


def _batch(shared: SharedModel, rank: int) -> Any:
    return pad_batch(samples(2 + rank, seed=rank), pad_id=shared.template.pad_id, device=shared.device)


def main() -> None:
    """Every comparison, and one JSON file of each rank."""
    torch.set_num_threads(1)
    folder, place = Path(sys.argv[1]), place_in(os.environ)
    PHASES.update(OF_PARTS)
    if len(sys.argv) < 3:  # the quick ones
        for name in ("ppo-groups", "ppo-packed"):
            PHASES.pop(name)
    with joined(place, on_gpu=False, timeout_seconds=60, shards=lambda met: True) as strategy:
        found = {
            each.__name__: each(strategy, folder / each.__name__)
            for each in (memory, loading, generation, second_model, recomputation, equality, change_of_world)
        }
        (folder / f"{strategy.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
