"""Each step of `tests.devices.steps` on the fake card, with the synchronizations of the processor.

As a program it prints, as JSON, the metrics on the card and on the processor, and the counts.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from tests.devices import card, steps

from triphase.models.direct import FastDecoder
from triphase.phases import ppo as ppo_module


class Counts:
    """What a step asked of the card, and how much it did.

    Attributes:
        watch: the waits, by operation.
        microbatches, tokens, reads: backward passes, tokens that all rows wrote side by side, readings of prompts.
        update_waits: those within the updates of PPO; of `update_microbatches` microbatches in as many minibatches,
            `first_microbatches` of them in the first.
    """

    def __init__(self) -> None:
        self.watch = card.Watch()
        self.microbatches = self.tokens = self.reads = 0
        self._within = False
        self.update_waits = self.update_microbatches = self.first_microbatches = self.minibatches = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count inside."""
        with ExitStack() as stack:
            for owner, name, around in (
                (torch.Tensor, "backward", self._backward),
                (FastDecoder, "step", self._step),
                (FastDecoder, "read", self._read),
                (ppo_module, "accumulate_gradients", self._update),
            ):
                stack.enter_context(patched(owner, name, around))
            self.watch = stack.enter_context(card.watching())
            yield

    def _backward(self, real: Any, *args: Any, **kwargs: Any) -> Any:
        self.microbatches += not self._within  # of a subclass of tensors it is called once more from within
        self._within = True
        try:
            return real(*args, **kwargs)
        finally:
            self._within = False

    def _step(self, real: Any, *args: Any, **kwargs: Any) -> Any:
        self.tokens += 1
        return real(*args, **kwargs)

    def _read(self, real: Any, *args: Any, **kwargs: Any) -> Any:
        self.reads += 1
        return real(*args, **kwargs)

    def _update(self, real: Any, policy: Any, minibatch: Any, *args: Any, **kwargs: Any) -> Any:
        self.minibatches += 1
        self.update_microbatches += len(minibatch)
        self.first_microbatches = self.first_microbatches or len(minibatch)
        before = sum(self.watch.waits.values())
        made = real(policy, minibatch, *args, **kwargs)
        self.update_waits += sum(self.watch.waits.values()) - before
        return made

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        names = ("microbatches", "tokens", "reads", "update_waits", "update_microbatches", "first_microbatches")
        return {"waits": dict(self.watch.waits), **{name: getattr(self, name) for name in (*names, "minibatches")}}


@contextmanager
def patched(owner: Any, name: str, around: Callable[..., Any]) -> Iterator[None]:
    """Let ``around`` be called with what is called, and with its arguments."""
    real = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: around(real, *args, **kwargs))
    try:
        yield
    finally:
        setattr(owner, name, real)


def main() -> None:
    """All steps on the card and on the processor."""
    device = card.install()  # before the first backward, which makes a thread for each device that there is
    wanted = sys.argv[1:] or list(steps.STEPS)
    on_processor = {name: steps.STEPS[name](steps.model_of(name, "cpu")) for name in wanted}
    found = {}
    for name in wanted:
        shared, counts = steps.model_of(name, device), Counts()
        shared.stepper(None)  # compared with the full pass, once
        steps.around_step = counts.counting
        try:
            metrics = steps.STEPS[name](shared)
        except card.MixedDevicesError as error:
            found[name] = {"error": str(error)}
            continue
        found[name] = {"card": metrics, "processor": on_processor[name], **counts.as_json()}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
