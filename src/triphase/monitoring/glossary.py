"""The registry of all declared metrics, and docs/metrics.md, which is generated from it.

python -m triphase.monitoring.glossary docs/metrics.md
"""

import sys
from pathlib import Path

from triphase.monitoring.declaration import Metric
from triphase.monitoring.ppo_reward_metrics import PPO_REWARD_METRICS
from triphase.monitoring.ppo_rollout_metrics import PPO_ROLLOUT_METRICS
from triphase.monitoring.ppo_update_metrics import PPO_UPDATE_METRICS
from triphase.monitoring.reward_metrics import REWARD_METRICS
from triphase.monitoring.sft_metrics import SFT_METRICS

PHASES: dict[str, tuple[Metric, ...]] = {
    "sft": SFT_METRICS,
    "reward": REWARD_METRICS,
    "ppo": (*PPO_ROLLOUT_METRICS, *PPO_REWARD_METRICS, *PPO_UPDATE_METRICS),
}
"""The declared metrics of each phase."""

METRICS: dict[str, Metric] = {metric.name: metric for metrics in PHASES.values() for metric in metrics}
"""The same by name: the writer refuses a name that is not in it."""

_HEADINGS = {"sft": "Supervised fine-tuning", "reward": "Reward model", "ppo": "PPO"}
_COLUMNS = ("metric", "unit", "formula", "averaged over", "better", "healthy", "emitted")

_INTRODUCTION = """# Metrics

Each phase appends one JSON object per step to `metrics.jsonl` in its folder (`sft/`, `reward/`, `ppo/`, `arms/NAME/`),
and the same numbers to TensorBoard event files next to it (`tensorboard --logdir runs/NAME`):

    {"step": 12, "time": 1767225600.0, "sft/loss": 1.832, "sft/learning_rate": 0.0003}

`step` counts optimizer steps for `sft` and `reward`, and iterations (a rollout and its updates) for `ppo`. `time` is
seconds since 1970, UTC. A metric that is not defined is absent, never 0; one that came out as NaN or infinite is absent
too, and its name is in the line's `nonfinite` list. Such a line may lack the others: nothing is learned from it.
Means are over real tokens only: padding never counts. Where a scorer reports the parts of its scores, the mean of
each part over the rollout is `ppo/score_part/NAME`, in the scorer's unit ([Extending](extending.md)).

*Better* names the direction of an improvement, all else equal; — where there is none. *Emitted* says in which lines the
metric is.

This page is generated from the declarations in `triphase.monitoring`; a test compares the two, and another compares the
declarations with what a run emits.
"""


def glossary_page() -> str:
    """The text of docs/metrics.md."""
    head = f"{_row(_COLUMNS)}{'|---' * len(_COLUMNS)}|\n"
    parts = [_INTRODUCTION]
    for phase, metrics in PHASES.items():
        parts.append(f"\n## {_HEADINGS[phase]}\n\n{head}")
        parts.extend(_row(_cells(metric)) for metric in metrics)
    return "".join(parts)


def _cells(metric: Metric) -> tuple[str, ...]:
    better = "—" if metric.better == "neither" else metric.better
    emitted = "always" if metric.when is None else metric.when.words
    return (f"`{metric.name}`", metric.unit, metric.formula, metric.over, better, metric.healthy, emitted)


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(glossary_page(), encoding="utf-8")
