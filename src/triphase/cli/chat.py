"""Talking to a run's policy, or to any model, on the terminal."""

from collections.abc import Callable
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from triphase.cli import deferred
from triphase.cli.arguments import Checkpoint


def chat(
    model: Annotated[str, Parameter(help="The directory of a run, a model's directory, or a hub id.")],
    /,
    *,
    checkpoint: Checkpoint = None,
) -> None:
    """Talk to a run's policy, or to any model."""
    talk(model, checkpoint=checkpoint)


def talk(model: str, read: Callable[[], str | None] | None = None, *, checkpoint: int | None = None) -> None:
    """Talk to the PPO policy of a run directory, or to a model directory or hub id. An empty line or Ctrl-D ends."""
    console = Console()
    conversation = deferred.conversation(model, checkpoint)
    console.print("Write a message. /new begins a new conversation, an empty line ends.", style="dim")
    while line := (read or _read)():
        if line.strip() == "/new":
            conversation.forget()
            continue
        console.print(Text(conversation.say(line), style="green"))


def _read() -> str | None:
    try:
        return input("› ")
    except EOFError:
        return None
