"""What a shell needs to complete commands and options."""

from typing import Annotated, Literal

from cyclopts import Parameter

from triphase.cli.main import application


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell that is to complete.")], /
) -> None:
    """Print what bash, zsh or fish needs to complete commands."""
    print(application().generate_completion(shell=shell))
