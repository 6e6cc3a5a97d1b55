"""Checks that a server samples from the policy: its log-probabilities of a prompt against the trainer's own.

At the first check the base is compared. At every push the adapter is, and that it changed the responses: a server that
continued with the previous adapter would train a policy on another's samples, and nothing else would show it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from triphase.rollouts.vllm_server import VLLMServer

_SURE, _CLEAR = 0.01, 0.2
"""Change of the trainer's log-probabilities, in nats per token, above which a server's cannot stay the same to the bit;
they must then change alike, whatever its rounding."""
_ALIKE = 0.75


@dataclass(frozen=True, slots=True)
class Probe:
    """The trainer's log-probabilities of some tokens.

    Attributes:
        ids: the tokens of a prompt.
        base, policy: log-probability of each but the first under the base, and under the policy that is pushed.
    """

    ids: tuple[int, ...]
    base: tuple[float, ...]
    policy: tuple[float, ...]


@dataclass(slots=True)
class _Before:
    """The state before a push: the trainer's values and the server's."""

    trainer: Sequence[float]
    server: Sequence[float]
    version: str


class Proof:
    """What is known of one server's responses to the probe, from push to push."""

    def __init__(self, tolerance: float, base: str) -> None:
        """``base`` is the run's name of its base, for messages."""
        self._tolerance, self._base = tolerance, base
        self._before: _Before | None = None

    def begin(self, server: VLLMServer, probe: Probe) -> None:
        """Compare the base; a server that was away starts over.

        Raises:
            ServerAway: it does not respond.
            ServerError: it serves another base.
        """
        found = server.logprobs(probe.ids, None)
        far = distance(found, probe.base)
        if not far <= self._tolerance:
            raise server.client.error(
                "", f"serves {server.called()}, but the run's base is {self._base}: its log-probabilities of a prompt "
                f"are {far:.3g} nats per token from the trainer's, but rollouts.probe_tolerance is "
                f"{self._tolerance:g}; start it with --model {self._base}"
            )  # fmt: skip
        self._before = _Before(probe.base, found, "")

    def pushed(self, server: VLLMServer, probe: Probe, adapter: str, version: str) -> str:
        """Compare the adapter that it has just loaded; returns the differences, for the log.

        Raises:
            ServerAway: it does not respond.
            ServerError: it responds with another adapter.
        """
        before = self._before
        assert before is not None  # noqa: S101 - begin was called
        found = server.logprobs(probe.ids, adapter)
        far, moved = distance(found, probe.policy), distance(found, before.server)
        expected = distance(probe.policy, before.trainer)
        if not far <= self._tolerance:
            problem = (
                f"its log-probabilities of a prompt are {far:.3g} nats per token from the "
                f"trainer's, but rollouts.probe_tolerance is {self._tolerance:g}"
            )
        elif moved == 0 and expected > _SURE:
            problem = (
                f"its log-probabilities have not changed, but the policy's changed by {expected:.3g} nats per token"
            )
        elif expected > _CLEAR and unlike(found, before.server, probe.policy, before.trainer) > _ALIKE * expected:
            problem = (
                f"its log-probabilities changed by {moved:.3g} nats per token, unlike the policy's, "
                f"which changed by {expected:.3g}"
            )
        else:
            if moved > 0:  # changes lost in rounding add up until they show
                self._before = _Before(probe.policy, found, version)
            return (
                f"adapter {version[:12]} is loaded on {server.address}: the probe changed by "
                f"{moved:.3g} nats per token "
                f"(the trainer's by {expected:.3g}) and is {far:.3g} from the trainer's"
            )
        raise server.client.error("", f"does not sample from the adapter that it was sent: {problem}")


def distance(first: Sequence[float], second: Sequence[float]) -> float:
    """Mean absolute difference."""
    return sum(abs(a - b) for a, b in zip(first, second, strict=True)) / len(first)


def unlike(
    server: Sequence[float], server_before: Sequence[float], ours: Sequence[float], before: Sequence[float]
) -> float:
    """Mean absolute difference between the change of a server's values and the trainer's."""
    theirs = [now - then for now, then in zip(server, server_before, strict=True)]
    return distance(theirs, [now - then for now, then in zip(ours, before, strict=True)])


Probing = Callable[[Sequence[int]], Probe]
"""The trainer's current values for the tokens of a prompt."""

PROBED = 64
"""Maximum tokens of a probe."""


def probed_of(prompt: Sequence[int]) -> tuple[int, ...]:
    """The tokens of a prompt that are probed: at least two, since the first has no log-probability."""
    ids = tuple(prompt[-PROBED:])
    return ids if len(ids) > 1 else ids * 2
