"""The steps of a run, one function each: a step is skipped if its work is done, and resumed if it is not.

This file wires: it reads records, passes each phase its parts, and writes the phase's artifact. It is in this folder
because the phases, the labeling and the reports do not import each other.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from triphase.datacheck.agenda import todo, what_is_left_out
from triphase.datacheck.demands import require_demonstrations
from triphase.models.critics import CRITIC
from triphase.models.roles import REFERENCE
from triphase.monitoring.metrics import MetricsWriter
from triphase.monitoring.samples import SampleLog
from triphase.monitoring.sums import seal
from triphase.phases.rollout_metrics import Excerpt
from triphase.phases.sampling import sample_responses
from triphase.planning.plan import FILE_NAME as PLAN
from triphase.planning.shortage import write_plan
from triphase.records.files import write_json
from triphase.records.types import Prompt
from triphase.reports.contents import gaps_of
from triphase.reports.page import write_report
from triphase.reports.summary import write_summary
from triphase.rewards.registry import needs_reward_model as needs_reward_model_of
from triphase.runs.base_dtype import in_kept_dtype
from triphase.runs.empty_responses import report_empty_samples
from triphase.runs.evaluation import evaluate_policies
from triphase.runs.generators import sampler_of
from triphase.runs.labeling import label
from triphase.runs.loop_options import kept
from triphase.runs.phase_setup import ppo_phase_of, sft_phase, whole_weights
from triphase.runs.preflight import examine_run
from triphase.runs.result_rows import sample_row
from triphase.runs.reward_gate import require_reward_model
from triphase.runs.reward_training import run_reward
from triphase.runs.rounds import sampled_as, sampled_policy
from triphase.runs.session import Run
from triphase.runs.store_contents import is_noted, note_sampled
from triphase.settings.phase_names import REWARD, SFT, ppo_phase
from triphase.training.artifacts import RANKED, is_usable, name_of, taken_of
from triphase.training.checkpoint_places import CHECKPOINTS
from triphase.training.cleanup import settle, share_files
from triphase.training.finals import save_policy, save_trained, save_whole_model
from triphase.training.loop import MetricsSink, run_loop

_log = logging.getLogger(__name__)
# Number of responses that are sampled, and then stored, together.
_BATCHES_KEPT = 8


def run_all(run: Run) -> None:
    """Every step that has something to do, in order, after all checks."""
    examine_run(run)
    for line in what_is_left_out(run.settings):
        run.say(line)
    steps: dict[str, Callable[[Run], None]] = {
        "sft": run_sft,
        "sampling": run_sampling,
        "labelling": run_labeling,
        "reward": run_reward,
        "ppo": run_every_ppo,
        "evaluation": run_evaluation,
    }
    for step in todo(run.settings):
        if step not in ("sampling", "labelling") or not _shares_labels(run):
            steps[step](run)
    run_report(run)


def _shares_labels(run: Run) -> bool:
    """Whether a branch shares the reward model, and has the labels that it was trained on with their figures."""
    taken = taken_of(run.path, REWARD)
    return taken is not None and taken.shared and is_noted(run.path) and run.part(RANKED).is_file()


def run_every_ppo(run: Run) -> None:
    """Phase 3 of the main run and of each variant."""
    for variant in (None, *run.settings.variants):
        run_ppo(run, variant)


def run_sft(run: Run) -> None:
    """Phase 1: the reference policy, by supervised fine-tuning on the mixture of demonstrations."""
    final, settings = run.artifact(SFT), run.settings
    if is_usable(final):
        return
    with run.directory.timed("sft"):
        require_demonstrations(settings, run.data)
        run.share_phase("sft")
        phase, figures = sft_phase(run)
        write_json(run.part("sft", "mixture.json"), figures)
        with kept(run, "sft", "supervised fine-tuning", phase.total_steps, shown=("sft/loss",)) as options:
            run_loop(phase, options)
        if settings.sft.method == "full":
            save_whole_model(phase.shared, final, run.made_by(SFT), weights=whole_weights(run, phase.shared))
            run.forget_model()
        else:
            save_policy(phase.shared, REFERENCE, final, with_value_head=False, made_by=run.made_by(SFT))
        run.data.forget_demonstrations()


def run_sampling(run: Run) -> None:
    """K responses of the newest policy to each prompt, into the store. Without labeling nothing is sampled."""
    settings = run.settings
    if settings.labeling.source == "none":
        return
    with run.directory.timed("sampling"), run.store() as store:
        store.add_prompts(run.prompts())
        called = sampled_as(run)
        done = {response.prompt_id for response in store.responses() if response.model == called}
        missing = [prompt for prompt in run.prompts() if prompt.id not in done]
        if not missing:
            # A run that was stopped after its last samples has not recorded them yet.
            if not is_noted(run.path):
                report_empty_samples(store, called)
                note_sampled(run.path, store)
            return
        count = settings.sampling.responses_per_prompt
        shared, adapter = sampled_policy(run)
        with (
            sampler_of(run, "sampling", shared) as sampler,
            sampler(shared, adapter) as generator,
            run.progress.track("sampling", len(missing) * count, unit="responses") as track,
        ):
            for part in _parts(run.prompts(), max(1, _BATCHES_KEPT * settings.sampling.batch_size // count)):
                wanted = [prompt for prompt in part if prompt.id not in done]
                found = sample_responses(
                    shared,
                    wanted,
                    adapter=adapter,
                    model=called,
                    count=count,
                    temperature=settings.sampling.temperature,
                    max_response_tokens=settings.sampling.max_response_tokens,
                    max_length=settings.model.max_length,
                    batch_size=settings.sampling.batch_size,
                    seed=settings.seed,
                    on_finished=track.advance,
                    generator=generator,
                )
                store.add_responses(response for _, response, _ in found)
                run.raise_if_stop_requested()
        report_empty_samples(store, called)
        note_sampled(run.path, store)


def _parts(prompts: Sequence[Prompt], size: int) -> Iterator[Sequence[Prompt]]:
    """The same chunks at each start: what is sampled together never depends on where a run was stopped."""
    for start in range(0, len(prompts), size):
        yield prompts[start : start + size]


def run_labeling(run: Run) -> None:
    """Perform the human step: simulated labelers rank, people have ranked, or preferences are imported."""
    run.raise_if_stop_requested()
    with run.directory.timed("labelling"):
        label(run)


def run_ppo(run: Run, variant: str | None = None) -> None:
    """Phase 3: PPO from the reference policy against the reward model; a variant is a separate PPO run."""
    phase_name = ppo_phase(variant)
    final, settings = run.artifact(phase_name), run.settings.ppo_of(variant)
    if is_usable(final):
        _settle(run, phase_name)
        return
    with run.directory.timed(phase_name):
        run.model()  # without it nothing else need be checked
        if needs_reward_model_of(settings.scorer):
            require_reward_model(run)
        run.share_phase("ppo", variant)
        log = SampleLog(run.part(phase_name, "samples.jsonl"))
        title = "PPO" if variant is None else f"PPO ({variant})"
        shown = ("ppo/proxy_score", "ppo/gold_score", "ppo/reference_kl")
        with (
            ppo_phase_of(run, variant) as phase,
            kept(run, phase_name, title, settings.iterations, shown=shown, guard=phase.guard) as options,
        ):
            phase.on_samples = lambda iteration, found: _show(log, options.metrics, iteration, found)
            run_loop(phase, options)
        weights = whole_weights(run, phase.policy.model) if settings.method == "full" else None
        made_by = run.made_by(phase_name)
        save_trained(phase.policy, final, with_critic=settings.has_critic, made_by=made_by, weights=weights)
        _settle(run, phase_name)
        phase.shared.adapters.remove(CRITIC)


def _settle(run: Run, phase: str) -> None:
    """Keep of a finished PPO run only the files that may be needed."""
    if not run.strategy.is_lead:
        return
    checkpoints, parent, final = run.settings.checkpoints, run.part(phase, CHECKPOINTS), run.part(name_of(phase))
    gone = settle(parent, final, keep=max(1, checkpoints.keep - 1), keep_best=checkpoints.keep_best)
    if final.is_dir() and run.artifact(SFT).is_dir():
        share_files(final, run.artifact(SFT))
    if gone:
        _log.info("%s is finished; checkpoints %s are removed", phase, ", ".join(map(str, gone)))


def _show(log: SampleLog, metrics: MetricsSink, iteration: int, found: Sequence[Excerpt]) -> None:
    rows = [sample_row(sample) for sample in found]
    log.write(iteration, rows)
    if isinstance(metrics, MetricsWriter):
        metrics.table("ppo/samples", iteration, rows)


def run_evaluation(run: Run, checkpoint: int | None = None) -> None:
    """Responses of the SFT policy and of each PPO policy to held-out prompts, with their scores.

    ``checkpoint`` names an iteration of PPO whose policy is evaluated too.
    """
    with run.directory.timed("evaluation"):
        evaluate_policies(run, checkpoint)


def run_report(run: Run) -> Path:
    """`summary.json` and `report.html`, with the plan of the memory next to the measurements."""
    if run.process_bytes is not None and not run.part(PLAN).is_file():
        write_plan(in_kept_dtype(run.settings, run.path), run.path, run.process_bytes)
        seal(run.path, [PLAN])
    write_summary(run.path)
    for gap in gaps_of(run.path):
        _log.warning("%s", gap)
    return write_report(run.path)
