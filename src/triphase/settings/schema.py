"""Every setting, its default and its meaning. Unknown keys are refused; relations are checked at construction."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from triphase.settings.base import RUN_NAME, NonNegative, Positive, PositiveFloat, Settings, Share
from triphase.settings.conflicts import require_demonstrations_to_mix, require_rounds_fit, require_weights_fit
from triphase.settings.data import DataSettings
from triphase.settings.guards import GuardSettings
from triphase.settings.parallel import ParallelSettings
from triphase.settings.phases import RewardSettings, SamplingSettings, SupervisedSettings
from triphase.settings.ppo import PPOSettings
from triphase.settings.renamed import with_new_names, with_new_sections
from triphase.settings.scorer import laid_over
from triphase.settings.services import RolloutSettings


class ModelSettings(Settings):
    """The pretrained language model."""

    name: str
    """A local directory, a hub id (`organization/model`), or `embedded:smollm2` / `embedded:tiny`."""
    adapter: str | None = None
    """A peft adapter (LoRA) of this model, by directory or hub id: it is merged into the base, and every role starts
    from the merged model."""
    revision: str | None = None
    """The hub revision (branch, tag or commit); by default the default branch."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Dtype of the frozen base; `auto` is bfloat16 if its products are faster (on a CPU they are timed), else float32,
    as with `ppo.method: full`. Adapters, heads and their optimizer states are always float32. What `sft.method: full`
    trains has this dtype, its optimizer states too; with `auto` it is float32, since bfloat16 loses small updates."""
    quantization: Literal["int8", "nf4"] | None = None
    """Keep the linear layers of the frozen base in 8 bits (`int8`, by torchao) or 4 (`nf4`, by bitsandbytes) if it does
    not fit (`pip install 'triphase[quantization]'`): all phases are slower, generation most. Experts, which are fused
    tensors, stay in `dtype`; a note says so. By default everything does."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device; `auto` selects CUDA if available."""
    max_length: Positive = 1024
    """Maximum tokens of a prompt plus response; longer records are errors, never cut silently."""
    recompute_activations: bool = False
    """Run each trained layer again in the backward pass instead of keeping its activations: the same gradients with far
    less memory, for about a third more time in the updates. Use it if a microbatch does not fit."""
    offload: bool = False
    """On a CUDA device, keep in the host's memory what a stage does not read: Adam's moments except in the step itself,
    and in the updates of PPO the reference, the reward models and the layers below the adapted ones (with
    `method: full` the whole frozen base). The results are the same; copying takes time in every step, and captured
    steps of sampling are captured again in each iteration. Refused on a CPU."""
    compile_layers: bool = False
    """Compile the adapted layers, but for the last, with `torch.compile`: elementwise operations are fused, results
    change by rounding. Layers that `method: full` trains are not compiled. The first passes take a minute or more, so
    it pays only for long runs, and a compiler must be installed (on a CPU a C++ compiler); without one, a warning says
    so and nothing is compiled."""
    capture_decoding: Literal["auto", "on", "off"] = "auto"
    """On a CUDA device, sample with one CUDA graph per token instead of one kernel launch after another: the same
    tokens up to rounding, several times faster. `auto` does so for models of the Llama, Mistral and Qwen families,
    quantized ones too, and logs if it cannot; `on` is an error then; `off` launches each kernel, which takes a little
    less memory."""
    packed_decoding: bool = True
    """On a CPU with the base in bfloat16, sample with a copy of the layers' weights in the order in which the matrix
    library reads them: the same tokens in about 0.85 of the time. The copy is in memory while responses are sampled;
    `false` saves it. For models of the Llama, Mistral and Qwen families; others ignore it."""
    system_prompt: str | None = None
    """A system message for every conversation that has none; by default this is left to the chat template."""
    chat_template: str | None = None
    """How conversations are formatted, instead of the tokenizer's own template: `chatml`, `plain` (turns below `User:`
    and `Assistant:`), or a file with a Jinja template, whose text is stored in the run. For base models, whose
    tokenizers have none: without one, prompts are plain text, and the turns of a conversation are lines."""
    texts_write_control_tokens: bool = False
    """Let texts in the data produce the tokenizer's special tokens, for example an end of turn inside a prompt. By
    default the names of special tokens in texts are encoded as plain text, and the first one is logged."""
    template_date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None
    """The date (YYYY-MM-DD) for chat templates that write the current date; by default the day on which the run was
    started, so that tokens do not change from day to day."""
    trust_remote_code: str | Literal[False] = False
    """The name of this model once more, to allow Python code that comes with it; such code can do everything that you
    can."""

    @model_validator(mode="after")
    def _trust_is_for_this_model(self) -> "ModelSettings":
        if self.trust_remote_code and self.trust_remote_code != self.name:
            raise ValueError(
                f"trust_remote_code names {self.trust_remote_code!r}, but the model is {self.name!r}; name the model "
                "whose code you trust, or leave it out"
            )
        return self


class AdapterSettings(Settings):
    """Low-rank adapters (LoRA, arXiv 2106.09685)."""

    layers: Positive | Literal["all"] = 10
    """Number of top layers with adapters; a smaller model has them on all layers. The layers below are computed once
    per sample."""
    rank: Positive = 16
    """Rank r of the update B·A."""
    alpha: PositiveFloat = 32.0
    """Scale: the update is multiplied by alpha / rank."""
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that get an adapter; by default all in each transformer layer."""
    trunk_cache_gb: NonNegative = 2.0
    """Memory for cached trunk states of samples that are visited more than once (SFT, reward model)."""
    trunk_file_gb: NonNegative = 20.0
    """Disk space for trunk states beyond trunk_cache_gb, in an unnamed file in the run directory that disappears when
    the phase or its process ends; beyond both they are recomputed at each visit. 0 writes no file."""


class LabelingSettings(Settings):
    """The human step."""

    source: Literal["auto", "simulated", "people", "none"] = "auto"
    """`simulated` labelers rank by the gold score with human-like noise; `people` rank on the web page; `none` if all
    comparisons are imported, or none are needed. `auto`: people, but none if there is nothing for them to rank: each
    PPO run has another scorer than the reward model, or the data is demonstrations alone, or preferences alone."""
    noise_scale: PositiveFloat = 0.4
    """Simulated labelers: scale of the Gumbel noise on the gold score, in its standard deviations."""
    labelers: Positive = 4
    """Number of simulated labelers; the last one is careless."""
    rankings_per_prompt: Positive = 1
    """Average number of labelers per prompt (overlap)."""
    required_share: Annotated[float, Field(gt=0, le=1)] = 0.95
    """If people rank: share of the prompts that must have a ranking before the reward phase starts. Below 1, so that a
    prompt that everyone skips does not stop the run."""
    overlap_share: Share = 0.25
    """Share of the prompts that more labelers rank (`overlap` of them), so that agreement can be measured."""
    overlap: Annotated[int, Field(ge=2, le=20)] = 2
    """Number of people who rank each prompt of the overlap share."""
    gold_share: Share = 0.05
    """Share of gold items (with a known answer) among a person's items, while there are any that they have not had."""
    repeat_share: Share = 0.05
    """Share of items that a person gets a second time in another order, to measure self-consistency."""
    random_share: Share = 0.25
    """If reward-model scores select the items: share that is still drawn at random, kept for unbiased evaluation."""
    campaigns: tuple[Annotated[str, Field(min_length=1, max_length=60)], ...] | None = None
    """Campaigns of the labeling page whose answers the run learns from, `main` for the main task. None selects all but
    comparisons of policies, which judge trained models."""
    lease_minutes: PositiveFloat = 20.0
    """How long an item is reserved for one person; after that another may take it."""
    ask_strength: bool = True
    """Offer (never require) a strength of preference with each ranking."""
    ask_quality: bool = False
    """Offer (never require) an overall quality from 1 to 7 for each response."""
    criteria: tuple[Annotated[str, Field(min_length=1, max_length=40)], ...] = Field(default=(), max_length=8)
    """Offer (never require) a rating from 1 to 7 of each response by each of these, such as `[helpful, honest]`."""
    ask_rationale: bool = False
    """Offer a field for the reason of the ranking; it is stored with the ranking."""
    ask_rewrite: bool = False
    """Let people rewrite a response as it should be: `label export --format demonstrations` exports these."""


class EvaluationSettings(Settings):
    """The evaluation on held-out prompts."""

    gold: Literal["warm", "grammar"] | None = None
    """A gold score that only simulated labelers and the evaluation know; `null` for your own data."""
    samples_per_prompt: Positive = 4
    """Responses to each held-out prompt, from the SFT policy and from the PPO policy."""
    max_prompts: Positive | None = None
    """Use at most this many held-out prompts."""
    shown_samples: Positive = 12
    """Samples shown in the report."""


class CheckpointSettings(Settings):
    """The checkpoints of a phase."""

    every_steps: Positive = 20
    """Optimizer steps (SFT, reward) between checkpoints; PPO writes one after each iteration."""
    keep: Positive = 2
    """How many of the newest checkpoints are kept; one fewer once PPO is finished, since the last but one is a spare.
    Of all but the last only the weights are kept then."""
    keep_best: Annotated[int, Field(ge=0)] = 1
    """How many more are kept because they are the best: by held-out loss (SFT, reward), by score minus KL penalty,
    and by the witness if there is one (PPO, docs/resilience.md)."""


class RunSettings(Settings):
    """A whole run: the top level of the configuration file."""

    name: Annotated[
        str,
        Field(
            pattern=RUN_NAME,
            json_schema_extra={
                "words": "letters, digits, `.`, `_` and `-`, no spaces, beginning with a letter or digit"
            },
        ),
    ]
    """Name of the run (letters, digits, dot, dash, underscore); its directory is output/name."""
    output: str = "runs"
    """Directory in which the run directory is created."""
    seed: int = 0
    """Seed of every random number in the run."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """CPU threads of torch; by default all cores available to this process."""
    model: ModelSettings
    """The pretrained language model."""
    adapters: AdapterSettings = AdapterSettings()
    """Low-rank adapters."""
    data: DataSettings
    """The data of the phases."""
    sft: SupervisedSettings = SupervisedSettings()
    """Phase 1."""
    sampling: SamplingSettings = SamplingSettings()
    """Responses for people to rank."""
    labeling: LabelingSettings = LabelingSettings()
    """The human step."""
    reward: RewardSettings = RewardSettings()
    """Phase 2."""
    ppo: PPOSettings = PPOSettings()
    """Phase 3."""
    variants: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")], dict[str, Any]] = {}  # noqa: RUF012
    """Variants: further PPO runs, each with a name and the `ppo` settings that differ; the report compares them with
    the main run."""
    rollouts: RolloutSettings = RolloutSettings()
    """Generation servers for PPO's rollouts."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """The evaluation on held-out prompts."""
    checkpoints: CheckpointSettings = CheckpointSettings()
    """The checkpoints of a phase."""
    trackers: tuple[Literal["wandb", "trackio", "mlflow"], ...] = ()
    """Trackers that get the metrics of each phase and the samples of PPO, besides metrics.jsonl and TensorBoard; each
    is an extra of the same name. Their own environment variables configure them (`WANDB_MODE=offline`)."""
    guards: GuardSettings = GuardSettings()
    """What a run does when its numbers go wrong."""
    parallel: ParallelSettings = ParallelSettings()
    """Several processes."""
    rounds: Positive = 1
    """Number of rounds. In each, `run` samples responses of the newest policy, has them ranked, retrains the reward
    model on all rankings and continues PPO from that policy. Each further round is a separate run, in `rounds/2` … of
    the run directory, with ppo.iterations iterations."""
    earlier_rounds: tuple[str, ...] = ()
    """The runs of the earlier rounds; `rounds` sets it."""

    @model_validator(mode="before")
    @classmethod
    def _old_sections(cls, values: Any) -> Any:
        return with_new_sections(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _consistent(self) -> "RunSettings":
        if self.labeling.source == "auto":  # config.yaml stores the decision
            self.__dict__["labeling"] = self.labeling.model_copy(update={"source": self._who_ranks()})
        if self.labeling.source == "simulated" and self.evaluation.gold is None:
            raise ValueError("labeling.source is simulated, but evaluation.gold is not set; set it to a gold score")
        require_weights_fit(self)
        require_demonstrations_to_mix(self)
        require_rounds_fit(self)
        if self.trains_whole and self.model.dtype == "auto":  # resolved here, so that a run keeps it
            self.__dict__["model"] = self.model.model_copy(update={"dtype": "float32"})
        return self

    def _who_ranks(self) -> str:
        data = self.data
        alone = not data.prompts and not (data.demonstrations and data.preferences)
        scored = any(self.ppo_of(variant).scorer.by_reward_model for variant in (None, *self.variants))
        return "none" if alone or not scored or self.reward.taken_from is not None else "people"

    @property
    def sft_method(self) -> str:
        """The source of phase 1's result: `lora` or `full`, `taken`, or `none`, also if there are no demonstrations."""
        if self.sft.taken_from is not None:
            return "taken"
        return self.sft.method if self.data.demonstrations else "none"

    @property
    def has_critic(self) -> bool:
        """Whether a critic is trained, in the main run or in a variant."""
        return any(self.ppo_of(variant).has_critic for variant in (None, *self.variants))

    @property
    def mixes_demonstrations(self) -> bool:
        """Whether PPO or a variant of it has a loss on demonstrations."""
        return any(self.ppo_of(variant).sft_mix > 0 for variant in (None, *self.variants))

    @property
    def trains_whole(self) -> bool:
        """Whether PPO or a variant of it trains every weight, which takes float32."""
        return any(self.ppo_of(variant).method == "full" for variant in (None, *self.variants))

    def ppo_of(self, variant: str | None) -> PPOSettings:
        """The PPO settings of a variant (None for the main run): its differences over ``ppo``."""
        if variant is None:
            return self.ppo
        values = self.ppo.model_dump()
        for key, value in with_new_names(self.variants[variant]).items():
            if isinstance(value, dict) and isinstance(values.get(key), dict):
                value = laid_over(values[key], value) if key == "scorer" else {**values[key], **value}
            values[key] = value
        return PPOSettings.model_validate(values)
