"""Sampled responses without text or end: their number is logged, and the reward model is trained without them."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from triphase.errors import DataError
from triphase.records.types import RankedGroup
from triphase.store import Store
from triphase.tokens.encoding import without_empty

if TYPE_CHECKING:
    from triphase.tokens.template import Template

_log = logging.getLogger(__name__)


def report_empty_samples(store: Store, model: str) -> None:
    """Log how many responses of ``model`` have no text and do not end."""
    sampled = [response for response in store.responses() if response.model == model]
    empty = sum(not response.text and not response.finished for response in sampled)
    if empty:
        _log.warning(
            "%d of %d sampled responses have no text and no end (only special tokens or "
            "spaces); the reward model is trained without them",
            empty,
            len(sampled),
        )


def usable_groups(
    groups: Sequence[RankedGroup], heldout: Sequence[RankedGroup], template: "Template"
) -> tuple[list[RankedGroup], list[RankedGroup]]:
    """Ranked groups without the responses that have no token, training and held out; their number is logged.

    Raises:
        DataError: none is left to train on.
    """
    (trained, lost), (kept, more) = without_empty(groups, template), without_empty(heldout, template)
    if lost + more:
        _log.warning("%d ranked responses have no token and are left out of the reward model's data", lost + more)
    if not trained:
        left_out = f" ({lost} ranked responses have no token)" if lost else ""
        raise DataError(f"no training prompt has a ranking{left_out}; label some, or name data.preferences")
    return trained, kept
