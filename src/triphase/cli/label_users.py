"""The ``label users`` commands: accounts of labelers and leads, from the command line."""

import getpass
import sys
import time
from typing import Literal

from rich.table import Table

from triphase.cli.label import console, opened, require_store, say
from triphase.errors import SettingsError
from triphase.labeling.work import accounts, labeler_status
from triphase.labeling.work.invitations import OPERATOR
from triphase.records.visible import visible


def users_add(
    run_or_store: str, name: str, /, *, role: Literal["labeler", "lead"] = "labeler", password: str | None = None
) -> None:
    """Add a labeler or a lead.

    Args:
        run_or_store: run directory, SQLite file, or PostgreSQL URL.
        name: name with which they sign in.
        role: labeler or lead.
        password: their password; by default it is asked for, or read from standard input if that is not a terminal.
    """
    require_store(run_or_store)
    given = password if password is not None else _ask_password()
    hashed = accounts.hashed(given)
    with opened(run_or_store, must_exist=True) as store, store.transaction() as connection:
        accounts.add_account(connection, name, role, hashed, now=time.time(), by=OPERATOR)
    say(f"{name} can sign in as {role}.")


def users_list(run_or_store: str, /) -> None:
    """List the accounts, with role and status."""
    table = Table()
    for column in ("name", "role", "status", "signs in"):
        table.add_column(column)
    with opened(run_or_store, must_exist=True) as store, store.reading() as connection:
        for one in accounts.accounts(connection):
            table.add_row(visible(one.name), one.role, one.status, "yes" if one.can_sign_in else "no")
    console.print(table)


def users_pause(run_or_store: str, name: str, /, *, withdraw: bool = False, resume: bool = False) -> None:
    """Pause a labeler; keep their rankings.

    Args:
        run_or_store: run directory, SQLite file, or PostgreSQL URL.
        name: name of the labeler.
        withdraw: also leave their rankings out of the comparisons; they stay in the store.
        resume: let a paused or withdrawn labeler work again.
    """
    if withdraw and resume:
        raise SettingsError("withdraw and resume cannot be combined; give one of them")
    status = "withdrawn" if withdraw else "active" if resume else "paused"
    with opened(run_or_store, must_exist=True) as store, store.transaction() as connection:
        moved = labeler_status.set_status(connection, name, status, now=time.time(), by=OPERATOR)
    say(f"{name} is {status}." + (f" {moved} rankings moved." if moved else ""))


def users_reset(run_or_store: str, name: str, /, *, password: str | None = None) -> None:
    """Give a labeler a new password, and end their sessions."""
    require_store(run_or_store)
    given = password if password is not None else _ask_password()
    hashed = accounts.hashed(given)
    with opened(run_or_store, must_exist=True) as store, store.transaction() as connection:
        accounts.set_password(connection, name, hashed, now=time.time(), by=OPERATOR)
    say(f"{name} has a new password.")


def _ask_password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    try:
        first, again = getpass.getpass("Password: "), getpass.getpass("The same again: ")
    except EOFError:
        raise SettingsError("the input ended before the password; type it, or use --password") from None
    if first != again:
        raise SettingsError("the two passwords differ; type the same one twice")
    return first
