"""A Python object of the program that started the run as a scorer: `triphase.train_ppo(..., reward=...)`.

It is called like any function (`call_conventions`), in a thread of this process, because its state is only here. The
settings of the run say that there was such an object; no file can say which.
"""

from copy import deepcopy
from typing import Any

from triphase.errors import SettingsError
from triphase.records.bounded_calls import NoAnswer, Worker
from triphase.rewards.answering import answer_of
from triphase.rewards.call_conventions import Convention
from triphase.rewards.function import CalledScorer
from triphase.rewards.types import ScorerContext


class ObjectScorer(CalledScorer):
    """Scores by a callable of the program that started the run, in its own thread."""

    def __init__(self, context: ScorerContext) -> None:
        scorer_object, settings = context.scorer_object, context.settings
        if scorer_object is None:
            raise SettingsError(
                f"{context.setting}.kind: the reward of this run was a Python object, which only "
                f"the program that created it can provide: call triphase.train_ppo there with "
                f"the same name again; or put it in a file, and start another run with "
                f"ppo.scorer.function: FILE.py:NAME"
            )
        super().__init__(context, getattr(scorer_object, "__qualname__", type(scorer_object).__name__), "reward")
        self._worker = Worker(
            self._answer, seconds=settings.timeout_seconds, check=context.check, name=f"reward {self.name}"
        )
        self._convention = Convention(scorer_object, settings.options)

    def close(self) -> None:
        """End the thread."""
        self._worker.close()

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        return answer_of(self._convention, deepcopy(question))  # what it changes is its own, as in another process

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        try:
            answer, raised = self._worker.call(question)
        except NoAnswer as error:
            raise self._error(str(error)) from None
        if raised is not None:
            raise raised
        found: dict[str, Any] = answer
        return found


def open_scorer(context: ScorerContext) -> ObjectScorer:
    """The object of the program that started the run."""
    return ObjectScorer(context)
