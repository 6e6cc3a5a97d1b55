"""A plain Python function as a scorer; its errors become one line.

How it is called is in `call_conventions`, what it may return in `returned_scores`, the process in which it runs in
`process`. It is imported from the file or module in the settings, and from nowhere else; nothing is evaluated.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from triphase.errors import SettingsError, TrainingError, UnscoredAnswer
from triphase.records.bounded_calls import NoAnswer
from triphase.rewards.parts import joined, problem_of_names
from triphase.rewards.process import process_of
from triphase.rewards.returned_scores import TOTAL
from triphase.rewards.types import Answer, Scorer, ScorerContext, Scores, probe_of

_REMEDY = "fix the function, then run the same command again; finished work is kept"
_SHOWN = 60


class CalledScorer(Scorer):
    """Scores by calling a function, wherever it runs, at most ``batch_size`` answers at a time."""

    def __init__(self, context: ScorerContext, name: str, setting: str) -> None:
        """``name`` and ``setting`` are those of the function, for messages."""
        self.name = name
        self.may_abstain = context.is_part
        self._context = context
        self._setting = setting
        self._size = context.settings.batch_size
        self.remedy = _REMEDY

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The response of `answering` to a request. Raises TrainingError if there is none."""
        raise NotImplementedError

    def score(self, answers: Sequence[Answer]) -> Scores:
        """See Scorer.

        Raises:
            TrainingError: the function raises, takes too long, or returns anything but a finite number for each answer.
        """
        starts = range(0, len(answers), self._size)
        return joined([self._batch(answers[start : start + self._size], start) for start in starts])

    def examine(self) -> None:
        """Check which columns it needs, then call it once, on two answers.

        Raises:
            SettingsError: as in `score`, or it needs columns that do not exist.
        """
        try:
            self.require_columns(self._columns())
            self.score(probe_of(self._context.prompts))
        except TrainingError as error:
            raise SettingsError(f"{error} (this was a test call with two responses)") from None

    def notes(self) -> Sequence[str]:
        """The columns that it does not read."""
        note = self._ask({"look_for": self._columns()})["note"]
        return () if note is None else (f"{self._setting}: {self.name} {note}",)

    def _columns(self) -> list[str]:
        """Those of the run's first prompts."""
        return list(dict.fromkeys(name for prompt in self._context.prompts for name in prompt.columns))

    def require_columns(self, columns: Sequence[str]) -> None:
        """See Scorer."""
        problem = self._ask({"look_for": list(columns)})["problem"]
        if problem is not None:
            raise SettingsError(f"{self._setting}: {self.name} {problem}")

    def _batch(self, answers: Sequence[Answer], start: int) -> Scores:
        found = self._call(answers)
        if "raised" in found:
            raise self._raised(answers, start, found["raised"])
        if "problem" in found:
            row = found["row"]
            raise self._error(found["problem"], *(() if row is None else (start + row, answers[row])))
        columns = {
            name: tuple(math.nan if value is None else float(value) for value in values)
            for name, values in found["columns"].items()
        }
        total = columns.pop(TOTAL)
        problem = problem_of_names(columns)
        if problem is not None:
            raise self._error(f"returns parts that cannot be used: {problem}")
        return Scores(total, columns)

    def _call(self, answers: Sequence[Answer]) -> dict[str, Any]:
        return self._ask(
            {
                "prompts": [
                    [{"role": message.role, "content": message.content} for message in answer.prompt.messages]
                    for answer in answers
                ],
                "texts": [answer.prompt.is_text for answer in answers],
                "responses": [answer.response for answer in answers],
                "finished": [answer.finished for answer in answers],
                "columns": _columns(answers),
                "may_abstain": self.may_abstain,
            }
        )

    def _raised(self, answers: Sequence[Answer], start: int, raised: str) -> TrainingError:
        """The error of a batch, with the first answer that raises it alone."""
        for row, answer in enumerate(answers):
            alone = self._call([answer]).get("raised")
            if alone is not None:
                return self._error(f"raised {alone}", start + row, answer)
        return self._error(f"raised {raised} on a batch of {len(answers)} responses, but on none of them alone")

    def _error(self, problem: str, row: int | None = None, answer: Answer | None = None) -> TrainingError:
        problem = f"{self._setting}: {self.name} {problem}"
        if answer is None:
            return TrainingError(f"{problem}; {self.remedy}")
        return UnscoredAnswer(f"{problem} (response {row}: {answer.response[:_SHOWN]!r}); {self.remedy}", problem)


class FunctionScorer(CalledScorer):
    """Scores by a function in its own process."""

    def __init__(self, context: ScorerContext, function: str | None = None, name: str | None = None) -> None:
        """``function`` and ``name`` are those of the settings, unless a kind brings its own."""
        settings = context.settings
        function = function or settings.function
        if function is None:
            raise ValueError("a function scorer needs a function")
        super().__init__(context, name or function, f"{context.setting}.{'function' if name is None else 'kind'}")
        self._function = {"function": function, "options": dict(settings.options), "setting": self._setting}
        self._process = process_of(function)
        try:
            self._process.open(self._function, settings.timeout_seconds, context.check)
        except NoAnswer as error:
            raise SettingsError(f"{self._setting}: {self.name}: {error}; fix its module") from None

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._process.ask(
                self._function, question, self._context.settings.timeout_seconds, self._context.check
            )
        except NoAnswer as error:
            raise self._error(str(error)) from None


def open_scorer(context: ScorerContext) -> FunctionScorer:
    """The function in the settings."""
    return FunctionScorer(context)


def _columns(answers: Sequence[Answer]) -> Mapping[str, list[Any]]:
    """The columns of the prompts' records; None for a record without one."""
    names = dict.fromkeys(name for answer in answers for name in answer.prompt.columns)
    return {name: [answer.prompt.columns.get(name) for answer in answers] for name in names}
