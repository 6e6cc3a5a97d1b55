"""The best checkpoint of PPO without gold: each kept one responds to held-out prompts, and scorer and KL decide.

    value = mean over scorer and witness of: mean min(score, c)/σ − price·KL
    a reward model       c: 95 % quantile of the SFT policy's scores on the same prompts, σ: their deviation; price 0.05
    another scorer       c: none, σ: the unit of its scores in PPO; price max(kl_coefficient·s/σ, 0.1)

with s the unit of the penalty: σ, or 1 under `raw`. The score alone never peaks: PPO raises it. The selected one is
stored in `ppo/best` like the last one in `ppo/final`.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from triphase.errors import RunError
from triphase.models.roles import SharedModel
from triphase.monitoring.progress import Track
from triphase.objectives.checkpoint_value import LEAST_KL_PRICE, Measure, checkpoint_value
from triphase.phases.ppo_state import PPOState
from triphase.phases.sampling import sample_responses
from triphase.records.files import write_json
from triphase.records.types import Prompt
from triphase.rewards.model import WITNESS_SCORE
from triphase.rewards.registry import needs_reward_model
from triphase.rewards.types import Answer, Scores
from triphase.runs.best_checkpoint import BEST, FILE_NAME, read_choice
from triphase.runs.checkpoints import load_policy_at
from triphase.runs.evaluation import encoded, sequence_kl
from triphase.runs.scoring import scorer_of
from triphase.runs.session import Run
from triphase.settings.phase_names import PPO
from triphase.training.artifacts import is_whole
from triphase.training.checkpoint import load_checkpoint
from triphase.training.checkpoint_places import CHECKPOINTS, sum_of, whole_steps
from triphase.training.finals import save_trained


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checkpoint on held-out prompts; ``witness`` is None without one, ``manifest`` the checksum of its files'."""

    step: int
    manifest: str
    score: float
    witness: float | None
    reference_kl: float
    value: float


def choose_best(run: Run) -> int:
    """Write `ppo/best` and the reason for it; returns its iteration. An earlier selection among the same ones stays.

    Raises:
        RunError: PPO is not finished, or no checkpoint of it is kept.
    """
    parent, directory = run.part(PPO, CHECKPOINTS), run.part(PPO, BEST)
    if not is_whole(run.artifact(PPO)):
        raise RunError(f"--checkpoint best: PPO of {run.path} is not finished; run `triphase run {run.path}` first")
    steps = sorted(step for step in whole_steps(parent) if step > 0)
    if not steps:
        raise RunError(f"--checkpoint best: {run.path} keeps no checkpoint of PPO (checkpoints.keep)")
    kept, sums = read_choice(run.path), [_manifest(run, step) for step in steps]
    if kept is not None and [each.get("manifest") for each in kept["candidates"]] == sums and is_whole(directory):
        return int(kept["step"])
    found = _candidates(run, steps)
    best = max(found, key=lambda each: each.value)
    policy = load_policy_at(run.model(), run.path, best.step, run.settings.ppo.method)
    save_trained(policy, directory, with_critic=False, made_by=run.made_by(PPO))
    by = "score less KL" if best.witness is None else "score and witness score less KL"
    write_json(run.part(FILE_NAME), {"step": best.step, "by": by, "candidates": [asdict(each) for each in found]})
    run.say(f"ppo/best: iteration {best.step} of {', '.join(map(str, steps))}, by {by} on held-out prompts")
    run.forget_model()
    return best.step


def _candidates(run: Run, steps: Sequence[int]) -> list[Candidate]:
    learned, found = needs_reward_model(run.settings.ppo.scorer), []
    prompts, count = run.prompts("heldout")[: run.settings.evaluation.max_prompts], len(steps) + learned
    total = count * len(prompts) * run.settings.evaluation.samples_per_prompt
    with (
        scorer_of(run, run.settings.ppo) as scorer,
        run.progress.track("choosing", total, unit="responses") as track,
    ):
        baseline = None
        if learned:
            baseline = scorer.score(_answers(run, prompts, (run.model(), run.reference_adapter), track))
        for step in steps:
            policy = load_policy_at(run.model(), run.path, step, run.settings.ppo.method)
            actor = (policy.model, policy.adapter)
            answers = _answers(run, prompts, actor, track)
            samples = [answer.sample for answer in answers if answer.sample is not None]
            moved = sequence_kl(run, run.model(), actor, samples, temperature=run.settings.ppo.temperature)
            scores = scorer.score(answers)
            found.append(_candidate(run, step, scores, fmean(moved), baseline, calibrated=scorer.calibrated))
            run.raise_if_stop_requested()
    return found


def _answers(run: Run, prompts: Sequence[Prompt], actor: tuple[SharedModel, str | None], track: Track) -> list[Answer]:
    """Responses of a policy, the same seeds for each policy."""
    settings, (model, adapter) = run.settings, actor
    said = sample_responses(
        model,
        prompts,
        adapter=adapter,
        model=BEST,
        count=settings.evaluation.samples_per_prompt,
        temperature=settings.ppo.temperature,
        max_response_tokens=settings.ppo.max_response_tokens,
        max_length=settings.model.max_length,
        batch_size=settings.sampling.batch_size,
        seed=settings.seed,
        on_finished=track.advance,
    )
    return [
        Answer(prompt, response.text, response.finished, sample)
        for (prompt, response, _), sample in zip(said, encoded(run.model(), said), strict=True)
    ]


def _candidate(
    run: Run, step: int, scores: Scores, reference_kl: float, baseline: Scores | None, *, calibrated: bool
) -> Candidate:
    """A checkpoint's value. ``baseline``: scores of the SFT policy's responses, where a reward model is part of the
    scorer; ``calibrated``: it is the whole of it."""
    if not any(map(math.isfinite, scores.total)):
        raise RunError(f"--checkpoint best: the scorer gives no score to the responses of iteration {step}")
    own, witness = _measure(run, step), scores.monitors.get(WITNESS_SCORE)
    if baseline is not None and calibrated:
        own = Measure.of_reward_model(baseline.total)
    judged = [(own, scores.total)]
    if baseline is not None and witness is not None:
        judged.append((Measure.of_reward_model(baseline.monitors[WITNESS_SCORE]), witness))
    means = [fmean(filter(math.isfinite, each)) for _, each in judged]
    return Candidate(
        step,
        _manifest(run, step),
        means[0],
        means[1] if len(means) > 1 else None,
        reference_kl,
        checkpoint_value(judged, reference_kl),
    )


def _manifest(run: Run, step: int) -> str:
    return sum_of(run.part(PPO, CHECKPOINTS), step)


def _measure(run: Run, step: int) -> Measure:
    """That of a scorer which has not learned from comparisons, with the unit that PPO has stored."""
    settings = run.settings.ppo
    state = PPOState.from_json(load_checkpoint(run.part(PPO, CHECKPOINTS), step).values["values"])
    unit = state.unit_of_scores(settings.score_normalization) or 1.0
    paid = settings.kl_coefficient / (unit if settings.score_normalization == "raw" else 1.0)
    return Measure(unit, max(paid, LEAST_KL_PRICE))
