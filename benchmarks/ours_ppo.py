"""One side of `benchmarks.ppo`: PPO iterations of Triphase on random prompts, in a process of its own.

Prints one JSON line. The workload is that of the peer's script: 32 episodes of 32 prompt and 32 response tokens, four
epochs of one optimizer step, LoRA of rank 16 on every linear map of the adapted layers.
"""

import argparse
import json
import resource
import time
from typing import Any

import torch

from benchmarks.full_responses import write_in_full
from triphase.demo.embedded import model_directory
from triphase.models.loading import load_model
from triphase.models.policies import policy_for
from triphase.models.roles import REFERENCE, REWARD, SharedModel
from triphase.models.tracing import Meter
from triphase.phases.ppo import PPOPhase
from triphase.planning.rates import measure_rates
from triphase.records.types import Message, Prompt
from triphase.rollouts.decoding import LocalGenerator
from triphase.settings.ppo import PPOSettings
from triphase.settings.schema import AdapterSettings, ModelSettings

EPISODES, PROMPT_TOKENS, RESPONSE_TOKENS, EPOCHS, RANK = 32, 32, 32, 4, 16


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", default="10", help="adapted layers from the top, or all")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument(
        "--microbatch-tokens", type=int, help="ppo.microbatch_tokens; as the settings have it by default"
    )
    parser.add_argument("--critic", default="value-head", choices=("value-head", "adapter"), help="ppo.critic")
    parser.add_argument("--method", default="lora", choices=("lora", "full"), help="ppo.method")
    parser.add_argument("--uncounted", action="store_true", help="leave out the iteration whose operations are counted")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shared = shared_model(options.layers, options.dtype)
    phase = ppo_phase(
        shared, options.iterations + 1, options.microbatch_tokens, critic=options.critic, method=options.method
    )
    rows = []
    for iteration in range(options.iterations):
        start = time.perf_counter()
        metrics = phase.advance(iteration)
        rows.append({"seconds": time.perf_counter() - start, **{key: metrics[f"ppo/seconds_{key}"] for key in PARTS}})
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    backbone = shared.backbone
    floor = None if options.uncounted else _floor(phase, options.iterations)
    print(
        json.dumps(
            {
                "what": "triphase ppo",
                "dtype": options.dtype,
                "adapted_layers": backbone.layer_count - backbone.trunk_layers,
                "critic": CRITICS[options.critic],
                "trained": "adapters" if options.method == "lora" else "every weight",
                "episodes_per_iteration": EPISODES,
                "seconds_per_iteration": [round(row["seconds"], 2) for row in rows],
                "parts": {key: round(rows[-1][key], 2) for key in PARTS},
                "floor_seconds": floor,
                "peak_gb": peak,
            }
        )
    )


CRITICS = {"value-head": "value head on the policy", "adapter": "adapter of its own"}
PARTS = ("generation", "scoring", "update")


def _floor(phase: PPOPhase, iteration: int) -> float:
    """Seconds that the operations of one more iteration, which is not timed, take at the rate of the processor."""
    backbone = phase.shared.backbone
    rate = measure_rates(backbone.model.config, backbone.dtype, backbone.device, rows=EPISODES).wide
    with Meter() as meter:
        phase.advance(iteration)
    return round(meter.flops / rate, 2)


def shared_model(layers: str, dtype: str) -> SharedModel:
    model = ModelSettings.model_validate({"name": str(model_directory("embedded:smollm2")), "dtype": dtype})
    adapters = AdapterSettings.model_validate({"layers": layers if layers == "all" else int(layers), "rank": RANK})
    shared = SharedModel(load_model(model), adapters, seed=0)
    shared.adapters.add(REFERENCE)
    shared.adapters.add(REWARD)
    write_in_full(shared)
    return shared


def ppo_phase(
    shared: SharedModel,
    iterations: int,
    microbatch_tokens: int | None = None,
    *,
    critic: str = "value-head",
    method: str = "lora",
    **changes: Any,
) -> PPOPhase:
    """The phase of the benchmark, with ``changes`` to its PPO settings."""
    count = EPISODES * iterations
    ids = torch.randint(100, 49000, (count, PROMPT_TOKENS), generator=torch.Generator().manual_seed(0)).tolist()
    settings = PPOSettings.model_validate(
        {
            "method": method,
            "critic": critic,
            "iterations": iterations,
            "batch_size": EPISODES,
            "minibatch_size": EPISODES,
            "epochs": EPOCHS,
            "microbatch_tokens": microbatch_tokens,
            "max_response_tokens": RESPONSE_TOKENS,
            "max_approximate_kl": None,
            **changes,
        }
    )
    policy = policy_for(shared, method)
    return PPOPhase(
        shared,
        [Prompt(str(number), (Message("user", "x"),)) for number in range(count)],
        [tuple(row) for row in ids],
        LocalGenerator(policy.model, adapter=policy.adapter, batch_size=EPISODES),
        settings,
        seed=0,
        policy=policy,
    )


if __name__ == "__main__":
    main()
