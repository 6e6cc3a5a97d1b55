"""The computations of the phases, traced on a model without data: what each allocates and computes.

Each function runs the modules, the head and the decode loop that the phases run, on shapes instead of records.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from triphase.batches.padding import Layout
from triphase.models.direct import FastDecoder
from triphase.models.heads import ScoreHead, ValueHead
from triphase.models.products import multiply, packs
from triphase.models.roles import HEAD_ROWS
from triphase.models.stepping import HFDecoder, has_common_shape
from triphase.models.tracing import DEPTHS, Skeleton, Traced, extrapolated
from triphase.objectives.logprobs import response_logprobs
from triphase.rollouts.captured import whole_blocks
from triphase.rollouts.drawing import sample
from triphase.settings.schema import AdapterSettings

_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Shape:
    """A microbatch: rows, padded length, and total response tokens (for a reward model: number of responses).

    ``packed``: several responses share a row after their prompt.
    """

    rows: int
    length: int
    counted: int
    packed: bool = False

    @property
    def tokens(self) -> int:
        """Tokens, including padding."""
        return self.rows * self.length


def _once(
    piece: Callable[Concatenate["Work", _Given], _Found],
) -> Callable[Concatenate["Work", _Given], _Found]:
    """Trace each computation once: it depends only on its shapes, and several phases and plans need it."""

    @wraps(piece)
    def known(work: "Work", /, *given: _Given.args, **options: _Given.kwargs) -> _Found:
        key = (piece.__name__, given, tuple(sorted(options.items())))
        if key not in work.known:
            work.known[key] = piece(work, *given, **options)
        found: _Found = work.known[key]
        return found

    return known


class Work:
    """Traces computations on one model, each once.

    Attributes:
        layers, trunk_layers: all layers, and those below the adapted ones.
        hidden_size, vocabulary: d and V.
        base_bytes, base_numbers: of all base weights. adapter_numbers: in one adapter.
        layer_numbers, largest_numbers: in one layer, and in the largest weight, of the base.
        layer_bytes: of one layer of the base.
        packed_bytes: of the packed weights while sampling, on a CPU where that is faster.
        captures: whether a step of sampling can be captured as a CUDA graph.
        known: the results so far. on_card: whether the computations are those on a GPU.
    """

    def __init__(
        self,
        config: Any,
        dtype: torch.dtype,
        adapters: AdapterSettings,
        *,
        recompute: bool,
        trusted: bool,
        quantization: str | None = None,
        on_card: bool = False,
    ):
        self.on_card = on_card
        self.known: dict[Hashable, Any] = {}
        self.layers = int(config.get_text_config().num_hidden_layers)
        adapted = self.layers if adapters.layers == "all" else min(adapters.layers, self.layers)
        self.trunk_layers = self.layers - adapted
        self.dtype = dtype
        self._parts = [
            Skeleton(
                config,
                dtype,
                depth=depth,
                rank=adapters.rank,
                targets=adapters.targets,
                recompute=recompute,
                trusted=trusted,
                quantization=quantization,
                on_card=on_card,
            )
            for depth in DEPTHS
        ]
        sizes = [part.base_numbers() for part in self._parts]
        self.layer_numbers = sizes[1] - sizes[0]
        self.base_numbers = sizes[0] + self.layer_numbers * (self.layers - DEPTHS[0])
        held = [part.base_bytes() for part in self._parts]
        self.layer_bytes = held[1] - held[0]
        self.base_bytes = held[0] + self.layer_bytes * (self.layers - DEPTHS[0])
        self.quantization = quantization
        self.adapter_numbers = self._parts[0].adapter_size() * adapted // DEPTHS[0]
        self.largest_numbers = self._parts[0].largest_number()
        self.hidden_size = self._parts[0].backbone.hidden_size
        self.vocabulary = int(self._parts[0].backbone.head_weight.shape[0])
        self.steps_directly = has_common_shape(self._parts[1].backbone)
        self.captures = self.steps_directly and on_card
        self.records_trunk = self.steps_directly and not on_card and self.trunk_layers > 0
        self.packs = self._parts[1].backbone.packs
        packed = self.steps_directly and quantization is None and not on_card and packs(dtype, "cpu")
        self.packed_bytes = float(self.layer_bytes * self.layers) if packed else 0.0

    @property
    def adapted_layers(self) -> int:
        """Layers with adapters."""
        return self.layers - self.trunk_layers

    def boundary_bytes(self, tokens: float) -> float:
        """Cached trunk states of this many tokens."""
        return tokens * self.hidden_size * self.dtype.itemsize

    @_once
    def trunk(self, shape: Shape) -> Traced:
        """The boundary of one microbatch, without gradient; its result is counted."""
        if not self.trunk_layers:
            return Traced(self.boundary_bytes(shape.tokens))

        def forward(part: Skeleton) -> Tensor:
            part.freeze(adapter=False)
            return part.backbone.upper(part.hidden(shape.rows, shape.length), _layout(shape))

        return self._traced(forward, self.trunk_layers, backward=False)

    @_once
    def policy(
        self,
        shape: Shape,
        *,
        train: bool,
        with_entropy: bool = False,
        with_values: bool = False,
        whole: bool = False,
        again: bool = True,
    ) -> Traced:
        """Log-probabilities of one microbatch, boundary included, and its gradient if ``train`` is set.

        Args:
            whole: every weight is trained (full fine-tuning).
            again: gradients of an earlier microbatch exist.
        """

        def forward(part: Skeleton) -> Tensor:
            part.train(adapter=not whole) if train else part.freeze()
            ids = torch.zeros(shape.rows, shape.length, dtype=torch.long)
            places = torch.zeros(shape.counted, dtype=torch.long)
            if whole:
                hidden = part.backbone.whole(ids, _layout(shape), at=(places, places))
            else:
                hidden = part.backbone.upper(part.hidden(shape.rows, shape.length), _layout(shape), at=(places, places))
            found = response_logprobs(
                hidden,
                part.backbone.head_weight,
                torch.zeros(shape.counted, dtype=torch.long),
                temperature=0.5,
                chunk_size=HEAD_ROWS,
                with_entropy=with_entropy,
                logit_map=part.backbone.logit_map,
            )
            loss = found.logprobs.sum()
            if with_values:
                loss = loss + ValueHead(part.backbone.hidden_size)(hidden).sum()
            return loss

        layers = self.layers if whole else self.adapted_layers
        return self._traced(forward, layers, backward=train, again=again)

    @_once
    def head_chunk(self) -> float:
        """Bytes that the language-model head has allocated at once for `HEAD_ROWS` positions, in training."""

        def forward(part: Skeleton) -> Tensor:
            part.freeze()
            hidden = torch.empty(HEAD_ROWS, self.hidden_size, dtype=self.dtype, requires_grad=True)
            targets = torch.zeros(HEAD_ROWS, dtype=torch.long)
            found = response_logprobs(
                hidden,
                part.backbone.head_weight,
                targets,
                temperature=0.5,
                chunk_size=HEAD_ROWS,
                with_entropy=False,
                logit_map=part.backbone.logit_map,
            )
            return found.logprobs.sum()

        return self._parts[0].trace(lambda: forward(self._parts[0]), backward=True).peak

    @_once
    def reward(self, shape: Shape, *, train: bool, again: bool = True) -> Traced:
        """Scores of one microbatch, boundary included, and its gradient if ``train`` is set."""

        def forward(part: Skeleton) -> Tensor:
            part.train(adapter=True) if train else part.freeze()
            places = torch.zeros(shape.counted, dtype=torch.long)
            hidden = part.backbone.upper(part.hidden(shape.rows, shape.length), _layout(shape), at=(places, places))
            head = ScoreHead(part.backbone.hidden_size, torch.Generator())
            score: Tensor = head(hidden)
            return score.sum()

        return self._traced(forward, self.adapted_layers, backward=train, again=again)

    @_once
    def generation(self, rows: int, prompt: int, response: int, *, captured: bool) -> tuple[Traced, Traced]:
        """Processing the prompts of a batch, and one more token for each row with the sampling of the next.

        The peak of the second is in addition to the cache, whose bytes are its ``kept``. If the step is ``captured``,
        the prompts are copied into rows that are reserved.
        """

        def read(part: Skeleton) -> tuple[Traced, Traced]:
            part.freeze()
            with part.computing():
                stepper = FastDecoder(part.backbone) if self.steps_directly else HFDecoder(part.backbone)
            # All different: equal prompts would be processed once.
            digits = [(row % self.vocabulary, row // self.vocabulary % self.vocabulary) for row in range(rows)]
            prompts = [([*pair] * prompt)[:prompt] for pair in digits]

            def begin() -> None:
                if not captured or isinstance(stepper, HFDecoder):
                    stepper.read(prompts, pad_id=0, room=response)
                    return
                stepper.reserve(rows, whole_blocks(prompt + response))
                reader = FastDecoder(part.backbone)
                reader.read(prompts, pad_id=0, room=0)
                stepper.take(range(rows), reader, range(rows))

            def step() -> None:
                logits = part.backbone.logits(multiply(part.backbone.head_weight, stepper.hidden.t()).t())
                stepper.step(sample(logits, 0.5, torch.zeros(rows, dtype=torch.float64)))

            return part.trace_in_turn(begin, step)

        one, two = (read(part) for part in self._parts)
        return extrapolated(one[0], two[0], self.layers), extrapolated(one[1], two[1], self.layers)

    def _traced(
        self, forward: Callable[[Skeleton], Tensor], layers: int, *, backward: bool, again: bool = False
    ) -> Traced:
        found = [part.trace(partial(forward, part), backward=backward, again=again) for part in self._parts]
        return extrapolated(found[0], found[1], layers)


def _layout(shape: Shape) -> Layout | None:
    if not shape.packed:
        return None
    positions = torch.zeros(shape.rows, shape.length, dtype=torch.long)
    return Layout(positions, torch.ones(shape.rows, 1, shape.length, shape.length, dtype=torch.bool))
