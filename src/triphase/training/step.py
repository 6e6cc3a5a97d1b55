"""One optimizer step: clip the gradient, skip non-finite ones, step, follow the schedule."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from triphase.batches.transfers import to_device, to_host
from triphase.errors import TrainingError
from triphase.settings.phases import OptimizerSettings
from triphase.training.digests import digest_of
from triphase.training.distributed.types import ALONE, Strategy

MAX_SKIPPED_IN_A_ROW = 5
_MOMENTS = ("exp_avg", "exp_avg_sq")
_NAMED = 3
_log = logging.getLogger(__name__)
_ADVICE = (
    "Lower the phase's optimizer.learning_rate, set model.dtype: float32, or look for unusual records in these batches"
)


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a step.

    Attributes:
        gradient_norm: global 2-norm before clipping.
        learning_rate: the adapters' rate at this step.
        skipped: True if something was not finite and nothing was changed.
        nonfinite: names of the non-finite tensors, the first ones.
    """

    gradient_norm: float
    learning_rate: float
    skipped: bool
    nonfinite: tuple[str, ...] = ()


class Updater:
    """AdamW over named parameters, with clipping and a schedule.

    Attributes:
        parameters: the trained parameters by name, in a fixed order.
        step_count: optimizer steps so far, skipped ones included.
        begun: how often this object has started to write into parameters, completed or not.
        skipped_in_a_row, most_skipped_in_a_row: how many steps were skipped since the last good one, and the limit.
        rate_scale: factor of every learning rate, in addition to the schedule.
        strategy: the processes that share each step, or this one alone.
    """

    def __init__(
        self,
        adapters: Mapping[str, nn.Parameter],
        heads: Mapping[str, nn.Parameter],
        settings: OptimizerSettings,
        *,
        total_steps: int,
        critic: Mapping[str, nn.Parameter] | None = None,
        critic_learning_rate: float | None = None,
        strategy: Strategy = ALONE,
        offload: bool = False,
    ) -> None:
        """``critic`` is a second network (its head is in ``heads``): with its own rate and gradient norm.

        With ``offload`` Adam's moments are in the host's memory except during a step.
        """
        critic = critic or {}
        self.strategy = strategy
        self.parameters = strategy.own({**adapters, **critic, **heads})
        adapters, critic, heads = ({name: self.parameters[name] for name in each} for each in (adapters, critic, heads))
        self.step_count = 0
        self.begun = 0
        self.skipped_in_a_row = 0
        self.most_skipped_in_a_row = MAX_SKIPPED_IN_A_ROW
        self.rate_scale = 1.0
        self._settings = settings
        self._first_step = 0
        self._total_steps = total_steps
        self._rates = [settings.learning_rate, settings.head_learning_rate or settings.learning_rate]
        groups = [{"params": list(group.values())} for group in (adapters, heads)]
        together = [self.parameters]
        if critic:
            self._rates.append(critic_learning_rate or settings.learning_rate)
            groups.append({"params": list(critic.values())})
            together = [dict(adapters), {**critic, **heads}]
        # The groups that are clipped together: a large gradient of one network must not slow another.
        self._networks = [dict(network) for network in together]
        self._fused = is_fused(self.parameters)
        self._offload = offload
        self._optimizer = torch.optim.AdamW(
            groups,
            fused=self._fused or None,
            lr=settings.learning_rate,
            betas=settings.adam_betas,
            eps=settings.adam_epsilon,
            weight_decay=settings.weight_decay,
        )

    def step(self) -> StepResult:
        """Apply the accumulated gradients, summed over all ranks, and clear them.

        Raises:
            TrainingError: the gradient was not finite several times in a row.
        """
        rate = self._set_rates()
        self.strategy.sum_gradients(self.parameters)
        networks = [[parameter for parameter in each.values() if parameter.grad is not None] for each in self._networks]
        gradients = [{name: each.grad for name, each in one.items() if each.grad is not None} for one in self._networks]
        totals = [self.strategy.total_norm(each) for each in gradients]
        norm = math.hypot(*(float(total) for total in totals))
        if not math.isfinite(norm):
            return self.skip_step([f"the gradient of {name}" for name in self._broken_gradients()], norm)
        for trained, total in zip(networks, totals, strict=True):
            nn.utils.clip_grads_with_norm_(trained, self._settings.max_gradient_norm, total)
        self.begun += 1
        if self._offload:
            self._move_moments(lambda moment, parameter: to_device(moment, parameter.device))
        self._optimizer.step()
        if self._offload:
            self._move_moments(lambda moment, _: to_host(moment))
        self.skipped_in_a_row = 0
        self.discard()
        self.step_count += 1
        return StepResult(norm, rate, False)

    def _move_moments(self, moved: Callable[[Tensor, Tensor], Tensor]) -> None:
        for parameter, state in self._optimizer.state.items():
            for moment in _MOMENTS:
                if moment in state:  # a parameter without a gradient has none
                    state[moment] = moved(state[moment], parameter)

    def skip_step(self, nonfinite: Sequence[str], norm: float = math.nan, *, advice: str = _ADVICE) -> StepResult:
        """Count a step and change nothing, because something was not finite; ``advice`` names the cause and the remedy.

        Raises:
            TrainingError: this happened several times in a row.
        """
        rate = self._set_rates()
        self.discard()
        self.step_count += 1
        self.skipped_in_a_row += 1
        named = tuple(nonfinite[:_NAMED]) or ("the norm of the gradient",)
        if self.skipped_in_a_row >= self.most_skipped_in_a_row:
            often = "in one step" if self.skipped_in_a_row == 1 else f"{self.skipped_in_a_row} steps in a row"
            raise TrainingError(
                f"{', '.join(named)}: not finite {often}. Skipped steps change nothing, and the "
                f"last checkpoint stays; the batches are in the directory `bad` next to it. {advice}"
            )
        if self.skipped_in_a_row == 1:
            _log.warning("%s: not finite. This step changed nothing, and is counted. %s", ", ".join(named), advice)
        return StepResult(norm, rate, True, named)

    def schedule_over(self, first_step: int, total_steps: int) -> None:
        """Set the schedule to ``total_steps`` from ``first_step`` on."""
        self._first_step, self._total_steps = first_step, total_steps

    def _set_rates(self) -> float:
        factor = (
            schedule_factor(self._settings, self.step_count - self._first_step, self._total_steps) * self.rate_scale
        )
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        return self._rates[0] * factor

    def _broken_gradients(self) -> list[str]:
        return [
            name
            for name, parameter in self.parameters.items()
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all())
        ]

    def discard(self) -> None:
        """Clear the accumulated gradients without a step."""
        self._optimizer.zero_grad(set_to_none=True)
        self.strategy.discard_gradients()

    def tensors(self, *, on_lead: bool = False) -> dict[str, Tensor]:
        """Parameters and Adam's moments, by name, for a checkpoint; every rank calls this.

        ``on_lead`` as in `Strategy.whole`.
        """
        found: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            found[f"parameter.{name}"] = parameter.detach()
            for key, value in self._optimizer.state[parameter].items():
                found[f"{key}.{name}"] = value
        return self.strategy.whole(found, on_lead=on_lead)

    def digest(self) -> str:
        """A checksum of the parameters; every rank calls this."""
        # One by one: with divided weights no rank ever has all of them.
        named = ({name: each.detach()} for name, each in self.parameters.items())
        return digest_of(pair for one in named for pair in self.strategy.whole(one).items())

    @torch.no_grad()
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Load what `tensors` returned."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.strategy.rows(name, tensors[f"parameter.{name}"]))
            state = {
                key: self._placed(self.strategy.rows(name, tensors[f"{key}.{name}"]), parameter, key)
                for key in ("step", *_MOMENTS)
                if f"{key}.{name}" in tensors
            }
            if state:
                self._optimizer.state[parameter] = state
            else:
                self._optimizer.state.pop(parameter, None)

    def _placed(self, value: Tensor, parameter: Tensor, key: str) -> Tensor:
        if key in _MOMENTS and self._offload:
            return to_host(value)
        return value.to(parameter.device if key in _MOMENTS or self._fused else "cpu")


def is_fused(parameters: Mapping[str, nn.Parameter]) -> bool:
    """Whether one kernel steps all of them: on a CUDA device, where they are hundreds of small tensors."""
    return all(parameter.device.type == "cuda" for parameter in parameters.values())


def schedule_factor(settings: OptimizerSettings, step: int, total: int) -> float:
    """Factor of the peak learning rate at optimizer step ``step`` of ``total``: linear warmup, then the schedule."""
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
