"""Responses of full length: no token ends one, so that a benchmark writes as many tokens as it counts."""

from triphase.models.roles import SharedModel

_NEVER = -1


def write_in_full(shared: SharedModel) -> None:
    """Let every response of ``shared`` be as long as it may be."""
    shared.template.ends = (_NEVER,)
