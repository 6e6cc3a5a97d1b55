"""The generator of a run's rollouts: this process, or servers if its settings name any."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

from triphase.datacheck.served_base import served_base
from triphase.models.policies import Policy
from triphase.models.roles import POLICY
from triphase.phases.rank_sharing import LedGenerator, SharedGenerator
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.probing import logprobs_of
from triphase.rollouts.server_checks import Probe
from triphase.rollouts.servers import Served, ServerGenerator
from triphase.rollouts.serving import Base, server_command, server_environment
from triphase.rollouts.started import StartedServers
from triphase.rollouts.types import Generator
from triphase.runs.session import Run
from triphase.training.finals import save_policy


@contextmanager
def generator_of(run: Run, policy: Policy, batch_size: int, serving: Path) -> Iterator[Generator]:
    """The generator of the policy: this process, or vLLM servers that read the adapter from ``serving``."""
    settings, shared = run.settings.rollouts, policy.model
    if not settings.by_servers:
        yield LocalGenerator(shared, adapter=policy.adapter, batch_size=batch_size)
        return

    def publish() -> Path:
        save_policy(shared, POLICY, serving, with_value_head=False)
        return serving

    def probing(ids: Sequence[int]) -> Probe:
        base, now = (logprobs_of(shared, adapter, ids) for adapter in (None, policy.adapter))
        return Probe(tuple(ids), tuple(base), tuple(now))

    if run.strategy.shards:
        run.say("the base is sharded among processes: the servers' model is not verified by a probe")
    served = Served(
        ends=tuple(shared.template.ends),
        vocabulary_size=int(shared.backbone.head_weight.shape[0]),
        absent=frozenset(() if shared.absent is None else shared.absent.tolist()),
        base=served_base(run.settings) if settings.servers else shared.base_name,
        rank=run.settings.adapters.rank,
        room=run.settings.model.max_length,
        probing=None if run.strategy.shards else probing,
    )
    with _started(run, policy, serving.parent) if settings.servers else nullcontext() as started:
        generator = ServerGenerator(
            settings, publish, served, started=started, check=run.raise_if_stop_requested, say=run.say
        )
        with closing(generator) as servers:
            yield servers


def _started(run: Run, policy: Policy, logs: Path) -> StartedServers:
    backbone = policy.model.backbone
    on_cpu = backbone.device.type == "cpu"
    base = Base(served_base(run.settings), str(backbone.dtype).removeprefix("torch."), on_cpu)
    return StartedServers(
        run.settings.rollouts,
        lambda host, port: server_command(run.settings, base, host, port),
        server_environment(run.settings.rollouts, on_cpu=on_cpu),
        logs,
        check=run.raise_if_stop_requested,
        say=run.say,
    )


@contextmanager
def shared_generator(run: Run, policy: Policy, batch_size: int, serving: Path) -> Iterator[Generator]:
    """The same for several processes: each samples its share, or rank 0 sends all requests to the servers."""
    strategy, by_servers = run.strategy, run.settings.rollouts.by_servers
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
