"""Who writes the rollouts of a run: this process, or servers where its settings name any."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from triphase.models.policies import Policy
from triphase.models.roles import POLICY
from triphase.phases.together import LedGenerator, SharedGenerator
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.servers import ServerGenerator
from triphase.rollouts.types import Generator
from triphase.runs.session import Run
from triphase.training.finals import save_policy


@contextmanager
def generator_of(run: Run, policy: Policy, batch_size: int, serving: Path) -> Iterator[Generator]:
    """Who samples from the policy: this process, or vLLM servers that read the adapter from ``serving``."""
    if not run.settings.rollouts.addresses:
        yield LocalGenerator(policy.model, adapter=policy.adapter, batch_size=batch_size)
        return
    shared = policy.model

    def publish() -> Path:
        save_policy(shared, POLICY, serving, with_value_head=False)
        return serving

    generator = ServerGenerator(
        run.settings.rollouts,
        publish,
        ends=shared.template.ends,
        vocabulary_size=int(shared.backbone.head_weight.shape[0]),
        absent=[] if shared.absent is None else shared.absent.tolist(),
        check=run.raise_if_stop_requested,
    )
    with closing(generator) as servers:
        yield servers


@contextmanager
def shared_generator(run: Run, policy: Policy, batch_size: int, serving: Path) -> Iterator[Generator]:
    """The same for several processes: each samples its share, or rank 0 asks the servers for all."""
    strategy, by_servers = run.strategy, bool(run.settings.rollouts.addresses)
    if by_servers and not strategy.is_lead:
        yield LedGenerator(None, strategy)
        return
    with generator_of(run, policy, batch_size, serving) as generator:
        if strategy.world == 1:
            yield generator
        elif by_servers:
            yield LedGenerator(generator, strategy)
        else:
            yield SharedGenerator(generator, strategy, policy.model.device)
