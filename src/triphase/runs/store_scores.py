"""Scores by the reward model of a run for the responses of any store."""

from collections.abc import Sequence
from pathlib import Path

from triphase.records.types import Prompt, Response
from triphase.rewards.model import score_samples
from triphase.runs.opening import open_run
from triphase.settings.phase_names import REWARD
from triphase.tokens.encoding import Encoded, encode_answer
from triphase.training.reward_finals import load_reward_model


def scores_by(path: Path, given: Sequence[tuple[Prompt, Response]]) -> dict[str, float]:
    """The scores of a run's reward model by response id; its calibration makes those of several runs comparable.

    A response without tokens gets no score.

    Raises:
        DataError: a prompt with its response exceeds the run's `model.max_length`.
    """
    if not given:
        return {}
    run = open_run(path)
    shared = run.model()
    load_reward_model(shared, run.artifact(REWARD))
    template, limit = shared.template, run.settings.model.max_length
    ids: list[str] = []
    samples: list[Encoded] = []
    for prompt, response in given:
        sample = encode_answer(prompt, response.text, template, finished=response.finished, max_length=limit)
        if sample is not None:
            ids.append(response.id)
            samples.append(sample)
    found = score_samples(shared, samples, max_tokens=run.settings.reward.tokens_at_once).tolist()
    return dict(zip(ids, found, strict=True))
