"""The declared metrics are what a run emits: real ones, with every optional part switched on and off."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.runs.small_run import do, settings, write_data

from triphase.monitoring.glossary import METRICS, PHASES
from triphase.monitoring.metrics import FILE_NAME, read_metrics
from triphase.runs import pipeline
from triphase.runs.session import Run
from triphase.settings.phases import EnsembleSettings
from triphase.settings.schema import RunSettings

Rows = Sequence[Mapping[str, Any]]


def faults(phase: str, rows: Rows, chosen: RunSettings) -> Iterator[str]:
    """Where the lines of a phase differ from its declarations for a run with these settings."""
    declared = {metric.name: metric for metric in PHASES[phase]}
    emitted = {name for row in rows for name in row} - {"step", "time", "nonfinite"}
    yield from (f"{name} is not declared" for name in sorted(emitted - declared.keys()))
    for name, metric in declared.items():
        when = metric.when
        if when is None:
            yield from (f"{name} is missing at step {row['step']}" for row in rows if name not in row)
        elif when.allows(chosen):
            if when.certain and name not in emitted:
                yield f"{name} is missing, {when.words}"
        elif name in emitted:
            yield f"{name} is emitted, and declared {when.words}"


def lines_of(run: Run) -> dict[str, Rows]:
    return {phase: read_metrics(run.part(phase, FILE_NAME)) for phase in PHASES}


NEEDS_A_GAIN = {"ppo/length_share_of_gain"}
"""What two iterations may be too few for (`tests/phases/test_first_rollout.py`)."""
PPO = {"iterations": 2, "batch_size": 8, "minibatch_size": 8, "max_response_tokens": 10}


def test_a_run_with_everything_emits_every_declared_metric_and_nothing_else(tmp_path: Path) -> None:
    write_data(tmp_path)
    chosen = settings(
        tmp_path,
        ppo={**PPO, "responses_per_prompt": 2, "score_clip": 0.5, "sft_mix": 0.1, "reference_reset_every": 1},
        guards={"on_alarm": "rollback"},
    )
    several = {"ensemble": EnsembleSettings(members=2), "witness": True, "length": "two-heads"}
    chosen = chosen.model_copy(update={"reward": chosen.reward.model_copy(update=several)})
    lines = lines_of(do(chosen, pipeline.run_all))
    assert [fault for phase, rows in lines.items() for fault in faults(phase, rows, chosen)] == []
    rows = [row for phase in lines.values() for row in phase]
    emitted = {name for row in rows for name in row} - {"step", "time"}
    served = {name for name, metric in METRICS.items() if metric.when and "where servers sample" in metric.when.words}
    assert len(served) == 5  # of rollouts by servers: see test_generators.py
    assert emitted - NEEDS_A_GAIN == set(METRICS) - NEEDS_A_GAIN - served
    shares = [row[name] for row in rows for name in row if name in METRICS and METRICS[name].unit == "share"]
    assert shares and all(0 <= share <= 1 for share in shares)
    assert any(0 < row["ppo/clipped_scores"] for row in rows if "ppo/clipped_scores" in row)


def test_a_run_without_options_emits_no_optional_metric(tmp_path: Path) -> None:
    write_data(tmp_path)
    chosen = settings(tmp_path, ppo={**PPO, "score_clip": None})
    reward = chosen.reward.model_copy(update={"head_penalty": None})
    chosen = chosen.model_copy(update={"reward": reward})

    def forget_gold(run: Run) -> None:
        run.gold = None  # simulated labelers needed one

    steps = (pipeline.run_sft, pipeline.run_sampling, pipeline.run_labeling, pipeline.run_reward)
    lines = lines_of(do(chosen, *steps, forget_gold, pipeline.run_ppo))
    judged = chosen.model_copy(update={"evaluation": chosen.evaluation.model_copy(update={"gold": None})})
    assert [fault for phase, rows in lines.items() for fault in faults(phase, rows, judged)] == []
    refused = [name for name, metric in METRICS.items() if metric.when and not metric.when.allows(judged)]
    assert len(refused) >= 9


def test_a_name_that_is_missing_or_undeclared_or_not_allowed_is_found(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    row = {metric.name: 1.0 for metric in PHASES["ppo"] if metric.when is None or metric.when.allows(chosen)}
    assert list(faults("ppo", [{"step": 1, "time": 0.0, **row}], chosen)) == []
    wrong = {name: value for name, value in row.items() if name not in ("ppo/entropy", "ppo/gold_score")}
    found = list(faults("ppo", [{"step": 1, **wrong, "ppo/new": 0.0, "ppo/rollbacks": 0.0}], chosen))
    assert found == [
        "ppo/new is not declared",
        "ppo/gold_score is missing, where evaluation.gold is set",
        "ppo/entropy is missing at step 1",
        "ppo/rollbacks is emitted, and declared where guards.on_alarm is not continue",
    ]
