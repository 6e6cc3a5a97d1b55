"""How close the checkpoint that is selected without gold comes to the best one by gold.

    python -m benchmarks.checkpoint_choice [--seeds 10] [--iterations 50] [--witness] [--kl 0] [--samples 8]

The tiny task, whole, with each seed; PPO keeps the checkpoint of every fifth iteration. What `triphase evaluate RUN
--checkpoint best` chooses is held against the gold score of all of them on the same held-out prompts, which is asked
here alone, on 48 responses of its own to each of the 40 prompts: the standard error of a mean gold is about 0.02.
Reached is

    (gold of the chosen − gold of the SFT policy) / (gold of the best − gold of the SFT policy)

so that 0.9 is within 10 % of the best; the best of several noisy means is a little too high, so no choice is sure of 1.
A seed without a gain counts as 0. One whose reward model is refused as no better than chance has no PPO: it is reported
and does not count.

Prints a line for each seed; then in how many each rule reaches 0.9: the choice, and for comparison the last checkpoint,
the highest score, the highest score less a tenth of the KL, and the highest score of the witness; last, one JSON line,
which has score, witness and KL of all candidates.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
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
from triphase.runs.reward_gate import RewardModelRefused
from triphase.runs.session import Run, prepare
from triphase.settings.schema import RunSettings
from triphase.training.checkpoint_places import CHECKPOINTS, kept_steps

EVERY = 5
NEAR = 0.9
GOLD_SAMPLES = 48
Candidate = dict[str, Any]
RULES: dict[str, Callable[[Candidate], float | None]] = {
    "last": lambda each: each["step"],
    "score": lambda each: each["score"],
    "score less KL": lambda each: each["score"] - 0.1 * each["reference_kl"],
    "witness": lambda each: each["witness"],
}
"""Other choices: the one with the highest value. The reward model's scores have deviation 1."""


def settings_of(folder: str, options: argparse.Namespace, seed: int) -> RunSettings:
    """The tiny run of a seed, which keeps every checkpoint."""
    found = tiny_settings(folder, seed=seed, iterations=options.iterations, kl_coefficient=options.kl)
    keep = found.checkpoints.model_copy(update={"keep": options.iterations + 1})
    reward = found.reward.model_copy(update={"witness": options.witness})
    judged = found.evaluation.model_copy(update={"samples_per_prompt": options.samples})
    return found.model_copy(update={"checkpoints": keep, "reward": reward, "evaluation": judged})


def gold_of(run: Run, shared: SharedModel, adapter: str | None) -> float:
    """Mean gold of a policy on held-out prompts."""
    found = sample_responses(
        shared,
        run.prompts("heldout"),
        adapter=adapter,
        model="gold",
        count=GOLD_SAMPLES,
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
    chosen, candidates = choose_best(run), (read_choice(run.path) or {})["candidates"]
    gain = max(golds.values()) - start
    chose = {"chosen": chosen} | {name: highest(candidates, rule) for name, rule in RULES.items()}
    reached = {
        name: (golds[step] - start) / gain if gain > 0 else 0.0 for name, step in chose.items() if step is not None
    }
    return {"start": start, "golds": golds, "chosen": chosen, "reached": reached, "candidates": candidates}


def highest(candidates: list[Candidate], rule: Callable[[Candidate], float | None]) -> int | None:
    """The iteration with the highest value; None if the rule does not apply."""
    found = [(value, each["step"]) for each in candidates if (value := rule(each)) is not None]
    return int(max(found)[1]) if found else None


def line_of(seed: int, one: dict[str, Any]) -> str:
    """What a seed has found."""
    golds = one["golds"]
    best, last = max(golds, key=lambda each: golds[each]), max(golds)
    return (
        f"seed {seed}: gold {one['start']:.2f} at the start, {golds[best]:.2f} at its best (iteration {best}), "
        f"{golds[last]:.2f} at the end; chosen {one['chosen']} with {golds[one['chosen']]:.2f}, "
        f"reached {one['reached']['chosen']:.2f}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--kl", type=float, default=0.0)
    parser.add_argument("--witness", action="store_true")
    parser.add_argument("--samples", type=int, default=8, help="responses to each prompt, by which it is chosen")
    options = parser.parse_args()
    found: dict[int, dict[str, Any]] = {}
    for seed in range(options.first, options.first + options.seeds):
        try:
            with (
                tempfile.TemporaryDirectory() as folder,
                prepare(settings_of(str(Path(folder)), options, seed), SilentProgress()) as run,
            ):
                one = found[seed] = measured(run)
        except RewardModelRefused as refusal:
            print(f"seed {seed}: {refusal}", flush=True)
            continue
        print(line_of(seed, one), flush=True)
    for name in ("chosen", *RULES):
        reached = [one["reached"][name] for one in found.values() if name in one["reached"]]
        if reached:
            near = sum(each >= NEAR for each in reached)
            print(f"{name}: within 10 % in {near} of {len(reached)}, {fmean(reached):.2f} on average")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
