"""One PPO update of one action, number by number, each computed by the functions that training uses.

The numbers that stand by default are the worked example of the documentation: at a crossroads the policy turned right.
"""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from triphase.errors import SettingsError


@dataclass(frozen=True, slots=True)
class WorkedStep:
    """The numbers of one update. ``gradient`` is that of the objective by the log-probability of the action."""

    advantage: float
    ratio: float
    unclipped: float
    limited_ratio: float
    clipped: float
    objective: float
    gradient: float
    value_loss: float

    @property
    def is_clipped(self) -> bool:
        return self.clipped < self.unclipped


def worked_step(
    *,
    reward: float,
    value: float,
    next_value: float,
    discount: float,
    probability_old: float,
    probability_new: float,
    clip_range: float,
) -> WorkedStep:
    """Advantage, ratio and clipped objective of one action.

    The state after the action is worth ``next_value``; 0 where the episode ends there.
    """
    import torch

    from triphase.objectives.advantages import generalised_advantages
    from triphase.objectives.proximal import clipped_policy_loss, clipped_value_loss

    def row(*numbers: float) -> torch.Tensor:
        return torch.tensor([numbers], dtype=torch.float64)

    mask = torch.tensor([[True]])
    # The next state stands as a second token without reward; with λ = 0 the advantage is δ = R + γ·V' − V alone.
    estimate = generalised_advantages(
        row(reward, 0.0), row(value, next_value), mask.expand(1, 2), discount=discount, gae_lambda=0.0
    )
    advantages, returns = estimate.advantages[:, :1], estimate.returns[:, :1]
    logprobs = row(probability_new).log().requires_grad_()
    loss, metrics = clipped_policy_loss(logprobs, row(probability_old).log(), advantages, mask, clip_range=clip_range)
    value_loss, _ = clipped_value_loss(row(value), row(value), returns, mask, clip_range=None)
    loss.backward()  # type: ignore[no-untyped-call]
    advantage, ratio = advantages.item(), metrics.ratio_mean.item()
    limited = min(max(ratio, 1 - clip_range), 1 + clip_range)
    return WorkedStep(
        advantage=advantage,
        ratio=ratio,
        unclipped=ratio * advantage,
        limited_ratio=limited,
        clipped=limited * advantage,
        objective=-loss.item(),
        gradient=0.0 if logprobs.grad is None else -logprobs.grad.item(),
        value_loss=value_loss.item(),
    )


def explain(
    *,
    reward: Annotated[float, Parameter(help="Reward of the action.")] = 5.0,
    value: Annotated[float, Parameter(help="V, what the critic expected in this state.")] = 1.5,
    next_value: Annotated[float, Parameter(help="Value of the next state; 0 where the episode ends.")] = 0.0,
    discount: Annotated[float, Parameter(help="γ.")] = 0.9,
    probability_old: Annotated[float, Parameter(help="π_old(action | state), when the action was sampled.")] = 0.60,
    probability_new: Annotated[float, Parameter(help="π(action | state), now.")] = 0.75,
    clip_range: Annotated[float, Parameter(help="ε.")] = 0.2,
) -> None:
    """One PPO update, number by number."""
    _require(0 < probability_old <= 1, "--probability-old", probability_old, "above 0 and at most 1")
    _require(0 < probability_new <= 1, "--probability-new", probability_new, "above 0 and at most 1")
    _require(0 <= discount <= 1, "--discount", discount, "from 0 to 1")
    _require(0 < clip_range < 1, "--clip-range", clip_range, "between 0 and 1")
    for name, number in (("--reward", reward), ("--value", value), ("--next-value", next_value)):
        _require(abs(number) < 1e9, name, number, "an ordinary number")
    step = worked_step(
        reward=reward,
        value=value,
        next_value=next_value,
        discount=discount,
        probability_old=probability_old,
        probability_new=probability_new,
        clip_range=clip_range,
    )
    from rich.console import Console
    from rich.table import Table

    table = Table(title="One PPO update", title_justify="left", show_lines=True, expand=False)
    for heading in ("step", "formula", "numbers", "result"):
        table.add_column(heading, justify="right" if heading == "result" else "left")
    low, high = _text(1 - clip_range), _text(1 + clip_range)
    advantage, ratio = _text(step.advantage), _text(step.ratio)
    table.add_row(
        "1 advantage: how much better than the critic expected",
        "Â = R + γ·V(next) − V",
        f"{_text(reward)} + {_text(discount)}·{_text(next_value)} − {_text(value)}",
        advantage,
    )
    table.add_row(
        "2 ratio: new policy over old",
        "r = π(a|s) / π_old(a|s)",
        f"{_text(probability_new)} / {_text(probability_old)}",
        ratio,
    )
    table.add_row("3 unclipped", "r · Â", f"{ratio} · {advantage}", _text(step.unclipped))
    table.add_row(
        "4 clipped",
        "clip(r, 1−ε, 1+ε) · Â",
        f"clip({ratio}, {low}, {high}) = {_text(step.limited_ratio)};  {_text(step.limited_ratio)} · {advantage}",
        _text(step.clipped),
    )
    table.add_row(
        "5 objective: the smaller of the two",
        "min(3, 4)",
        f"min({_text(step.unclipped)}, {_text(step.clipped)})",
        _text(step.objective),
    )
    console = Console()
    if not console.is_terminal:
        console.width = 132
    console.print(table)
    console.print(_meaning(step), highlight=False)


def _meaning(step: WorkedStep) -> str:
    value = f"The value loss of the critic, ½·(return − V)², is {_text(step.value_loss)}."
    if step.is_clipped:
        return (
            "The clipped branch is the smaller one: it does not depend on the policy, so its gradient is "
            f"{_text(step.gradient)} and this action pushes the policy no further.\n{value}"
        )
    direction = "up" if step.gradient > 0 else "down"
    return (
        f"The ratio is not clipped here: the gradient by log π(a|s) is {_text(step.gradient)}, so the action's "
        f"probability goes {direction}.\n{value}"
    )


def _text(number: float) -> str:
    return f"{number + 0.0:.6g}"  # + 0.0 turns −0 into 0


def _require(holds: bool, name: str, number: float, allowed: str) -> None:
    if not holds:
        raise SettingsError(f"{name}: {number:g} is not allowed; it must be {allowed}")
