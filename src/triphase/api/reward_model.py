"""A reward model that scores."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from triphase.api.memory_data import Place, Prompts, place_text, prompts_of
from triphase.errors import DataError, RunError
from triphase.models.roles import SharedModel
from triphase.rewards.model import score_samples
from triphase.runs.opening import open_run
from triphase.settings.loading import RUN_CONFIG
from triphase.settings.phase_names import REWARD
from triphase.tokens.encoding import encode_answer
from triphase.training.artifacts import is_whole
from triphase.training.reward_finals import load_reward_model as load_into


class RewardModel:
    """The reward model of a run, calibrated: on samples of the policy that PPO starts from, scores have mean 0 and
    standard deviation 1.

    Attributes:
        max_length: maximum tokens of a prompt with its response.
    """

    def __init__(self, shared: SharedModel, *, max_length: int, max_tokens: int | None = None) -> None:
        self._shared = shared
        self._max_tokens = max_tokens
        self.max_length = max_length

    def score(
        self, prompts: Prompts, responses: Iterable[str], *, finished: Sequence[bool] | None = None
    ) -> list[float]:
        """The score of each response to the prompt with the same index.

        Args:
            finished: whether the end of each response was generated; by default all. A response that was cut has no end
                of turn, and gets a different score.

        Raises:
            DataError: the numbers of prompts and responses differ, a response is not a text, or one has no tokens or
                exceeds the length.
        """
        asked = prompts_of(prompts)
        if isinstance(responses, str):
            raise DataError("score: responses is a single string; give a list of responses")
        texts = list(responses)
        for number, response in enumerate(texts, start=1):
            if not isinstance(response, str):
                raise DataError(f"score: response {number} is {type(response).__name__}; give a string")
        given: Any = [True] * len(texts) if finished is None else finished
        ends: list[Any] = list(given) if isinstance(given, Iterable) else [None]
        if not all(end in (True, False) for end in ends):
            raise DataError("score: finished: give a list of True and False, one for each response")
        if not len(asked) == len(texts) == len(ends):
            raise DataError(
                f"score: {len(asked)} prompts, {len(texts)} responses and {len(ends)} values of "
                f"finished; give the same number of each"
            )
        template, samples = self._shared.template, []
        for number, (prompt, response, end) in enumerate(zip(asked, texts, ends, strict=True), start=1):
            sample = encode_answer(prompt, response, template, finished=end, max_length=self.max_length)
            if sample is None:
                raise DataError(f"score: response {number} has no tokens and cannot be scored; remove it")
            samples.append(sample)
        found: list[float] = score_samples(self._shared, samples, max_tokens=self._max_tokens).tolist()
        return found


def load_reward_model(run: Place) -> RewardModel:
    """The reward model of a run, by the `Run` or its directory.

    Raises:
        RunError: there is none, or it is damaged.
    """
    path = Path(place_text("load_reward_model: run", run))
    if not (path / RUN_CONFIG).is_file():
        raise RunError(f"{path}: is not a run directory (no {RUN_CONFIG} in it); give a run directory")
    opened = open_run(path)
    if not is_whole(opened.artifact(REWARD)):
        raise RunError(f"{path}: has no reward model; `triphase reward` or triphase.train_reward_model trains one")
    shared, settings = opened.model(), opened.settings
    load_into(shared, opened.artifact(REWARD))
    return RewardModel(shared, max_length=settings.model.max_length, max_tokens=settings.reward.tokens_at_once)
