"""The run's reward model as a scorer: the reward adapter and its head on the base that all roles share.

For an ensemble the total is the combined score, and its members' disagreement is reported too; so is the score of a
witness, if there is one. Both are monitored and not optimized by themselves.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from triphase.batches.order import microbatches
from triphase.batches.padding import pad_batch
from triphase.batches.sharing import Batch
from triphase.batches.transfers import index_on
from triphase.models.roles import SharedModel
from triphase.rewards.types import Answer, Answers, Scorer, ScorerContext, Scores
from triphase.tokens.encoding import Encoded
from triphase.training.distributed.types import ALONE, Strategy

if TYPE_CHECKING:
    from triphase.rewards.types import Part

DISAGREEMENT, WITNESS_SCORE = "reward_disagreement", "witness_score"
"""What is reported with the total, by the names of the metrics."""


class ModelScorer(Scorer):
    """Scores by the reward model, which is calibrated on samples of the SFT policy."""

    name = "the reward model"
    calibrated = True

    def __init__(self, shared: SharedModel, *, max_tokens: int | None = None, strategy: Strategy = ALONE) -> None:
        self._shared = shared
        self._max_tokens = max_tokens
        self._strategy = strategy

    @torch.no_grad()
    def score(self, answers: Sequence[Answer]) -> Scores:
        """See Scorer. If the caller has the trunk states, only the adapted layers run; each rank has those of its
        share, and the scores of all."""
        if isinstance(answers, Answers):
            # Rank 0 may score by a server or a function before this, for longer than parallel.timeout_seconds.
            self._strategy.from_lead(lambda: None)
            parts = answers.parts()
        else:
            samples = [answer.sample or self._encoded(answer) for answer in answers]
            parts = _parts(self._shared, samples, max_tokens=self._max_tokens)
        total = torch.zeros(len(answers), device=self._shared.device)
        names = (DISAGREEMENT,) * (self._shared.ensemble is not None) + (WITNESS_SCORE,) * (
            self._shared.witness is not None
        )
        monitors = {name: torch.zeros_like(total) for name in names}
        for numbers, batch, states in parts:
            scores, beside = self._scored(batch, states)
            own = index_on(numbers, total.device)
            total[own] = scores
            for name, values in beside.items():
                monitors[name][own] = values
        if isinstance(answers, Answers):
            self._strategy.sum_tensors([total, *monitors.values()])
        return Scores(tuple(total.tolist()), monitors={name: tuple(each.tolist()) for name, each in monitors.items()})

    def _scored(self, batch: Batch, states: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        shared, beside = self._shared, dict[str, Tensor]()
        members = shared.member_scores(batch, states)
        scores = shared.total(members, batch)
        if shared.ensemble is not None:
            beside[DISAGREEMENT] = shared.ensemble.disagreement(members)
        if shared.witness is not None:
            beside[WITNESS_SCORE] = shared.scores_by(shared.witness, batch, states)
        return scores, beside

    def _encoded(self, answer: Answer) -> Encoded:
        template = self._shared.template
        response = template.response_ids(answer.response, finished=answer.finished)
        return Encoded(tuple(template.prompt_ids(answer.prompt.messages)), tuple(response))


def open_scorer(context: ScorerContext) -> ModelScorer:
    """The scorer of a run with a reward model."""
    if context.reward_model is None:
        raise ValueError("the reward model scores only within a run")
    return ModelScorer(context.reward_model(), max_tokens=context.max_tokens, strategy=context.strategy)


@torch.no_grad()
def score_samples(shared: SharedModel, samples: Sequence[Encoded], *, max_tokens: int | None) -> Tensor:
    """(N,) scores of encoded samples, on the CPU, in order."""
    return figures_of(shared, samples, shared.scores, max_tokens=max_tokens)


@torch.no_grad()
def figures_of(
    shared: SharedModel,
    samples: Sequence[Encoded],
    figure: Callable[[Batch, Tensor], Tensor],
    *,
    max_tokens: int | None,
    on_finished: Callable[[int], None] = lambda count: None,
) -> Tensor:
    """(…, N) values of ``figure`` for encoded samples from a batch and its trunk states, on the CPU, in order.

    ``on_finished`` is called after each batch with the number of its samples.
    """
    found: list[tuple[list[int], Tensor]] = []
    for numbers, batch, states in _parts(shared, samples, max_tokens=max_tokens):
        found.append((numbers, figure(batch, states).cpu()))
        on_finished(len(numbers))
    if not found:
        return torch.zeros(0)
    gathered = torch.zeros(*found[0][1].shape[:-1], len(samples))
    for numbers, values in found:
        gathered[..., numbers] = values
    return gathered


def _parts(shared: SharedModel, samples: Sequence[Encoded], *, max_tokens: int | None) -> "Iterator[Part]":
    lengths = [sample.length for sample in samples]
    for numbers in microbatches(lengths, max_tokens=max_tokens, on_card=shared.backbone.on_card):
        batch = pad_batch([samples[index] for index in numbers], pad_id=shared.template.pad_id, device=shared.device)
        yield numbers, batch, shared.trunk(batch)
