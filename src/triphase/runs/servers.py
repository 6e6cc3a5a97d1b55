"""The servers of a run, where its settings name any: who writes the rollouts, who scores them."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from triphase.models.roles import POLICY, SharedModel
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.scorer import RemoteScorer
from triphase.rollouts.servers import ServerGenerator
from triphase.rollouts.types import Generator
from triphase.runs.session import Run
from triphase.settings.schema import PPOSettings
from triphase.training.finals import save_policy


@contextmanager
def scorer_of(run: Run, settings: PPOSettings) -> Iterator[RemoteScorer | None]:
    """The server that scores in the reward model's place, where there is one; Ctrl-C ends the wait for it."""
    if settings.scorer.address is None:
        yield None
    else:
        with closing(RemoteScorer(settings.scorer, check=run.heed_stop)) as scorer:
            yield scorer


@contextmanager
def generator_of(run: Run, shared: SharedModel, batch_size: int, serving: Path) -> Iterator[Generator]:
    """Who samples from the policy: this process, or vLLM servers that read the adapter from ``serving``."""
    if not run.settings.rollouts.addresses:
        yield LocalGenerator(shared, adapter=POLICY, batch_size=batch_size)
        return

    def publish() -> Path:
        save_policy(shared, POLICY, serving, with_value_head=False)
        return serving

    generator = ServerGenerator(
        run.settings.rollouts,
        publish,
        end_id=shared.template.end_id,
        vocabulary_size=int(shared.backbone.head_weight.shape[0]),
        absent=[] if shared.absent is None else shared.absent.tolist(),
        check=run.heed_stop,
    )
    with closing(generator) as servers:
        yield servers
