"""Chat with a run's policy, or with any model, in the terminal; or with two of them at once."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from triphase.cli import deferred
from triphase.cli.arguments import Checkpoint
from triphase.datacheck.agenda import left_out
from triphase.errors import DataError, SettingsError
from triphase.records.visible import visible
from triphase.runs.best_checkpoint import step_of
from triphase.settings.loading import RUN_CONFIG, load_settings
from triphase.settings.phase_names import PPO, SFT
from triphase.training.artifacts import has_left

if TYPE_CHECKING:
    from triphase.runs.conversation import Conversation

_STYLES = ("green", "cyan")
_HOTTEST, _MOST_TOKENS = 100.0, 1 << 16


def chat(
    model: Annotated[str, Parameter(help="A run directory, a model directory, or a hub id.")],
    /,
    *,
    policy: Annotated[
        str | None, Parameter(help="Which policy of a run: sft, ppo, or a variant; ppo by default if it is finished.")
    ] = None,
    checkpoint: Checkpoint = None,
    against: Annotated[
        str | None,
        Parameter(
            help="A second policy that answers side by side: another policy of the run, another run, or a model."
        ),
    ] = None,
    temperature: Annotated[float, Parameter(help="Sampling temperature; 0 always picks the most likely token.")] = 0.7,
    max_tokens: Annotated[int, Parameter(help="Longest response, in tokens.")] = 256,
    system: Annotated[str | None, Parameter(help="System prompt.")] = None,
) -> None:
    """Chat with a run's policy, or with any model."""
    if not 0 <= temperature <= _HOTTEST:
        raise SettingsError(f"--temperature {temperature}: must lie between 0 and {_HOTTEST:g}")
    if not 1 <= max_tokens <= _MOST_TOKENS:
        raise SettingsError(f"--max-tokens {max_tokens}: must lie between 1 and {_MOST_TOKENS}")
    step = step_of(Path(model), checkpoint, None if policy in (None, SFT, PPO) else policy)
    sides = [(model, policy, step)]
    if against is not None:
        sides.append((model, against, None) if _is_policy(model, against) else (_model(model, against), None, None))
    opened = [
        deferred.conversation_with(place, at, name, deferred.Talk(max_tokens, temperature, system))
        for place, name, at in sides
    ]
    run = Path(model)
    is_newest = policy is None and checkpoint is None
    if is_newest and os.path.isfile(run / RUN_CONFIG) and not has_left(run, PPO) and PPO not in _left_out(run):
        said = f"note: PPO of {model} is not finished; chatting with the policy that it starts from"
        print(visible(said), file=sys.stderr)
    talk(opened, [_title(*side) for side in sides])


def _left_out(run: Path) -> Mapping[str, str]:
    return left_out(load_settings(run))


def talk(
    conversations: "Sequence[Conversation]", titles: Sequence[str], read: Callable[[], str | None] | None = None
) -> None:
    """Send each message to all dialogues. An empty line or Ctrl-D ends."""
    console = Console()
    console.print("Write a message. /new begins a new conversation, an empty line ends.", style="dim")
    while line := (read or _read)():
        if line.strip() == "/new":
            for conversation in conversations:
                conversation.forget()
            continue
        answers = _answers(conversations, line)
        if isinstance(answers, DataError):
            console.print(Text(f"{visible(str(answers))}; /new begins a new conversation"), style="red")
            continue
        if len(answers) == 1:
            console.print(Text(visible(answers[0]), style=_STYLES[0]))
            continue
        table = Table(box=None, expand=True, pad_edge=False, header_style="bold")
        for title, style in zip(titles, _STYLES, strict=True):
            table.add_column(Text(visible(title)), ratio=1, style=style, overflow="fold")
        table.add_row(*(Text(visible(answer)) for answer in answers))
        console.print(table)


def _answers(conversations: "Sequence[Conversation]", line: str) -> list[str] | DataError:
    """The responses; or why one of the models cannot take the message, which then none keeps."""
    answers: list[str] = []
    for conversation in conversations:
        try:
            answers.append(conversation.say(line))
        except DataError as error:
            for other in conversations[: len(answers)]:
                other.take_back()
            return error
    return answers


def _is_policy(model: str, name: str) -> bool:
    """Whether a name refers to a policy of the run, and not to a path or a model."""
    return name in _policies_of(model)


def _model(model: str, name: str) -> str:
    """The name of a path or a model.

    Raises:
        SettingsError: it is nearly the name of a policy of the run.
    """
    near = [] if os.path.isdir(name) else get_close_matches(name, _policies_of(model), n=1)
    if near:
        raise SettingsError(f"--against {name}: is not a policy of {model}; did you mean {near[0]}?")
    return name


def _policies_of(model: str) -> tuple[str, ...]:
    run = Path(model)
    return (SFT, PPO, *load_settings(run).variants) if os.path.isfile(run / RUN_CONFIG) else ()


def _title(place: str, policy: str | None, checkpoint: int | None) -> str:
    of = policy or ("ppo" if checkpoint is not None else "")
    return f"{place} ({of}{'' if checkpoint is None else f' after iteration {checkpoint}'})" if of else place


def _read() -> str | None:
    try:
        return input("› ")
    except EOFError:
        print()  # what follows starts on a line of its own
        return None
