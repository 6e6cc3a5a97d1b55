"""Passes of half the size after an out-of-memory error; this changes results by rounding at most."""

import logging
from collections.abc import Sequence
from typing import Any

from triphase.batches.order import most_tokens
from triphase.models.roles import SharedModel
from triphase.monitoring.memory import give_back
from triphase.rollouts.decoding import LocalGenerator
from triphase.training.state import TrainingState

_log = logging.getLogger(__name__)


class HalvesMicrobatches:
    """A phase whose settings have ``microbatch_tokens``, for rows of these ``lengths``."""

    settings: Any
    shared: SharedModel
    lengths: Sequence[int]
    state: TrainingState[Any]

    def halve_microbatches(self) -> int | None:
        """See Phase; None if a pass has only one row already."""
        longest = max(self.lengths, default=0)
        # No pass has more than all rows of a step, or all that are held out: half of more would fail again.
        rows: int = max(self.settings.batch_size, len(getattr(self, "heldout", ())))
        usual = most_tokens(self.settings.tokens_at_once, on_card=self.shared.backbone.on_card)
        most = min(usual, rows * longest)
        if most <= longest:
            return None
        generator = getattr(self, "generator", None)
        if isinstance(generator, LocalGenerator):
            generator.release()
        give_back()
        self.state.values.halved = [*(self.state.values.halved or [usual])[:1], most // 2]
        self._take(most // 2)
        return most // 2

    def resume_microbatches(self) -> None:
        """See Phase."""
        usual = most_tokens(self.settings.tokens_at_once, on_card=self.shared.backbone.on_card)
        set_to, most = self.state.values.halved or (None, None)
        if usual != set_to:  # by the user, or by a plan for another machine
            self.state.values.halved = []
            return
        self._take(most)
        _log.info("passes of at most %d tokens, as before the interruption: more did not fit into memory", most)

    def _take(self, most: int | None) -> None:
        self.settings = self.settings.model_copy(update={"microbatch_tokens": most})
