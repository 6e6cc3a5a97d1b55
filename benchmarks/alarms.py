"""Which alarms detect which planted flaws of a scorer, and when; and whether sound runs raise none.

    python -m benchmarks.alarms [--seeds 10] [--sound 20] [--first 100] [--iterations 24] [--only NAME,NAME]
        [--smollm2] [--sft RUN] [--kept FILE]

PPO of the tiny task without KL penalty from one SFT policy, against scorers with a flaw (`benchmarks/planted_flaws.py`;
sound ones have none, and keep the penalty), each with several seeds. The alarms are those of a run
(`guards.false_alarm_rate`, `guards.looks`), once with the gold score and once as if there were none. Prints for each
scorer in how many seeds an alarm that is right for it was raised, and at which iterations; then every other alarm with
its count; last, one JSON line. The default seeds have not been used to choose a rule or a limit. With ``--kept`` the
metrics of each PPO run are added to FILE, and those that it has are not made again: rules may change between two
starts, training may not. ``--smollm2`` takes the demo's task and model, with three of the flaws; ``--sft`` a run whose
SFT policy is used.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.planted_flaws import SMOLLM2, TINY, Flaw, scorer_of
from benchmarks.tiny_task import tiny_settings
from triphase.demo.configuration import demo_settings
from triphase.models.policies import policy_for
from triphase.monitoring.alarm_rules import limits_for
from triphase.monitoring.alarms import find_alarms
from triphase.monitoring.progress import SilentProgress
from triphase.phases.ppo import PPOPhase
from triphase.runs import pipeline
from triphase.runs.generators import generator_of
from triphase.runs.session import Run, prepare
from triphase.settings.guards import GuardSettings
from triphase.settings.schema import RunSettings
from triphase.tokens.encoding import encode_prompt
from triphase.training.loop import LoopOptions, run_loop

Row = dict[str, Any]
GOLD_METRICS = ("ppo/gold_score", "ppo/gold_deviation", "ppo/length_gold_correlation")


class Rows:
    """Metrics in memory."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Keep a line."""
        self.rows.append({"step": step, **values})

    def truncate_after(self, step: int) -> None:
        """Nothing is resumed."""


class Kept:
    """The metrics of PPO runs of earlier starts, in a file."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
        self.rows: dict[str, list[Row]] = {line["of"]: line["rows"] for line in map(json.loads, lines)}

    def add(self, of: str, rows: list[Row]) -> list[Row]:
        """Append those of one run."""
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"of": of, "rows": rows}) + "\n")
        return rows


def rows_of(run: Run, flaw: Flaw, seed: int, iterations: int) -> list[Row]:
    """The metrics of one PPO run."""
    chosen = run.settings.ppo.model_copy(update={"iterations": iterations, "kl_coefficient": flaw.kl_coefficient})
    scorer = scorer_of(run, flaw, seed)
    shared, prompts, found = run.model(), run.prompts("train"), Rows()
    policy = policy_for(shared, "lora")
    with tempfile.TemporaryDirectory() as name, generator_of(run, policy, chosen.batch_size, Path(name)) as generator:
        room = {"room": chosen.max_response_tokens, "max_length": run.settings.model.max_length}
        phase = PPOPhase(
            shared,
            prompts,
            [encode_prompt(prompt, shared.template, **room) for prompt in prompts],
            generator,
            chosen,
            seed=seed,
            gold=run.gold,
            scorer=scorer,
            policy=policy,
        )
        run_loop(phase, LoopOptions(Path(name) / "ppo", found, keep=1))
    return found.rows


def alarms_of(rows: Sequence[Row], flaw: Flaw, *, judged: bool) -> dict[str, int]:
    """The alarms of the metrics, each with its first iteration; ``judged``: with a gold score."""
    guards = GuardSettings()
    seen = rows if judged else [{name: row[name] for name in row if name not in GOLD_METRICS} for row in rows]
    expected = (guards.false_alarm_rate, len(rows))
    limits = limits_for(None, calibrated=flaw.score is None, false_alarms=expected, looks=guards.looks)
    return {alarm.name: alarm.iteration for alarm in find_alarms(seen, limits)}


def main() -> None:
    """Run and print."""
    options = _options()
    wanted = tuple((options.only or "").split(","))
    table: dict[str, Any] = {}
    kept, flaws = Kept(options.kept), SMOLLM2 if options.smollm2 else TINY
    with tempfile.TemporaryDirectory() as folder, prepare(_settings(options, folder), SilentProgress()) as run:
        pipeline.run_sft(run)
        for name, flaw in flaws.items():
            if not name.startswith(wanted):
                continue
            each = []
            for seed in range(options.first, options.first + (options.seeds if flaw.right else options.sound)):
                of = f"{'smollm2' if options.smollm2 else 'tiny'}: {name}, seed {seed}, {options.iterations} iterations"
                rows = kept.rows.get(of) or kept.add(of, rows_of(run, flaw, seed, options.iterations))
                each.append(rows)
            table[name] = {"right": flaw.right}
            for judged in (True, False):
                found = [alarms_of(rows, flaw, judged=judged) for rows in each]
                table[name]["with gold" if judged else "without gold"] = found
                print(f"{name}, {'with' if judged else 'without'} gold: {told(flaw, found)}", flush=True)
    print(json.dumps(table))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="PPO runs with each flaw")
    parser.add_argument("--sound", type=int, default=20, help="PPO runs with each scorer without a flaw")
    parser.add_argument("--first", type=int, default=100, help="the first seed")
    parser.add_argument("--iterations", type=int, default=24)
    parser.add_argument("--only", help="some of the scorers, by the beginning of their names")
    parser.add_argument("--smollm2", action="store_true", help="three of the flaws, on the embedded SmolLM2")
    parser.add_argument("--sft", help="a run whose SFT policy is used")
    parser.add_argument("--kept", type=Path, help="a file of metrics: those that it has are not made again")
    return parser.parse_args()


def _settings(options: argparse.Namespace, folder: str) -> RunSettings:
    found = demo_settings(tiny=False, output=folder) if options.smollm2 else tiny_settings(folder)
    return found.model_copy(update={"sft": found.sft.model_copy(update={found.sft.FROM: options.sft})})


def told(flaw: Flaw, each: Sequence[Mapping[str, int]]) -> str:
    """A line of the table: the right alarms with their iterations, and all others with their count."""
    firsts = [min((found[alarm] for alarm in flaw.right if alarm in found), default=None) for found in each]
    heard = [first for first in firsts if first is not None]
    others = Counter(alarm for found in each for alarm in found if alarm not in flaw.right)
    silent = f"silent in {sum(not found for found in each)} of {len(each)}"
    right = f"right in {len(heard)} of {len(each)}" if flaw.right else silent
    when = f", at iterations {min(heard)} to {max(heard)} (median {median(heard):g})" if heard else ""
    rest = ", ".join(f"{alarm} {count}" for alarm, count in others.most_common()) or "none"
    return f"{right}{when}; others: {rest}"


if __name__ == "__main__":
    main()
