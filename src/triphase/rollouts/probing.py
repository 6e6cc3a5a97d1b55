"""Log-probabilities of some tokens by the trainer's own model, to compare with a server's."""

from collections.abc import Sequence

import torch

from triphase.batches.padding import pad_batch
from triphase.models.roles import SharedModel
from triphase.objectives.logprobs import response_logprobs
from triphase.tokens.encoding import Encoded


@torch.no_grad()
def logprobs_of(shared: SharedModel, adapter: str | None, ids: Sequence[int]) -> list[float]:
    """Log-probability of each of ``ids`` but the first, given those before it, at temperature 1.

    Over all rows of the vocabulary, including those without a token, as servers count them; None is the bare base.
    """
    sample = Encoded(tuple(ids[:1]), tuple(ids[1:]))
    batch = pad_batch([sample], pad_id=shared.template.pad_id, device=shared.device)
    with shared.role(adapter):
        hidden = shared.backbone.whole(batch.input_ids, batch.layout, at=batch.predicting_tokens)
    found = response_logprobs(
        hidden,
        shared.backbone.head_weight,
        batch.targets,
        temperature=1.0,
        chunk_size=len(ids),
        with_entropy=False,
        logit_map=shared.backbone.logit_map,
    )
    return [float(value) for value in found.logprobs.tolist()]
