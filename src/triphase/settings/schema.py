"""Every setting, its default and its meaning. Unknown keys are refused; relations are checked at construction.

Defaults with their sources stand in docs/settings.md. ``description`` is the one place where a setting is explained:
the documentation and the command line read it from here.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from triphase.settings.base import RUN_NAME, NonNegative, Positive, PositiveFloat, Settings, Share
from triphase.settings.conflicts import critic_conflict
from triphase.settings.renamed import with_new_names, with_new_sections
from triphase.settings.services import RolloutSettings, ScorerSettings, laid_over
from triphase.settings.without_critic import WITH_CRITIC, estimator_problem


class ModelSettings(Settings):
    """The pretrained language model."""

    name: str
    """A local directory, a hub id (`organization/model`), or `embedded:smollm2` / `embedded:tiny`."""
    revision: str | None = None
    """The hub revision (branch, tag or commit); none is the default branch."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Dtype of the frozen base; `auto` is bfloat16 where its products are faster (on a processor they are timed),
    else float32. Adapters, heads and optimizer states are always float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where tensors live; `auto` takes CUDA where there is one."""
    max_length: Positive = 1024
    """Longest prompt plus response, in tokens; longer records are errors, never cut in silence."""
    recompute_activations: bool = False
    """Run each trained layer again in the backward pass instead of keeping its activations: the same gradients with far
    less memory, for about a third more time in the updates. Worth it where a microbatch does not fit."""
    system_prompt: str | None = None
    """A system message put before every conversation that has none; none leaves it to the chat template."""
    texts_write_control_tokens: bool = False
    """Let texts of the data write the tokenizer's special tokens, an end of turn inside a prompt say. By default their
    names in texts are read as plain letters, and the first is logged."""
    template_date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None
    """The date (YYYY-MM-DD) that a chat template which writes the date is told; none is the day on which the run was
    begun, so that tokens do not change from day to day."""
    trust_remote_code: str | Literal[False] = False
    """The name of this model once more, to run Python code that comes with it; such code may do all that you may."""

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
    """How many of the top layers are adapted; the layers below are a trunk that is computed once a sample."""
    rank: Positive = 16
    """Rank r of the update B·A."""
    alpha: PositiveFloat = 32.0
    """Scale: the update is multiplied by alpha / rank."""
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the linear maps that get an adapter; all of the layer's by default."""
    trunk_cache_gb: NonNegative = 2.0
    """Memory for hidden states at the boundary of samples that are visited more than once (SFT, reward model)."""
    trunk_file_gb: NonNegative = 20.0
    """Room for those that pass trunk_cache_gb, in a nameless file inside the run directory that is gone once the phase
    or its process ends; what passes both is computed at each visit. 0 writes no file."""


class SourceSettings(Settings):
    """One file or hub data set of records."""

    path: str
    """A .jsonl, .json, .parquet or .csv file (relative to the configuration file), or a hub id."""
    split: str = "train"
    """The split of a hub data set."""
    kind: str = "instruction"
    """For demonstrations: the kind of data (instruction, domain, safety …) where records do not say it."""
    weight: PositiveFloat = 1.0
    """For demonstrations: the share of this source in the mixture, relative to the others."""


class DataSettings(Settings):
    """What the phases read."""

    demonstrations: tuple[SourceSettings, ...] = ()
    """Supervised data: `prompt`+`completion`, or `messages`; an optional `kind` column."""
    prompts: tuple[SourceSettings, ...] = ()
    """Prompts for sampling and PPO: `prompt` (text or messages); optional `id`, `split` (train or heldout)."""
    preferences: tuple[SourceSettings, ...] = ()
    """Existing comparisons: `chosen`+`rejected` with an explicit or implicit prompt; optional `margin`."""
    heldout_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the prompts kept for evaluation where records do not say their split; chosen by a hash of the prompt."""
    on_bad_record: Literal["error", "drop"] = "error"
    """A record that cannot be used stops the run with its file and line (`error`), or is left out and counted (`drop`);
    `check` counts the same."""


class OptimizerSettings(Settings):
    """AdamW and its schedule."""

    learning_rate: PositiveFloat
    """Peak learning rate of adapters (or of all weights)."""
    head_learning_rate: PositiveFloat | None = None
    """Peak learning rate of the scalar head; none is the same as the adapters'."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the rate falls to 0 over the phase, after warm-up."""
    warmup_share: Share = 0.0
    """Share of the steps over which the rate rises from 0."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of Adam's moments."""
    adam_epsilon: PositiveFloat = 1e-5
    """Adam's epsilon; 1e-5 as in the original RLHF code."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay."""
    max_gradient_norm: PositiveFloat = 1.0
    """Gradients are scaled down to this global norm."""


class SupervisedSettings(Settings):
    """Phase 1: supervised fine-tuning."""

    method: Literal["lora", "full"] = "lora"
    """`lora` trains adapters; `full` trains every weight and becomes the base of the later phases."""
    epochs: PositiveFloat = 2.0
    """Passes over the mixture."""
    batch_size: Positive = 16
    """Demonstrations for each optimizer step."""
    microbatch_tokens: Positive | None = None
    """Most tokens (padding counted) in one forward pass; bounds memory, changes rounding at most. none: 512 on a
    processor, where more are no faster, and 4096 on a GPU."""
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=3e-4, schedule="cosine", warmup_share=0.05)
    """AdamW and its schedule."""


class SamplingSettings(Settings):
    """Responses for people to rank."""

    responses_per_prompt: Annotated[int, Field(ge=2, le=9)] = 4
    """K: how many responses of the SFT policy are shown for each prompt."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature."""
    max_response_tokens: Positive = 32
    """Longest response."""
    batch_size: Positive = 64
    """Responses that are generated side by side."""


class LabelingSettings(Settings):
    """The human step."""

    source: Literal["simulated", "people", "none"] = "people"
    """`simulated` labelers rank by the gold score with human-like noise; `people` rank on the web page; `none` where
    all comparisons are imported."""
    noise_scale: PositiveFloat = 0.4
    """Simulated labelers: scale of the Gumbel noise on what they see, in standard deviations of the gold score."""
    labelers: Positive = 4
    """Simulated labelers, the last of them careless."""
    rankings_per_prompt: Positive = 1
    """How many labelers rank each prompt (overlap) on average."""
    required_share: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Where people rank: share of the prompts that must have a ranking before the reward phase starts. Below 1, so that
    a prompt which everyone skips does not stop the run."""
    overlap_share: Share = 0.25
    """Share of the prompts that more labelers rank (`overlap` of them), so that agreement can be measured."""
    overlap: Annotated[int, Field(ge=2, le=20)] = 2
    """How many people rank each prompt of the overlap share."""
    gold_share: Share = 0.05
    """Share of gold items (with a known answer) among what a person is given, while there are any they have not had."""
    repeat_share: Share = 0.05
    """Share of items that a person gets a second time in another order, to measure self-consistency."""
    random_share: Share = 0.25
    """Where reward-model scores choose the items: share that is still drawn at random, kept for unbiased evaluation."""
    lease_minutes: PositiveFloat = 20.0
    """How long an item is kept for one person; after that another may take it."""
    ask_strength: bool = True
    """Offer (never demand) a strength of preference with each ranking."""
    ask_quality: bool = False
    """Offer (never demand) an overall quality from 1 to 7 for each response."""


class RewardSettings(Settings):
    """Phase 2: the reward model."""

    epochs: PositiveFloat = 1.0
    """Passes over the comparisons; more than one overfits quickly (InstructGPT)."""
    batch_size: Positive = 8
    """Rankings (prompts with all their responses) for each optimizer step."""
    microbatch_tokens: Positive | None = None
    """Most tokens (padding counted) in one forward pass; bounds memory, changes rounding at most. none: 512 on a
    processor, where more are no faster, and 4096 on a GPU."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Probability that a label is taken to be flipped."""
    centering: NonNegative = 0.01
    """Weight of (sum of a pair's scores)², which fixes the free offset (arXiv 2312.09244, equation 2)."""
    head_penalty: PositiveFloat | Literal["auto"] | None = "auto"
    """Before the adapter is trained, the score head alone is fitted to the comparisons (linear probing, arXiv
    2202.10054), with this weight of the squared norm of its standardized weights. `auto` chooses it by 5-fold
    cross-validation over the training prompts; none leaves the fit out and starts from a random head, which needs a
    higher optimizer.head_learning_rate."""
    require_better_than_chance: bool = True
    """Stop before PPO where held-out comparisons do not show that the reward model is better than chance, and than
    preferring the longer response. It may be changed in a run that has begun."""
    calibration_samples: Positive = 256
    """Reference responses on which the score is brought to mean 0 and standard deviation 1."""
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=3e-4, head_learning_rate=1e-5, schedule="cosine")
    """AdamW and its schedule."""


class PPOSettings(Settings):
    """Phase 3: proximal policy optimization against the reward model."""

    iterations: Positive = 20
    """Rollouts, each followed by its updates."""
    batch_size: Positive = 32
    """Episodes in a rollout."""
    minibatch_size: Positive = 16
    """Episodes for each optimizer step; divides batch_size."""
    responses_per_prompt: Annotated[int, Field(ge=1, le=9)] = 1
    """K: how many episodes of a rollout answer the same prompt, which is computed once for them; divides both sizes."""
    microbatch_tokens: Positive | None = None
    """Most tokens (padding counted) in one forward pass; bounds memory, changes rounding at most. none: 512 on a
    processor, where more are no faster, and 4096 on a GPU."""
    epochs: Positive = 4
    """Passes over each rollout."""
    max_response_tokens: Positive = 32
    """Longest response; one that is cut there counts as terminal and unfinished."""
    temperature: PositiveFloat = 1.0
    """Of sampling, and of every log-probability."""
    kl_coefficient: NonNegative = 0.05
    """Weight of the KL penalty to the reference inside the reward: what a nat costs, in standard deviations of the
    scores of the SFT policy's samples (see score_normalization)."""
    kl_target: PositiveFloat | None = None
    """Reference KL (nats per response) that the adaptive controller steers to; none keeps the coefficient fixed."""
    kl_horizon: PositiveFloat = 10_000.0
    """Episodes over which the adaptive controller acts."""
    kl_budget: PositiveFloat | None = None
    """Reference KL (nats per response) at which PPO stops; none means no budget."""
    advantage_estimator: Literal["gae", "rloo", "grpo", "reinforce"] = "gae"
    """How rewards become advantages. `gae`: generalized advantage estimation, with a critic. The others have no critic;
    every token of a response gets its whole return (score minus KL penalty) less a baseline: `rloo` the mean return of
    the other responses to the prompt; `grpo` that of all responses to the prompt, divided by their standard deviation;
    `reinforce` the mean return of the rollout. `rloo` and `grpo` need responses_per_prompt of at least 2."""
    discount: Share = 1.0
    """γ."""
    gae_lambda: Share = 0.95
    """λ of generalized advantage estimation."""
    clip_range: PositiveFloat = 0.2
    """ε of the clipped surrogate."""
    value_clip_range: PositiveFloat | None = 0.2
    """Range in which the new value may move from the rollout's; none does not clip."""
    value_coefficient: NonNegative = 0.1
    """c1, weight of the value loss."""
    critic: Literal["value-head", "adapter"] = "value-head"
    """What predicts the return. `value-head`: a linear head on the policy's own hidden states. `adapter`: an adapter of
    its own under that head, so that value and policy share no trained weight; one forward and backward pass more."""
    critic_start: Literal["policy", "reward"] = "policy"
    """What the critic's adapter starts as: a copy of the `policy`'s (the SFT policy; the head at 0), or of the `reward`
    model's, its score head included."""
    critic_learning_rate: PositiveFloat | None = None
    """Peak learning rate of the critic's adapter; none is optimizer.learning_rate. The head has its own
    (optimizer.head_learning_rate)."""
    critic_warmup: Annotated[int, Field(ge=0)] = 0
    """Iterations at the start in which the critic alone learns and the policy stays as it is."""
    entropy_coefficient: NonNegative = 0.0
    """c2, weight of the entropy bonus."""
    score_normalization: Literal["calibrated", "running", "batch", "raw"] = "calibrated"
    """What the scores are divided by before the KL penalty is subtracted. `calibrated`: one scale for the whole run,
    that of the SFT policy's samples (the reward model's calibration; for a server, its scores in the first rollout).
    `running`: the same, but it grows to the deviation of all scores so far and never falls. `batch`: each rollout's own
    deviation, so that the effective KL coefficient falls as the policy concentrates. `raw`: 1. All but `raw` subtract
    the rollout's mean, so that an offset of the scores changes nothing."""
    rescale_token_rewards: bool = False
    """Divide token rewards by their standard deviation, keeping their mean. Off: it adds an incentive for length."""
    standardize_advantages: bool = True
    """Advantages of each rollout to mean 0 and standard deviation 1, over real tokens; with a critic only."""
    missing_eos_penalty: NonNegative = 1.0
    """Subtracted from the score of a response without end-of-sequence token, in the unit of kl_coefficient (under
    `batch` and `raw`, in the scorer's own unit)."""
    score_limit: PositiveFloat | None = 5.0
    """Scores are clipped to ± this many standard deviations from the mean of the first rollout, which is the SFT
    policy's (under `batch` and `raw`, to ± this in the scorer's own unit); none does not clip."""
    max_approximate_kl: PositiveFloat | None = 0.1
    """The updates on a rollout end early once the KL to the rollout policy (nats per token) passes this."""
    optimizer: OptimizerSettings = OptimizerSettings(
        learning_rate=3e-4, head_learning_rate=1e-3, schedule="linear", adam_epsilon=1e-5
    )
    """AdamW and its schedule."""
    scorer: ScorerSettings = ScorerSettings()
    """Who scores: the reward model, or another in its place."""

    @property
    def has_critic(self) -> bool:
        """Whether a critic is trained."""
        return self.advantage_estimator in WITH_CRITIC

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, values: Any) -> Any:
        return with_new_names(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _a_batch_has_a_deviation(self) -> "PPOSettings":
        if self.score_normalization == "batch" and self.batch_size == 1:
            raise ValueError(
                "score_normalization batch divides by the deviation of a rollout's scores, and a rollout of batch_size "
                "1 has none; raise batch_size, or choose calibrated"
            )
        return self

    @model_validator(mode="after")
    def _estimator_and_critic_fit(self) -> "PPOSettings":
        sizes = {"responses_per_prompt": self.responses_per_prompt, "batch_size": self.batch_size}
        if problem := estimator_problem(self.advantage_estimator, **sizes) or critic_conflict(self):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _minibatches_divide(self) -> "PPOSettings":
        if self.batch_size % self.minibatch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of minibatch_size {self.minibatch_size}; "
                "choose a minibatch_size that divides it"
            )
        for name in ("batch_size", "minibatch_size"):
            if getattr(self, name) % self.responses_per_prompt:
                raise ValueError(
                    f"{name} {getattr(self, name)} is not a multiple of responses_per_prompt "
                    f"{self.responses_per_prompt}; choose a responses_per_prompt that divides it"
                )
        return self


class EvaluationSettings(Settings):
    """What is measured on held-out prompts."""

    gold: Literal["warm", "grammar"] | None = None
    """A gold score that only simulated labelers and the evaluation know; none for data of your own."""
    samples_per_prompt: Positive = 4
    """Responses to each held-out prompt, from the SFT policy and from the PPO policy."""
    max_prompts: Positive | None = None
    """Use at most this many held-out prompts."""
    shown_samples: Positive = 12
    """Side-by-side samples in the report."""


class CheckpointSettings(Settings):
    """What is kept while a phase runs."""

    every_steps: Positive = 20
    """Optimizer steps (SFT, reward) between checkpoints; PPO keeps one after each iteration."""
    keep: Positive = 2
    """How many of the newest checkpoints stay."""
    keep_best: Annotated[int, Field(ge=0)] = 1
    """How many more stay for being the best: by held-out loss (SFT, reward), by reward-model score minus KL penalty
    (PPO)."""


AlarmName = Literal[
    "clip-fraction",
    "critic-not-learning",
    "entropy-collapse",
    "eos-collapse",
    "length-growth",
    "length-score-correlation",
    "length-shrinkage",
    "not-finite",
    "proxy-without-gold",
    "ratio-bias",
    "ratio-explosion",
    "reference-kl",
    "repetition",
    "score-out-of-range",
    "score-without-spread",
]


class GuardSettings(Settings):
    """What a run does when its numbers go wrong (docs/resilience.md)."""

    skipped_in_a_row: Positive = 5
    """Steps in a row that may be skipped for a loss, gradient or score that is not finite; then the run stops."""
    on_alarm: Literal["continue", "stop", "rollback"] = "continue"
    """What PPO does at an alarm: `continue` notes it; `stop` ends with the weights from before it; `rollback` goes on
    from those with a lower learning rate and a higher KL coefficient."""
    alarms: tuple[AlarmName, ...] = ("reference-kl", "ratio-explosion", "entropy-collapse", "eos-collapse")
    """The alarms that `stop` and `rollback` heed."""
    back: Positive = 3
    """How many iterations before the alarm the weights are taken from; alarms look at three iterations at a time."""
    rollbacks: Positive = 2
    """Rollbacks before the next alarm stops."""
    learning_rate_factor: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Factor of the learning rates at each rollback."""
    kl_coefficient_factor: Annotated[float, Field(ge=1)] = 2.0
    """Factor of the KL coefficient at each rollback."""


class RunSettings(Settings):
    """A whole run: the top of the configuration file."""

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
    """Parent of the run directory."""
    seed: int = 0
    """Every random generator of the run derives from it."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """CPU threads of torch; none takes all cores that this process may use."""
    model: ModelSettings
    """The pretrained language model."""
    adapters: AdapterSettings = AdapterSettings()
    """Low-rank adapters."""
    data: DataSettings
    """What the phases read."""
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
    arms: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")], dict[str, Any]] = {}  # noqa: RUF012
    """Further PPO runs, each a name and the `ppo` settings that differ; the report shows them beside the main one."""
    rollouts: RolloutSettings = RolloutSettings()
    """Servers that write PPO's rollouts."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """What is measured on held-out prompts."""
    checkpoints: CheckpointSettings = CheckpointSettings()
    """What is kept while a phase runs."""
    guards: GuardSettings = GuardSettings()
    """What a run does when its numbers go wrong."""

    @model_validator(mode="before")
    @classmethod
    def _old_sections(cls, values: Any) -> Any:
        return with_new_sections(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _consistent(self) -> "RunSettings":
        if self.labeling.source == "simulated" and self.evaluation.gold is None:
            raise ValueError("labeling.source is simulated, but evaluation.gold is not set; name the gold score")
        for arm in self.arms:
            self.ppo_of(arm)
        return self

    @property
    def has_critic(self) -> bool:
        """Whether a critic is trained, in the main run or in an arm."""
        return any(self.ppo_of(arm).has_critic for arm in (None, *self.arms))

    def ppo_of(self, arm: str | None) -> PPOSettings:
        """The PPO settings of an arm (None for the main run): its differences laid over ``ppo``."""
        if arm is None:
            return self.ppo
        values = self.ppo.model_dump()
        for key, value in with_new_names(self.arms[arm]).items():
            if isinstance(value, dict) and isinstance(values.get(key), dict):
                values[key] = laid_over(values[key], value) if key == "scorer" else {**values[key], **value}
            else:
                values[key] = value
        return PPOSettings.model_validate(values)
