"""Four roles on one base: policy, reference, critic and reward model are adapters and small heads.

| role         | adapter     | head                         | trained in |
|--------------|-------------|------------------------------|------------|
| reference    | `reference` | language model               | SFT (then frozen; the SFT policy) |
| policy       | `policy`    | language model               | PPO; starts as a copy of the reference |
| critic       | `policy`, or its own `critic` | value head                  | PPO (`models/critics.py`) |
| reward model | `reward`    | score head on the last token | reward phase; starts as a copy of the reference |

An ensemble has `reward-2` … with a head each (`models/members.py`).
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from triphase.batches.order import generator
from triphase.batches.sharing import Batch
from triphase.batches.transfers import to_device
from triphase.models.adapters import Adapters
from triphase.models.backbone import Backbone
from triphase.models.checking import require_rows
from triphase.models.critics import Critic, ValueHeadCritic
from triphase.models.heads import ScoreHead, ValueHead
from triphase.models.loading import LoadedModel
from triphase.models.members import Ensemble, LengthResidual, RewardMember
from triphase.models.stepping import Stepper, stepper_for
from triphase.objectives.logprobs import ResponseLogprobs, response_logprobs
from triphase.settings.schema import AdapterSettings
from triphase.tokens.template import Template

REFERENCE, POLICY, REWARD = "reference", "policy", "reward"
HEAD_ROWS = 512
"""Positions whose logits are in memory together."""


@dataclass(frozen=True, slots=True)
class PolicyOutput:
    """The policy's output for a batch of responses.

    Attributes:
        logprobs: (B, R) log π(token) at the sampling temperature; 0 on padding.
        entropy: (B, R) entropy of the full distribution in nats, 0 on padding; None if it was not requested.
        values: (B, R) the critic's prediction before each token; None without a value head.
    """

    logprobs: Tensor
    entropy: Tensor | None
    values: Tensor | None


class SharedModel:
    """One frozen base with the adapters and heads of all roles.

    Attributes:
        absent: rows of the embedding without a token (a padded vocabulary), or None if each has one. They are never
            sampled and have probability 0, in sampling and training alike.
        critic: the role whose hidden states the value head reads.
        ensemble: the members whose scores are combined; None with a single reward model.
        residual: the length correction of the score; None without one.
        witness: a reward model of other data, whose score is monitored and not optimized; None without one.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        settings: AdapterSettings,
        *,
        seed: int,
        base_name: str | None = None,
        base_note: str = "",
    ) -> None:
        """``base_name`` and ``base_note`` tell the users of an exported adapter where its base is and how to load
        it."""
        layers = None if settings.layers == "all" else settings.layers
        self.backbone = Backbone(
            loaded.model,
            adapted_layers=layers,
            recompute_activations=loaded.recompute_activations,
            sharded=loaded.sharded,
        )
        self.loaded, self.adapter_settings = loaded, settings
        self.template = Template(
            loaded.tokenizer,
            loaded.system_prompt,
            texts_write_control_tokens=loaded.texts_write_control_tokens,
            date=loaded.template_date,
        )
        self.template.rows = len(self.backbone.head_weight)
        self.template.also_ends(getattr(loaded.model.generation_config, "eos_token_id", None))
        require_rows(self.template, self.template.rows, loaded.name)
        absent = self.template.rows_without_token(len(self.backbone.head_weight))
        self.absent = torch.tensor(absent, device=self.backbone.device) if absent else None
        # Exported whole models record the padding token: the plain class reads a score at the last other token.
        loaded.model.config.pad_token_id = self.template.pad_id
        self.base_name, self.base_note = base_name or loaded.name, base_note
        self.adapters = Adapters(
            self.backbone, rank=settings.rank, alpha=settings.alpha, targets=settings.targets, seed=seed
        )
        self.backbone.packed_decoding = loaded.packed_decoding
        if loaded.compile_layers:
            self.backbone.compile_layers()
        self.critic: Critic = ValueHeadCritic()
        self._stepper: type[Stepper] | None = None
        self.score_head = self.fresh_score_head(seed)
        self.ensemble: Ensemble | None = None
        self.residual: LengthResidual | None = None
        self.witness: RewardMember | None = None

    @cached_property
    def value_head(self) -> ValueHead:
        """The critic's head; it is built on first access, so that PPO without a critic has none."""
        return ValueHead(self.backbone.hidden_size).to(self.backbone.device)

    def fresh_score_head(self, seed: int, *names: str | int) -> ScoreHead:
        """An untrained head; ``names`` select its random start."""
        return ScoreHead(self.backbone.hidden_size, generator(seed, "score-head", *names)).to(self.backbone.device)

    @property
    def reward_members(self) -> tuple[RewardMember, ...]:
        """The reward models that make up the score: one, or the members of the ensemble."""
        if self.ensemble is not None:
            return self.ensemble.members
        return (RewardMember(REWARD, self.score_head),)

    @property
    def device(self) -> torch.device:
        """The device of the base."""
        return self.backbone.device

    def stepper(self, adapter: str | None) -> Stepper:
        """The stepper that generates with an adapter, token by token. It is compared with the full pass once."""
        if self._stepper is None:
            with self.role(None):
                self._stepper = stepper_for(self.backbone)
        with self.role(adapter):
            return self._stepper(self.backbone)

    def role(self, adapter: str | None) -> AbstractContextManager[None]:
        """A context in which an adapter is active; afterwards the previous one is restored."""
        return self.adapters.at_work(adapter)

    def trunk(self, batch: Batch) -> Tensor:
        """(B, L, d) hidden states at the boundary, the same for every role and epoch."""
        return self.backbone.trunk(batch.input_ids, batch.layout)

    def policy_output(
        self,
        batch: Batch,
        boundary: Tensor | None,
        *,
        adapter: str | None,
        temperature: float,
        with_entropy: bool = False,
        with_values: bool = False,
        whole: bool = False,
    ) -> PolicyOutput:
        """Log-probabilities (and entropy, values) of the responses under one adapter.

        The language-model head runs on response positions only: token t of the response is predicted from the position
        before it, and the critic reads the state at that same position. Without ``boundary``, or if ``whole`` is set,
        the whole model runs, with every weight in the graph (full fine-tuning).
        """
        with self.role(adapter):
            at = batch.predicting_tokens
            if boundary is None or whole:
                hidden = self.backbone.whole(batch.input_ids, batch.layout, at=at)
            else:
                hidden = self.backbone.upper(boundary, batch.layout, at=at)
        found = self._logprobs(hidden, batch.targets, temperature, with_entropy)
        rows, width, places = len(batch.response_lengths), int(batch.response_lengths.max()), batch.response_places

        def spread(each: Tensor) -> Tensor:
            # By places and not by the mask: with that, the backward pass waits for a GPU to count its elements.
            return each.new_zeros(rows * width).index_copy(0, places, each).view(rows, width)

        entropy = None if found.entropy is None else spread(found.entropy)
        values = None
        if with_values:
            values = spread(self.value_head(self.critic.states(batch, boundary, hidden)))
        return PolicyOutput(spread(found.logprobs), entropy, values)

    def scores(self, batch: Batch, boundary: Tensor) -> Tensor:
        """(N,) the reward model's score of each response, read at its last real token."""
        return self.total(self.member_scores(batch, boundary), batch)

    def total(self, scores: Tensor, batch: Batch) -> Tensor:
        """(M, N) scores of the members → (N,) the score."""
        total = scores[0] if self.ensemble is None else self.ensemble.total(scores)
        return (
            total if self.residual is None else self.residual.of(total, to_device(batch.response_lengths, total.device))
        )

    def member_scores(self, batch: Batch, boundary: Tensor) -> Tensor:
        """(M, N) the scores of each reward model that is part of the score."""
        return torch.stack([self.scores_by(member, batch, boundary) for member in self.reward_members])

    def scores_by(self, member: RewardMember, batch: Batch, boundary: Tensor) -> Tensor:
        """(N,) the score of each response by one reward model."""
        scores: Tensor = member.head(self.features(batch, boundary, member.adapter))
        return scores

    def features(self, batch: Batch, boundary: Tensor, adapter: str = REWARD) -> Tensor:
        """(N, d) the input of a score head: the hidden state of its adapter at each response's last real token."""
        with self.role(adapter):
            return self.backbone.upper(boundary, batch.layout, at=batch.last_tokens)

    def _logprobs(self, hidden: Tensor, targets: Tensor, temperature: float, with_entropy: bool) -> ResponseLogprobs:
        return response_logprobs(
            hidden,
            self.backbone.head_weight,
            targets,
            temperature=temperature,
            chunk_size=HEAD_ROWS,
            with_entropy=with_entropy,
            absent=self.absent,
            logit_map=self.backbone.logit_map,
        )
