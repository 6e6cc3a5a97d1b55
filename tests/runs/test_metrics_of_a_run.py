"""The glossary is what a run emits: a real one, with every optional part switched on, compared both ways."""

from pathlib import Path

from tests.runs.small_run import do, settings, write_data

from triphase.monitoring.glossary import METRICS
from triphase.monitoring.metrics import FILE_NAME, read_metrics
from triphase.runs import pipeline


def test_a_run_emits_what_the_glossary_names_and_nothing_else(tmp_path: Path) -> None:
    write_data(tmp_path)
    ppo = {"iterations": 2, "batch_size": 8, "minibatch_size": 8, "max_response_tokens": 10, "score_limit": 0.5}
    chosen = settings(tmp_path, ppo=ppo, guards={"on_alarm": "rollback"})
    run = do(chosen, pipeline.run_all)
    rows = [row for phase in ("sft", "reward", "ppo") for row in read_metrics(run.part(phase, FILE_NAME))]
    emitted = {name for row in rows for name in row} - {"step", "time"}
    assert emitted - set(METRICS) == set(), "emitted and not documented"
    assert set(METRICS) - emitted == set(), "documented and never emitted"
    shares = [row[name] for row in rows for name in row if name in METRICS and METRICS[name].unit == "share"]
    assert shares and all(0 <= share <= 1 for share in shares)
    assert any(0 < row["ppo/clipped_scores"] for row in rows if "ppo/clipped_scores" in row)
