"""What a model card says was measured: figures of held-out prompts, and nothing else of the run's summary."""

import json
from pathlib import Path

from tests.runs.small_run import settings

from triphase.runs.model_card import with_run


def test_figures_of_the_run_itself_are_not_among_what_was_measured(tmp_path: Path) -> None:
    summary = {"seconds": 91.9, "peak_gb": 0.5, "ppo": {"gold_mean": 1.25}, "seed": 0}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    card = with_run("# A policy\n", tmp_path, settings(tmp_path), "policy")
    _, measured = card.split("## Measured on held-out prompts")
    rows = [line for line in measured.split("## Limits")[0].splitlines() if line.startswith("| `")]
    assert rows == ["| `ppo.gold_mean` | 1.25 |"]
