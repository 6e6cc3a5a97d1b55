"""A language model that judges, behind an OpenAI-compatible chat endpoint: what its grades and its verdicts share.

The answer is JSON of a stated shape. What is judged stands between marks that are a hash of it, so that no response can
write the mark that would end it.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field

from triphase.errors import SettingsError
from triphase.rewards.options import options_of
from triphase.rewards.types import Answer, ScorerContext
from triphase.rollouts.client import JsonClient
from triphase.settings.base import Positive, Settings

_PATH = "/chat/completions"


class JudgeOptions(Settings):
    """The options of kind `judge`."""

    model: str
    """Its name at the server."""
    rubric: str
    """What a good response is."""
    lowest: float = 1.0
    highest: float = 10.0
    """The range of grades."""
    max_tokens: Positive = 512
    """Longest answer of the judge."""
    tries: Positive = 3
    """Questions about a response until one is answered with a grade."""
    parallel: Annotated[int, Field(ge=1, le=256)] = 8
    """Requests under way at the same time."""


class JudgeClient:
    """Asks a judge, again where its answer cannot be read."""

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
        """What the judge answers to ``shown``, which stands between two ``mark``; NaN where no try brings an answer.

        Args:
            kind: what is asked for.
            field: the name of the answer's one field, and its JSON schema.
            read: the number that a value of the field stands for; None asks again. It may raise KeyError or TypeError.

        Raises:
            ServerError: the judge is away, or refuses the question.
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
                found = read(json.loads(given["choices"][0]["message"]["content"])[name])
            except (KeyError, IndexError, TypeError, ValueError, RecursionError):
                continue  # the judge wrote something else
            if found is not None:
                return found
        return math.nan

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def mark_of(key: str) -> str:
    """The mark around what a question with this hash shows."""
    return key[:24]


def messages_of(answer: Answer) -> list[dict[str, str]]:
    """The conversation before the answer, as a chat endpoint takes it."""
    return [{"role": message.role, "content": message.content} for message in answer.prompt.messages]
