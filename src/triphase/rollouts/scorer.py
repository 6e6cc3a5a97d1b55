"""A server that scores responses in the reward model's place.

    POST {"items": [{"prompt": [{"role": …, "content": …}, …], "response": …, "finished": …}, …]}
    → {"scores": [number, …]}

one score for each item, in order. ``null`` and NaN are no scores: they go to the guard that keeps a batch and skips it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from triphase.records.types import Prompt
from triphase.rollouts.client import JsonClient
from triphase.settings.services import ScorerSettings


@dataclass(frozen=True, slots=True)
class Answer:
    """What is scored: a response to a prompt, and whether its end was sampled."""

    prompt: Prompt
    response: str
    finished: bool


class RemoteScorer:
    """Scores by asking the server at ``settings.address``."""

    def __init__(
        self,
        settings: ScorerSettings,
        *,
        setting: str = "ppo.scorer.address",
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """``check`` is called a few times a second while the server is waited for, and may raise to end the wait."""
        if settings.address is None:
            raise ValueError("a remote scorer needs an address")
        self._size = settings.batch_size
        self._client = JsonClient(settings.address, settings, setting=setting, check=check)

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """One score for each answer; NaN where the server has none.

        Raises:
            ServerError: the server is away, or its answer is not so many numbers.
        """
        found: list[float] = []
        for start in range(0, len(answers), self._size):
            part = answers[start : start + self._size]
            found += self._scores(self._client.post("", {"items": [_item(answer) for answer in part]}), len(part))
        return found

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _scores(self, answer: Any, count: int) -> list[float]:
        scores = answer.get("scores") if isinstance(answer, dict) else None
        if not isinstance(scores, list):
            raise self._client.error("", 'answers without a list "scores"')
        if len(scores) != count:
            raise self._client.error("", f"gives {len(scores)} scores for {count} responses")
        for score in scores:
            if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
                raise self._client.error(
                    "", f"gives {self._client.shown(str(score), 40)} as a score, which is no number"
                )
        return [math.nan if score is None else _number(score) for score in scores]


def _item(answer: Answer) -> dict[str, Any]:
    messages = [{"role": message.role, "content": message.content} for message in answer.prompt.messages]
    return {"prompt": messages, "response": answer.response, "finished": answer.finished}


def _number(score: float) -> float:
    try:
        return float(score)
    except OverflowError:  # a whole number beyond every float
        return math.inf
