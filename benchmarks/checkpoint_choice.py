"""How close the checkpoint that is selected without gold comes to the best one by gold.

    python -m benchmarks.checkpoint_choice [--seeds 10] [--iterations 50] [--witness] [--kl 0]

The tiny task, whole, with each seed; PPO keeps the checkpoint of every fifth iteration. What `triphase evaluate RUN
--checkpoint best` chooses (by held-out score less KL, or by the witness) is held against the gold score of all of them
on the same held-out prompts, which is asked here alone. Reached is (gold of the chosen − gold of the SFT policy) /
(gold of the best − gold of the SFT policy), so that 0.9 is within 10 %; the best of several noisy means is a little too
high, so no choice is sure of 1. Prints a line for each seed, how many reach 0.9, and, last, one JSON line, which has
score and KL of all candidates too.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.tiny_task import tiny_settings
from triphase.demo.tiny import grammar_gold
from triphase.models.roles import SharedModel
from triphase.monitoring.progress import SilentProgress
from triphase.phases.sampling import sample_responses
from triphase.runs import pipeline
from triphase.runs.best_checkpoint import read_choice
from triphase.runs.checkpoint_selection import choose_best
from triphase.runs.checkpoints import load_policy_at
from triphase.runs.session import Run, prepare
from triphase.settings.schema import RunSettings
from triphase.training.checkpoint_places import CHECKPOINTS, kept_steps

EVERY = 5
NEAR = 0.9


def settings_of(folder: str, options: argparse.Namespace, seed: int) -> RunSettings:
    """The tiny run of a seed, which keeps every checkpoint."""
    found = tiny_settings(folder, seed=seed, iterations=options.iterations, kl_coefficient=options.kl)
    keep = found.checkpoints.model_copy(update={"keep": options.iterations + 1})
    reward = found.reward.model_copy(update={"witness": options.witness})
    return found.model_copy(update={"checkpoints": keep, "reward": reward})


def gold_of(run: Run, shared: SharedModel, adapter: str | None) -> float:
    """Mean gold of a policy on held-out prompts."""
    found = sample_responses(
        shared,
        run.prompts("heldout"),
        adapter=adapter,
        model="gold",
        count=run.settings.evaluation.samples_per_prompt,
        temperature=run.settings.ppo.temperature,
        max_response_tokens=run.settings.ppo.max_response_tokens,
        max_length=run.settings.model.max_length,
        batch_size=run.settings.sampling.batch_size,
        seed=run.settings.seed + 1,
    )
    return fmean(grammar_gold(prompt.text, response.text, response.finished) for prompt, response, _ in found)


def measured(run: Run) -> dict[str, Any]:
    """One seed, from the start."""
    for step in (pipeline.run_sft, pipeline.run_sampling, pipeline.run_labeling, pipeline.run_reward, pipeline.run_ppo):
        step(run)
    parent = run.part("ppo", CHECKPOINTS)
    for each in kept_steps(parent):
        if each % EVERY:
            shutil.rmtree(parent / f"{each:06d}")
    start = gold_of(run, run.model(), run.reference_adapter)
    golds = {}
    for each in kept_steps(parent):
        policy = load_policy_at(run.model(), run.path, each, run.settings.ppo.method)
        golds[each] = gold_of(run, policy.model, policy.adapter)
    run.forget_model()
    chosen, best = choose_best(run), max(golds, key=lambda each: golds[each])
    reached = (golds[chosen] - start) / (golds[best] - start) if golds[best] > start else None
    found = {"chosen": chosen, "best": best, "start": start, "golds": golds, "reached": reached}
    return found | {"candidates": (read_choice(run.path) or {}).get("candidates")}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--kl", type=float, default=0.0)
    parser.add_argument("--witness", action="store_true")
    options = parser.parse_args()
    found = {}
    for seed in range(options.first, options.first + options.seeds):
        with (
            tempfile.TemporaryDirectory() as folder,
            prepare(settings_of(str(Path(folder)), options, seed), SilentProgress()) as run,
        ):
            one = found[seed] = measured(run)
        last = one["golds"][max(one["golds"])]
        print(
            f"seed {seed}: gold {one['start']:.2f} at the start, {one['golds'][one['best']]:.2f} at its best "
            f"(iteration {one['best']}), {last:.2f} at the end; chosen {one['chosen']} with "
            f"{one['golds'][one['chosen']]:.2f}, reached {one['reached'] and round(one['reached'], 2)}",
            flush=True,
        )
    near = sum(one["reached"] is not None and one["reached"] >= NEAR for one in found.values())
    print(f"within 10 % of the best in {near} of {len(found)}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
