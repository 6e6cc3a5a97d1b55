"""The best checkpoint of PPO without gold: each kept one responds to held-out prompts, and scorer and KL decide.

    value = mean score − price·KL          price = max(kl_coefficient·s, 0.1·σ)
    value = mean witness score − kl_coefficient·KL          if there is a witness, which PPO does not optimize

with σ the standard deviation of the SFT policy's scores, and s the unit of the penalty: σ, or 1 under `raw`. That of a
witness is 1 by itself.

The score alone never peaks: PPO raises it. The selected one is stored in `ppo/best` like the last one in `ppo/final`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from triphase.errors import RunError
from triphase.phases.guards import LEAST_KL_PRICE
from triphase.phases.ppo_state import PPOState
from triphase.phases.sampling import sample_responses
from triphase.records.files import write_json
from triphase.rewards.model import WITNESS_SCORE
from triphase.rewards.types import Answer
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
    by = "score less KL" if best.witness is None else "witness score less KL"
    write_json(run.part(FILE_NAME), {"step": best.step, "by": by, "candidates": [asdict(each) for each in found]})
    run.say(f"ppo/best: iteration {best.step} of {', '.join(map(str, steps))}, by {by} on held-out prompts")
    run.forget_model()
    return best.step


def _candidates(run: Run, steps: Sequence[int]) -> list[Candidate]:
    prompts = run.prompts("heldout")[: run.settings.evaluation.max_prompts]
    count, settings = run.settings.evaluation.samples_per_prompt, run.settings.ppo
    found = []
    with (
        scorer_of(run, settings) as scorer,
        run.progress.track("choosing", len(steps) * len(prompts) * count, unit="responses") as track,
    ):
        for step in steps:
            shared = run.model()
            policy = load_policy_at(shared, run.path, step, settings.method)
            said = sample_responses(
                policy.model,
                prompts,
                adapter=policy.adapter,
                model=BEST,
                count=count,
                temperature=settings.temperature,
                max_response_tokens=settings.max_response_tokens,
                max_length=run.settings.model.max_length,
                batch_size=run.settings.sampling.batch_size,
                seed=run.settings.seed,
                on_finished=track.advance,
            )
            samples, actor = encoded(shared, said), (policy.model, policy.adapter)
            moved = sequence_kl(run, shared, actor, samples, temperature=settings.temperature)
            scores = scorer.score(
                [
                    Answer(prompt, response.text, response.finished, sample)
                    for (prompt, response, _), sample in zip(said, samples, strict=True)
                ]
            )
            found.append(_candidate(run, step, scores.total, scores.monitors, moved))
            run.raise_if_stop_requested()
    return found


def _candidate(
    run: Run, step: int, total: Sequence[float], monitors: Mapping[str, Sequence[float]], moved: Sequence[float]
) -> Candidate:
    whole = [value for value in total if math.isfinite(value)]
    if not whole:
        raise RunError(f"--checkpoint best: the scorer gives no score to the responses of iteration {step}")
    score, kl, witness = fmean(whole), fmean(moved), monitors.get(WITNESS_SCORE)
    manifest, coefficient = _manifest(run, step), run.settings.ppo.kl_coefficient
    if witness is not None:
        second = fmean(witness)
        return Candidate(step, manifest, score, second, kl, second - coefficient * kl)
    unit = _unit(run, step)
    counted = 1.0 if run.settings.ppo.score_normalization == "raw" else unit
    price = max(coefficient * counted, LEAST_KL_PRICE * unit)
    return Candidate(step, manifest, score, None, kl, score - price * kl)


def _manifest(run: Run, step: int) -> str:
    return sum_of(run.part(PPO, CHECKPOINTS), step)


def _unit(run: Run, step: int) -> float:
    """The standard deviation of the scores of the SFT policy's samples, as stored by PPO."""
    state = PPOState.from_json(load_checkpoint(run.part(PPO, CHECKPOINTS), step).values["values"])
    return state.unit_of_scores(run.settings.ppo.score_normalization) or 1.0
