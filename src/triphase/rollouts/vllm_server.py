"""One vLLM server as used by rollouts: what it serves, loading an adapter, samples and log-probabilities.

Requests and responses carry token ids, so nothing is decoded and encoded again. Every sampling parameter is given
explicitly: a server would otherwise use those of the model's generation_config.
"""

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triphase.errors import ServerAway, ServerError, SettingsError
from triphase.rollouts.client import JsonClient
from triphase.rollouts.types import Generated, Request

_COMPLETIONS, _LOAD, _MODELS = "/v1/completions", "/v1/load_lora_adapter", "/v1/models"
_FLAGS = "run it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
_HEALTH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Sampling:
    """What all requests of a rollout have in common.

    Attributes:
        adapter: its name on the servers.
        version: checksum of its weights: what a server cached under the previous adapter must not be used for this one.
        ends: tokens that end a response.
        absent: ids below ``vocabulary_size`` without a token; servers are told not to sample them.
    """

    adapter: str
    version: str
    temperature: float
    limit: int
    ends: tuple[int, ...]
    absent: frozenset[int]
    vocabulary_size: int

    def body(self, request: Request) -> dict[str, Any]:
        """The body of a request to a server."""
        bias = {"logit_bias": {str(token): -100.0 for token in sorted(self.absent)}} if self.absent else {}
        return bias | {
            "model": self.adapter,
            "prompt": list(request.prompt),
            "seed": request.seed,
            "temperature": self.temperature,
            "max_tokens": self.limit,
            "stop_token_ids": list(self.ends),
            "ignore_eos": True,  # only `ends` end a response, whatever the server's model defines
            "return_token_ids": True,
            "logprobs": 0,
            "cache_salt": self.version,
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
        }


class VLLMServer:
    """A server at one address.

    Attributes:
        served: the name of the base on it, and where it has its files; known after ``look``.
    """

    def __init__(self, client: JsonClient) -> None:
        self.client = client
        self.served, self._root = "", ""

    @property
    def address(self) -> str:
        """The address of the server."""
        return self.client.address

    def require_up(self, *, tries: int | None = None) -> None:
        """Check whether it is up.

        Raises:
            ServerAway, ServerError: it is not.
        """
        self.client.ask("GET", "/health", tries=tries, seconds=_HEALTH_SECONDS)

    def look(self, room: int | None) -> None:
        """Determine what it serves; ``room`` is the maximum tokens of a prompt with its response.

        Raises:
            ServerError: it serves no model, or only shorter texts.
        """
        answer = self.client.parsed(_MODELS, self.client.ask("GET", _MODELS))
        try:
            bases = [model for model in answer["data"] if model.get("parent") is None]
            self.served, self._root = str(bases[0]["id"]), str(bases[0].get("root") or "")
            longest = bases[0].get("max_model_len")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise self.client.error(_MODELS, "does not say which model it serves, as vLLM does") from None
        if room is not None and isinstance(longest, int) and longest < room:
            raise self.client.error(
                _MODELS, f"serves texts of at most {longest} tokens, but a prompt with its response may have {room}; "
                f"start it with --max-model-len {room}"
            )  # fmt: skip

    def called(self) -> str:
        """Its base, for messages."""
        return self.client.shown(self.served if self._root in ("", self.served) else f"{self.served} ({self._root})")

    def load(self, adapter: str, directory: Path, rank: int) -> None:
        """Load an adapter in place of the previous one of that name.

        Raises:
            ServerAway: it does not respond.
            ServerError: it rejects the adapter.
        """
        body = {"lora_name": adapter, "lora_path": str(directory), "load_inplace": True}
        content = json.dumps(body).encode()
        try:
            try:
                self.client.ask("POST", _LOAD, content, tries=1)
            except ServerAway as error:
                if "max_lora_rank" in str(error):  # vLLM returns status 500 for it, which no retry fixes
                    raise ServerError(
                        f"{error} (adapters.rank is {rank}: start it with --max-lora-rank {rank_limit(rank)}, or lower "
                        "adapters.rank)"
                    ) from None
                self.client.ask("POST", _LOAD, content)
        except ServerAway:
            raise
        except ServerError as error:
            told = ServerError(f"{error} ({_FLAGS})" if error.status is not None else str(error))
            told.status = error.status
            raise told from None

    def sample(self, request: Request, sampling: Sampling, *, tries: int | None = None) -> Generated:
        """A response.

        Raises:
            ServerAway, ServerError: there is none, or an invalid one.
        """
        answer = self.client.post(_COMPLETIONS, sampling.body(request), tries=tries)
        choice = self._choice(answer)
        ids = choice.get("token_ids")
        if not isinstance(ids, list):
            raise self.client.error(_COMPLETIONS, "responds without token_ids; vLLM returns them since 0.10.2")
        self._require_response(ids, sampling)
        given = (choice.get("logprobs") or {}).get("token_logprobs")
        return Generated(tuple(ids), ids[-1] in sampling.ends, self._logprobs(given, len(ids)))

    def logprobs(self, ids: Sequence[int], adapter: str | None) -> list[float]:
        """Log-probability of each of ``ids`` but the first, given those before it, at temperature 1; None is the base.

        Raises:
            ServerAway, ServerError: it does not return them.
        """
        model = self.served if adapter is None else adapter
        body = {"model": model, "prompt": list(ids), "max_tokens": 1, "prompt_logprobs": 0, "temperature": 1.0}
        found: Any = self._choice(self.client.post(_COMPLETIONS, body)).get("prompt_logprobs")
        try:
            given = [found[place][str(ids[place])]["logprob"] for place in range(1, len(ids))]
        except (KeyError, IndexError, TypeError):
            given = None
        return list(self._logprobs(given, len(ids) - 1))

    def _choice(self, answer: Any) -> dict[str, Any]:
        try:
            choice = answer["choices"][0]
        except (KeyError, IndexError, TypeError):
            choice = None
        if not isinstance(choice, dict):
            raise self.client.error(_COMPLETIONS, "responds without token_ids and without a choice")
        return choice

    def _require_response(self, ids: list[Any], sampling: Sampling) -> None:
        limit, error = sampling.limit, self.client.error
        if not ids or len(ids) > limit:
            raise error(_COMPLETIONS, f"responds with {len(ids)} tokens, but 1 to {limit} were requested")
        if (token := first_foreign(ids, sampling.vocabulary_size, sampling.absent)) is not None:
            raise error(
                _COMPLETIONS, f"responds with the token {self.client.shown(token, 20)}, which this model does not have"
            )
        if not set(ids[:-1]).isdisjoint(sampling.ends) or (ids[-1] not in sampling.ends and len(ids) < limit):
            raise error(_COMPLETIONS, f"ends a response after {len(ids)} tokens, which is not an end of the response")

    def _logprobs(self, given: Any, count: int) -> tuple[float, ...]:
        if not isinstance(given, list) or len(given) != count:
            raise self.client.error(_COMPLETIONS, "responds without the requested log-probabilities")
        for value in given:
            if type(value) not in (float, int) or not math.isfinite(value) or value > 1e-3:
                raise self.client.error(
                    _COMPLETIONS, f"responds with {self.client.shown(str(value), 20)}, which is not a log-probability"
                )
        return tuple(float(value) for value in given)


def first_foreign(ids: Sequence[Any], vocabulary_size: int, absent: Collection[int]) -> str | None:
    """The first of ``ids`` that is not a token of the model; None if all are."""
    for token in ids:
        if type(token) is not int or not 0 <= token < vocabulary_size or token in absent:
            return str(token)
    return None


def rank_limit(rank: int) -> int:
    """The lowest --max-lora-rank supported by vLLM for adapters of this rank.

    Raises:
        SettingsError: none does.
    """
    for limit in (8, 16, 32, 64, 128, 256, 320, 512):
        if limit >= rank:
            return limit
    raise SettingsError(f"adapters.rank {rank} is above 512, the highest that vLLM supports; lower it")
