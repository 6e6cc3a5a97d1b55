"""The quality of a policy's responses to a run's held-out prompts: one judge for both sides of `benchmarks.quality`."""

from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from benchmarks.sides import Row
from triphase.batches.padding import pad_batch
from triphase.errors import RunError
from triphase.models.roles import POLICY, REFERENCE
from triphase.phases.sampling import sample_responses
from triphase.rewards.model import score_samples
from triphase.runs.evaluation import sequence_kl
from triphase.runs.opening import open_run
from triphase.tokens.encoding import Encoded
from triphase.training.reward_finals import load_reward_model

NAME = "held-out"
"""Whose seeds the samples have: the same for every policy, so that all meet the same luck."""


class HeldOut:
    """The run's held-out prompts, its gold and its reward model.

    Attributes:
        prompts: as many as the run's own evaluation has.
        count: samples of each prompt.
    """

    def __init__(self, path: Path, *, count: int) -> None:
        """Open the run.

        Raises:
            RunError: it has no gold, or its policy is no adapter.
        """
        self.run = open_run(path)
        if self.run.gold is None or self.run.settings.sft.method != "lora":
            raise RunError(f"{path}: needs evaluation.gold and sft.method: lora; use the run of `triphase demo`")
        self.count = count
        self.shared = self.run.model()
        load_reward_model(self.shared, self.run.artifact("reward"))
        self.prompts = self.run.prompts("heldout")[: self.run.settings.evaluation.max_prompts]

    def judge(self, state: dict[str, Tensor] | None) -> Row:
        """Means over the samples of a policy, given as the tensors of its adapter; None is the SFT policy."""
        settings, shared = self.run.settings, self.shared
        shared.adapters.load(POLICY, shared.adapters.state(REFERENCE) if state is None else state)
        found = sample_responses(
            shared,
            self.prompts,
            adapter=POLICY,
            model=NAME,
            count=self.count,
            temperature=settings.ppo.temperature,
            max_response_tokens=settings.ppo.max_response_tokens,
            max_length=settings.model.max_length,
            batch_size=settings.sampling.batch_size,
            seed=settings.seed,
        )
        encoded = [Encoded(tuple(shared.template.prompt_ids(prompt.messages)), each.ids) for prompt, _, each in found]
        assert self.run.gold is not None
        return {
            "gold": fmean(self.run.gold(prompt.text, said.text, said.finished) for prompt, said, _ in found),
            "proxy": fmean(self.scores(encoded)),
            "kl": fmean(sequence_kl(self.run, shared, (shared, POLICY), encoded, temperature=settings.ppo.temperature)),
            "finished": fmean(float(said.finished) for _, said, _ in found),
            "tokens": fmean(float(len(each.ids)) for _, _, each in found),
        }

    def scores(self, samples: list[Encoded]) -> list[float]:
        """What the run's reward model says of samples."""
        found: list[float] = score_samples(
            self.shared, samples, max_tokens=self.run.settings.ppo.tokens_at_once
        ).tolist()
        return found

    @torch.no_grad()
    def logits(self, state: dict[str, Tensor], prompts: list[list[int]]) -> Tensor:
        """(N, V) a policy's logits of the token after each prompt."""
        shared = self.shared
        shared.adapters.load(POLICY, state)
        samples = [Encoded(tuple(ids[:-1]), (ids[-1],)) for ids in prompts]
        batch = pad_batch(samples, pad_id=shared.template.pad_id, device=shared.device)
        with shared.role(POLICY):
            hidden = shared.backbone.upper(shared.trunk(batch), batch.layout)
        return (hidden[batch.last_tokens] @ shared.backbone.head_weight.t()).float()
