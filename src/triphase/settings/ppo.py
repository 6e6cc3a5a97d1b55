"""The settings of PPO."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from triphase.settings.base import NonNegative, Positive, PositiveFloat, Settings, Share, Temperature, tokens_at_once
from triphase.settings.conflicts import critic_conflict, reset_conflict
from triphase.settings.extension import ExtensionSettings, extension_problem
from triphase.settings.phases import OptimizerSettings
from triphase.settings.renamed import with_new_names
from triphase.settings.scorer import ScorerSettings
from triphase.settings.without_critic import WITH_CRITIC, estimator_problem


class PPOSettings(Settings):
    """Phase 3: proximal policy optimization against the reward model."""

    method: Literal["lora", "full"] = "lora"
    """`lora` trains an adapter. `full` trains every weight of a copy of the base, in float32: the copy, its gradients
    and Adam's moments are four more models in memory, each checkpoint holds three, and the result is a whole model. It
    needs a much lower optimizer.learning_rate: 1e-6 to 1e-5 for pretrained models."""
    iterations: Positive = 20
    """Rollouts, each followed by its updates."""
    extensions: tuple[ExtensionSettings, ...] = ()
    """Iterations added by `triphase extend`, and what the schedule of the learning rates did there."""
    seed: int | None = None
    """Seed of PPO alone, so that runs with several seeds share a reward model; by default the seed of the run."""
    batch_size: Positive = 32
    """Episodes in a rollout."""
    minibatch_size: Positive = 16
    """Episodes for each optimizer step; divides batch_size."""
    responses_per_prompt: Annotated[int, Field(ge=1, le=9)] = 1
    """K: number of episodes of a rollout per prompt, which is computed once for them; divides both sizes."""
    microbatch_tokens: Positive | Literal["auto"] | None = None
    """Maximum tokens (padding counted) in one forward pass; bounds memory, changes rounding at most. `null`: 512 on a
    CPU, where more are no faster, and 4096 on a GPU. `auto`: as many as fit the plan (at most 512 on a CPU), which is
    logged; as `null` with several processes. If memory does not suffice, a single process halves it, with a warning;
    several end, and the same command with a smaller value continues."""
    epochs: Positive = 4
    """Passes over each rollout."""
    max_response_tokens: Positive = 32
    """Maximum tokens of a response; one that is cut there counts as terminal and unfinished."""
    temperature: Temperature = 1.0
    """Of sampling, and of every log-probability."""
    kl_coefficient: Annotated[float, Field(ge=0, le=1e15)] = 0.05
    """Weight of the KL penalty to the reference inside the reward: the penalty for one nat, in standard deviations of
    the scores of the SFT policy's samples (see score_normalization)."""
    kl_target: PositiveFloat | None = None
    """Reference KL (nats per response) that the adaptive controller targets; `null` keeps the coefficient fixed."""
    kl_horizon: PositiveFloat = 10_000.0
    """Horizon of the adaptive controller, in episodes."""
    kl_budget: PositiveFloat | None = None
    """Reference KL (nats per response) at which PPO stops; `null` means no budget."""
    advantage_estimator: Literal["gae", "rloo", "grpo", "reinforce"] = "gae"
    """How rewards become advantages. `gae`: generalized advantage estimation, with a critic. The others have no critic;
    every token of a response gets its whole return (score minus KL penalty) minus a baseline: `rloo` the mean return of
    the other responses to the prompt; `grpo` that of all responses to the prompt, divided by their standard deviation;
    `reinforce` the mean return of the rollout. `rloo` and `grpo` need responses_per_prompt of at least 2."""
    discount: Share = 1.0
    """γ."""
    gae_lambda: Share = 0.95
    """λ of generalized advantage estimation."""
    clip_range: PositiveFloat = 0.2
    """ε of the clipped surrogate."""
    value_clip_range: PositiveFloat | None = 0.2
    """Range in which the new value may differ from the rollout's; `null` does not clip."""
    value_coefficient: NonNegative = 0.1
    """c1, weight of the value loss."""
    critic: Literal["value-head", "adapter"] = "value-head"
    """What predicts the return. `value-head`: a linear head on the policy's own hidden states. `adapter`: a separate
    adapter under that head, so that value and policy share no trained weight; one more forward and backward pass."""
    critic_start: Literal["policy", "reward"] = "policy"
    """The start of the critic's adapter: a copy of the `policy`'s (the SFT policy; the head at 0), or of the `reward`
    model's, its score head included."""
    critic_learning_rate: PositiveFloat | None = None
    """Peak learning rate of the critic's adapter; by default optimizer.learning_rate. The head has its own
    (optimizer.head_learning_rate)."""
    critic_warmup: Annotated[int, Field(ge=0)] = 0
    """Iterations at the start in which only the critic is trained and the policy is unchanged."""
    entropy_coefficient: NonNegative = 0.0
    """c2, weight of the entropy bonus."""
    sft_mix: NonNegative = 0.0
    """γ, weight of the supervised loss on minibatch_size demonstrations (of data.demonstrations) that is added in each
    optimizer step, against forgetting what they show (PPO-ptx); 0 leaves it out."""
    reference_reset_every: Positive | None = None
    """Number of iterations after which the current policy becomes the reference of the KL penalty (and of kl_target),
    repeatedly; `null` keeps the SFT policy throughout. Reports, alarms and kl_budget always use the SFT policy. One
    more forward pass; not with method full."""
    score_normalization: Literal["calibrated", "running", "batch", "raw"] = "calibrated"
    """The divisor of the scores before the KL penalty is subtracted. `calibrated`: one scale for the whole run, that of
    the SFT policy's samples (the reward model's calibration; for a server, its scores in the first rollout). `running`:
    the same, but it grows to the deviation of all scores so far and never falls. `batch`: each rollout's own deviation,
    so that the effective KL coefficient falls as the policy concentrates. `raw`: 1. All but `raw` subtract the
    rollout's mean, so that an offset of the scores changes nothing."""
    rescale_token_rewards: bool = False
    """Divide token rewards by their standard deviation, keeping their mean. Off: it adds an incentive for length."""
    standardize_advantages: bool = True
    """Standardize the advantages of each rollout to mean 0 and standard deviation 1, over real tokens; with a critic
    only."""
    missing_eos_penalty: NonNegative = 1.0
    """Subtracted from the score of a response without end-of-sequence token, in the unit of kl_coefficient (under
    `batch` and `raw`, in the scorer's own unit)."""
    score_clip: PositiveFloat | None = 5.0
    """Scores are clipped to ± this many standard deviations from the mean of the first rollout, which is the SFT
    policy's (under `batch` and `raw`, to ± this in the scorer's own unit); `null` does not clip."""
    importance_limit: PositiveFloat | None = None
    """Truncated importance sampling, if servers sample (`rollouts`): the advantage of each token is multiplied by
    min(π_trainer / π_server, this), both of the policy before its updates (with rollouts.ahead the servers' policy is
    one iteration older); 2 is usual. `null` does not weight."""
    max_approximate_kl: PositiveFloat | None = 0.1
    """The updates on a rollout end early once the KL to the rollout policy (nats per token) exceeds this."""
    optimizer: OptimizerSettings = OptimizerSettings(
        learning_rate=3e-4, head_learning_rate=1e-3, schedule="linear", adam_epsilon=1e-5
    )
    """AdamW and its schedule."""
    scorer: ScorerSettings = ScorerSettings()
    """The scorer: the reward model, or another in its place."""

    @property
    def has_critic(self) -> bool:
        """Whether a critic is trained."""
        return self.advantage_estimator in WITH_CRITIC

    @property
    def tokens_at_once(self) -> int | None:
        """See `tokens_at_once` of settings.base."""
        return tokens_at_once(self.microbatch_tokens)

    @property
    def steps_per_iteration(self) -> int:
        """Optimizer steps on a rollout, unless its updates end early."""
        return self.epochs * (self.batch_size // self.minibatch_size)

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, values: Any) -> Any:
        return with_new_names(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _a_batch_has_a_deviation(self) -> "PPOSettings":
        if self.score_normalization == "batch" and self.batch_size == 1:
            raise ValueError(
                "score_normalization batch divides by the standard deviation of a rollout's "
                "scores, which is undefined for batch_size 1; raise batch_size, or choose calibrated"
            )
        return self

    @model_validator(mode="after")
    def _estimator_and_critic_fit(self) -> "PPOSettings":
        sizes = {"responses_per_prompt": self.responses_per_prompt, "batch_size": self.batch_size}
        found = estimator_problem(self.advantage_estimator, **sizes) or critic_conflict(self) or reset_conflict(self)
        if found:
            raise ValueError(found)
        return self

    @model_validator(mode="after")
    def _extensions_fit(self) -> "PPOSettings":
        if problem := extension_problem(self.extensions, self.iterations):
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
