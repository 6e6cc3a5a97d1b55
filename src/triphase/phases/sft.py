"""Phase 1: supervised fine-tuning on demonstrations.

    L(φ) = − Σ log π_φ(y_t | x, y_<t) / number of response tokens          over response tokens only

Left out on purpose: packing (demonstrations are short; microbatches of similar length waste little), dropout, and a
loss on prompts. The order of the mixture is passed in, so this file does not handle kinds and weights.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from triphase.batches.order import microbatches
from triphase.batches.padding import TokenBatch, pad_batch
from triphase.models.roles import REFERENCE, SharedModel
from triphase.models.trunk_cache import TrunkCache
from triphase.objectives.supervised import response_nll
from triphase.phases.guards import judge_by
from triphase.phases.heldout import EVALUATIONS_PER_PHASE, is_looked_at
from triphase.phases.out_of_memory import HalvesMicrobatches
from triphase.settings.phases import SupervisedSettings
from triphase.tokens.encoding import Encoded
from triphase.training.bad_batches import keep_bad_batch, tensors_of
from triphase.training.distributed.types import ALONE, Strategy
from triphase.training.loop import Judged, Phase
from triphase.training.state import PhaseState, TrainingState
from triphase.training.step import Updater


class SupervisedPhase(HalvesMicrobatches, Phase):
    """Trains the reference adapter, or every weight, on demonstrations."""

    def __init__(
        self,
        shared: SharedModel,
        samples: Sequence[Encoded],
        order: Sequence[int],
        heldout: Sequence[Encoded],
        settings: SupervisedSettings,
        *,
        strategy: Strategy = ALONE,
    ) -> None:
        """``order`` lists the sample of each visit; its length determines the number of steps."""
        self.strategy = strategy
        self.shared = shared
        self.samples = [*samples, *heldout]
        self.order = order
        self.heldout = range(len(samples), len(self.samples))
        self.settings = settings
        self.directory: Path | None = None
        self.adapter = REFERENCE if settings.method == "lora" else None
        self.total_steps = math.ceil(len(order) / settings.batch_size)
        if settings.method == "lora":
            shared.adapters.add(REFERENCE)
            shared.adapters.train_only(REFERENCE)
            trained = shared.adapters.parameters(REFERENCE)
        else:
            shared.backbone.model.requires_grad_(True)
            trained = dict(shared.backbone.model.named_parameters())
        updater = Updater(
            trained,
            {},
            settings.optimizer,
            total_steps=self.total_steps,
            strategy=strategy,
            offload=shared.loaded.offload,
        )
        self.state = TrainingState(updater, PhaseState())
        self.lengths = [sample.length for sample in self.samples]
        self.owners = strategy.divided(self.lengths)
        self.trunk_cache = TrunkCache(
            shared,
            self.lengths,
            self._batch,
            visits=self._visits(len(samples)),
            max_tokens=settings.tokens_at_once,
            budgets=shared.adapter_settings,
        )

    def _visits(self, trained: int) -> list[float]:
        """How often this rank needs each sample's boundary states; never if every weight is trained, since they
        change."""
        if self.adapter is None:
            return [0] * len(self.samples)
        visits = [len(self.order) / max(1, trained)] * trained + [EVALUATIONS_PER_PHASE] * len(self.heldout)
        return [count if owner == self.strategy.rank else 0 for count, owner in zip(visits, self.owners, strict=True)]

    def open(self, directory: Path) -> None:
        """Cache boundary states, and store non-finite batches, in ``directory``."""
        self.directory = self.trunk_cache.directory = directory

    def judge(self, position: int, metrics: Mapping[str, float]) -> Judged:
        """By the held-out loss."""
        return judge_by("sft/heldout_loss", position, metrics)

    def finish(self) -> None:
        """Release the cached states, and all gradients."""
        self.trunk_cache.close()
        self.shared.adapters.train_only(None)
        self.shared.backbone.model.requires_grad_(False)

    def advance(self, step: int) -> dict[str, float]:
        """One optimizer step."""
        # 1. the samples of this step, and their total number of response tokens
        size = self.settings.batch_size
        indices = self.order[step * size : (step + 1) * size]
        tokens = sum(len(self.samples[index].response) for index in indices)
        # 2. gradients of this rank's share, microbatch by microbatch; normalized by the tokens of the whole step
        parts = []
        for members in self._shared_out(indices):
            part = self._loss(members, tokens)
            part.backward()  # type: ignore[no-untyped-call]
            parts.append(part.detach())
        loss = 0.0
        for value in _numbers(parts):
            loss += value
        loss = self.strategy.total({"loss": loss})["loss"]
        # 3. one optimizer step
        updater = self.state.updater
        result = updater.step() if math.isfinite(loss) else updater.skip_step(["the loss"])
        if result.skipped and self.directory is not None and self.strategy.is_lead:
            facts = {"nonfinite": result.nonfinite, "loss": loss, "samples": list(indices)}
            keep_bad_batch(self.directory, step + 1, tensors_of(self._batch(indices)), facts)
        metrics = {
            "sft/loss": loss,
            "sft/skipped_steps": float(result.skipped),
            "sft/learning_rate": result.learning_rate,
            "sft/gradient_norm": result.gradient_norm,
            "sft/tokens": float(tokens),
        }
        # 4. held-out loss, a few times in a phase
        if self.heldout and is_looked_at(step, self.total_steps):
            metrics["sft/heldout_loss"] = self.heldout_loss()
        return metrics

    def _shared_out(self, indices: Sequence[int]) -> list[list[int]]:
        """This rank's share of the samples with these numbers, divided into microbatches."""
        lengths = [self.lengths[index] for index in indices]
        mine = [indices[place] for place in self.strategy.mine(lengths, [self.owners[index] for index in indices])]
        most, on_card = self.settings.tokens_at_once, self.shared.backbone.on_card
        parts = microbatches([self.lengths[index] for index in mine], max_tokens=most, on_card=on_card)
        return [[mine[place] for place in part] for part in parts]

    def _batch(self, indices: Sequence[int]) -> TokenBatch:
        samples = [self.samples[index] for index in indices]
        return pad_batch(samples, pad_id=self.shared.template.pad_id, device=self.shared.device)

    def _loss(self, indices: Sequence[int], tokens: int) -> torch.Tensor:
        batch = self._batch(indices)
        boundary = None if self.adapter is None else self.trunk_cache.of(indices, batch)
        output = self.shared.policy_output(batch, boundary, adapter=self.adapter, temperature=1.0)
        loss, _ = response_nll(output.logprobs, batch.response_mask, token_count=tokens)
        return loss

    @torch.no_grad()
    def heldout_loss(self) -> float:
        """Mean negative log-likelihood of held-out response tokens, in nats."""
        total = sum(len(self.samples[index].response) for index in self.heldout)
        loss = sum(_numbers([self._loss(members, total) for members in self._shared_out(self.heldout)]))
        return self.strategy.total({"loss": loss})["loss"]


def _numbers(losses: Sequence[torch.Tensor]) -> list[float]:
    """Scalars as Python numbers, all at once: one by one each would synchronize with the device."""
    return torch.stack(list(losses)).double().tolist() if losses else []
