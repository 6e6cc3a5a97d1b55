"""A plain Python function as a scorer: what it does wrong becomes one line.

    def score(prompts, responses, **options) -> list of numbers, or a mapping of names to such lists

``prompts`` are lists of ``role`` and ``content``, ``responses`` are texts. A mapping has the scores under ``total``;
its further names are parts. The function is imported from the module that the settings name, by Python's own import,
and from nowhere else; nothing is evaluated.
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from triphase.errors import SettingsError, TrainingError
from triphase.records.types import Message, Prompt
from triphase.records.visible import visible
from triphase.rewards.importing import imported
from triphase.rewards.parts import joined, problem_of_names
from triphase.rewards.types import Answer, Scorer, ScorerContext, Scores
from triphase.rewards.waiting import Answered, NoAnswer, Worker

SETTING = "ppo.scorer.function"
TOTAL = "total"
_REMEDY = "mend the function, then give the same command again; what is finished is kept"
_PROBE = Prompt("probe", (Message("user", "What is the capital of France?"),))
_SHOWN = 60


class FunctionScorer(Scorer):
    """Scores by calling a function in a thread of its own, at most ``batch_size`` answers at a time."""

    def __init__(self, context: ScorerContext) -> None:
        settings = context.settings
        if settings.function is None:
            raise ValueError("a function scorer needs a function")
        self.name = settings.function
        self._options = settings.options
        self._size = settings.batch_size
        self._worker = Worker(
            imported(settings.function, SETTING), seconds=settings.timeout_seconds, check=context.check, name=self.name
        )

    def score(self, answers: Sequence[Answer]) -> Scores:
        """See Scorer.

        Raises:
            TrainingError: the function raises, takes too long, or gives anything but a finite number for each answer.
        """
        starts = range(0, len(answers), self._size)
        return joined([self._batch(answers[start : start + self._size], start) for start in starts])

    def examine(self) -> None:
        """Call the function once, on two answers.

        Raises:
            SettingsError: as in `score`.
        """
        try:
            self.score([Answer(_PROBE, "Paris.", True), Answer(_PROBE, "I do not know; perhaps", False)])
        except TrainingError as error:
            raise SettingsError(f"{error} (this was a first call, on two answers)") from None

    def close(self) -> None:
        """End the thread."""
        self._worker.close()

    def _batch(self, answers: Sequence[Answer], start: int) -> Scores:
        given, raised = self._call(answers)
        if raised is not None:
            raise self._raised(answers, start, raised)
        columns = given if isinstance(given, Mapping) else {TOTAL: given}
        if TOTAL not in columns:
            raise self._error(f"gives a mapping without {TOTAL!r}")
        parts = {name: values for name, values in columns.items() if name != TOTAL}
        problem = problem_of_names(parts)
        if problem is not None:
            raise self._error(f"gives parts that cannot be used: {problem}")
        return Scores(
            self._numbers(columns[TOTAL], answers, start, "a score"),
            {name: self._numbers(values, answers, start, f"the part {name}") for name, values in parts.items()},
        )

    def _call(self, answers: Sequence[Answer]) -> Answered:
        prompts = [
            [{"role": message.role, "content": message.content} for message in answer.prompt.messages]
            for answer in answers
        ]
        try:
            return self._worker.call(prompts, [answer.response for answer in answers], **self._options)
        except NoAnswer as error:
            raise self._error(str(error)) from None

    def _raised(self, answers: Sequence[Answer], start: int, error: BaseException) -> TrainingError:
        """The error of a batch, with the first answer that raises it alone."""
        for row, answer in enumerate(answers):
            _, alone = self._call([answer])
            if alone is not None:
                return self._error(f"raised {_shown(alone)}", start + row, answer)
        return self._error(f"raised {_shown(error)} on a batch of {len(answers)} answers, and on none of them alone")

    def _numbers(self, values: Any, answers: Sequence[Answer], start: int, noun: str) -> tuple[float, ...]:
        values = values.tolist() if callable(getattr(values, "tolist", None)) else values  # of numpy and of torch
        if not isinstance(values, list | tuple):
            raise self._error(f"gives {type(values).__name__} for {noun}, where a list of numbers is expected")
        if len(values) != len(answers):
            raise self._error(f"gives {len(values)} numbers for {noun} of {len(answers)} answers")
        return tuple(
            self._number(value, noun, start + row, answer)
            for row, (value, answer) in enumerate(zip(values, answers, strict=True))
        )

    def _number(self, value: Any, noun: str, row: int, answer: Answer) -> float:
        if isinstance(value, bool) or not isinstance(value, Real):  # numpy's numbers are, of whatever width
            shown = repr(value)[:_SHOWN]
            raise self._error(f"gives {shown} ({type(value).__name__}) as {noun}, which is no number", row, answer)
        try:
            number = float(value)
        except OverflowError:  # a whole number beyond every float
            number = math.inf
        if not math.isfinite(number):
            raise self._error(f"gives {number} as {noun}; a score is a finite number", row, answer)
        return number

    def _error(self, problem: str, row: int | None = None, answer: Answer | None = None) -> TrainingError:
        about = "" if answer is None else f" (answer {row}: {answer.response[:_SHOWN]!r})"
        return TrainingError(f"{SETTING}: {self.name} {problem}{about}; {_REMEDY}")


def open_scorer(context: ScorerContext) -> FunctionScorer:
    """The function that the settings name."""
    return FunctionScorer(context)


def _shown(error: BaseException) -> str:
    text = " ".join(visible(str(error)).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
