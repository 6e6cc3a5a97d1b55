"""The settings of the phases before PPO."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from triphase.settings.base import NonNegative, Positive, PositiveFloat, Settings, Share, Temperature, tokens_at_once


class OptimizerSettings(Settings):
    """AdamW and its schedule."""

    learning_rate: PositiveFloat
    """Peak learning rate of adapters (or of all weights)."""
    head_learning_rate: PositiveFloat | None = None
    """Peak learning rate of the scalar head; by default the same as the adapters'."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the rate falls to 0 over the phase, after warmup."""
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


class TakenSettings(Settings):
    """A phase whose result may be taken from elsewhere. `from` is a Python keyword, so it is declared by its name."""

    FROM: ClassVar[str] = "from"
    __annotations__[FROM] = str | None
    locals()[FROM] = Field(
        None,
        description="Use the result of this phase from elsewhere, instead of training: a run, the `final` "
        "directory of its phase, or a hub id of one. Nothing is copied; the files are verified "
        "against their checksums at each start.",
    )

    @property
    def taken_from(self) -> str | None:
        """The setting `from`."""
        found: str | None = getattr(self, self.FROM)
        return found


class SupervisedSettings(TakenSettings):
    """Phase 1: supervised fine-tuning."""

    method: Literal["lora", "full", "none"] = "lora"
    """`lora` trains adapters; `full` trains every weight and becomes the base of the later phases; `none` skips the
    phase: the unmodified model is the reference from which reward model and PPO start (for example an instruct model).
    This is also the case if data.demonstrations is empty."""
    epochs: PositiveFloat = 2.0
    """Passes over the mixture."""
    batch_size: Positive = 16
    """Demonstrations for each optimizer step."""
    microbatch_tokens: Positive | Literal["auto"] | None = None
    """Maximum tokens (padding counted) in one forward pass; bounds memory, changes rounding at most. `null`: 512 on a
    CPU, where more are no faster, and 4096 on a GPU. `auto`: as many as fit the plan (at most 512 on a CPU), which is
    logged; as `null` with several processes. If memory does not suffice, a single process halves it, with a warning;
    several end, and the same command with a smaller value continues."""
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=3e-4, schedule="cosine", warmup_share=0.05)
    """AdamW and its schedule."""

    @property
    def tokens_at_once(self) -> int | None:
        """See `tokens_at_once` of settings.base."""
        return tokens_at_once(self.microbatch_tokens)

    @field_validator("epochs", mode="before")
    @classmethod
    def _some(cls, epochs: object) -> object:
        if epochs == 0 and not isinstance(epochs, bool):
            raise ValueError("0 epochs train nothing; set sft.method: none, which starts from the original model")
        return epochs


class SamplingSettings(Settings):
    """Responses for people to rank."""

    responses_per_prompt: Annotated[int, Field(ge=2, le=9)] = 4
    """K: how many responses of the SFT policy are shown for each prompt."""
    temperature: Temperature = 1.0
    """Sampling temperature."""
    max_response_tokens: Positive = 32
    """Maximum tokens of a response."""
    batch_size: Positive = 64
    """Responses that are generated together."""


AVERAGE = "average-weights"
"""The only combination of an ensemble that leaves a single reward model."""


class EnsembleSettings(Settings):
    """Several reward models on the shared base."""

    members: Annotated[int, Field(ge=1, le=16)] = 1
    """Number of reward models. Each is an adapter and a head on the shared base, trained on prompts drawn with
    replacement (about 63 % of them are in each) with its own random numbers; 4 or 5 are enough (arXiv 2310.02743)."""
    combine: Literal["mean", "worst", "mean-minus-variance", "average-weights"] = "mean"
    """How their scores are combined: `mean`, `worst`, or `mean-minus-variance` with `penalty`. Each score is
    standardized on reference samples before, and the combined score after. `average-weights` averages their weights
    into one reward model (WARM, arXiv 2401.12187): it costs as much as one, and reports no disagreement."""
    penalty: NonNegative = 0.5
    """λ of `mean-minus-variance`: the penalty for a variance of 1 among the members."""

    @model_validator(mode="after")
    def _averages_what_it_has(self) -> "EnsembleSettings":
        if self.members == 1 and self.combine != "mean":
            raise ValueError(f"combine {self.combine} needs several members; set members, for example to 4")
        return self


class RewardSettings(TakenSettings):
    """Phase 2: the reward model."""

    epochs: PositiveFloat = 1.0
    """Passes over the comparisons; more than one overfits quickly (InstructGPT)."""
    batch_size: Positive = 8
    """Rankings (prompts with all their responses) for each optimizer step."""
    microbatch_tokens: Positive | Literal["auto"] | None = None
    """Maximum tokens (padding counted) in one forward pass; bounds memory, changes rounding at most. `null`: 512 on a
    CPU, where more are no faster, and 4096 on a GPU. `auto`: as many as fit the plan (at most 512 on a CPU), which is
    logged; as `null` with several processes. If memory does not suffice, a single process halves it, with a warning;
    several end, and the same command with a smaller value continues."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Probability with which a label is assumed to be flipped."""
    flip_rate: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Probability that a label is flipped, if known: for single labels of labelers who agree on a share a of the pairs
    it is (1 − √(2a − 1))/2, 0.16 for 73 %. See flip_correction; unlike label_smoothing it leaves the differences of the
    scores as large as clean labels make them."""
    flip_correction: Literal["forward", "unbiased"] = "forward"
    """What flip_rate does. `forward` maximizes the likelihood of labels that are flipped at this rate (arXiv
    1609.03683): a label that the scores strongly contradict has no effect. `unbiased` has the loss of the clean labels
    on average (Natarajan et al. 2013), with more noise."""
    centering: NonNegative = 0.01
    """Weight of (sum of a pair's scores)², which fixes the free offset (arXiv 2312.09244, equation 2)."""
    head_penalty: PositiveFloat | Literal["auto"] | None = "auto"
    """Before the adapter is trained, the score head alone is fitted to the comparisons (linear probing, arXiv
    2202.10054), with this weight of the squared norm of its standardized weights. `auto` chooses it by 5-fold
    cross-validation over the training prompts. While the adapter is trained, each ranking is scored by the fit to the
    folds without its prompt (cross-fitting), so that the adapter learns what the head does not know instead of what it
    has memorized. none skips the fit and starts from a random head, which needs a higher
    optimizer.head_learning_rate."""
    require_better_than_chance: bool = True
    """Stop before PPO if held-out comparisons do not show that the reward model is better than chance, and than
    preferring the longer response. It may be changed in a run that has started."""
    calibration_samples: Positive = 256
    """Number of reference responses on which the score is calibrated to mean 0 and standard deviation 1."""
    ensemble: EnsembleSettings = EnsembleSettings()
    """Several reward models instead of one, against policies that exploit the errors of a single one."""
    length: Literal["free", "residual", "two-heads"] = "free"
    """How the score treats length. `residual` subtracts what an additional token is worth among the responses to a
    prompt (least squares on the training responses, with an intercept for each prompt), so that length alone earns
    nothing; this also removes what people do prefer in longer responses. `two-heads` trains a second head that absorbs
    what length explains and is dropped afterwards (ODIN, arXiv 2402.07319); the score may then depend on length only in
    ways that its correlation within prompts does not show."""
    length_penalty: NonNegative = 1.0
    """Of `two-heads`: λ, weight of the penalties ρ(quality, length)² − s·ρ(length score, length) + |cosine of the
    heads| added to the loss of the comparisons; s is −1 if the shorter response is preferred, else 1."""
    witness: bool = False
    """Train a second reward model, the witness, on half of the prompts, and the reward model on the other half. PPO
    never sees the score of the witness: if the reward model's score rises and that of the witness does not, the policy
    exploits the reward model. Worth half of the comparisons if no gold score is known."""
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=3e-4, head_learning_rate=1e-5, schedule="cosine")
    """AdamW and its schedule."""

    @property
    def tokens_at_once(self) -> int | None:
        """See `tokens_at_once` of settings.base."""
        return tokens_at_once(self.microbatch_tokens)

    @model_validator(mode="after")
    def _flips_are_counted_once(self) -> "RewardSettings":
        if self.flip_rate and self.label_smoothing:
            raise ValueError(
                f"flip_rate {self.flip_rate:g} and label_smoothing {self.label_smoothing:g} both "
                f"model flipped labels; set one of them to 0"
            )
        return self
