"""Phase 3: proximal policy optimization of the policy and its critic (if any) against the frozen reward model.

One iteration: sample → score → reward → advantages → a few epochs of clipped updates. `PPOPhase.advance` numbers the
same steps. Left out on purpose: samples of older policies, and k3 in the reward (docs/objectives.md explains why).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from triphase.batches.transfers import to_device
from triphase.models.policies import Policy, policy_for
from triphase.models.roles import SharedModel
from triphase.objectives.advantages import Advantages
from triphase.objectives.divergence import AdaptiveKL, FixedKL
from triphase.phases.ahead import RolloutSource
from triphase.phases.critic import start_critic, train_roles
from triphase.phases.estimators import kept_as, require_same_estimator
from triphase.phases.experience import Experience, Rollout, epochs_of, evaluate_rollout, open_rollout
from triphase.phases.frozen import FrozenWeights
from triphase.phases.guards import AlarmGuard, judge_rollout
from triphase.phases.minibatch import accumulate_gradients
from triphase.phases.nonfinite_causes import SHOWN_AS, cause_of
from triphase.phases.out_of_memory import HalvesMicrobatches
from triphase.phases.ppo_state import PPOState, schedule_iteration
from triphase.phases.reset_reference import ResetReference
from triphase.phases.rewards import advantages_of, shape_rewards
from triphase.phases.role_offloading import RoleOffloading
from triphase.phases.rollout_metrics import Clock, Excerpt, Gold, Means, against_first_rollout, figures_of, samples_of
from triphase.phases.sampler import against_sampler
from triphase.phases.score_scale import ScoreScale, next_scale
from triphase.phases.sft_mix import SFTMix
from triphase.records.types import Prompt
from triphase.rewards.model import ModelScorer
from triphase.rewards.types import Answer, Answers, Scorer, Scores
from triphase.rollouts.types import Generated, Generator
from triphase.settings.ppo import PPOSettings
from triphase.tokens.encoding import Encoded
from triphase.training.bad_batches import keep_bad_batch, tensors_of
from triphase.training.checkpoint_places import CHECKPOINTS
from triphase.training.distributed.types import ALONE, Strategy
from triphase.training.loop import Judged, Phase
from triphase.training.state import TrainingState
from triphase.training.step import Updater


class PPOPhase(HalvesMicrobatches, Phase):
    """The policy (an adapter, or all weights of a copy of the base) and its critic, trained by PPO."""

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
        scorer: Scorer | None = None,
        policy: Policy | None = None,
        on_samples: Callable[[int, list[Excerpt]], None] | None = None,
        guard: AlarmGuard | None = None,
        mix: SFTMix | None = None,
        continues: bool = False,
        ahead: bool = False,
        strategy: Strategy = ALONE,
    ) -> None:
        """``scorer`` scores the responses, by default the reward model of ``shared``; ``policy`` is what ``generator``
        samples from, by default the policy's adapter on ``shared``. Every rank of a ``strategy`` has its own copy of
        both, with the same results (`phases.rank_sharing`). ``mix`` are the demonstrations of ``settings.sft_mix``.
        ``continues``: the policy was trained before and differs from the reference at the start. ``ahead``: each
        rollout is sampled during the iteration before.

        Raises:
            ValueError: ``settings.method`` is full, and there is no policy; or ``sft_mix`` is set, and there is no mix.
        """
        if (mix is None) != (settings.sft_mix == 0):
            raise ValueError(f"sft_mix is {settings.sft_mix:g}, and mix is {'not ' * (mix is None)}given")
        if policy is None and settings.method == "full":
            raise ValueError("PPO with full weights needs the policy that the generator samples from; give it")
        self.shared = shared
        self.prompts = prompts
        self.prompt_ids = prompt_ids
        self.settings = settings
        self.generator = generator
        behind = settings.max_response_tokens * (settings.responses_per_prompt if shared.backbone.packs else 1)
        self.lengths = [len(ids) + behind for ids in prompt_ids]
        self.seed, self.strategy = seed, strategy
        self.gold = gold
        self.scorer: Scorer = ModelScorer(shared) if scorer is None else scorer
        self.on_samples = on_samples
        self.directory: Path | None = None
        self.guard = guard
        self.mix, self.continues = mix, continues
        self._frozen: FrozenWeights | None = None
        self.policy = policy or policy_for(shared, settings.method)
        same_base = self.policy.model is shared
        self.rollouts = RolloutSource(
            generator, prompt_ids, settings, self.policy, seed=seed, ahead=ahead, with_trunk=same_base
        )
        self.reset = ResetReference(shared, settings.reference_reset_every)
        heads = start_critic(shared, settings)
        train_roles(shared, self.policy, settings, 0)
        updater = Updater(
            self.policy.parameters(),
            heads,
            settings.optimizer,
            total_steps=settings.iterations * settings.steps_per_iteration,
            critic=shared.critic.parameters(),
            critic_learning_rate=settings.critic_learning_rate,
            strategy=strategy,
            offload=shared.loaded.offload,
        )
        self.offloading = RoleOffloading(shared, self.policy, settings, ranks=strategy.world)
        values = PPOState(kl_coefficient=settings.kl_coefficient, advantage_estimator=kept_as(settings))
        self.state = TrainingState(updater, values)
        self.total_steps = settings.iterations
        self.controller = (
            FixedKL() if settings.kl_target is None else AdaptiveKL(settings.kl_target, settings.kl_horizon)
        )

    def open(self, directory: Path) -> None:
        """Store non-finite batches in ``directory``; record the checksums of the frozen weights.

        Raises:
            RunError: the existing checkpoint was made with another advantage estimator.
        """
        require_same_estimator(directory / CHECKPOINTS, self.settings)
        self.directory = directory
        self._frozen = FrozenWeights(self.shared)
        if self.strategy.world > 1:
            self.strategy.require_same("the frozen weights", self._frozen.digest)

    def judge(self, position: int, metrics: Mapping[str, float]) -> Judged:
        """By score minus KL penalty, and by the witness if there is one."""
        unit = self.state.values.unit_of_scores(self.settings.score_normalization)
        return judge_rollout(position, metrics, unit)

    def finish(self) -> None:
        """Training is over: check that the frozen weights have not changed."""
        self.policy.train(False)
        self.offloading.before_scoring()
        self.reset.close()
        self.shared.adapters.train_only(None)
        if self._frozen is not None:
            self._frozen.require_unchanged()

    def advance(self, iteration: int) -> dict[str, float]:
        """One rollout and its updates."""
        clock = Clock()
        schedule_iteration(self.state, self.settings, iteration)
        train_roles(self.shared, self.policy, self.settings, iteration)
        # 1. sample the responses to each prompt of this iteration
        self.offloading.before_sampling()
        chosen = self.rollouts.prompts(iteration)
        taken = self.rollouts.take(iteration, self.state)
        generated = taken.generated
        clock.lap("ppo/seconds_generation")
        self.offloading.before_scoring()
        # 2. scores; log-probabilities and values, by the forward pass that the updates use
        samples = [
            Encoded(self.prompt_ids[number], answer.ids) for number, answer in zip(chosen, generated, strict=True)
        ]
        orders = {"seed": self.seed, "iteration": iteration}
        starts = iteration == 0 and not self.continues
        rollout = open_rollout(
            self.shared, samples, self.settings, **orders, starts=starts, trunk=taken.trunk, strategy=self.strategy
        )
        taken = replace(taken, trunk=None)  # rows of several responses are a copy of them
        scored = self._score(rollout, chosen, samples, generated)
        reset = self.reset.at(iteration, self.policy, self.state)
        experience = evaluate_rollout(
            self.shared, rollout, scored, self.settings, policy=self.policy, reset=reset, strategy=self.strategy
        )
        clock.lap("ppo/seconds_scoring")
        if experience.nonfinite:
            return self._refused(iteration, experience) | clock.laps
        # 3. rewards at every token, and advantages
        coefficient = self.state.values.kl_coefficient
        finished = to_device(torch.tensor([answer.finished for answer in generated]), experience.scores.device)
        scale = self._scale_with(experience.scores)
        rewards, shaped = shape_rewards(experience, finished, self.settings, kl_coefficient=coefficient, scale=scale)
        plain = advantages_of(rewards, experience, self.settings, to_device(torch.tensor(chosen), rewards.device))
        advantages, gap = against_sampler(plain, experience, generated, self.settings, staleness=taken.staleness)
        # 4. epochs of clipped updates
        self.offloading.before_updates(self.generator)
        updates = self._update(iteration, experience, advantages)
        clock.lap("ppo/seconds_update")
        # 5. metrics, as rank 0 reports them; the coefficient of the next iteration
        others = updates | clock.laps | shaped | gap | against_first_rollout(self.state.values, iteration, experience)
        metrics = self.strategy.from_lead(lambda: self._report(iteration, experience, advantages, generated, others))
        if iteration >= self.settings.critic_warmup:
            self._control(metrics, len(chosen))
        self._check_alarms(iteration, metrics)
        return metrics

    def _report(
        self,
        iteration: int,
        experience: Experience,
        advantages: Advantages,
        generated: Sequence[Generated],
        others: Mapping[str, float],
    ) -> dict[str, float]:
        """The metrics of an iteration: of its rollout, whose samples are shown, and ``others``."""
        prompts = [self.prompts[number] for number in self.rollouts.prompts(iteration)]
        shown = samples_of(self.shared, experience, prompts, generated, self.gold)
        if self.on_samples is not None:
            self.on_samples(iteration, shown)
        metrics = {**figures_of(experience, advantages, shown), **others}
        return metrics | {"ppo/episodes": float((iteration + 1) * len(prompts))}

    def _score(
        self, rollout: Rollout, chosen: Sequence[int], samples: Sequence[Encoded], generated: Sequence[Generated]
    ) -> Scores:
        answers = tuple(
            Answer(self.prompts[number], self.shared.template.text(answer.ids), answer.finished, sample)
            for number, sample, answer in zip(chosen, samples, generated, strict=True)
        )
        return self.scorer.score(Answers(answers, rollout.parts))

    def _scale_with(self, scores: Tensor) -> ScoreScale:
        """The run's scale of scores, including this rollout; it is kept with the state of the controllers."""
        calibrated = self.scorer.calibrated
        scale = next_scale(self.state.values.score_scale, scores, self.settings, calibrated=calibrated)
        self.state.values.score_scale = scale
        return scale

    def _update(self, iteration: int, experience: Experience, advantages: Advantages) -> dict[str, float]:
        sums, steps, skipped, first = Means(), 0, 0, True
        ours = {"seed": self.seed, "iteration": iteration}
        for minibatch in epochs_of(self.shared, experience, self.settings, **ours, strategy=self.strategy):
            figures = accumulate_gradients(
                self.policy, minibatch, experience, advantages, self.settings, first=first, strategy=self.strategy
            )
            first = False
            limit = self.settings.max_approximate_kl
            if limit is not None and figures["ppo/approximate_kl"] > limit:
                # The policy has moved as far as this rollout can be trusted: drop this gradient, end the updates.
                self.state.updater.discard()
                return sums.means() | {"ppo/steps": float(steps), "ppo/skipped_steps": float(skipped)}
            if self.mix is not None and iteration >= self.settings.critic_warmup:
                most = self.settings.tokens_at_once
                figures |= self.mix.accumulate(self.policy, iteration, steps, max_tokens=most)
            result = self.state.updater.step()
            steps, skipped = steps + 1, skipped + result.skipped
            if result.skipped:
                extra = {"advantages": advantages.advantages, "returns": advantages.returns}
                self._keep_bad(iteration, experience, result.nonfinite, extra)
            figures |= {"ppo/gradient_norm": result.gradient_norm, "ppo/learning_rate": result.learning_rate}
            sums.add(figures)
        return sums.means() | {"ppo/steps": float(steps), "ppo/skipped_steps": float(skipped)}

    def _refused(self, iteration: int, experience: Experience) -> dict[str, float]:
        """A rollout whose metrics are not finite trains nothing: it is stored for inspection and counted."""
        self._keep_bad(iteration, experience, experience.nonfinite)
        updater = self.state.updater
        scorer = None if self.scorer.calibrated else self.scorer.name
        # Steps that were skipped changed nothing.
        updates = updater.step_count - updater.skipped_in_a_row
        updater.skip_step(experience.nonfinite, advice=cause_of(experience, scorer=scorer, updates=updates))
        metrics = {SHOWN_AS[name]: math.nan for name in experience.nonfinite}
        metrics |= {"ppo/skipped_steps": 1.0, "ppo/steps": 0.0, "ppo/kl_coefficient": self.state.values.kl_coefficient}
        metrics["ppo/episodes"] = float((iteration + 1) * self.settings.batch_size)
        self._check_alarms(iteration, metrics)
        return metrics

    def _keep_bad(
        self,
        iteration: int,
        experience: Experience,
        nonfinite: tuple[str, ...],
        extra: Mapping[str, Tensor] | None = None,
    ) -> None:
        if self.directory is not None and self.strategy.is_lead:
            # Without the trunk states, which are large, and can be recomputed from the tokens.
            tensors = tensors_of(experience.batch) | tensors_of(experience) | dict(extra or {})
            keep_bad_batch(self.directory, iteration + 1, tensors, {"nonfinite": nonfinite})

    def _check_alarms(self, iteration: int, metrics: dict[str, float]) -> None:
        if self.guard is not None and not self.state.values.finished:
            self.guard.check_alarms(self.state, iteration + 1, metrics)
            self.rollouts.discard_if_reverted(self.state)
            if self.guard.keep:
                metrics["ppo/rollbacks"] = float(len(self.state.values.rollbacks))

    def _control(self, metrics: Mapping[str, float], episodes: int) -> None:
        coefficient, observed = self.state.values.kl_coefficient, metrics["ppo/reference_kl"]
        penalized = metrics.get("ppo/penalty_kl", observed)
        self.state.values.kl_coefficient = self.controller.next_coefficient(coefficient, penalized, episodes)
        budget = self.settings.kl_budget
        if budget is not None and observed > budget:
            self.state.values.finished = f"reference KL {observed:.2f} passed ppo.kl_budget {budget:g}"
