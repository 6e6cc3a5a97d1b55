"""The run's reward model as a scorer: the reward adapter and its head on the base that all roles share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from triphase.batches.order import microbatches
from triphase.batches.padding import pad_batch
from triphase.models.roles import SharedModel
from triphase.rewards.types import Answer, Answers, Scorer, ScorerContext, Scores
from triphase.tokens.encoding import Encoded


class ModelScorer(Scorer):
    """Scores by the reward model, which is calibrated on samples of the SFT policy."""

    name = "the reward model"
    calibrated = True

    def __init__(self, shared: SharedModel, *, max_tokens: int | None = None) -> None:
        self._shared = shared
        self._max_tokens = max_tokens

    @torch.no_grad()
    def score(self, answers: Sequence[Answer]) -> Scores:
        """See Scorer. Where the caller has the trunk states, only the adapted layers run."""
        if not isinstance(answers, Answers):
            samples = [answer.sample or self._encoded(answer) for answer in answers]
            return Scores(tuple(score_samples(self._shared, samples, max_tokens=self._max_tokens).tolist()))
        found = torch.zeros(len(answers), device=self._shared.device)
        for numbers, batch, states in answers.parts():
            found[numbers] = self._shared.scores(batch, states)
        return Scores(tuple(found.tolist()))

    def _encoded(self, answer: Answer) -> Encoded:
        template = self._shared.template
        response = template.response_ids(answer.response, finished=answer.finished)
        return Encoded(tuple(template.prompt_ids(answer.prompt.messages)), tuple(response))


def open_scorer(context: ScorerContext) -> ModelScorer:
    """The scorer of a run with a reward model."""
    if context.reward_model is None:
        raise ValueError("the reward model scores only within a run")
    return ModelScorer(context.reward_model(), max_tokens=context.max_tokens)


@torch.no_grad()
def score_samples(shared: SharedModel, samples: Sequence[Encoded], *, max_tokens: int | None) -> Tensor:
    """(N,) scores of encoded samples, on the CPU, in order."""
    scores = torch.zeros(len(samples))
    for indices in microbatches([sample.length for sample in samples], max_tokens=max_tokens):
        batch = pad_batch([samples[index] for index in indices], pad_id=shared.template.pad_id, device=shared.device)
        scores[indices] = shared.scores(batch, shared.trunk(batch)).cpu()
    return scores
