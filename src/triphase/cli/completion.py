"""What a shell needs to complete commands and options."""

from typing import Annotated, Literal

from cyclopts import Parameter

from triphase.cli.main import application


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell that is to complete.")], /
) -> None:
    """Print the completion script of a shell, for its start-up file or its folder of completions."""
    print(application().generate_completion(shell=shell))
