"""One optimizer step: clip the gradient, refuse what is not finite, step, follow the schedule."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from triphase.errors import TrainingError
from triphase.settings.schema import OptimizerSettings

MAX_SKIPPED_IN_A_ROW = 5


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did.

    Attributes:
        gradient_norm: global 2-norm before clipping.
        learning_rate: the adapters' rate at this step.
        skipped: True where the gradient was not finite and nothing was changed.
    """

    gradient_norm: float
    learning_rate: float
    skipped: bool


class Updater:
    """AdamW over named parameters, with clipping and a schedule.

    Attributes:
        parameters: the trained parameters by name, in a fixed order.
        step_count: optimizer steps so far, skipped ones included.
    """

    def __init__(
        self,
        adapters: Mapping[str, nn.Parameter],
        heads: Mapping[str, nn.Parameter],
        settings: OptimizerSettings,
        *,
        total_steps: int,
    ) -> None:
        self.parameters = {**adapters, **heads}
        self.step_count = 0
        self.skipped_in_a_row = 0
        self._settings = settings
        self._total_steps = total_steps
        self._rates = [settings.learning_rate, settings.head_learning_rate or settings.learning_rate]
        groups = [{"params": list(group.values())} for group in (adapters, heads)]
        self._optimizer = torch.optim.AdamW(
            groups,
            lr=settings.learning_rate,
            betas=settings.adam_betas,
            eps=settings.adam_epsilon,
            weight_decay=settings.weight_decay,
        )

    def step(self) -> StepResult:
        """Apply the accumulated gradients and clear them.

        Raises:
            TrainingError: the gradient was not finite several times in a row.
        """
        factor = schedule_factor(self._settings, self.step_count, self._total_steps)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        trained = [parameter for parameter in self.parameters.values() if parameter.grad is not None]
        norm = float(nn.utils.clip_grad_norm_(trained, self._settings.max_gradient_norm))
        finite = math.isfinite(norm)
        if finite:
            self._optimizer.step()
            self.skipped_in_a_row = 0
        else:
            self.skipped_in_a_row += 1
        self._optimizer.zero_grad(set_to_none=True)
        self.step_count += 1
        if self.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"the gradient was not finite {MAX_SKIPPED_IN_A_ROW} steps in a row (last norm {norm}); training "
                "stopped at its last checkpoint. Lower the learning rate, or set model.dtype: float32"
            )
        return StepResult(norm, self._rates[0] * factor, not finite)

    def discard(self) -> None:
        """Clear the accumulated gradients without a step."""
        self._optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and Adam's moments, by name, for a checkpoint."""
        found: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            found[f"parameter.{name}"] = parameter.detach()
            for key, value in self._optimizer.state[parameter].items():
                found[f"{key}.{name}"] = value
        return found

    @torch.no_grad()
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` gave."""
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"parameter.{name}"])
            state = {
                key: tensors[f"{key}.{name}"].to(parameter.device if key != "step" else "cpu")
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}.{name}" in tensors
            }
            if state:
                self._optimizer.state[parameter] = state


def schedule_factor(settings: OptimizerSettings, step: int, total: int) -> float:
    """Factor of the peak learning rate at optimizer step ``step`` of ``total``: linear warm-up, then the schedule."""
    warmup = settings.warmup_share * total
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1.0, total - warmup)
    match settings.schedule:
        case "constant":
            return 1.0
        case "linear":
            return max(0.0, 1 - progress)
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
