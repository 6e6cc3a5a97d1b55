"""A language model that judges, behind an OpenAI-compatible chat endpoint: the common part of grades and verdicts.

The reply is JSON of a given schema. What is judged is enclosed in marks that are a hash of it, so that no response can
contain the closing mark.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field

from triphase.errors import SettingsError
from triphase.rewards.options import options_of
from triphase.rewards.types import Answer, ScorerContext
from triphase.rollouts.client import JsonClient
from triphase.settings.base import Positive, Settings

_PATH = "/chat/completions"
_FENCED = re.compile(r"\s*```(?:json)?[ \t]*\n([^`]*)```\s*")


class JudgeOptions(Settings):
    """The options of kind `judge`."""

    model: Annotated[str, Field(min_length=1)]
    """The model's name at the server."""
    rubric: Annotated[str, Field(min_length=1)]
    """The criteria of a good response."""
    lowest: float = 1.0
    highest: float = 10.0
    """The range of grades."""
    max_tokens: Positive = 512
    """Longest reply of the judge."""
    tries: Positive = 3
    """Maximum number of requests for a response until a reply has a grade."""
    parallel: Annotated[int, Field(ge=1, le=256)] = 8
    """Requests in progress at the same time."""


class JudgeClient:
    """Sends requests to a judge, again if the reply cannot be parsed."""

    def __init__(self, context: ScorerContext) -> None:
        settings, setting = context.settings, context.setting
        self.options = options_of(JudgeOptions, context)
        if settings.address is None:
            raise SettingsError(f"{setting}.address: is missing; kind judge needs it (http://HOST:PORT/v1)")
        self.name = f"the judge {self.options.model}"
        self._client = JsonClient(settings.address, settings, setting=f"{setting}.address", check=context.check)

    def ask(
        self,
        system: str,
        shown: Mapping[str, Any],
        *,
        mark: str,
        kind: str,
        field: tuple[str, Mapping[str, Any]],
        read: Callable[[Any], float | None],
    ) -> float:
        """The judge's reply about ``shown``, which is enclosed in two ``mark``; NaN if no try returns one.

        Args:
            kind: what is requested.
            field: the name of the reply's one field, and its JSON schema.
            read: converts a value of the field to a number; None tries again. It may raise KeyError or TypeError.

        Raises:
            ServerError: the judge is unreachable, or rejects the request.
        """
        name, schema = field
        shape = {"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": False}
        question = {
            "model": self.options.model,
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": f"{mark}\n{json.dumps(shown, ensure_ascii=False)}\n{mark}"},
            ],
            "temperature": 0,
            "max_tokens": self.options.max_tokens,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": kind, "strict": True, "schema": shape},
            },
        }
        for number in range(self.options.tries):
            given = self._client.post(_PATH, {**question, "seed": number})
            try:
                found = read(json.loads(_unfenced(given["choices"][0]["message"]["content"]))[name])
            except (KeyError, IndexError, TypeError, ValueError, RecursionError):
                continue  # the judge wrote something else
            if found is not None:
                return found
        return math.nan

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _unfenced(text: str) -> str:
    """A reply without the fence of a code block around the whole of it, which some models write although they were
    asked for JSON alone."""
    found = _FENCED.fullmatch(text)
    return text if found is None else found[1]


def mark_of(key: str) -> str:
    """The mark around the content of a request with this hash."""
    return key[:24]


def messages_of(answer: Answer) -> list[dict[str, str]]:
    """The conversation before the reply, as a chat endpoint expects it."""
    return [{"role": message.role, "content": message.content} for message in answer.prompt.messages]
