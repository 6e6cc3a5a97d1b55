"""One PPO update of one action, number by number.

The default numbers are the worked example of the documentation: at a crossroads the policy turned right.
"""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from triphase.cli import deferred
from triphase.errors import SettingsError

if TYPE_CHECKING:
    from triphase.objectives.worked_step import WorkedStep


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
    """Work through one PPO update, number by number."""
    _require(0 < probability_old <= 1, "--probability-old", probability_old, "above 0 and at most 1")
    _require(0 < probability_new <= 1, "--probability-new", probability_new, "above 0 and at most 1")
    _require(0 <= discount <= 1, "--discount", discount, "from 0 to 1")
    _require(0 < clip_range < 1, "--clip-range", clip_range, "between 0 and 1")
    for name, number in (("--reward", reward), ("--value", value), ("--next-value", next_value)):
        _require(abs(number) < 1e9, name, number, "a finite number")
    step = deferred.worked_step(
        reward=reward,
        value=value,
        next_value=next_value,
        discount=discount,
        probability_old=probability_old,
        probability_new=probability_new,
        clip_range=clip_range,
    )
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


def _meaning(step: "WorkedStep") -> str:
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
