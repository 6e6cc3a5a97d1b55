"""Phase 2: the reward model, by Bradley–Terry on all pairs of a ranking together.

    L(θ) = − mean over rankings of mean over its pairs of [ log σ( r_θ(x, y_w) − r_θ(x, y_l) ) ]

All responses of a ranking are in one batch element with one forward pass each: pairs of one prompt spread over
batches overfit (Ouyang et al. 2022). The head's scale and offset are free, so both are fixed after training on
reference samples. Left out on purpose: a language-model loss in addition to the ranking loss.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from triphase.batches.order import microbatches
from triphase.batches.padding import TokenBatch, pad_batch
from triphase.batches.sharing import GroupBatch, packed_length, pad_groups
from triphase.models.roles import REFERENCE, SharedModel
from triphase.models.trunk_cache import TrunkCache
from triphase.monitoring.progress import Progress, SilentProgress
from triphase.phases.cross_fit import CrossFit
from triphase.phases.guards import judge_by
from triphase.phases.head import fitted_head
from triphase.phases.heldout import EVALUATIONS_PER_PHASE, is_looked_at
from triphase.phases.out_of_memory import HalvesMicrobatches
from triphase.phases.pair_loss import PairLoss, pair_loss, stack_pairs
from triphase.phases.rank_gathering import gathered
from triphase.phases.reward_member import Member, alone, drawn_of, order_of
from triphase.phases.reward_state import HeadFit, RewardState
from triphase.records.files import make_directory
from triphase.records.types import Pair
from triphase.settings.phases import AVERAGE, RewardSettings
from triphase.tokens.encoding import Encoded, EncodedGroup
from triphase.training.bad_batches import keep_bad_batch, tensors_of
from triphase.training.checkpoint_places import CHECKPOINTS, kept_steps
from triphase.training.distributed.types import ALONE, Strategy
from triphase.training.head_fit import Flips, folds_of
from triphase.training.loop import Judged, Phase
from triphase.training.state import TrainingState
from triphase.training.step import Updater

Figure = Callable[[TokenBatch | GroupBatch, Tensor], Tensor]
"""A function of a batch and its trunk states, which returns a row for each response."""


class RewardPhase(HalvesMicrobatches, Phase):
    """Trains the reward adapter and the score head on ranked groups."""

    def __init__(
        self,
        shared: SharedModel,
        groups: Sequence[EncodedGroup],
        pairs: Sequence[Sequence[Pair]],
        heldout: Sequence[EncodedGroup],
        heldout_pairs: Sequence[Sequence[Pair]],
        settings: RewardSettings,
        *,
        seed: int,
        member: Member | None = None,
        like: "RewardPhase | None" = None,
        strategy: Strategy = ALONE,
    ) -> None:
        """The reward adapter starts as a copy of the reference (a fresh one after full fine-tuning).

        ``member`` is one of several reward models; ``like`` is the phase of another of them, on the same groups and
        with the same start: its cached states are shared.
        Groups are numbered: first those that are trained on (`trained`), then those that are held out (`heldout`).
        """
        self.shared = shared
        self.groups, self.pairs = [*groups, *heldout], [*pairs, *heldout_pairs]
        self.trained, self.heldout = range(len(groups)), range(len(groups), len(self.groups))
        self.settings = settings
        self.seed, self.strategy = seed, strategy
        self.member = member or alone(shared)
        self.order = order_of(len(groups), settings.epochs, seed, self.member)
        self.total_steps = min(len(self.order), math.ceil(drawn_of(len(groups), settings.epochs) / settings.batch_size))
        adapter, self.head = self.member.model.adapter, self.member.model.head
        shared.adapters.load(adapter, shared.adapters.state(REFERENCE))
        if self.member.apart and settings.ensemble.combine != AVERAGE:
            shared.adapters.redraw(adapter, *self.member.apart)
        shared.adapters.train_only(adapter)
        every, offload = self.total_steps, shared.loaded.offload
        given = (shared.adapters.parameters(adapter), self._heads(), settings.optimizer)
        updater = Updater(*given, total_steps=every, strategy=strategy, offload=offload)
        self.state = TrainingState(updater, RewardState())
        self.directory: Path | None = None
        self._packs = shared.backbone.packs
        self.lengths = [packed_length(group) for group in self.groups]
        self.sizes = [len(group.responses) for group in self.groups]
        self.owners = strategy.divided(self.lengths)
        self.start_features: Tensor | None = None
        self._like = like or self
        self.trunk_cache: TrunkCache = like.trunk_cache if like is not None else self._new_trunk_cache()

    def _heads(self) -> dict[str, nn.Parameter]:
        """The trained tensors besides the adapter."""
        return {f"score_head.{name}": value for name, value in self.head.named_parameters()}

    def _new_trunk_cache(self) -> TrunkCache:
        return TrunkCache(
            self.shared,
            self.lengths,
            self._batch,
            visits=self._visits() if self._packs else [0] * len(self.groups),
            max_tokens=self.settings.tokens_at_once,
            budgets=self.shared.adapter_settings,
        )

    def _visits(self) -> list[float]:
        """How often this rank needs each group's boundary states; the fit of the head alone counts as a visit."""
        visits = self.settings.epochs + (self.settings.head_penalty is not None)
        every = [visits * self.member.of] * len(self.trained) + [EVALUATIONS_PER_PHASE] * len(self.heldout)
        return [count if owner == self.strategy.rank else 0 for count, owner in zip(every, self.owners, strict=True)]

    def open(self, directory: Path) -> None:
        """Cache boundary states, and store non-finite batches, in ``directory``."""
        self.directory = directory
        self.trunk_cache.directory = self.trunk_cache.directory or directory

    def start(self) -> None:
        """Fit the head, unless it has been fitted."""
        self.fit_head(SilentProgress())

    def judge(self, position: int, metrics: Mapping[str, float]) -> Judged:
        """By the held-out loss."""
        return judge_by("reward/heldout_loss", position, metrics)

    def finish(self) -> None:
        """Training is over; the cached states still serve `scores_of`, which from here on runs on one rank."""
        self.shared.adapters.train_only(None)
        self.strategy = ALONE

    def head_summary(self) -> dict[str, Any]:
        """The result of the fit of the head alone, for a file; empty if it was not fitted alone."""
        head = self.state.values.head
        return {} if head is None else head.summary()

    def close(self) -> None:
        """Release the cached states."""
        self.trunk_cache.close()

    def begin(self, directory: Path, progress: Progress) -> None:
        """Fit the head and show the result, unless ``directory`` contains a checkpoint to resume from."""
        self.open(directory)
        if not self.strategy.from_lead(lambda: kept_steps(directory / CHECKPOINTS)):
            make_directory(directory)
            self.fit_head(progress)

    def fit_head(self, progress: Progress) -> None:
        """Fit the score head alone, on the features of the untrained reward model, unless it is fitted already."""
        penalty = self.settings.head_penalty
        if penalty is None or self.state.values.head is not None:
            return
        if self._like.start_features is None:
            mine, width = sum(len(part) for part in self._parts(self.trained)), self.shared.backbone.hidden_size
            with progress.track("reward model: features", mine, unit="rankings") as track:
                found = self._of_each(self.trained, self._features, width=width, on_part=track.advance)
            self._like.start_features = torch.cat(found)
        pairs = stack_pairs(*self._records(self.trained), self.member.counts)
        prompts, features = self._prompts(self.member.repeated(self.trained)), self._like.start_features
        flips, seed = Flips(self.settings.flip_rate, self.settings.flip_correction), self.seed
        fitted = self.strategy.from_lead(
            lambda: fitted_head(features, pairs, prompts, penalty, flips=flips, seed=seed, progress=progress)
        )
        self.head.set(torch.tensor(fitted["weight"]), fitted["bias"])
        heldout = self.heldout_figures() if self.heldout else {}
        self.state.values.head = HeadFit(**fitted["fit"], heldout=heldout)

    def _parts(self, members: Sequence[int]) -> list[list[int]]:
        """This rank's share of the groups with these numbers, divided into microbatches: indices into them."""
        lengths, most = [self.lengths[member] for member in members], self.settings.tokens_at_once
        mine = self.strategy.mine(lengths, [self.owners[member] for member in members])
        sizes, on_card = [lengths[place] for place in mine], self.shared.backbone.on_card
        return [[mine[index] for index in part] for part in microbatches(sizes, max_tokens=most, on_card=on_card)]

    @torch.no_grad()
    def _of_each(
        self, members: Sequence[int], figure: Figure, *, width: int = 1, on_part: Callable[[int], None] | None = None
    ) -> list[Tensor]:
        """The values of ``figure``: ``width`` numbers for each response of these groups, on the CPU."""
        found: dict[int, Tensor] = {}
        for places in self._parts(members):
            part = [members[place] for place in places]
            batch = self._batch(part)
            self._keep(found, places, part, figure(batch, self.trunk_cache.of(part, batch)).cpu())
            if on_part is not None:
                on_part(len(part))
        return gathered(self.strategy, found, [self.sizes[member] for member in members], width=width)

    def _keep(self, found: dict[int, Tensor], places: Sequence[int], part: Sequence[int], rows: Tensor) -> None:
        found.update(zip(places, torch.split(rows, [self.sizes[member] for member in part]), strict=True))

    def _records(self, members: Sequence[int]) -> tuple[list[EncodedGroup], list[Sequence[Pair]]]:
        return [self.groups[member] for member in members], [self.pairs[member] for member in members]

    def advance(self, step: int) -> dict[str, float]:
        """One optimizer step."""
        # 1. the rankings of this step
        members = self._rankings_of(step)
        drawn = len(self.member.repeated(members))
        # 2. gradients; a microbatch holds whole rankings, each with the same weight in the step
        sums = dict.fromkeys(("loss", "nll", "correct", "decided"), 0.0)
        scores: dict[int, Tensor] = {}
        for places in self._parts(members):
            part = [members[place] for place in places]
            found = self._loss(part, drawn)
            found.objective.backward()  # type: ignore[no-untyped-call]
            sums = {name: sums[name] + value for name, value in found.sums().items()}
            self._keep(scores, places, part, found.scores)
        sums = self.strategy.total(sums)
        loss = sums["loss"]
        # 3. one optimizer step
        updater = self.state.updater
        result = updater.step() if math.isfinite(loss) else updater.skip_step(["the loss"])
        sizes, alone = [self.sizes[member] for member in members], self.strategy.world == 1
        every_score = torch.cat([*scores.values()] if alone else gathered(self.strategy, scores, sizes))
        if result.skipped and self.directory is not None and self.strategy.is_lead:
            facts = {"nonfinite": result.nonfinite, "loss": loss, "rankings": list(members)}
            keep_bad_batch(self.directory, step + 1, tensors_of(self._batch(members)) | {"scores": every_score}, facts)
        metrics = {
            "reward/loss": sums["nll"],
            "reward/objective": loss,
            "reward/skipped_steps": float(result.skipped),
            "reward/score_deviation": float(every_score.std(unbiased=False)),
            "reward/learning_rate": result.learning_rate,
            "reward/gradient_norm": result.gradient_norm,
            "reward/pairs": float(sum(len(self.pairs[member]) for member in members)),
        }
        if sums["decided"]:
            metrics["reward/preference_accuracy"] = sums["correct"] / sums["decided"]
        # 4. held-out metrics, a few times in a phase
        if self.heldout and is_looked_at(step, self.total_steps):
            metrics |= self.heldout_figures()
        head = self.state.values.head
        return metrics | (head.metrics() if head is not None and step == 0 else {})

    def _rankings_of(self, step: int) -> list[int]:
        """The rankings of a member of several are divided evenly: fewer in each step, since some of them count
        twice."""
        if self.member.counts is None:
            return self.order[step * self.settings.batch_size : (step + 1) * self.settings.batch_size]
        first, end = (len(self.order) * edge // self.total_steps for edge in (step, step + 1))
        return self.order[first:end]

    def _loss(self, members: Sequence[int], group_count: int) -> PairLoss:
        batch = self._batch(members)
        hidden = self._features(batch, self.trunk_cache.of(members, batch))
        scores = self.head(hidden) + self._left_out(members, hidden)
        return pair_loss(scores, *self._records(members), self.settings, group_count, self.member.counts_of(members))

    @cached_property
    def _cross_fit(self) -> CrossFit | None:
        """None if the head was not fitted alone, or for a single prompt."""
        head = self.state.values.head
        if head is None or not head.cross_fits:
            return None
        fold_of = folds_of(self._prompts(self.member.repeated(self.trained)), seed=self.seed)
        return CrossFit(head.cross_fits, fold_of, self.shared.device)

    def _left_out(self, members: Sequence[int], hidden: Tensor) -> Tensor | float:
        """How much more heads that have not seen these rankings give for (N, d) features than the head does."""
        each = [member for member in members for _ in range(self.sizes[member])]
        return 0.0 if self._cross_fit is None else self._cross_fit.of(self._prompts(each), hidden)

    def _prompts(self, members: Sequence[int]) -> list[tuple[int, ...]]:
        return [self.groups[member].prompt for member in members]

    def _batch(self, members: Sequence[int]) -> TokenBatch | GroupBatch:
        """The groups' responses, in order: each prompt once, or (under sliding windows) a row for each response."""
        groups, pad_id, device = self._records(members)[0], self.shared.template.pad_id, self.shared.device
        if self._packs:
            return pad_groups(groups, pad_id=pad_id, device=device)
        samples = [Encoded(group.prompt, response) for group in groups for response in group.responses]
        return pad_batch(samples, pad_id=pad_id, device=device)

    def scores_of(self, members: Sequence[int], by: Figure | None = None) -> list[Tensor]:
        """The scores of the responses of the groups with these numbers (`trained` or `heldout`), on the CPU.

        ``by`` replaces the reward model of this phase.
        """
        return self._of_each(members, by or self._scores)

    def _scores(self, batch: TokenBatch | GroupBatch, states: Tensor) -> Tensor:
        return self.shared.scores_by(self.member.model, batch, states)

    def _features(self, batch: TokenBatch | GroupBatch, states: Tensor) -> Tensor:
        return self.shared.features(batch, states, self.member.model.adapter)

    def heldout_figures(self) -> dict[str, float]:
        """Loss and accuracy on held-out rankings."""
        scores = torch.cat(self.scores_of(self.heldout))
        found = pair_loss(scores, *self._records(self.heldout), self.settings, len(self.heldout))
        figures = {"reward/heldout_loss": found.nll}
        if found.decided:
            figures["reward/heldout_accuracy"] = found.correct / found.decided
        return figures
