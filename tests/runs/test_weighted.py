"""A run scored by a sum: each part in the metrics, the samples and the report, and exact after an interruption."""

from pathlib import Path

import pytest
from tests.runs import small_run

from triphase.monitoring.metrics import read_metrics
from triphase.records.files import read_json_lines
from triphase.runs import pipeline
from triphase.settings.schema import RunSettings
from triphase.training.stopping import Stopped

PARTS = [
    {"name": "long", "function": "tests.rewards.functions:lengths", "weight": 2.0},
    {"name": "varied", "kind": "repetition", "options": {"n": 1}},
]
PPO = {"iterations": 3, "batch_size": 8, "minibatch_size": 8, "epochs": 1, "max_response_tokens": 10}
STEPS = (pipeline.run_sft, pipeline.run_ppo)


def settings(folder: Path, output: str) -> RunSettings:
    changes = {"labeling": {"source": "none"}, "ppo": {**PPO, "scorer": {"of": PARTS}}}
    return small_run.settings(folder, method="lora", output=output, **changes)


def test_parts_are_shown_and_a_stopped_run_ends_alike(tmp_path: Path) -> None:
    small_run.write_data(tmp_path)
    whole = small_run.do(settings(tmp_path, "whole"), *STEPS, pipeline.run_evaluation, pipeline.run_report)
    rows = read_metrics(whole.part("ppo", "metrics.jsonl"))
    assert all({"ppo/score_part/long", "ppo/score_part/varied"} <= row.keys() for row in rows)
    assert rows[0]["ppo/proxy_score"] == pytest.approx(0, abs=1e-6) and rows[-1]["ppo/proxy_score"] != 0
    page = whole.part("report.html").read_text()
    assert "Parts of the score" in page and "the sum of long, varied" in page
    scores = [row["score"] for row in read_json_lines(whole.part("evaluation", "samples.jsonl"))]
    assert scores and None not in scores
    small_run.do(settings(tmp_path, "stopped"), pipeline.run_sft)
    for _ in range(2):
        with pytest.raises(Stopped):
            small_run.do(settings(tmp_path, "stopped"), pipeline.run_ppo, stop=True)
    stopped = small_run.do(settings(tmp_path, "stopped"), pipeline.run_ppo)
    wanted, found = (small_run.files_of(run.part("ppo", "final"), "**/*") for run in (whole, stopped))
    assert found == wanted
