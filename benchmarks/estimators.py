"""Cost per iteration of advantage estimators, critics and full weights, and their gain in equal time.

    python -m benchmarks.estimators [--rounds 3] [--kinds "gae;rloo"]
    python -m benchmarks.estimators --task [--seeds 0,1,2] [--budget 15] [--kinds "gae;rloo"] [--out DIR]

The first times PPO iterations on the embedded SmolLM2, those of `benchmarks.ppo`: 32 episodes of 32 prompt and 32
response tokens, 4 epochs of one step, adapters on the top 10 layers. The second trains on the tiny task from one reward
model a seed, each kind for so many iterations as take ``--budget`` seconds, and tells the gold score on held-out
prompts. One thread, in processor seconds (other work on the machine does not count). Prints a table and, last, one JSON
line; of a task every result lies in ``--out``, and the same command goes on where it was stopped.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.ours_ppo import ppo_phase, shared_model
from benchmarks.sides import Row
from benchmarks.tiny_task import tiny_settings
from triphase.monitoring.progress import SilentProgress
from triphase.records.files import write_json
from triphase.runs import pipeline
from triphase.runs.branching import make_branch
from triphase.runs.reward_training import run_reward
from triphase.runs.session import prepare
from triphase.settings.schema import RunSettings

_GROUPS = {"responses_per_prompt": 4}
KINDS: Mapping[str, dict[str, Any]] = {
    "gae": {},
    "gae, critic adapter": {"critic": "adapter"},
    "gae, 4 to a prompt": _GROUPS,
    "rloo": {"advantage_estimator": "rloo", **_GROUPS},
    "grpo": {"advantage_estimator": "grpo", **_GROUPS},
    "reinforce": {"advantage_estimator": "reinforce"},
    "rloo, 1 epoch": {"advantage_estimator": "rloo", **_GROUPS, "epochs": 1},
    "full": {"method": "full"},
}
FULL_LEARNING_RATE = 3e-4
"""Of every weight of the tiny model: a tenth of the adapters'."""
_TRIAL, _WARM = 6, 2


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", help=f"of {'; '.join(KINDS)}; all, with `;` between them")
    parser.add_argument("--rounds", type=int, default=3, help="timed iterations of each kind; one more warms up")
    parser.add_argument("--task", action="store_true", help="train on the tiny task")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--budget", type=float, default=15.0, help="processor seconds of PPO, for each kind and seed")
    parser.add_argument("--out", type=Path, default=Path("runs/estimators"), help="where the runs of a task lie")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kinds = options.kinds.split(";") if options.kinds else list(KINDS)
    if options.task:
        print(json.dumps(_task(options, kinds)))
    else:
        print(json.dumps(_timed(kinds, options.rounds)))


def _timed(kinds: list[str], rounds: int) -> dict[str, Any]:
    found = {}
    for kind in kinds:
        found[kind] = _seconds(KINDS[kind], rounds)
        gc.collect()
        row = found[kind]
        share = row["seconds"] / found[kinds[0]]["seconds"]
        parts = "  ".join(f"{name} {row[name]:5.1f}" for name in ("generation", "scoring", "update"))
        print(f"{kind:20} {row['seconds']:6.1f} s  {parts}  {share:.2f} of {kinds[0]}", flush=True)
    return {"seconds_per_iteration": found}


def _seconds(changes: dict[str, Any], rounds: int) -> Row:
    """Processor seconds of an iteration, the median of so many; its parts by the share of the time that they took."""
    phase = ppo_phase(shared_model("10", "float32"), rounds + 1, **changes)
    rows = []
    for iteration in range(rounds + 1):
        begin, start = time.process_time(), time.perf_counter()
        metrics = phase.advance(iteration)
        seconds, wall = time.process_time() - begin, time.perf_counter() - start
        parts = {name: metrics[f"ppo/seconds_{name}"] / wall * seconds for name in ("generation", "scoring", "update")}
        rows.append({"seconds": seconds, **parts})
    return {name: round(statistics.median(row[name] for row in rows[1:]), 2) for name in rows[0]}


def _task(options: argparse.Namespace, kinds: list[str]) -> dict[str, Any]:
    found: dict[str, list[Row]] = {}
    for seed in (int(part) for part in options.seeds.split(",")):
        base = _prepared(options.out, seed)
        for kind in kinds:
            name = f"{base.name}-{''.join(letter if letter.isalnum() else '-' for letter in kind)}"
            place = options.out / f"{name}.json"
            if not place.is_file():
                write_json(place, _trained(base, name, kind, options.budget))
            row = json.loads(place.read_text(encoding="utf-8"))
            found.setdefault(kind, []).append(row)
            print(f"{kind:20} seed {seed}  " + "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    print(f"\n{'kind':20} {'iterations':>12} {'seconds':>10}  gold by seed")
    for kind, rows in found.items():
        middle = {key: statistics.median(row[key] for row in rows) for key in ("iterations", "seconds", "gold")}
        golds = ", ".join(f"{row['gold']:.2f}" for row in rows)
        print(f"{kind:20} {middle['iterations']:12g} {middle['seconds']:10.1f}  {golds}  (median {middle['gold']:.2f})")
    return {"task": found}


def _prepared(out: Path, seed: int) -> RunSettings:
    """The run whose reward model all kinds share."""
    settings = tiny_settings(str(out), seed=seed).model_copy(update={"name": f"seed-{seed}"})
    with prepare(settings, SilentProgress()) as run:
        for step in (pipeline.run_sft, pipeline.run_sampling, pipeline.run_labeling, run_reward):
            step(run)
    return settings


def _trained(base: RunSettings, name: str, kind: str, budget: float) -> Row:
    """What a kind reaches within the budget: iterations are chosen by the time that a few of them take."""
    changes = dict(KINDS[kind])
    if changes.get("method") == "full":
        changes["optimizer"] = {**base.ppo.optimizer.model_dump(), "learning_rate": FULL_LEARNING_RATE}
    values = base.ppo.model_dump(mode="json") | changes
    rate = _branched(base, f"{name}-trial", values | {"iterations": _TRIAL})["rate"]
    return _branched(base, name, values | {"iterations": max(1, round(budget / rate))}, is_judged=True)


def _branched(base: RunSettings, name: str, ppo: Mapping[str, Any], *, is_judged: bool = False) -> Row:
    settings = RunSettings.model_validate(base.model_dump(mode="json") | {"name": name, "ppo": dict(ppo)})
    source = Path(base.output) / base.name
    if not (Path(base.output) / name).is_dir():
        make_branch(source, settings)
    begin = time.process_time()
    with prepare(settings, SilentProgress()) as run:
        pipeline.run_ppo(run)
        seconds = time.process_time() - begin
        metrics = [json.loads(line) for line in run.part("ppo", "metrics.jsonl").read_text().splitlines()]
        parts = [sum(value for key, value in row.items() if key.startswith("ppo/seconds_")) for row in metrics]
        share = sum(parts[_WARM:]) / (len(parts[_WARM:]) * sum(parts))
        row = {"iterations": len(parts), "seconds": round(seconds, 1), "rate": seconds * share}
        if not is_judged:
            return row
        pipeline.run_evaluation(run)
        pipeline.run_report(run)
        found = json.loads(run.part("summary.json").read_text(encoding="utf-8"))
    figures = {"gold_before": found["sft"]["gold_mean"], "gold": found["ppo"]["gold_mean"]}
    figures |= {"kl": found["ppo"]["reference_kl"], "wins": found["ppo"]["gold_win_rate"]}
    return {**row, "rate": round(row["rate"], 3), **{key: round(value, 3) for key, value in figures.items()}}


if __name__ == "__main__":
    main()
