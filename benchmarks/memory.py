"""Planned memory against the measured peak, phase by phase, each in its own process.

    python -m benchmarks.memory [--layers 10] [--microbatch-tokens 512] [--recompute] [--phases sft,sampling,reward,ppo]

Runs two steps of each phase on random tokens of fixed lengths and reads the peak of resident memory from the system,
counted from after the model was opened. Prints a table and, last, one JSON line.
"""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks.full_responses import write_in_full
from triphase.demo.embedded import model_directory
from triphase.footprints.cost import CostModel
from triphase.footprints.work import Work
from triphase.footprints.workload import Lengths, Workload
from triphase.models.loading import load_model
from triphase.models.roles import POLICY, REFERENCE, REWARD, SharedModel
from triphase.monitoring.memory import peak_gb, resident_bytes, restart_peak
from triphase.phases.ppo import PPOPhase
from triphase.phases.reward import RewardPhase
from triphase.phases.sft import SupervisedPhase
from triphase.planning.every_phase import footprints_of
from triphase.planning.rates import measure_rates
from triphase.planning.warm_up import load_code
from triphase.records.types import Message, Pair, Prompt
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.types import Request
from triphase.settings.schema import RunSettings
from triphase.tokens.encoding import Encoded, EncodedGroup

PROMPT, RESPONSE, ANSWERS, RECORDS, STEPS = 40, 24, 4, 64, 2
PHASES = ("sft", "sampling", "reward", "ppo")


def main() -> None:
    """Plan, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:smollm2")
    parser.add_argument("--layers", default="10", help="adapted layers from the top, or all")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--microbatch-tokens", type=int, default=1024)
    parser.add_argument("--recompute", action="store_true", help="model.recompute_activations")
    parser.add_argument("--phases", default=",".join(PHASES))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_measured(options.child, _settings(options))))
        return
    rows = []
    for phase in options.phases.split(","):
        command = [sys.executable, "-m", "benchmarks.memory", *sys.argv[1:], "--child", phase]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{phase} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(
        f"{'phase':9} {'planned MB':>11} {'measured MB':>12} {'ratio':>6} {'planned s':>10} {'measured s':>11}  parts"
    )
    for row in rows:
        parts = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in row["parts"].items() if size > 1e6)
        print(
            f"{row['phase']:9} {row['planned'] / 1e6:11.0f} {row['measured'] / 1e6:12.0f} {row['ratio']:6.2f} "
            f"{row['planned_seconds']:10.1f} {row['seconds']:11.1f}  {parts}"
        )
    print(json.dumps({"ratios": {row["phase"]: row["ratio"] for row in rows}}))


def _settings(options: argparse.Namespace) -> RunSettings:
    rate = {"learning_rate": 1e-4}
    return RunSettings.model_validate(
        {
            "name": "memory",
            "model": {"name": options.model, "dtype": options.dtype, "recompute_activations": options.recompute},
            "adapters": {"layers": options.layers if options.layers == "all" else int(options.layers)},
            "data": {},
            "sft": {"batch_size": 32, "microbatch_tokens": options.microbatch_tokens, "optimizer": rate},
            "sampling": {"batch_size": 32, "max_response_tokens": RESPONSE},
            "reward": {"batch_size": 8, "microbatch_tokens": options.microbatch_tokens, "epochs": 2, "optimizer": rate},
            "ppo": {
                "iterations": STEPS,
                "batch_size": 32,
                "minibatch_size": 16,
                "microbatch_tokens": options.microbatch_tokens,
                "epochs": 2,
                "max_response_tokens": RESPONSE,
                "max_approximate_kl": None,
            },
        }
    )


def _measured(phase: str, settings: RunSettings) -> dict[str, Any]:
    name = settings.model.name
    path = str(model_directory(name)) if name.startswith("embedded:") else name
    shared = SharedModel(load_model(settings.model.model_copy(update={"name": path})), settings.adapters, seed=0)
    write_in_full(shared)
    base = sum(value.nbytes for key, value in shared.backbone.model.named_parameters() if ".lora_" not in key)
    rates = measure_rates(shared.backbone.model.config, shared.backbone.dtype, shared.device, rows=32)
    load_code()
    restart_peak()
    process = resident_bytes() - base
    work = {"sft": _sft, "sampling": _sampling, "reward": _reward, "ppo": _ppo}[phase]
    start = time.perf_counter()
    work(shared, settings)
    seconds, peak = time.perf_counter() - start, peak_gb() * 1e9
    recompute = settings.model.recompute_activations
    config = shared.backbone.model.config
    planned = Work(config, shared.backbone.dtype, settings.adapters, recompute=recompute, trusted=False)
    cost = CostModel(settings, planned, _load(), process_bytes=process)
    found = next(each for each in footprints_of(cost) if each.phase == phase)
    return {
        "phase": phase,
        "planned": found.peak.total,
        "measured": peak,
        "ratio": round(found.peak.total / peak, 3),
        "seconds": seconds,
        "planned_seconds": rates.seconds(found.flops),
        "flops": found.flops,
        "moment": found.peak.name,
        "parts": dict(found.peak.parts),
        "rates": [rates.wide, rates.narrow],
    }


def _load() -> Workload:
    """What the phases below read."""
    prompts, none = Lengths([(PROMPT,)] * RECORDS, RECORDS), Lengths()
    shown = Lengths([(PROMPT, RESPONSE)] * RECORDS, RECORDS)
    # One pass over the rankings is STEPS steps; the planner counts reward.epochs of them.
    groups = Lengths([(PROMPT, *[RESPONSE] * ANSWERS)] * 8, 8)
    return Workload(shown, none, 32 * STEPS, prompts, none, groups)


def _ids(count: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(100, 10_000, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


def _sft(shared: SharedModel, settings: RunSettings) -> None:
    samples = [Encoded(_ids(PROMPT, n), _ids(RESPONSE, n + 1000)) for n in range(RECORDS)]
    phase = SupervisedPhase(shared, samples, [*range(RECORDS)], [], settings.sft)
    for step in range(STEPS):
        phase.advance(step)


def _sampling(shared: SharedModel, settings: RunSettings) -> None:
    shared.adapters.add(REFERENCE)
    generator = LocalGenerator(shared, adapter=REFERENCE, batch_size=settings.sampling.batch_size)
    requests = [Request(_ids(PROMPT, n), n) for n in range(RECORDS * settings.sampling.responses_per_prompt)]
    generator.generate(requests, temperature=1.0, max_response_tokens=RESPONSE)


def _reward(shared: SharedModel, settings: RunSettings) -> None:
    shared.adapters.add(REFERENCE)
    groups = [EncodedGroup(_ids(PROMPT, n), tuple(_ids(RESPONSE, n + k) for k in range(ANSWERS))) for n in range(8)]
    pairs = [[Pair(i, j, 1.0, 0.0) for i in range(ANSWERS) for j in range(i)] for _ in groups]
    phase = RewardPhase(shared, groups, pairs, [], [], settings.reward, seed=0)
    phase.fit_head()
    for step in range(STEPS):
        phase.advance(step)


def _ppo(shared: SharedModel, settings: RunSettings) -> None:
    for name in (REFERENCE, REWARD):
        shared.adapters.add(name)
    prompts = [Prompt(str(n), (Message("user", "x"),)) for n in range(RECORDS)]
    generator = LocalGenerator(shared, adapter=POLICY, batch_size=settings.ppo.batch_size)
    phase = PPOPhase(shared, prompts, [_ids(PROMPT, n) for n in range(RECORDS)], generator, settings.ppo, seed=0)
    for iteration in range(STEPS):
        phase.advance(iteration)


if __name__ == "__main__":
    main()
