"""Sampling in this process, by a step that is captured as a CUDA graph, or by one that is not."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from weakref import WeakSet

import torch
from torch import Tensor

from triphase.errors import ModelError
from triphase.models.direct import FastDecoder
from triphase.models.roles import SharedModel
from triphase.models.stepping import Stepper
from triphase.rollouts.drawing import draws, sample
from triphase.rollouts.graphs import CudaGraphs
from triphase.rollouts.trunk_record import TrunkRecord
from triphase.rollouts.types import Generated, Request
from triphase.rollouts.uncaptured import UncapturedWriter
from triphase.rollouts.writing import CapturedWriter

_noted: WeakSet[SharedModel] = WeakSet()  # models for which the reason against capture was logged
_log = logging.getLogger(__name__)


class LocalGenerator:
    """Samples from one adapter of the shared model.

    Attributes:
        adapter: the adapter that samples; None is the bare base.
        batch_size: responses that are sampled together.
    """

    def __init__(self, shared: SharedModel, *, adapter: str | None, batch_size: int) -> None:
        self._shared = shared
        self.adapter = adapter
        self.batch_size = batch_size
        self._writer: CapturedWriter | None = None

    def release(self) -> None:
        """Release what is kept on a GPU between two calls."""
        if self._writer is not None:
            self._writer.release()

    @torch.no_grad()
    def generate(
        self,
        requests: Sequence[Request],
        *,
        temperature: float,
        max_response_tokens: int,
        on_finished: Callable[[int], None] | None = None,
    ) -> list[Generated]:
        """One response for each request, in order. ``on_finished`` gets the number of newly finished ones."""
        stepper = self._shared.stepper(self.adapter)
        return self._generate(stepper, requests, temperature, max_response_tokens, on_finished)

    @torch.no_grad()
    def generate_with_trunk(
        self, requests: Sequence[Request], *, temperature: float, max_response_tokens: int
    ) -> tuple[list[Generated], Tensor | None]:
        """See `TrunkGenerator`: the trunk states are at hand on a CPU, where `FastDecoder` steps."""
        backbone, stepper = self._shared.backbone, self._shared.stepper(self.adapter)
        record = None
        if requests and backbone.trunk_layers and isinstance(stepper, FastDecoder) and not self._captures(stepper):
            record = TrunkRecord.of(stepper, backbone, requests, max_response_tokens)
        found = self._generate(stepper, requests, temperature, max_response_tokens, record=record)
        return found, None if record is None else record.values

    def _generate(
        self,
        stepper: Stepper,
        requests: Sequence[Request],
        temperature: float,
        max_response_tokens: int,
        on_finished: Callable[[int], None] | None = None,
        *,
        record: TrunkRecord | None = None,
    ) -> list[Generated]:
        with self._shared.role(self.adapter):
            if requests and self._captures(stepper):
                if self._writer is None:
                    tell = partial(_go_without, self._shared)
                    self._writer = CapturedWriter(
                        self._shared, choose=sample, draws=draws, record=CudaGraphs(), on_failure=tell
                    )
                written = self._writer.write(
                    requests,
                    batch_size=self.batch_size,
                    temperature=temperature,
                    limit=max_response_tokens,
                    on_finished=on_finished,
                )
            else:
                writer = UncapturedWriter(
                    self._shared,
                    stepper,
                    requests,
                    batch_size=self.batch_size,
                    temperature=temperature,
                    limit=max_response_tokens,
                    record=record,
                )
                written = writer.write(on_finished)
        return [Generated(tuple(ids), ids[-1] in self._shared.template.ends) for ids in written]

    def _captures(self, stepper: Stepper) -> bool:
        """Whether the step is captured: on a GPU, unless something prevents it, which is then logged once."""
        if self._shared.loaded.capture_decoding == "off" or not _is_card(self._shared.device):
            return False
        if isinstance(stepper, FastDecoder):
            return True
        _go_without(
            self._shared,
            f"the layers of {type(self._shared.backbone.model).__name__} are not of the Llama, "
            f"Mistral or Qwen type, or are sharded among processes",
        )
        return False


def _go_without(shared: SharedModel, reason: str) -> None:
    """Log once per model why its step is not captured.

    Raises:
        ModelError: a capture is required.
    """
    if shared.loaded.capture_decoding == "on":
        raise ModelError(f"model.capture_decoding is on, but the step cannot be captured ({reason}); set it to auto")
    if shared not in _noted:
        _noted.add(shared)
        _log.warning("tokens are generated without CUDA graphs: the step is not captured (%s)", reason)


def _is_card(device: torch.device) -> bool:
    return device.type == "cuda"
