"""The responses of each side of a comparison to the same prompts, sampled alike. Completed samples are kept.

A policy is identified by the checksums of its files: one that was retrained is sampled again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triphase.models.roles import SharedModel
from triphase.monitoring.progress import Progress
from triphase.phases.sampling import sample_responses
from triphase.records.files import append_json_lines
from triphase.records.types import Prompt
from triphase.reports.file_shapes import shaped_rows
from triphase.runs.evaluation import acting, encoded, sequence_kl
from triphase.runs.opening import open_any, open_run
from triphase.runs.sides import ComparedPolicy
from triphase.settings.phase_names import SFT

RESPONSES = "responses.jsonl"
_AT_ONCE = 64
_KEPT = 8 * _AT_ONCE
"""Number of responses after which completed work is stored."""
Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Asking:
    """Sampling settings, the same for all policies."""

    temperature: float
    max_response_tokens: int
    samples: int
    seed: int


@dataclass(frozen=True, slots=True)
class SpokenRow:
    """A line of `responses.jsonl`."""

    side: str
    prompt_id: str
    prompt: str
    sample: int
    response: str
    finished: bool
    tokens: int
    reference_kl: float | None


@dataclass(frozen=True, slots=True)
class Spoken:
    """One response of one side, with its prompt; ``row`` is its line of `responses.jsonl`."""

    side: ComparedPolicy
    prompt: Prompt
    row: dict[str, Any]

    @property
    def key(self) -> Key:
        """Its key in a comparison."""
        return _key(self.row)

    @property
    def said(self) -> tuple[Prompt, str, bool]:
        """In the form that scorers take."""
        return self.prompt, str(self.row["response"]), bool(self.row["finished"])


def spoken_by(
    sides: Sequence[ComparedPolicy], prompts: Sequence[Prompt], asking: Asking, directory: Path, progress: Progress
) -> list[Spoken]:
    """Every response of every side, by side, prompt and number; those that are missing are sampled."""
    path, texts = directory / RESPONSES, {prompt.id: prompt.text for prompt in prompts}
    rows = [row for row in shaped_rows(path, SpokenRow) if texts.get(row["prompt_id"]) == row["prompt"]]
    kept = {_key(row): row for row in rows}
    missing = {
        side: [p for p in prompts if any((side.digest, p.id, n) not in kept for n in range(asking.samples))]
        for side in sides
    }
    done = sum(len(prompts) - len(some) for some in missing.values()) * asking.samples
    total, step = len(sides) * len(prompts) * asking.samples, max(1, _KEPT // asking.samples)
    with progress.track("sampling", total, done=done, unit="responses") as track:
        for side, some in missing.items():
            speaker = _Speaker(side) if some else None
            for start in range(0, len(some) if speaker else 0, step):
                assert speaker is not None  # noqa: S101 - there is something to sample
                new = {_key(row): row for row in speaker.rows(some[start : start + step], asking, track.advance)}
                append_json_lines(path, [row for key, row in new.items() if key not in kept])
                kept = new | kept
    return [
        Spoken(side, prompt, kept[side.digest, prompt.id, number])
        for side in sides
        for prompt in prompts
        for number in range(asking.samples)
    ]


class _Speaker:
    """The policy of one side, opened."""

    def __init__(self, side: ComparedPolicy) -> None:
        self._side = side
        self._run = None if side.run is None else open_run(side.run)
        self._base: SharedModel | None = None
        if self._run is None:
            self._model, self._adapter, self._max_length = open_any(side.name)
        else:
            self._base = self._run.model()
            self._model, self._adapter = acting(self._run, self._base, side.policy, side.final)
            self._max_length = self._run.settings.model.max_length

    def rows(
        self, prompts: Sequence[Prompt], asking: Asking, on_finished: Callable[[int], None]
    ) -> Iterator[dict[str, Any]]:
        """Its responses to some prompts, as lines of a file."""
        found = sample_responses(
            self._model,
            prompts,
            adapter=self._adapter,
            model=self._side.digest,
            count=asking.samples,
            temperature=asking.temperature,
            max_response_tokens=asking.max_response_tokens,
            max_length=self._max_length,
            batch_size=_AT_ONCE,
            seed=asking.seed,
            on_finished=on_finished,
        )
        moved: list[float] | list[None] = [None] * len(found)
        if self._run is not None and self._base is not None:
            actor, samples = (self._model, self._adapter), encoded(self._base, found)
            moved = [0.0] * len(found)  # the SFT policy is the reference
            if self._side.policy != SFT:
                moved = sequence_kl(self._run, self._base, actor, samples, temperature=asking.temperature)
        for index, (prompt, response, generated) in enumerate(found):
            yield {
                "side": self._side.digest,
                "name": self._side.name,
                "prompt_id": prompt.id,
                "prompt": prompt.text,
                "sample": index % asking.samples,
                "response": response.text,
                "finished": response.finished,
                "tokens": len(generated.ids),
                "reference_kl": moved[index],
            }


def _key(row: dict[str, Any]) -> Key:
    return str(row["side"]), str(row["prompt_id"]), int(row["sample"])
