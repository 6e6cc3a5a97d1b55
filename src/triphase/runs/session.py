"""A run in this process: its directory, its records, and the model that its phases share."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from triphase.datacheck.agenda import needs_reward_model
from triphase.datacheck.examiner import Examiner
from triphase.datacheck.model_names import adapter_note
from triphase.datacheck.run_data import RunData
from triphase.datacheck.tokenizer_checks import open_template
from triphase.demo.embedded import gold_of
from triphase.errors import DataError, RunError, TriphaseError
from triphase.labeling.work.campaign_plan import learned_from
from triphase.models.chain import is_adapter
from triphase.models.pretrained import notes_on
from triphase.models.roles import REFERENCE, SharedModel
from triphase.models.sharded_loading import local_part
from triphase.monitoring.log import QUIET, run_log
from triphase.monitoring.memory import resident_bytes
from triphase.monitoring.progress import Progress, progress_for
from triphase.planning.plan import sized_settings
from triphase.planning.shortage import shortage_of
from triphase.planning.warm_up import load_code
from triphase.records.types import Demonstration, Prompt
from triphase.runs.base_dtype import in_kept_dtype, inherited_dtype, kept_dtype
from triphase.runs.base_model import BaseModel, automatic_dtype
from triphase.runs.checked_score import CheckedScore
from triphase.runs.dependence import changeable, settings_of
from triphase.runs.directory import RunDirectory
from triphase.runs.ranks import Ranks, show_directory, threads_of
from triphase.runs.store_contents import require_contents
from triphase.settings.phase_names import REWARD, SFT, ppo_phase
from triphase.settings.schema import ModelSettings, RunSettings
from triphase.store import Store, open_store
from triphase.training.artifacts import fingerprint_of, is_whole
from triphase.training.artifacts import place_of as place_of_artifact
from triphase.training.distributed.types import ALONE, Strategy
from triphase.training.finals import load_policy
from triphase.training.stopping import Stopped, StopRequest

ScorerObject = Callable[..., Any] | None
"""A Python object that scores, if there is one."""


class Run:
    """The shared state of the pipeline's steps.

    Attributes:
        settings, directory, progress: the given ones.
        stop: set once the user requested a stop.
        data: the records, each read and encoded once.
        gold: the gold score, if the settings name one.
        scorer_object: a Python object that scores, of the program that started the run; None without one.
        strategy: the processes that share its phases, from this one's view.
        process_bytes: memory of the process before a phase; None until a model is open.
    """

    def __init__(
        self,
        settings: RunSettings,
        directory: RunDirectory,
        progress: Progress,
        stop: StopRequest,
        scorer_object: ScorerObject = None,
        *,
        strategy: Strategy = ALONE,
    ) -> None:
        if settings.model.template_date is None:  # prompts rendered today and tomorrow are the same
            dated = settings.model.model_copy(update={"template_date": directory.begun})
            settings = settings.model_copy(update={"model": dated})
        self.settings = settings
        self.directory = directory
        self.progress = progress
        self.stop = stop
        gold = settings.evaluation.gold
        self.gold = None if gold is None else CheckedScore(gold_of(gold), gold)
        self.data = RunData(settings, lambda: Examiner(open_template(settings.model), settings))
        self.scorer_object = scorer_object
        self.strategy = strategy
        self._shared: SharedModel | None = None
        self._base = BaseModel(settings, strategy, before=self.forget_model, dtype=lambda: kept_dtype(directory.path))
        self.process_bytes: float | None = None
        directory.shortage_of = lambda phase: shortage_of(
            in_kept_dtype(settings, self.path), phase, self.process_bytes, changeable(self.path, settings)
        )

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.directory.path

    @property
    def reference_adapter(self) -> str | None:
        """The adapter of the reference policy; None if the base itself is it: every weight was trained, or none."""
        method = self.settings.sft_method
        adapted = method == "lora" or (method == "taken" and is_adapter(self.artifact(SFT)))
        return REFERENCE if adapted else None

    def part(self, *names: str) -> Path:
        """A path inside the run directory."""
        return self.path.joinpath(*names)

    def artifact(self, phase: str) -> Path:
        """The directory of a phase's artifact."""
        return place_of_artifact(self.path, phase)

    def made_by(self, phase: str) -> str:
        """The fingerprint of the settings that a phase of this run reads."""
        return fingerprint_of(settings_of(phase, self.directory.settings.model_dump(mode="json")))

    def is_done(self, step: str) -> bool:
        """Whether a step of the pipeline is finished, with all its results."""
        ppo = [ppo_phase(variant) for variant in (None, *self.settings.variants)]
        match step:
            case "sft":
                return self.settings.sft_method == "none" or is_whole(self.artifact(SFT))
            case "sampling" | "labelling" | "reward":
                return is_whole(self.artifact(REWARD)) or (
                    self.is_done("ppo") and not needs_reward_model(self.settings)
                )
            case "ppo":
                return all(is_whole(self.artifact(phase)) for phase in ppo)
        return self.is_done("ppo") and self.part("evaluation", "samples.jsonl").is_file()

    def count_rankings(self, *, needed: bool = True) -> int:
        """The number of rankings of training prompts in the store; 0 if there is no store yet.

        If it is not ``needed`` the store is only examined.
        """
        if not self.part("labels.sqlite").is_file():
            return 0
        with self.store() as store:
            return len(store.ranked_groups("train")) if needed else 0

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The store of prompts, responses and rankings."""
        store = open_store(self.part("labels.sqlite"))
        try:
            require_contents(self.path, store)
            with store.reading() as connection:
                store.read_campaigns = learned_from(connection, self.settings.labeling.campaigns)
            yield store
        finally:
            store.close()

    def prompts(self, split: str | None = None) -> list[Prompt]:
        """The prompts of a split (all by default): those given, else those of the preferences.

        Raises:
            DataError: there are none.
        """
        chosen = [prompt for prompt in self.data.prompts() if split in (None, prompt.split)]
        if not chosen:
            raise DataError(
                f"there are no {split or ''} prompts; name some in data.prompts, or change data.heldout_share"
            )
        return chosen

    def fresh_model(self) -> SharedModel:
        """The pretrained model, before any phase."""
        settings = self.settings.model
        if self.settings.sft.method == "full" and settings.dtype == "auto":
            # Every weight is trained: updates are smaller than bfloat16 can hold.
            settings = settings.model_copy(update={"dtype": "float32"})
        self._shared = self._load(settings)
        return self._shared

    def model(self) -> SharedModel:
        """The model after phase 1 (unmodified, if there is no phase 1), with the frozen reference adapter.

        Raises:
            RunError: phase 1 has not been run.
        """
        final, method = self.artifact(SFT), self.settings.sft_method
        if not self.is_done("sft"):
            raise RunError(f"{final} does not exist yet; run `triphase sft` with this configuration first")
        if self._shared is None:
            if method == "none":
                self._shared = self._load(self.settings.model)
                self._shared.adapters.add(REFERENCE)
            elif self.reference_adapter is None:
                self._shared = self._load(
                    self.settings.model.model_copy(update={"name": str(final.resolve()), "adapter": None})
                )
                self._shared.adapters.add(REFERENCE)
            else:
                self._shared = self._load(self.settings.model)
                load_policy(self._shared, REFERENCE, final)
        return self._shared

    def say(self, line: str) -> None:
        """Show a line to the user, and write it to the log."""
        self.progress.note(line)
        logging.getLogger(__name__).info("%s", line)

    def raise_if_stop_requested(self) -> None:
        """Stop here if the user requested it; for places where all completed work has been stored.

        Raises:
            Stopped: they did.
        """
        if self.stop.asked:
            raise Stopped

    def share_phase(self, phase: str, variant: str | None = None) -> None:
        """Call the other ranks, if any, to a phase that starts now."""
        self.strategy.from_lead(lambda: [phase, variant, self._shared is not None])

    def next_shared_phase(self) -> tuple[str, str | None]:
        """The phase (and variant) to which rank 0 calls this one; it waits as long as it takes."""
        phase, variant, is_loaded = self.strategy.from_lead(lambda: list[str | None]())
        if self.strategy.shards and not is_loaded:  # rank 0 loads it again, and its parts are this rank's
            self.forget_model()
            self._base.forget()
        return str(phase), variant

    def forget_model(self) -> None:
        """Release the model; the next phase loads it again."""
        self._shared = None

    def whole_policy(self, final: Path) -> SharedModel:
        """The policy that PPO with full weights wrote to ``final``."""
        named = self.settings.model.model_copy(update={"name": str(final.resolve()), "adapter": None})
        return self._base.opened(named, beside=True)

    def _load(self, settings: ModelSettings) -> SharedModel:
        shared = self._base.opened(settings)
        if settings.adapter is not None and self.directory.is_held:
            self.say(adapter_note(settings))
        if self.directory.is_held:
            config, layers = shared.backbone.model.config, self.settings.adapters.layers
            for note in (*shared.template.notes, *notes_on(config, layers=layers, max_length=settings.max_length)):
                logging.getLogger(__name__).warning("%s", note)
            load_code()
        base = sum(local_part(value).nbytes for value in shared.backbone.base_tensors().values())
        self.directory.restart_peak()
        self.process_bytes = max(0.0, float(resident_bytes() - base))
        if self.strategy.world == 1:  # else each rank would plan, with another number
            self.settings, lines = sized_settings(self.settings, self.process_bytes, shared.backbone.dtype)
            for line in lines:
                self.say(line)
        return shared


@contextmanager
def prepare(
    settings: RunSettings,
    progress: Progress | None = None,
    scorer_object: ScorerObject = None,
    ranks: Ranks | None = None,
) -> Iterator[Run]:
    """Lock the run directory, handle Ctrl-C, and set torch up; the steps run inside this block.

    ``scorer_object`` is a Python object that scores; ``ranks`` are the run's processes, of which this is the first.
    """
    ranks = ranks or Ranks()
    if ranks.strategy.world == 1:
        torch.set_num_threads(threads_of(settings, 1))
    shown = progress or progress_for()
    with (
        RunDirectory(settings).held(lambda: inherited_dtype(settings) or automatic_dtype(settings.model)) as directory,
        run_log(directory.path, shown.note) as log,
        StopRequest().listening() as stop,
    ):
        log.info("process %d is working on %s", os.getpid(), directory.path)
        for note in directory.notes:
            log.warning("%s", note)
        run = Run(settings, directory, shown, stop, scorer_object, strategy=ranks.strategy)
        for line in ranks.lines:
            run.say(line)
        try:
            show_directory(directory.path, ranks.strategy)
            yield run
        except BaseException as error:
            _log_end(log, error)
            raise
        log.info("done")


def _log_end(log: logging.Logger, error: BaseException) -> None:
    """Why the work ended; what the command line reports is not repeated."""
    if isinstance(error, TriphaseError):
        log.error("%s", error, extra=QUIET)
    elif isinstance(error, Exception) and not isinstance(error, Stopped):
        log.critical("%s: %s", type(error).__name__, error, exc_info=error, extra=QUIET)
    else:
        log.info("stopped on request")


def as_split(demonstrations: list[Demonstration], split: str) -> list[Demonstration]:
    """The demonstrations of one split, by their prompts'."""
    return [item for item in demonstrations if item.prompt.split == split]
