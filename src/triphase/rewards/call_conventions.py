"""How a scoring function is called, according to the names of its parameters.

    score(prompts, completions, **columns)     as TRL calls reward functions: everything by name
    score(prompts, responses, **options)       prompts are lists of messages, responses are texts

The first convention applies if there is a parameter ``completions``, or if there is ``**kwargs`` and no parameter
``responses``. With it a prompt that was a text stays a text, and so does its completion; one that was messages is a
list of messages, and its completion a list of a single message. Both conventions pass by name ``finished`` and the
columns of the prompts' records that have a parameter; the first passes all columns to ``**kwargs``. Options are always
passed.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from triphase.records import cells
from triphase.settings.data import OURS

_GIVEN = ("prompts", "responses", "completions", "finished")
_OF_THE_FORMATS = {*OURS} - {"answer", "output"}
"""Columns that every record may have. An answer to a prompt is usually there for a scorer."""
_OF_TRL = ("completion_ids", "environments", "log_extra", "log_metric", "trainer_state")
_NEAR = 0.75
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Convention:
    """One function with its options.

    Attributes:
        as_trl: whether it is called as TRL calls reward functions.
    """

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        self._function = function
        self._options = dict(options)
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # written in C: it gets both lists
            parameters = []
        self._open = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
        by_name = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL, p.POSITIONAL_ONLY)]
        self._names = {parameter.name for parameter in by_name}
        positional = [p for p in parameters if p.kind in _POSITIONAL or p.kind is p.VAR_POSITIONAL]
        self.as_trl = "completions" in self._names or (
            self._open and "responses" not in self._names and len(positional) < 2
        )
        self._by_name = self.as_trl or bool(self._names & {"prompts", "responses"})
        self._needed = {p.name for p in by_name if p.default is p.empty}

    def problem(self, columns: Sequence[str]) -> str | None:
        """Why it cannot be called with these columns and its options; None if it can."""
        if not self._open and (unknown := [name for name in self._options if name not in self._names]):
            known = ", ".join(sorted(self._names - {"prompts", "responses", "completions", "finished"})) or "none"
            return f"takes no option {unknown[0]}; it takes {known}"
        if not self._by_name:
            return None
        given = {"prompts", "completions" if self.as_trl else "responses", "finished", *columns, *self._options}
        missing = sorted(self._needed - given)
        if not missing:
            return None
        if missing[0] in _OF_TRL:
            own = "leave the parameter out, or give it a default"
            return f"needs {missing[0]}, which TRL passes and Triphase does not; {own}"
        have = f"the columns {', '.join(columns)}" if columns else "no further column"
        return (
            f"needs {missing[0]}, which is neither a column of the prompts' records ({have}) nor "
            f"an option; add the column, "
            f"or give options.{missing[0]}"
        )

    def note(self, columns: Sequence[str]) -> str | None:
        """The columns that it does not read, except those of our own formats, and the parameters that none fills."""
        others = [name for name in columns if name not in self._names and name not in _OF_THE_FORMATS]
        idle = sorted(self._names - {*_GIVEN, *columns, *self._options}) if self._by_name else []
        if others and not (self._open and self.as_trl):
            kept = f"; the default is used for its parameter {cells.named(idle)}, which is no column" if idle else ""
            return f"does not read the columns {cells.named(others)}{kept}"
        for name in idle:
            if near := get_close_matches(name, others, n=1, cutoff=_NEAR):
                return f"uses the default of {name}, which is no column; is the column {cells.named(near)} meant?"
        return None

    def call(self, asked: Mapping[str, Any]) -> Any:
        """The function's result for a batch."""
        responses, texts = asked["responses"], asked["texts"]
        if not self.as_trl:
            given = {"prompts": asked["prompts"], "responses": responses, "finished": asked["finished"]}
            if not self._by_name:
                return self._function(asked["prompts"], responses, **self._options)
            named = {name: value for name, value in {**asked["columns"], **given}.items() if name in self._names}
            return self._function(**{**self._absent(named, len(responses)), **named, **self._options})
        everything = {
            **asked["columns"],
            "prompts": [
                prompt[0]["content"] if is_text else prompt
                for prompt, is_text in zip(asked["prompts"], texts, strict=True)
            ],
            "completions": [
                text if is_text else [{"role": "assistant", "content": text}]
                for text, is_text in zip(responses, texts, strict=True)
            ],
            "finished": asked["finished"],
        }
        named = {name: value for name, value in everything.items() if self._open or name in self._names}
        return self._function(**{**self._absent(named, len(responses)), **named, **self._options})

    def _absent(self, named: Mapping[str, Any], count: int) -> dict[str, list[None]]:
        """Columns that it needs and no record of this batch has."""
        return {name: [None] * count for name in self._needed if name not in named and name not in self._options}
