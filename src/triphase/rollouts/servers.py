"""Sampling on vLLM servers, through their OpenAI-compatible interface.

Before each rollout the policy's adapter is written to disk and every server loads it in place of the one before (they
must run with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and see the file under the same path). Requests
carry token ids and ask for token ids, so nothing is decoded and encoded again. Every parameter of sampling is said
outright: a server would otherwise take those of the model's generation_config. The trainer computes the
log-probabilities itself, so those of the server are not asked for.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from triphase.records.files import fingerprint
from triphase.rollouts.client import JsonClient
from triphase.rollouts.types import Generated, Request
from triphase.settings.services import RolloutSettings

_SETTING = "rollouts.addresses"
_WEIGHTS = "adapter_model.safetensors"
_HINT = "run it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"


class ServerGenerator:
    """Samples on the servers of ``settings``, from the adapter that ``publish`` writes."""

    def __init__(
        self,
        settings: RolloutSettings,
        publish: Callable[[], Path],
        *,
        ends: Sequence[int],
        vocabulary_size: int,
        absent: Sequence[int] = (),
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """``publish`` writes the policy's adapter to a directory, as peft reads it, and returns that directory.

        ``ends`` are the tokens that end a response.

        ``absent`` are ids below ``vocabulary_size`` that are no token; the servers are asked not to sample them.
        ``check`` is called a few times a second while a server is waited for, and may raise to end the wait.
        """
        self._settings = settings
        self._publish = publish
        self._ends = list(ends)
        self._vocabulary_size = vocabulary_size
        self._absent = frozenset(absent)
        self._clients = [JsonClient(address, settings, setting=_SETTING, check=check) for address in settings.addresses]
        self._healthy = False

    def generate(self, requests: Sequence[Request], *, temperature: float, max_response_tokens: int) -> list[Generated]:
        """One response for each request, in order; the servers are asked in turn.

        Raises:
            ServerError: a server is away, does not take the adapter, or answers wrongly.
        """
        self._require_health()
        name, version = self._load_adapter()
        fixed: dict[str, Any] = {
            "model": name,
            "temperature": temperature,
            "max_tokens": max_response_tokens,
            "stop_token_ids": self._ends,
            "ignore_eos": True,  # these end a response, and no other token that the server's copy of the model may name
            "return_token_ids": True,
            "cache_salt": version,  # keys and values of the adapter before must not be used for this one
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
        }
        if self._absent:
            fixed["logit_bias"] = {str(token): -100.0 for token in sorted(self._absent)}

        def ask(index: int) -> Generated:
            client, request = self._clients[index % len(self._clients)], requests[index]
            body = {**fixed, "prompt": list(request.prompt), "seed": request.seed}
            return self._response(client, client.post("/v1/completions", body), max_response_tokens)

        pool = ThreadPoolExecutor(self._settings.parallel, thread_name_prefix="rollout")
        try:
            return list(pool.map(ask, range(len(requests))))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.close()

    def _require_health(self) -> None:
        if not self._healthy:
            for client in self._clients:
                client.ask("GET", "/health")
            self._healthy = True

    def _load_adapter(self) -> tuple[str, str]:
        """The adapter's name on the servers, which is the run's own, and the sum of its weights."""
        directory = self._publish().resolve()
        name = f"triphase-{hashlib.sha256(str(directory).encode()).hexdigest()[:12]}"
        body = {"lora_name": name, "lora_path": str(directory), "load_inplace": True}
        for client in self._clients:
            client.post("/v1/load_lora_adapter", body, plain=True, hint=_HINT)
        return name, fingerprint(directory / _WEIGHTS)

    def _response(self, client: JsonClient, answer: Any, limit: int) -> Generated:
        try:
            ids = answer["choices"][0]["token_ids"]
        except (KeyError, IndexError, TypeError):
            ids = None
        path = "/v1/completions"
        if not isinstance(ids, list):
            raise client.error(path, "answers without token_ids; a vLLM from 0.10.2 on gives them")
        if not ids or len(ids) > limit:
            raise client.error(path, f"answers with {len(ids)} tokens, where 1 to {limit} were asked for")
        for token in ids:
            if type(token) is not int or not 0 <= token < self._vocabulary_size or token in self._absent:
                raise client.error(
                    path, f"answers with the token {client.shown(str(token), 20)}, which this model does not have"
                )
        finished = ids[-1] in self._ends
        if not set(ids[:-1]).isdisjoint(self._ends) or (not finished and len(ids) < limit):
            raise client.error(path, f"ends a response after {len(ids)} tokens, which is not where it ends")
        return Generated(tuple(ids), finished)
