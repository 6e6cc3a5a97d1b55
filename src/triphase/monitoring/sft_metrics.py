"""The metrics of supervised fine-tuning, declared."""

from triphase.monitoring.declaration import HELDOUT, Metric

_TOKENS = "response tokens of the step"
_STEP = "none: the step's value"


SFT_METRICS = (
    Metric(
        "sft/loss", "nats per token", "−log π(token | tokens before)", _TOKENS, "falls, then levels off", better="lower"
    ),
    Metric(
        "sft/heldout_loss",
        "nats per token",
        "−log π(token | tokens before) on held-out demonstrations",
        "response tokens of the held-out demonstrations",
        "falls; a rise while sft/loss falls is overfitting",
        better="lower",
        when=HELDOUT,
    ),
    Metric("sft/learning_rate", "1", "peak × schedule", _STEP, "follows the schedule"),
    Metric(
        "sft/gradient_norm",
        "loss per unit of weight",
        "√Σ g² over trained weights, before clipping",
        _STEP,
        "steady; mostly under max_gradient_norm after warmup",
    ),
    Metric("sft/skipped_steps", "steps", "1 where loss or gradient was not finite", _STEP, "0", better="lower"),
    Metric("sft/tokens", "tokens", "number of response tokens in the loss", "sum over the step", "near constant"),
)
