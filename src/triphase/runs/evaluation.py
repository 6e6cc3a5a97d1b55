"""Responses of each policy to held-out prompts, sampled at the training temperature and scored."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from triphase.batches.order import microbatches
from triphase.batches.padding import pad_batch
from triphase.errors import RunError
from triphase.models.roles import POLICY
from triphase.monitoring.sums import is_changed, seal_phase
from triphase.objectives.divergence import kl_k1
from triphase.phases.sampling import sample_responses
from triphase.records.files import read_json_lines, write_json_lines
from triphase.records.types import Response
from triphase.reports.file_shapes import misfit
from triphase.reports.policy_comparison import JudgedSample, Sample
from triphase.rewards.registry import needs_reward_model
from triphase.rewards.types import Answer
from triphase.rewards.weighted import units_file
from triphase.rollouts.types import Generated
from triphase.runs.checkpoints import load_policy_at, require_checkpoint
from triphase.runs.generators import Sampler, sampler_of
from triphase.runs.scoring import scorer_of
from triphase.runs.session import Run
from triphase.settings.phase_names import PPO, REWARD, SFT, policy_of, ppo_phase, variant_of
from triphase.settings.ppo import PPOSettings
from triphase.tokens.encoding import Encoded
from triphase.training.artifacts import is_usable, is_whole
from triphase.training.checkpoint_places import place_of
from triphase.training.finals import holds_whole_model, load_policy

AT = "ppo@"
"""The name of the policy of one iteration of PPO: `ppo@12`; that of a variant is `arm:NAME@12`."""
SAMPLES, JUDGES = "evaluation/samples.jsonl", "evaluation/judges.jsonl"
_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from triphase.models.roles import SharedModel
    from triphase.monitoring.progress import Track
    from triphase.records.types import Prompt

Sampled = tuple["Prompt", Response, Generated]


def evaluate_policies(run: Run, checkpoint: int | None = None) -> None:
    """Write `evaluation/samples.jsonl`: the SFT policy, the PPO policy, and each variant. Existing samples stay.

    ``checkpoint`` names an iteration of PPO whose policy, `ppo@STEP`, is evaluated too.

    Raises:
        RunError: there is no such checkpoint.
    """
    if checkpoint is not None:
        require_checkpoint(run.path, checkpoint)
    rows = _kept_rows(run)
    done = {row["policy"] for row in rows}
    wanted = {phase: run.artifact(phase) for phase in (SFT, PPO)}
    wanted |= {policy_of(variant): run.artifact(ppo_phase(variant)) for variant in run.settings.variants}
    if checkpoint is not None:
        wanted[f"{AT}{checkpoint}"] = place_of(run.part("ppo", "checkpoints"), checkpoint)
    started = run.settings.sft_method == "none"  # the unmodified model needs no file
    wanted = {
        policy: final
        for policy, final in wanted.items()
        if policy not in done and (is_usable(final) or (started and policy == SFT))
    }
    if not wanted:
        return
    _evaluate(run, wanted, rows)


def _kept_rows(run: Run) -> list[dict[str, Any]]:
    """Samples of policies that earlier calls finished; from a damaged file none, with a warning."""
    samples, judged = _rows_of(run, SAMPLES, Sample), _rows_of(run, JUDGES, JudgedSample)
    if samples is not None and judged is not None:
        return samples
    run.part(JUDGES).unlink(missing_ok=True)  # written again with the samples of the variants with a scorer
    return []


def _rows_of(run: Run, name: str, record: type[Sample] | type[JudgedSample]) -> list[dict[str, Any]] | None:
    path = run.part(name)
    try:
        rows = read_json_lines(path)
    except RunError as error:
        _log.warning("%s; the policies are evaluated again", error)
        return None
    if is_changed(run.path, name) or any(misfit(record, row) for row in rows):
        _log.warning("%s has changed since it was written (damaged or edited); the policies are evaluated again", path)
        return None
    return rows


def _evaluate(run: Run, wanted: dict[str, Path], rows: list[dict[str, Any]]) -> None:
    shared = run.model()
    prompts = run.prompts("heldout")[: run.settings.evaluation.max_prompts]
    count = run.settings.evaluation.samples_per_prompt
    with (
        sampler_of(run, "evaluation", shared) as sampler,
        run.progress.track("evaluation", len(wanted) * len(prompts) * count, unit="responses") as track,
    ):
        for policy, final in wanted.items():
            found, moved = _sampled(run, shared, prompts, policy, final, track, sampler)
            judge = _judge_of(run, policy)
            if judge.scorer.identity != run.settings.ppo.scorer.identity:
                _judge_baseline(run, shared, policy, rows, judge)
            rows += _rows(run, policy, found, _scores(run, shared, found, judge), moved)
            write_json_lines(run.part(SAMPLES), rows)
            seal_phase(run.path, "evaluation")
            run.raise_if_stop_requested()


def _sampled(
    run: Run,
    shared: "SharedModel",
    prompts: Sequence["Prompt"],
    policy: str,
    final: Path,
    track: "Track",
    sampler: Sampler,
) -> tuple[list[Sampled], list[float]]:
    """A policy's responses, and how far each is from the reference; a separate model is released at the end."""
    model, adapter = acting(run, shared, policy, final)
    ppo = run.settings.ppo
    with sampler(model, adapter) as generator:
        found = sample_responses(
            model,
            prompts,
            adapter=adapter,
            model=policy,
            count=run.settings.evaluation.samples_per_prompt,
            temperature=ppo.temperature,
            max_response_tokens=ppo.max_response_tokens,
            max_length=run.settings.model.max_length,
            batch_size=run.settings.sampling.batch_size,
            seed=run.settings.seed,
            on_finished=track.advance,
            generator=generator,
        )
    if policy == "sft":
        return found, [0.0] * len(found)
    return found, sequence_kl(run, shared, (model, adapter), encoded(shared, found), temperature=ppo.temperature)


def acting(run: Run, shared: "SharedModel", policy: str, final: Path) -> tuple["SharedModel", str | None]:
    """The model of a policy (`sft`, `ppo`, `arm:NAME`, or one at an iteration: `ppo@STEP`), and its adapter, if any."""
    if policy == "sft":
        return shared, run.reference_adapter
    name, _, step = policy.partition("@")
    if step:
        variant = variant_of(name)
        found = load_policy_at(shared, run.path, int(step), run.settings.ppo_of(variant).method, variant)
        return found.model, found.adapter
    if holds_whole_model(final):
        return run.whole_policy(final), None
    load_policy(shared, POLICY, final)
    return shared, POLICY


def _judge_of(run: Run, policy: str) -> PPOSettings:
    """The settings with the scorer of a policy: those that it was trained with; the main run's for the SFT policy."""
    return run.settings.ppo_of(variant_of(policy))


def _judge_baseline(
    run: Run, shared: "SharedModel", policy: str, rows: Sequence[dict[str, Any]], judge: PPOSettings
) -> None:
    """Score the SFT policy's responses by a variant's own scorer too: a gain is within one scorer's unit."""
    prompts = {prompt.id: prompt for prompt in run.prompts("heldout")}
    started = [row for row in rows if row["policy"] == "sft"]
    found: list[Sampled] = []
    for row in started:
        ids = tuple(shared.template.response_ids(row["response"], finished=row["finished"]))
        response = Response("", row["prompt_id"], row["response"], "sft", row["finished"])
        found.append((prompts[row["prompt_id"]], response, Generated(ids, row["finished"])))
    path = run.part(JUDGES)
    kept = [row for row in read_json_lines(path) if row["judge"] != policy]
    for row, score in zip(started, _scores(run, shared, found, judge) or [], strict=False):
        kept.append({"judge": policy, "prompt_id": row["prompt_id"], "sample": row["sample"], "score": score})
    write_json_lines(path, kept)


def _scores(run: Run, shared: "SharedModel", found: Sequence[Sampled], judge: PPOSettings) -> list[float | None] | None:
    """A PPO run's scores of each response.

    None for a response without a score, and in place of all if the reward model that it needs is absent, or a sum has
    no units yet.
    """
    if needs_reward_model(judge.scorer) and not is_whole(run.artifact(REWARD)):
        return None
    if judge.scorer.parts and not units_file(judge.scorer, run.path).is_file():
        return None
    answers = [
        Answer(prompt, response.text, response.finished, sample)
        for (prompt, response, _), sample in zip(found, encoded(shared, found), strict=True)
    ]
    with scorer_of(run, judge) as scorer:
        return [score if math.isfinite(score) else None for score in scorer.score(answers).total]


def encoded(shared: "SharedModel", found: Sequence[Sampled]) -> list[Encoded]:
    """The sampled responses as ids, each with the ids of its prompt."""
    return [
        Encoded(tuple(shared.template.prompt_ids(prompt.messages)), generated.ids) for prompt, _, generated in found
    ]


def _rows(
    run: Run,
    policy: str,
    found: Sequence[Sampled],
    scores: Sequence[float | None] | None,
    moved: Sequence[float],
) -> list[dict[str, Any]]:
    count = run.settings.evaluation.samples_per_prompt
    return [
        {
            "prompt_id": prompt.id,
            "prompt": prompt.text,
            "policy": policy,
            "sample": index % count,
            "response": response.text,
            "finished": response.finished,
            "tokens": len(generated.ids),
            "gold": None if run.gold is None else run.gold(prompt.text, response.text, response.finished),
            "score": None if scores is None else scores[index],
            "reference_kl": moved[index],
        }
        for index, (prompt, response, generated) in enumerate(found)
    ]


@torch.no_grad()
def sequence_kl(
    run: Run,
    shared: "SharedModel",
    actor: tuple["SharedModel", str | None],
    samples: Sequence[Encoded],
    *,
    temperature: float,
) -> list[float]:
    """Σ_t log π(y_t) − log π_ref(y_t) of each response: its k1 estimate of the divergence from the reference.

    ``actor`` is the policy's model and adapter; the model may be a separate one.
    """
    reference = run.reference_adapter
    found = [0.0] * len(samples)
    most, on_card = run.settings.ppo.tokens_at_once, shared.backbone.on_card
    for indices in microbatches([sample.length for sample in samples], max_tokens=most, on_card=on_card):
        batch = pad_batch([samples[index] for index in indices], pad_id=shared.template.pad_id, device=shared.device)
        boundary = shared.trunk(batch)
        model, adapter = actor
        own = boundary if model is shared else model.trunk(batch)
        policy = model.policy_output(batch, own, adapter=adapter, temperature=temperature)
        frozen = shared.policy_output(batch, boundary, adapter=reference, temperature=temperature)
        for index, value in zip(indices, kl_k1(policy.logprobs, frozen.logprobs).sum(1).tolist(), strict=True):
            found[index] = value
    return found
