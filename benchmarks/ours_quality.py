"""Our side of `benchmarks.quality`: PPO of Triphase from a run's SFT policy, in a process of its own.

    python -m benchmarks.ours_quality JOB.json

Writes the policy after every iteration into the job's directory and prints one JSON line. The clock runs inside the
iterations alone: opening the models and writing policies are left out.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from triphase.models.roles import POLICY
from triphase.phases.ppo import PPOPhase
from triphase.rollouts.decoding import LocalGenerator
from triphase.runs.opening import open_run
from triphase.tokens.encoding import encode_prompt
from triphase.training.reward_finals import load_reward_model


def main() -> None:
    """Train and print."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    directory = Path(sys.argv[1]).parent
    phase = phase_of(job)
    rows: list[dict[str, Any]] = []
    seconds = 0.0
    for iteration in range(job["stop_after"]):
        start = time.perf_counter()
        metrics = phase.advance(iteration)
        seconds += time.perf_counter() - start
        save_file(phase.shared.adapters.state(POLICY), directory / f"policy-{iteration + 1:04}.safetensors")
        # As the peer reports it: what is taken off for a missing end counts.
        penalty = phase.settings.missing_eos_penalty * (1 - metrics["ppo/eos_rate"])
        rows.append(
            {
                "iteration": iteration + 1,
                "seconds": round(seconds, 3),
                "score": metrics["ppo/proxy_score"] - penalty,
                "kl": metrics["ppo/reference_kl"],
            }
        )
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    print(json.dumps({"what": "triphase ppo", "rows": rows, "peak_gb": peak}))


def phase_of(job: dict[str, Any]) -> PPOPhase:
    """The run's PPO phase as `triphase ppo` makes it, with the job's seed, dtype and iterations."""
    run = open_run(Path(job["run"]))
    model = run.settings.model.model_copy(update={"dtype": job["dtype"]})
    run.settings = run.settings.model_copy(update={"model": model})
    torch.set_num_threads(run.settings.threads or len(os.sched_getaffinity(0)))
    settings = run.settings.ppo.model_copy(update={"iterations": job["iterations"]})
    shared, prompts = run.model(), run.prompts("train")
    load_reward_model(shared, run.artifact("reward"))
    limit, room = model.max_length, settings.max_response_tokens
    return PPOPhase(
        shared,
        prompts,
        [encode_prompt(prompt, shared.template, room=room, max_length=limit) for prompt in prompts],
        LocalGenerator(shared, adapter=POLICY, batch_size=settings.batch_size),
        settings,
        seed=job["seed"],
    )


if __name__ == "__main__":
    main()
