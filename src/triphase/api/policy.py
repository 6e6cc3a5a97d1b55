"""A policy that generates."""

from pathlib import Path

from triphase.api.memory_data import Place, Prompts, place_text, prompts_of
from triphase.errors import SettingsError
from triphase.models.roles import SharedModel
from triphase.phases.sampling import sample_responses
from triphase.records.types import Prompt
from triphase.runs.opening import open_any
from triphase.settings.loading import RUN_CONFIG, load_settings

_AT_ONCE = 64
"""Responses that are generated together."""
_COLDEST, _HOTTEST = 1e-6, 100.0
_TEMPERATURE, _MAX_TOKENS = 1.0, 256


class LoadedPolicy:
    """A language model with the trained adapter.

    Attributes:
        temperature, max_tokens: the defaults of `generate`: those of the run's PPO; 1 and 256 for a model that is not a
            run.
        max_length: maximum tokens of a prompt with its response.
    """

    def __init__(
        self, shared: SharedModel, adapter: str | None, *, temperature: float, max_tokens: int, max_length: int
    ) -> None:
        self._shared = shared
        self._adapter = adapter
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.max_length = max_length

    def generate(
        self,
        prompts: Prompts,
        *,
        n: int = 1,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int = 0,
    ) -> list[str]:
        """``n`` responses to each prompt: those to the first, then those to the second.

        A response depends on the seed, the prompt and its number: it is the same whatever else is in the call. A prompt
        that is given twice gets different responses the second time.

        Raises:
            DataError: a prompt is invalid, or exceeds the length of the model.
            SettingsError: ``n``, ``temperature`` or ``max_tokens`` is not above 0.
        """
        chosen = {
            "n": n,
            "temperature": self.temperature if temperature is None else temperature,
            "max_tokens": self.max_tokens if max_tokens is None else max_tokens,
        }
        kinds = {"n": "a whole number", "temperature": "a number", "max_tokens": "a whole number"}
        for name, value in chosen.items():
            whole = isinstance(value, int) or (name == "temperature" and isinstance(value, float))
            if isinstance(value, bool) or not whole or not value > 0:
                raise SettingsError(f"generate: {name} is {value!r:.40}; it must be {kinds[name]} above 0")
        if not _COLDEST <= chosen["temperature"] <= _HOTTEST:
            raise SettingsError(
                f"generate: temperature is {temperature}; it must lie between {_COLDEST:g} and {_HOTTEST:g}"
            )
        found = sample_responses(
            self._shared,
            _with_distinct_ids(prompts_of(prompts)),
            adapter=self._adapter,
            model="policy",
            count=n,
            temperature=chosen["temperature"],
            max_response_tokens=int(chosen["max_tokens"]),
            max_length=self.max_length,
            batch_size=_AT_ONCE,
            seed=seed,
        )
        return [response.text for _, response, _ in found]


def load_policy(model: Place, name: str | None = None, *, checkpoint: int | None = None) -> LoadedPolicy:
    """The newest policy of a run; or a model by directory, hub id, or embedded name (`embedded:smollm2`).

    Args:
        model: a `Run`, the directory of one, or a model.
        name: a policy of a run, `sft`, `ppo` or a variant; the newest by default.
        checkpoint: an iteration of PPO, whose policy is loaded.

    Raises:
        TriphaseError: there is no such policy, or the model cannot be opened.
    """
    place = place_text("load_policy: model", model)
    shared, adapter, max_length = open_any(place, checkpoint, name)
    temperature, max_tokens = _TEMPERATURE, min(_MAX_TOKENS, max_length // 2)
    if (Path(place) / RUN_CONFIG).is_file():
        ppo = load_settings(Path(place)).ppo
        temperature, max_tokens = ppo.temperature, ppo.max_response_tokens
    return LoadedPolicy(shared, adapter, temperature=temperature, max_tokens=max_tokens, max_length=max_length)


def _with_distinct_ids(prompts: list[Prompt]) -> list[Prompt]:
    """The prompts, with a separate id for each repetition."""
    count: dict[str, int] = {}
    found = []
    for prompt in prompts:
        number = count[prompt.id] = count.get(prompt.id, 0) + 1
        found.append(prompt if number == 1 else Prompt(f"{prompt.id}/{number}", prompt.messages))
    return found
