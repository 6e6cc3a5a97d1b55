"""Phase 3: proximal policy optimisation of the policy and its critic against the frozen reward model.

One iteration: sample → score → reward → advantages → a few epochs of clipped updates. Its steps are numbered alike in
`PPOPhase.iterate`. Left out on purpose: a second network for the critic (a value head on the policy costs a fraction),
samples of older policies (each rollout is used for its own updates alone), and the k3 estimator inside the reward
(docs/objectives.md has why).
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from triphase.batches.order import microbatches, permutation, seed_of
from triphase.batches.padding import TokenBatch, pad_batch
from triphase.models.roles import POLICY, REFERENCE, SharedModel
from triphase.objectives.advantages import (
    Advantages,
    clip_scores,
    generalised_advantages,
    kl_penalty,
    penalise_unfinished,
    rescale_token_rewards,
    token_rewards,
)
from triphase.objectives.divergence import AdaptiveKL, FixedKL, reference_kl
from triphase.objectives.invariants import (
    require_first_minibatch,
    require_lengths,
    require_scores_on_last_token,
    require_zero_reference_kl,
)
from triphase.objectives.masking import masked_mean, standardise
from triphase.objectives.proximal import (
    clipped_policy_loss,
    clipped_value_loss,
    composite_objective,
    entropy_bonus,
    explained_variance,
)
from triphase.phases.guards import AlarmGuard, judge_rollout
from triphase.phases.measures import correlation, distinct_bigrams
from triphase.records.types import Prompt
from triphase.rollouts.types import Generated, Generator, Request
from triphase.settings.schema import PPOSettings
from triphase.tokens.encoding import Encoded
from triphase.training.inspection import keep_bad_batch, tensors_of
from triphase.training.state import Emit, StopRequest, TrainingState, drive
from triphase.training.step import Updater

# The metric under which a tensor that is not finite is reported.
_SHOWN_AS = {
    "logprobs": "ppo/reference_kl",
    "reference_logprobs": "ppo/reference_kl",
    "values": "ppo/value_loss",
    "scores": "ppo/proxy_score",
}


class Gold(Protocol):
    """A score that the reward model never sees: (prompt, response, finished) → number."""

    def __call__(self, prompt: str, response: str, finished: bool) -> float: ...


@dataclass(frozen=True, slots=True)
class Experience:
    """A rollout with all that its updates need. B episodes, R response tokens.

    Attributes:
        batch: token ids. boundary: (B, L, d) trunk states.
        minibatches: the first epoch's minibatches, each a list of microbatches of row numbers.
        logprobs: (B, R) of the rollout policy, by the trainer's own forward pass.
        reference_logprobs, values, entropy: (B, R).
        scores: (B,) of the reward model, calibrated, before any shaping.
        nonfinite: names of the tensors among these that hold a NaN or an infinity.
    """

    batch: TokenBatch
    boundary: Tensor
    minibatches: list[list[list[int]]]
    logprobs: Tensor
    reference_logprobs: Tensor
    values: Tensor
    entropy: Tensor
    scores: Tensor
    nonfinite: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One episode for people to read."""

    prompt: Prompt
    response: str
    finished: bool
    score: float
    gold: float | None
    reference_kl: float
    tokens: int


class PPOPhase:
    """The policy adapter and the value head, trained by PPO."""

    def __init__(
        self,
        shared: SharedModel,
        prompts: Sequence[Prompt],
        prompt_ids: Sequence[tuple[int, ...]],
        generator: Generator,
        settings: PPOSettings,
        *,
        seed: int,
        gold: Gold | None = None,
        on_samples: Callable[[int, list[Sample]], None] | None = None,
    ) -> None:
        self.shared = shared
        self.prompts = prompts
        self.prompt_ids = prompt_ids
        self.generator = generator
        self.settings = settings
        self.seed = seed
        self.gold = gold
        self.on_samples = on_samples
        self.directory: Path | None = None
        self.guard: AlarmGuard | None = None
        shared.adapters.load(POLICY, shared.adapters.state(REFERENCE))
        shared.adapters.train_only(POLICY)
        with torch.no_grad():
            for parameter in shared.value_head.parameters():
                parameter.zero_()
        heads = {f"value_head.{name}": value for name, value in shared.value_head.named_parameters()}
        minibatches = settings.batch_size // settings.minibatch_size
        updater = Updater(
            shared.adapters.parameters(POLICY),
            heads,
            settings.optimizer,
            total_steps=settings.iterations * settings.epochs * minibatches,
        )
        self.state = TrainingState(updater, values={"kl_coefficient": settings.kl_coefficient})
        self.controller = (
            FixedKL() if settings.kl_target is None else AdaptiveKL(settings.kl_target, settings.kl_horizon)
        )

    def fit(
        self,
        directory: Path,
        *,
        emit: Emit,
        keep: int,
        keep_best: int = 0,
        guard: AlarmGuard | None = None,
        stop: StopRequest | None = None,
        on_step: Callable[[Mapping[str, float]], None] | None = None,
    ) -> None:
        """Iterate to the end, resuming where ``directory`` holds a checkpoint. One is kept after each iteration."""
        self.directory, self.guard = directory, guard
        drive(
            self.state,
            self.settings.iterations,
            self.iterate,
            checkpoints=directory / "checkpoints",
            keep=max(keep, 0 if guard is None else guard.keep),
            every=1,
            emit=emit,
            keep_best=keep_best,
            judge=judge_rollout,
            save_start=guard is not None and guard.keep > 0,
            stop=stop,
            on_step=on_step,
        )
        self.shared.adapters.train_only(None)

    def iterate(self, iteration: int) -> dict[str, float]:
        """One rollout and its updates."""
        clock = _Clock()
        # 1. sample a response to each prompt of this iteration
        chosen = self._prompts_of(iteration)
        generated = self._sample(iteration, chosen)
        clock.lap("ppo/seconds_generation")
        # 2. log-probabilities, values and scores, by the forward pass that the updates use
        experience = self._evaluate(iteration, chosen, generated)
        clock.lap("ppo/seconds_scoring")
        if experience.nonfinite:
            return self._refused(iteration, experience) | clock.laps
        # 3. rewards at every token, and advantages
        rewards, shaped = self._rewards(experience, generated)
        advantages = self._advantages(rewards, experience)
        # 4. epochs of clipped updates
        updates = self._update(iteration, experience, advantages)
        clock.lap("ppo/seconds_update")
        # 5. what happened; the coefficient of the next iteration
        observed = float(
            reference_kl(experience.logprobs, experience.reference_logprobs, experience.batch.response_mask)
        )
        metrics = self._measure(iteration, chosen, generated, experience, advantages)
        metrics |= updates | clock.laps | shaped | {"ppo/reference_kl": observed}
        self._control(observed, len(chosen))
        self._heed(iteration, metrics)
        return metrics

    def _prompts_of(self, iteration: int) -> list[int]:
        """Prompt numbers of an iteration: pass after pass over the data, each in an order of its own."""
        size, count = self.settings.batch_size, len(self.prompts)
        found: list[int] = []
        for position in range(iteration * size, (iteration + 1) * size):
            epoch, place = divmod(position, count)
            found.append(permutation(count, self.seed, "ppo", "order", epoch)[place])
        return found

    def _sample(self, iteration: int, chosen: Sequence[int]) -> list[Generated]:
        requests = [
            Request(self.prompt_ids[number], seed_of(self.seed, "ppo", "sampling", iteration, row))
            for row, number in enumerate(chosen)
        ]
        return self.generator.generate(
            requests,
            temperature=self.settings.temperature,
            max_response_tokens=self.settings.max_response_tokens,
        )

    @torch.no_grad()
    def _evaluate(self, iteration: int, chosen: Sequence[int], generated: Sequence[Generated]) -> Experience:
        samples = [
            Encoded(self.prompt_ids[number], answer.ids) for number, answer in zip(chosen, generated, strict=True)
        ]
        batch = pad_batch(samples, pad_id=self.shared.template.pad_id, device=self.shared.device)
        require_lengths(batch.response_mask, batch.response_lengths)
        boundary = self._trunk(batch)
        # The microbatches are those of the first epoch: equal shapes give equal bits, so the first ratio is exactly 1.
        minibatches = self._minibatches(iteration, 0, batch)
        shape = batch.response_mask.shape
        logprobs, reference, values, entropy = (torch.zeros(shape, device=self.shared.device) for _ in range(4))
        scores = torch.zeros(shape[0], device=self.shared.device)
        for rows in (rows for minibatch in minibatches for rows in minibatch):
            part, states = _rows(batch, boundary, rows)
            temperature, width = self.settings.temperature, int(part.response_lengths.max())
            policy = self.shared.policy_output(
                part, states, adapter=POLICY, temperature=temperature, with_entropy=True, with_values=True
            )
            frozen = self.shared.policy_output(part, states, adapter=REFERENCE, temperature=temperature)
            assert policy.values is not None and policy.entropy is not None  # noqa: S101 - asked for above
            logprobs[rows, :width], reference[rows, :width] = policy.logprobs, frozen.logprobs
            values[rows, :width], entropy[rows, :width] = policy.values, policy.entropy
            scores[rows] = self.shared.scores(part, states)
        figures = {"logprobs": logprobs, "reference_logprobs": reference, "values": values, "scores": scores}
        nonfinite = tuple(name for name, tensor in figures.items() if not bool(torch.isfinite(tensor).all()))
        if iteration == 0 and not nonfinite:
            require_zero_reference_kl(logprobs, reference, batch.response_mask)
        return Experience(batch, boundary, minibatches, logprobs, reference, values, entropy, scores, nonfinite)

    def _rewards(self, experience: Experience, generated: Sequence[Generated]) -> tuple[Tensor, dict[str, float]]:
        settings, mask = self.settings, experience.batch.response_mask
        finished = torch.tensor([answer.finished for answer in generated], device=mask.device)
        scores = experience.scores
        shaped: dict[str, float] = {}
        if settings.score_limit is not None:
            scores, clipped = clip_scores(scores, settings.score_limit)
            shaped["ppo/clipped_scores"] = float(clipped)
        scores = penalise_unfinished(scores, finished, settings.missing_eos_penalty)
        if settings.standardise_scores and float(scores.std(unbiased=False)) > 0:
            scores = standardise(scores, torch.ones_like(scores, dtype=torch.bool))
        coefficient = float(self.state.values["kl_coefficient"])
        shaped["ppo/kl_coefficient"] = coefficient
        divergence = experience.logprobs, experience.reference_logprobs, mask
        rewards = token_rewards(scores, *divergence, kl_coefficient=coefficient)
        require_scores_on_last_token(rewards, scores, kl_penalty(*divergence, kl_coefficient=coefficient), mask)
        if settings.rescale_token_rewards:
            rewards = rescale_token_rewards(rewards, mask)
        return rewards, shaped

    def _advantages(self, rewards: Tensor, experience: Experience) -> Advantages:
        settings, mask = self.settings, experience.batch.response_mask
        found = generalised_advantages(
            rewards, experience.values, mask, discount=settings.discount, gae_lambda=settings.gae_lambda
        )
        if not settings.standardise_advantages:
            return found
        return Advantages(standardise(found.advantages, mask), found.returns)

    def _update(self, iteration: int, experience: Experience, advantages: Advantages) -> dict[str, float]:
        sums, steps, skipped, first, approximate = _Sums(), 0, 0, True, 0.0
        for epoch in range(self.settings.epochs):
            minibatches = (
                experience.minibatches if epoch == 0 else self._minibatches(iteration, epoch, experience.batch)
            )
            for minibatch in minibatches:
                figures = self._gradients(minibatch, experience, advantages, first=first)
                first = False
                approximate = figures["ppo/approximate_kl"]
                limit = self.settings.max_approximate_kl
                if limit is not None and approximate > limit:
                    # The policy has moved as far as this rollout can be trusted: drop this gradient, end the updates.
                    self.state.updater.discard()
                    return sums.means() | {"ppo/steps": float(steps), "ppo/skipped_steps": float(skipped)}
                result = self.state.updater.step()
                steps, skipped = steps + 1, skipped + result.skipped
                if result.skipped:
                    extra = {"advantages": advantages.advantages, "returns": advantages.returns}
                    self._keep_bad(iteration, experience, result.nonfinite, extra)
                sums.add(figures)
                sums.add({"ppo/gradient_norm": result.gradient_norm, "ppo/learning_rate": result.learning_rate})
        return sums.means() | {"ppo/steps": float(steps), "ppo/skipped_steps": float(skipped)}

    def _gradients(
        self, minibatch: list[list[int]], experience: Experience, advantages: Advantages, *, first: bool
    ) -> dict[str, float]:
        """Accumulate the gradient of one minibatch, normalised by all of its tokens."""
        settings = self.settings
        rows_of_all = [row for rows in minibatch for row in rows]
        tokens = int(experience.batch.response_lengths[rows_of_all].sum())
        totals: dict[str, float] = {}
        for rows in minibatch:
            batch, states = _rows(experience.batch, experience.boundary, rows)
            mask, width = batch.response_mask, int(batch.response_lengths.max())
            old, old_values = experience.logprobs[rows, :width], experience.values[rows, :width]
            output = self.shared.policy_output(
                batch,
                states,
                adapter=POLICY,
                temperature=settings.temperature,
                with_entropy=settings.entropy_coefficient > 0,
                with_values=True,
            )
            assert output.values is not None  # noqa: S101 - asked for above
            if first:
                require_first_minibatch(output.logprobs.detach(), old, mask, tolerance=1e-4)
            policy_loss, moved = clipped_policy_loss(
                output.logprobs,
                old,
                advantages.advantages[rows, :width],
                mask,
                clip_range=settings.clip_range,
                token_count=tokens,
            )
            value_loss, _ = clipped_value_loss(
                output.values,
                old_values,
                advantages.returns[rows, :width],
                mask,
                clip_range=settings.value_clip_range,
                token_count=tokens,
            )
            entropy = torch.zeros((), device=mask.device)
            if output.entropy is not None:
                entropy = entropy_bonus(output.entropy, mask, token_count=tokens)
            objective = composite_objective(
                policy_loss,
                value_loss,
                entropy,
                value_coefficient=settings.value_coefficient,
                entropy_coefficient=settings.entropy_coefficient,
            )
            objective.backward()  # type: ignore[no-untyped-call]
            share = float(mask.sum()) / tokens
            part = {
                "ppo/clip_fraction": float(moved.clip_fraction) * share,
                "ppo/approximate_kl": float(moved.approximate_kl) * share,
                "ppo/ratio_mean": float(moved.ratio_mean) * share,
                "ppo/policy_loss": float(policy_loss.detach()),
                "ppo/value_loss": float(value_loss.detach()),
            }
            for name, value in part.items():
                totals[name] = totals.get(name, 0.0) + value
            totals["ppo/ratio_max"] = max(totals.get("ppo/ratio_max", 0.0), float(moved.ratio_max))
        return totals

    def _refused(self, iteration: int, experience: Experience) -> dict[str, float]:
        """Nothing is learned from a rollout whose figures are not finite: it is kept for inspection and counted."""
        self._keep_bad(iteration, experience, experience.nonfinite)
        self.state.updater.refuse(experience.nonfinite)
        return {_SHOWN_AS[name]: math.nan for name in experience.nonfinite} | {
            "ppo/skipped_steps": 1.0,
            "ppo/steps": 0.0,
            "ppo/kl_coefficient": float(self.state.values["kl_coefficient"]),
            "ppo/episodes": float((iteration + 1) * self.settings.batch_size),
        }

    def _keep_bad(
        self,
        iteration: int,
        experience: Experience,
        nonfinite: tuple[str, ...],
        extra: Mapping[str, Tensor] | None = None,
    ) -> None:
        if self.directory is not None:
            tensors = tensors_of(experience.batch) | tensors_of(experience) | dict(extra or {})
            tensors.pop("boundary")  # large, and it follows from the tokens
            keep_bad_batch(self.directory, iteration + 1, tensors, {"nonfinite": nonfinite})

    def _heed(self, iteration: int, metrics: dict[str, float]) -> None:
        if self.guard is not None and not self.state.values.get("finished"):
            self.guard.heed(self.state, iteration + 1, metrics)
            if self.guard.keep:
                metrics["ppo/rollbacks"] = float(len(self.state.values.get("rollbacks", [])))

    def _minibatches(self, iteration: int, epoch: int, batch: TokenBatch) -> list[list[list[int]]]:
        lengths = batch.lengths.tolist()
        order = permutation(len(lengths), self.seed, "ppo", "minibatches", iteration, epoch)
        size = self.settings.minibatch_size
        found = []
        for start in range(0, len(order), size):
            rows = sorted(order[start : start + size])
            parts = microbatches([lengths[row] for row in rows], max_tokens=self.settings.microbatch_tokens)
            found.append([[rows[index] for index in part] for part in parts])
        return found

    def _trunk(self, batch: TokenBatch) -> Tensor:
        shape = (*batch.input_ids.shape, self.shared.backbone.hidden_size)
        boundary = torch.zeros(shape, dtype=self.shared.backbone.dtype, device=self.shared.device)
        for rows in microbatches(batch.lengths.tolist(), max_tokens=self.settings.microbatch_tokens):
            part = batch.rows(torch.tensor(rows, device=self.shared.device))
            boundary[rows, : part.input_ids.shape[1]] = self.shared.trunk(part)
        return boundary

    def _measure(
        self,
        iteration: int,
        chosen: Sequence[int],
        generated: Sequence[Generated],
        experience: Experience,
        advantages: Advantages,
    ) -> dict[str, float]:
        batch, mask = experience.batch, experience.batch.response_mask
        lengths = batch.response_lengths.float()
        texts = [self.shared.template.text(answer.ids) for answer in generated]
        prompts = [self.prompts[number] for number in chosen]
        metrics = {
            "ppo/proxy_score": float(experience.scores.mean()),
            "ppo/score_deviation": float(experience.scores.std(unbiased=False)),
            "ppo/entropy": float(masked_mean(experience.entropy, mask)),
            "ppo/mean_length": float(lengths.mean()),
            "ppo/eos_rate": sum(answer.finished for answer in generated) / len(generated),
            "ppo/mean_return": float(masked_mean(advantages.returns, mask)),
            "ppo/episodes": float((iteration + 1) * len(generated)),
        }
        explained = explained_variance(experience.values, advantages.returns, mask)
        optional = {
            "ppo/explained_variance": None if explained is None else float(explained),
            "ppo/length_score_correlation": correlation(lengths.tolist(), experience.scores.tolist()),
            "ppo/distinct_2": distinct_bigrams(texts),
        }
        golds: list[float] | None = None
        if self.gold is not None:
            golds = [
                self.gold(prompt.text, text, answer.finished)
                for prompt, text, answer in zip(prompts, texts, generated, strict=True)
            ]
            metrics["ppo/gold_score"] = sum(golds) / len(golds)
        metrics |= {name: value for name, value in optional.items() if value is not None}
        if self.on_samples is not None:
            moved = ((experience.logprobs - experience.reference_logprobs) * mask).sum(1).tolist()
            self.on_samples(
                iteration,
                [
                    Sample(
                        prompts[row],
                        texts[row],
                        generated[row].finished,
                        float(experience.scores[row]),
                        None if golds is None else golds[row],
                        moved[row],
                        int(lengths[row]),
                    )
                    for row in range(len(generated))
                ],
            )
        return metrics

    def _control(self, observed: float, episodes: int) -> None:
        coefficient = float(self.state.values["kl_coefficient"])
        self.state.values["kl_coefficient"] = self.controller.next_coefficient(coefficient, observed, episodes)
        budget = self.settings.kl_budget
        if budget is not None and observed > budget:
            self.state.values["finished"] = f"reference KL {observed:.2f} passed ppo.kl_budget {budget:g}"


class _Clock:
    """Seconds of each part of an iteration."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


class _Sums:
    """Means over the minibatches of an iteration (the greatest, for a maximum)."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            if math.isfinite(value):
                self._values.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        return {
            name: max(values) if name.endswith("_max") else sum(values) / len(values)
            for name, values in self._values.items()
        }


def _rows(batch: TokenBatch, boundary: Tensor, rows: list[int]) -> tuple[TokenBatch, Tensor]:
    part = batch.rows(torch.tensor(rows, device=batch.input_ids.device))
    return part, boundary[rows, : part.input_ids.shape[1]]
