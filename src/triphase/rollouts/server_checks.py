"""Proof that a server samples from the policy: its log-probabilities of a prompt beside the trainer's own.

At the first look the base is compared. At every push the adapter is, and that it moved the answers: a server that goes
on with the adapter before would train a policy on another's samples, and nothing else would tell.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from triphase.rollouts.vllm_server import VLLMServer

_SURE, _CLEAR = 0.01, 0.2
"""Nats per token by which the trainer's log-probabilities move: a server's then cannot stay the same to the bit; then
they must move alike, whatever its rounding."""
_ALIKE = 0.75


@dataclass(frozen=True, slots=True)
class Probe:
    """What the trainer says of some tokens.

    Attributes:
        ids: the tokens of a prompt.
        base, policy: log-probability of each but the first by the base, and by the policy that is pushed.
    """

    ids: tuple[int, ...]
    base: tuple[float, ...]
    policy: tuple[float, ...]


@dataclass(slots=True)
class _Before:
    """What stood before a push: the trainer's word and the server's."""

    trainer: Sequence[float]
    server: Sequence[float]
    version: str


class Proof:
    """What is known of one server's answers to the probe, from push to push."""

    def __init__(self, tolerance: float, base: str) -> None:
        """``base`` is how the run calls its base, for messages."""
        self._tolerance, self._base = tolerance, base
        self._before: _Before | None = None

    def begin(self, server: VLLMServer, probe: Probe) -> None:
        """Compare the base; a server that was away begins again.

        Raises:
            ServerAway: it does not answer.
            ServerError: it serves another base.
        """
        found = server.logprobs(probe.ids, None)
        far = distance(found, probe.base)
        if not far <= self._tolerance:
            raise server.client.error(
                "", f"serves {server.called()}, and the run's base is {self._base}: its log-probabilities of a prompt "
                f"are {far:.3g} nats per token from the trainer's, where rollouts.probe_tolerance allows "
                f"{self._tolerance:g}; start it with --model {self._base}"
            )  # fmt: skip
        self._before = _Before(probe.base, found, "")

    def pushed(self, server: VLLMServer, probe: Probe, adapter: str, version: str) -> str:
        """Compare the adapter that it has just loaded; returns what was seen, for the log.

        Raises:
            ServerAway: it does not answer.
            ServerError: it answers from another adapter.
        """
        before = self._before
        assert before is not None  # noqa: S101 - begin was called
        found = server.logprobs(probe.ids, adapter)
        far, moved = distance(found, probe.policy), distance(found, before.server)
        expected = distance(probe.policy, before.trainer)
        if not far <= self._tolerance:
            problem = (
                f"its log-probabilities of a prompt are {far:.3g} nats per token from the trainer's, where "
                f"rollouts.probe_tolerance allows {self._tolerance:g}"
            )
        elif moved == 0 and expected > _SURE:
            problem = f"its answers are those before, and the policy's moved by {expected:.3g} nats per token"
        elif expected > _CLEAR and unlike(found, before.server, probe.policy, before.trainer) > _ALIKE * expected:
            problem = f"its answers moved by {moved:.3g} nats per token, and not as the policy's, by {expected:.3g}"
        else:
            if moved > 0:  # what is lost in rounding adds up until it is not
                self._before = _Before(probe.policy, found, version)
            return (
                f"adapter {version[:12]} is at work on {server.address}: the probe moved by {moved:.3g} nats per token "
                f"(the trainer's by {expected:.3g}) and is {far:.3g} from the trainer's"
            )
        raise server.client.error("", f"does not sample from the adapter that it was given: {problem}")


def distance(first: Sequence[float], second: Sequence[float]) -> float:
    """Mean absolute difference."""
    return sum(abs(a - b) for a, b in zip(first, second, strict=True)) / len(first)


def unlike(
    server: Sequence[float], server_before: Sequence[float], ours: Sequence[float], before: Sequence[float]
) -> float:
    """Mean absolute difference between how a server's numbers moved and how the trainer's did."""
    theirs = [now - then for now, then in zip(server, server_before, strict=True)]
    return distance(theirs, [now - then for now, then in zip(ours, before, strict=True)])


Probing = Callable[[Sequence[int]], Probe]
"""What the trainer says now of the tokens of a prompt."""

PROBED = 64
"""Most tokens of a probe."""


def probed_of(prompt: Sequence[int]) -> tuple[int, ...]:
    """The tokens of a prompt that are asked about: at least two, since the first has no log-probability."""
    ids = tuple(prompt[-PROBED:])
    return ids if len(ids) > 1 else ids * 2
