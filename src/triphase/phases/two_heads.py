"""The reward model with two heads, for quality and for length; only the quality head scores.

    L(θ) = Bradley–Terry( r_Q + r_L ) + λ·( ρ(r_Q, l)² − s·ρ(r_L, l) + |cos(w_Q, w_L)| )

ρ is the correlation with the length l in tokens among responses to one prompt, over all rankings of a step; s is 1 if
the longer response is preferred in the comparisons and −1 if the shorter one is. The part of the preferences that
length explains goes to the length head, which is discarded after training. Source: ODIN (Chen et al., arXiv
2402.07319), Sec. 3. Departures: ρ within prompts, where a policy can exploit it; ρ² in place of |ρ|, whose gradient
does not shrink near 0 and drove the heads past it; s, since people may prefer the shorter response; the cosine of the
heads' weights in place of the product of weights that are kept at norm 1; and both heads start as parts of one fit.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from triphase.batches.padding import TokenBatch
from triphase.batches.sharing import GroupBatch
from triphase.batches.transfers import to_device
from triphase.models.roles import SharedModel
from triphase.monitoring.progress import Progress
from triphase.objectives.length import within_group_correlation, within_group_slope
from triphase.phases.pair_loss import PairLoss, pair_loss
from triphase.phases.reward import RewardPhase
from triphase.records.types import Pair
from triphase.tokens.encoding import EncodedGroup
from triphase.training.head_fit import fit_lengths

TWO_HEADS = "two-heads"


class TwoHeadPhase(RewardPhase):
    """Trains the reward adapter under a quality head (the score head) and a length head."""

    def __init__(self, shared: SharedModel, *records: Any, seed: int, **options: Any) -> None:
        """See `RewardPhase`."""
        self.length_head = shared.fresh_score_head(seed, "length")
        self._pushes: dict[int, Tensor] = {}
        self._penalty, self._correlations = 0.0, dict[str, float]()
        super().__init__(shared, *records, seed=seed, **options)
        self.preferred_length = preferred_length(*self._records(self.trained))

    def _heads(self) -> dict[str, torch.nn.Parameter]:
        length = {f"length_head.{name}": value for name, value in self.length_head.named_parameters()}
        return {**super()._heads(), **length}

    def fit_head(self, progress: Progress) -> None:
        """Fit one head, and move its component along length to the length head, unless that is done already."""
        before = self.state.values.head
        super().fit_head(progress)
        features, fitted = self._like.start_features, self.state.values.head
        if before is not None or fitted is None or features is None:
            return
        found = fit_lengths(features, *self._lengths(self.trained), penalty=fitted.penalty)
        if found is None:  # no prompt has responses of two lengths
            return
        with torch.no_grad():
            weight = self.head.linear.weight[0].cpu()
            said = features @ found
            slope = within_group_slope(features @ weight, said, self._lengths(self.trained)[1])
            if slope is not None:
                middle = slope * float(said.mean())
                self.head.set(weight - slope * found, float(self.head.linear.bias) + middle)
                self.length_head.set(slope * found, -middle)

    def advance(self, step: int) -> dict[str, float]:
        """One optimizer step: the correlations are over all its rankings, so all are scored before any gradient."""
        self._look(self._rankings_of(step))
        return super().advance(step) | self._correlations

    def _look(self, members: Sequence[int]) -> None:
        """Compute the gradient of the correlation penalty with respect to the two scores of each response of a step."""
        both = torch.cat(self._of_each(members, self._both, width=2)).requires_grad_()
        correlations = [within_group_correlation(both[:, head], *self._lengths(members)) for head in (0, 1)]
        quality, length = correlations
        penalty = torch.zeros(()) if quality is None else quality.square()
        if length is not None:
            penalty = penalty - self.preferred_length * length
        pulls = torch.autograd.grad(penalty, both)[0] if penalty.requires_grad else torch.zeros_like(both)
        sizes = [self.sizes[member] for member in members]
        self._pushes = dict(zip(members, torch.split(to_device(pulls, self.shared.device), sizes), strict=True))
        self._penalty = float(penalty.detach())
        names = ("reward/quality_length_correlation", "reward/length_head_correlation")
        self._correlations = {
            name: float(value.detach()) for name, value in zip(names, correlations, strict=True) if value is not None
        }

    def _both(self, batch: TokenBatch | GroupBatch, states: Tensor) -> Tensor:
        """(N, 2) quality and length scores."""
        return self._scored_by_both(self._features(batch, states))

    def _scored_by_both(self, hidden: Tensor) -> Tensor:
        return torch.stack([self.head(hidden), self.length_head(hidden)], 1)

    def _lengths(self, members: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(N,) tokens of each response of these groups, and (N,) the number of its prompt."""
        numbers: dict[tuple[int, ...], int] = {}
        lengths = [len(response) for member in members for response in self.groups[member].responses]
        prompts = [self.groups[member].prompt for member in members for _ in self.groups[member].responses]
        return torch.tensor(lengths), torch.tensor([numbers.setdefault(prompt, len(numbers)) for prompt in prompts])

    def _loss(self, members: Sequence[int], group_count: int) -> PairLoss:
        batch = self._batch(members)
        hidden = self._features(batch, self.trunk_cache.of(members, batch))
        both = self._scored_by_both(hidden)
        counts = self.member.counts_of(members)
        found = pair_loss(
            both.sum(1) + self._left_out(members, hidden), *self._records(members), self.settings, group_count, counts
        )
        # A linear term with the gradient of the whole penalty with respect to each score: the gradient is the
        # penalty's, and the value is this part's share.
        pull = (torch.cat([self._pushes[member] for member in members]) * both).sum()
        share = len(self.member.repeated(members)) / group_count
        weights = self.head.linear.weight[0], self.length_head.linear.weight[0]
        apart = torch.cosine_similarity(*weights, dim=0).abs()
        penalty = pull - pull.detach() + share * (self._penalty + apart)
        objective = found.objective + self.settings.length_penalty * penalty
        return replace(found, objective=objective, scores=both[:, 0].detach())


def preferred_length(groups: Sequence[EncodedGroup], pairs: Sequence[Sequence[Pair]]) -> int:
    """1 if the longer response is preferred, by tokens over all comparisons, or neither is; −1 if the shorter is.

    sign Σ (l_first − l_second)·(2p − 1)          p: share that prefers the first
    """
    total = sum(
        (len(group.responses[pair.first]) - len(group.responses[pair.second])) * (2 * pair.target - 1)
        for group, compared in zip(groups, pairs, strict=True)
        for pair in compared
    )
    return -1 if total < 0 else 1
