"""Demonstrations during PPO: the supervised loss that is added to each optimizer step (PPO-ptx).

    L(φ) = L_PPO(φ) − γ·Σ log π_φ(y_t | x, y_<t) / number of response tokens       over minibatch_size demonstrations

Each step has its own demonstrations, in the order in which supervised fine-tuning would visit them; they follow from
the number of the step, so that resuming needs no state. If the updates on a rollout end early, the demonstrations of
the skipped steps are not used. Source: Ouyang et al. (arXiv 2203.02155), Eq. 2. Departures: demonstrations in place of
pretraining text, and a mean over tokens in place of a sum over each text.
"""

import math
from collections.abc import Sequence

import torch

from triphase.batches.order import microbatches
from triphase.batches.padding import pad_batch
from triphase.models.policies import Policy
from triphase.models.roles import SharedModel
from triphase.objectives.supervised import response_nll
from triphase.settings.ppo import PPOSettings
from triphase.tokens.encoding import Encoded
from triphase.training.distributed.types import ALONE, Strategy


class SFTMix:
    """The demonstrations, and the gradient of their loss."""

    def __init__(
        self,
        shared: SharedModel,
        samples: Sequence[Encoded],
        order: Sequence[int],
        settings: PPOSettings,
        *,
        strategy: Strategy = ALONE,
    ) -> None:
        """``order`` lists the sample of each visit, at least `visits` of them."""
        self._shared, self._samples, self._order = shared, samples, order
        self._settings, self._strategy = settings, strategy

    def accumulate(self, policy: Policy, iteration: int, step: int, *, max_tokens: int | None) -> dict[str, float]:
        """Add the gradient of γ times the loss on the demonstrations of a step of an iteration; returns its metrics.

        ``max_tokens`` limits a pass; after an out-of-memory error it is below the setting.
        """
        size = self._settings.minibatch_size
        first = (iteration * self._settings.steps_per_iteration + step) * size
        chosen = [self._samples[index] for index in self._order[first : first + size]]
        tokens = sum(len(sample.response) for sample in chosen)
        lengths = [sample.length for sample in chosen]
        mine = self._strategy.mine(lengths)
        losses = []  # on the device until all passes are queued
        on_card = self._shared.backbone.on_card
        for part in microbatches([lengths[place] for place in mine], max_tokens=max_tokens, on_card=on_card):
            losses.append(self._part(policy, [chosen[mine[place]] for place in part], tokens))
        loss = math.fsum(torch.stack(losses).tolist()) if losses else 0.0
        return self._strategy.total({"ppo/sft_loss": loss})

    def _part(self, policy: Policy, samples: Sequence[Encoded], tokens: int) -> torch.Tensor:
        batch = pad_batch(samples, pad_id=self._shared.template.pad_id, device=self._shared.device)
        with torch.no_grad():
            states = self._shared.trunk(batch)
        output = policy.output(batch, states, temperature=1.0)
        loss, _ = response_nll(output.logprobs, batch.response_mask, token_count=tokens)
        (self._settings.sft_mix * loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def visits(settings: PPOSettings) -> int:
    """The number of demonstrations that a whole PPO run visits."""
    return settings.iterations * settings.steps_per_iteration * settings.minibatch_size
