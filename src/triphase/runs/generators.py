"""The generator of a run's rollouts and, if its settings say so, of its other samples: this process, or servers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Literal

from triphase.datacheck.served_base import served_base
from triphase.models.policies import Policy
from triphase.models.roles import REFERENCE, SharedModel
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

SERVING = "serving"
"""The folder of a phase in which servers find the adapter."""
Sampler = Callable[[SharedModel, str | None], AbstractContextManager[Generator | None]]
"""What samples from a model with an adapter; None is this process."""


@contextmanager
def generator_of(
    run: Run, policy: Policy, batch_size: int, serving: Path, *, by_servers: bool | None = None
) -> Iterator[Generator]:
    """The generator of the policy: this process, or vLLM servers that read the adapter from ``serving``.

    ``by_servers`` says which; by default the settings do.
    """
    shared = policy.model
    if not (run.settings.rollouts.by_servers if by_servers is None else by_servers):
        yield LocalGenerator(shared, adapter=policy.adapter, batch_size=batch_size)
        return
    with (
        _started(run, shared, serving.parent) as started,
        _by_servers(run, shared, policy.adapter, serving, started) as g,
    ):
        yield g


@contextmanager
def sampler_of(run: Run, phase: Literal["sampling", "evaluation"], shared: SharedModel) -> Iterator[Sampler]:
    """What samples outside of PPO; ``shared`` has the dtype and device that started servers get."""
    if not getattr(run.settings.rollouts, phase):
        yield lambda model, adapter: nullcontext()
        return
    serving = run.part(phase, SERVING)
    with _started(run, shared, serving.parent) as started:
        # A model without an adapter of its own has the reference's, which changes nothing: servers load one.
        yield lambda model, adapter: _by_servers(run, model, adapter or REFERENCE, serving, started)


@contextmanager
def _by_servers(
    run: Run, shared: SharedModel, adapter: str, serving: Path, started: StartedServers | None
) -> Iterator[ServerGenerator]:
    settings = run.settings.rollouts

    def publish() -> Path:
        save_policy(shared, adapter, serving, with_value_head=False)
        return serving

    def probing(ids: Sequence[int]) -> Probe:
        base, now = (logprobs_of(shared, each, ids) for each in (None, adapter))
        return Probe(tuple(ids), tuple(base), tuple(now))

    served = Served(
        ends=tuple(shared.template.ends),
        vocabulary_size=int(shared.backbone.head_weight.shape[0]),
        absent=frozenset(() if shared.absent is None else shared.absent.tolist()),
        base=served_base(run.settings) if settings.servers else shared.base_name,
        rank=run.settings.adapters.rank,
        room=run.settings.model.max_length,
        probing=probing,  # of a sharded base too: the other ranks provide their parts, whatever rank 0 computes
    )
    generator = ServerGenerator(
        settings, publish, served, started=started, check=run.raise_if_stop_requested, say=run.say
    )
    with closing(generator):
        yield generator


@contextmanager
def _started(run: Run, shared: SharedModel, logs: Path) -> Iterator[StartedServers | None]:
    """The servers that the run starts, if any, until the block ends."""
    settings, backbone = run.settings, shared.backbone
    if not settings.rollouts.servers:
        yield None
        return
    on_cpu = backbone.device.type == "cpu"
    base = Base(served_base(settings), str(backbone.dtype).removeprefix("torch."), on_cpu)
    servers = StartedServers(
        settings.rollouts,
        lambda host, port: server_command(settings, base, host, port),
        server_environment(settings.rollouts, on_cpu=on_cpu),
        logs,
        check=run.raise_if_stop_requested,
        say=run.say,
    )
    with servers:
        yield servers


@contextmanager
def shared_generator(
    run: Run, policy: Policy, batch_size: int, serving: Path, *, by_servers: bool
) -> Iterator[Generator]:
    """The same for several processes: each samples its share, or rank 0 sends all requests to the servers."""
    strategy = run.strategy
    if by_servers and not strategy.is_lead:
        yield LedGenerator(None, strategy)
        return
    with generator_of(run, policy, batch_size, serving, by_servers=by_servers) as generator:
        if strategy.world == 1:
            yield generator
        elif by_servers:
            yield LedGenerator(generator, strategy)
        else:
            yield SharedGenerator(generator, strategy, policy.model.device)
