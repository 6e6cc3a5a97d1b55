"""A server that scores responses in place of the reward model.

    POST {"items": [{"prompt": [{"role": …, "content": …}, …], "response": …, "finished": …}, …]}
    → {"scores": [number, …], "parts": {"NAME": [number, …], …}}

one score for each item, in order. ``null`` and NaN mean no score: such a batch is stored and skipped by the guard.
``parts`` may be left out: the components of the scores, for display. With ``format: openrlhf`` the requests are those
of OpenRLHF to its reward servers:

    POST {"query": [text, …], "prompts": [text, …], "labels": [text, …]}  →  {"rewards": [number, …]}
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from triphase.records.types import Prompt
from triphase.rewards.parts import joined, problem_of_names
from triphase.rewards.types import Answer, Scorer, ScorerContext, Scores, probe_of
from triphase.rollouts.client import JsonClient
from triphase.settings.scorer import ScorerSettings


class RemoteScorer(Scorer):
    """Scores by requests to the server at ``settings.address``."""

    def __init__(
        self,
        settings: ScorerSettings,
        *,
        setting: str = "ppo.scorer.address",
        check: Callable[[], None] = lambda: None,
        prompts: Sequence[Prompt] = (),
    ) -> None:
        """``check`` is called a few times a second while waiting for the server, and may raise to end the wait.

        ``prompts`` are some of the run's, for `examine`.
        """
        if settings.address is None:
            raise ValueError("a remote scorer needs an address")
        self.name = settings.address
        self._prompts = prompts
        self._size = settings.batch_size
        self._is_openrlhf = settings.format == "openrlhf"
        self._client = JsonClient(settings.address, settings, setting=setting, check=check)

    def score(self, answers: Sequence[Answer]) -> Scores:
        """One score for each answer; NaN if the server has none.

        Raises:
            ServerError: the server is unreachable, or its response does not have this many numbers.
        """
        found = []
        for start in range(0, len(answers), self._size):
            part = answers[start : start + self._size]
            if self._is_openrlhf:
                rewards = self._client.post("", _query(part))
                found.append(self._scores(rewards, len(part), "rewards"))
            else:
                items = {"items": [_item(answer) for answer in part]}
                found.append(self._scores(self._client.post("", items), len(part), "scores"))
        return joined(found)

    def examine(self) -> None:
        """Have two answers scored.

        Raises:
            ServerError: as in `score`, or it has no score for either.
        """
        if all(math.isnan(score) for score in self.score(probe_of(self._prompts)).total):
            raise self._client.error("", "returns no score (null or NaN) for either of two responses")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _scores(self, answer: Any, count: int, name: str) -> Scores:
        scores = answer.get(name) if isinstance(answer, dict) else None
        if not isinstance(scores, list):
            raise self._client.error("", f'responds without a list "{name}"')
        parts = {} if self._is_openrlhf else answer.get("parts") or {}
        problem = problem_of_names(parts)
        if problem is not None:
            raise self._client.error("", f"returns parts that cannot be used: {self._client.shown(problem)}")
        if any(self._client.holds_token(name) for name in parts):  # names are written into metrics and messages
            raise self._client.error("", "returns a part whose name contains the token, or a piece of it")
        return Scores(
            self._numbers(scores, count, "score"),
            {name: self._numbers(values, count, f"part {name}") for name, values in parts.items()},
        )

    def _numbers(self, values: Any, count: int, noun: str) -> tuple[float, ...]:
        if not isinstance(values, list) or len(values) != count:
            given = f"{len(values)} {noun}s" if isinstance(values, list) else f"a {noun} that is not a list"
            raise self._client.error("", f"returns {given} for {count} responses")
        for value in values:
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise self._client.error(
                    "", f"returns {self._client.shown(str(value), 40)} as a {noun}, which is not a number"
                )
        return tuple(math.nan if value is None else _number(value) for value in values)


def open_scorer(context: ScorerContext) -> RemoteScorer:
    """The scorer at the address in the settings; Ctrl-C ends the wait for it."""
    return RemoteScorer(
        context.settings, setting=f"{context.setting}.address", check=context.check, prompts=context.prompts
    )


def _item(answer: Answer) -> dict[str, Any]:
    messages = [{"role": message.role, "content": message.content} for message in answer.prompt.messages]
    return {"prompt": messages, "response": answer.response, "finished": answer.finished}


def _query(answers: Sequence[Answer]) -> dict[str, list[str]]:
    """A request of OpenRLHF: texts of several messages are joined by blank lines."""
    prompts = ["\n\n".join(message.content for message in answer.prompt.messages) for answer in answers]
    labels = [answer.prompt.columns.get("label") for answer in answers]
    return {
        "query": [f"{prompt}\n\n{answer.response}" for prompt, answer in zip(prompts, answers, strict=True)],
        "prompts": prompts,
        "labels": ["" if label is None else str(label) for label in labels],
    }


def _number(score: float) -> float:
    try:
        return float(score)
    except OverflowError:  # an integer larger than any float
        return math.inf
