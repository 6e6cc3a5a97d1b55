"""Shell completion of commands and options."""

from typing import Annotated, Literal

from cyclopts import Parameter

from triphase.cli.main import application


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell to complete commands in.")], /
) -> None:
    """Print the completion script for bash, zsh or fish."""
    print(application().generate_completion(shell=shell))
