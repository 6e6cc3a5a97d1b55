"""The engines that sample rollouts, and the choice of one for a run. Starts without torch."""

from dataclasses import dataclass, field

LOCAL, SERVERS = "local", "vllm"


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """What samples the rollouts of a run, as its checkpoints store it.

    Attributes:
        engine: `local` (this process) or `vllm` (servers).
        rates: new tokens per second of each; empty if there was no trial.
        reason: why servers cannot sample, if they cannot.
    """

    engine: str
    rates: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def by_servers(self) -> bool:
        """Whether servers sample."""
        return self.engine == SERVERS


def choice_of(rates: dict[str, float]) -> EngineChoice:
    """The faster engine; of equal ones this process."""
    return EngineChoice(SERVERS if rates[SERVERS] > rates[LOCAL] else LOCAL, rates)


def choice_note(choice: EngineChoice, *, is_kept: bool = False) -> str:
    """The choice as a line for the user; ``is_kept``: it was made when PPO began."""
    who = "the servers" if choice.by_servers else "this process"
    when = ", as when PPO began" if is_kept else ""
    if choice.reason:
        return f"rollouts.engine auto: {who} samples{when}, because servers could not: {choice.reason}"
    if not choice.rates:
        return f"rollouts.engine auto: {who} sample, since PPO began so, without a trial"
    rates = f"{choice.rates[LOCAL]:.4g} new tokens per second in this process, {choice.rates[SERVERS]:.4g} by servers"
    return f"rollouts.engine auto: {rates}; {who} {'sample' if choice.by_servers else 'samples'} this run{when}"
