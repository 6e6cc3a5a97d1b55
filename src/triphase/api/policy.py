"""A policy that writes."""

from pathlib import Path

from triphase.api.rows import Place, Prompts, prompts_of
from triphase.errors import SettingsError
from triphase.models.roles import SharedModel
from triphase.phases.sampling import sample_responses
from triphase.records.types import Prompt
from triphase.runs.opening import open_any
from triphase.settings.loading import RUN_CONFIG, load_settings

_AT_ONCE = 64
"""Responses that are written side by side."""
_TEMPERATURE, _MAX_TOKENS = 1.0, 256


class LoadedPolicy:
    """A language model with the adapter that was trained.

    Attributes:
        temperature, max_tokens: the defaults of `generate`: those of the run's PPO; 1 and 256 of a
            model that is no run.
        max_length: most tokens of a prompt with its response.
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

        A response follows from the seed, the prompt and its number: it is the same whatever else is asked beside it. A
        prompt that is given twice gets other responses the second time.

        Raises:
            DataError: a prompt is none, or passes the length of the model.
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
        found = sample_responses(
            self._shared,
            _told_apart(prompts_of(prompts)),
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
        name: of a policy of a run, `sft`, `ppo` or a variant; the newest by default.
        checkpoint: an iteration of PPO whose policy is meant.

    Raises:
        TriphaseError: there is no such policy, or the model cannot be opened.
    """
    shared, adapter, max_length = open_any(str(model), checkpoint, name)
    temperature, max_tokens = _TEMPERATURE, min(_MAX_TOKENS, max_length // 2)
    if (Path(model) / RUN_CONFIG).is_file():
        ppo = load_settings(Path(model)).ppo
        temperature, max_tokens = ppo.temperature, ppo.max_response_tokens
    return LoadedPolicy(shared, adapter, temperature=temperature, max_tokens=max_tokens, max_length=max_length)


def _told_apart(prompts: list[Prompt]) -> list[Prompt]:
    """The prompts, with an id of its own for each that comes again."""
    count: dict[str, int] = {}
    found = []
    for prompt in prompts:
        number = count[prompt.id] = count.get(prompt.id, 0) + 1
        found.append(prompt if number == 1 else Prompt(f"{prompt.id}/{number}", prompt.messages))
    return found
