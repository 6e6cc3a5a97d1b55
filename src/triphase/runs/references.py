"""The reference samples on which the reward model's score is calibrated."""

import logging
from collections.abc import Sequence

from triphase.errors import DataError
from triphase.models.roles import SharedModel
from triphase.phases.sampling import sample_responses
from triphase.records.types import Prompt, Response
from triphase.runs.session import Run
from triphase.tokens.encoding import Encoded, encode_answer, encode_prompt

_log = logging.getLogger(__name__)
SFT_MODEL = "sft"
"""The name of the SFT policy's responses in the store."""


def reference_samples(run: Run, shared: SharedModel) -> list[Encoded]:
    """Responses of the SFT policy to training prompts: from the store, or sampled now if it has none.

    Raises:
        DataError: none of them has a token.
    """
    settings = run.settings
    prompts = {prompt.id: prompt for prompt in run.prompts("train")}
    wanted = settings.reward.calibration_samples
    with run.store() as store:
        stored = [item for item in store.responses() if item.model == SFT_MODEL and item.prompt_id in prompts]
    limit, template = settings.model.max_length, shared.template
    each: list[Encoded | None] = [
        _encoded(prompts[item.prompt_id], item, run, shared) for item in _spread(stored, wanted)
    ]
    if not each:
        chosen = list(prompts.values())[:wanted]
        count = max(1, wanted // len(chosen))
        with run.progress.track("samples for calibration", len(chosen) * count, unit="responses") as track:

            def finished(number: int) -> None:
                track.advance(number)
                run.raise_if_stop_requested()

            found = sample_responses(
                shared,
                chosen,
                adapter=run.reference_adapter,
                model=SFT_MODEL,
                count=count,
                temperature=settings.ppo.temperature,
                max_response_tokens=settings.ppo.max_response_tokens,
                max_length=settings.model.max_length,
                batch_size=settings.sampling.batch_size,
                seed=settings.seed,
                on_finished=finished,
            )
        # The sampled ids: a text that is encoded again may have other ids, and more.
        each = [
            Encoded(encode_prompt(prompt, template, room=len(written.ids), max_length=limit), written.ids)
            if written.ids
            else None
            for prompt, _, written in found
        ]
    encoded = [sample for sample in each if sample is not None]
    if not encoded:
        raise DataError(
            f"none of {len(each)} responses of the SFT policy has a token, so the score cannot be calibrated; allow "
            "longer responses (max_response_tokens), or train the SFT policy longer"
        )
    return encoded


def _encoded(prompt: Prompt, response: Response, run: Run, shared: SharedModel) -> Encoded | None:
    """Ids of a response in the store; None if there are none, or they exceed the length: encoding may give more."""
    limit = run.settings.model.max_length
    try:
        return encode_answer(prompt, response.text, shared.template, finished=response.finished, max_length=limit)
    except DataError as error:
        _log.warning("left out of the calibration: %s", error)
        return None


def _spread(items: Sequence[Response], count: int) -> list[Response]:
    """``count`` of them at equal distances."""
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]
