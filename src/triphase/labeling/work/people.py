"""Names, roles and secret links, for all modules about people."""

import hashlib
import re
from typing import Literal

from triphase.errors import TriphaseError

Role = Literal["lead", "labeler"]
ROLES: tuple[Role, ...] = ("lead", "labeler")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")


class AccountError(TriphaseError):
    """A name, password or invitation that cannot be used; shown to the person unchanged."""


def check_name(name: str) -> str:
    """The name if it is valid, else an error that states the rules."""
    if not NAME.fullmatch(name):
        raise AccountError(
            f"{name!r} cannot be a name: use 1 to 40 of a–z, 0–9, dot, dash and underscore, beginning with a letter "
            "or digit"
        )
    return name


def check_role(role: str) -> str:
    """The role if it exists, else an error that names both."""
    if role not in ROLES:
        raise AccountError(f"{role!r} is not a role; it is lead or labeler")
    return role


def digest(token: str) -> str:
    """The stored hash of a secret link or cookie."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
