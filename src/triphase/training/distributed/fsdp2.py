"""Every rank keeps a part of the frozen base, and all of one block while it computes it: torch's FSDP2.

`fully_shard` divides the weights of each block, and gathers them when the block runs, forward and backward. Everything
outside the blocks (embedding, final norm, head) and all trained weights (adapters and heads) are replicated on every
rank.

Ranks do not run the same passes: shares are uneven, a rank's responses end early, rank 0 evaluates alone. So before a
block is gathered the ranks agree which one it is (`rounds`), and an idle rank provides its part of the blocks that
others need until all have reached the next collective.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn

from triphase.errors import RunError
from triphase.models.sharded_loading import local_part
from triphase.training.distributed.agreed_needs import FIRST_BLOCK, HERE, LOADS, Rounds, choose
from triphase.training.distributed.collectives import gather
from triphase.training.distributed.replicated import ENDED, Replicated
from triphase.training.distributed.sharded_weights import ShardedWeights
from triphase.training.distributed.types import LeadEnded

if TYPE_CHECKING:
    from torch.distributed.fsdp._fully_shard._fsdp_api import AllGather
    from torch.distributed.tensor import DTensor

T = TypeVar("T")


class Sharded(Replicated):
    """A process group in which each rank holds a part of the base, and a replica of the trained weights."""

    name = "fsdp2"
    shards = True

    def __init__(self, met: Replicated, *, device_type: str, timeout_seconds: float, offloads: bool = False) -> None:
        """``met`` is the strategy of the rendezvous; it is not used afterwards. ``offloads``: the parts are kept in the
        machine's memory, and copied to the device before they are sent."""
        from torch.distributed.device_mesh import init_device_mesh  # half a second: not for a single process

        self._continue(met)
        self._mesh = init_device_mesh(device_type, (self.world,))
        self._rounds = Rounds(
            self._store,
            self._presence,
            self.rank,
            self.world,
            timeout_seconds=timeout_seconds,
            look=self._raise_if_ended,
        )
        self._offloads, self._pins = offloads, offloads and device_type == "cuda"
        self._device = torch.device("cpu")
        self._shards: list[list[DTensor]] = []
        self._blocks: list[nn.Module] = []
        self._of_base = 0
        self._trained = ShardedWeights(self.rank, self.world, self._mesh.get_group())
        self._over = False
        self._loads = 0
        self._serves_loading: Callable[[Any], None] | None = None

    def shard(
        self,
        blocks: Sequence[nn.Module],
        device: torch.device,
        rows: Callable[[int, str, int, int], Tensor] | None = None,
        *,
        beside: bool = False,
    ) -> None:
        """See Strategy. The blocks of a second model are numbered after those of the base."""
        from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard
        from torch.distributed.tensor import DTensor

        policy = CPUOffloadPolicy(pin_memory=self._pins) if self._offloads else OffloadPolicy()
        self._device, kept = device, torch.device("cpu") if self._offloads else device
        self._of_base = self._of_base if beside else len(blocks)
        del self._blocks[self._of_base if beside else 0 :], self._shards[self._of_base if beside else 0 :]
        for number, block in enumerate(blocks):
            made = fully_shard(block, mesh=self._mesh, reshard_after_forward=True, offload_policy=policy)
            made.set_custom_all_gather(cast("AllGather", _Agreed(self, len(self._blocks) + number)))
            made.set_requires_gradient_sync(False)  # whole gradients are summed in the step, if there are any
            if rows is not None:
                self._read(block, kept, lambda *which, number=number: rows(number, *which))
            if not self._offloads:
                block.to(device)
        self._blocks += blocks
        self._shards += [[each for each in block.parameters() if isinstance(each, DTensor)] for block in blocks]

    def _read(self, block: nn.Module, device: torch.device, rows: Callable[[str, int, int], Tensor]) -> None:
        """Give a divided block without data this rank's rows of its weights."""
        from torch.distributed.tensor import DTensor, Shard

        for name, weight in list(block.named_parameters()):
            size, count = len(weight), -(-len(weight) // self.world)
            own = rows(name, min(self.rank * count, size), min((self.rank + 1) * count, size)).to(device)
            part = DTensor.from_local(own, self._mesh, [Shard(0)], shape=weight.shape, stride=weight.stride())
            owner, _, child = name.rpartition(".")
            block.get_submodule(owner)._parameters[child] = nn.Parameter(part, requires_grad=False)

    def own(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        """See Strategy."""
        self._trained = ShardedWeights(self.rank, self.world, self._mesh.get_group())
        return self._trained.own(parameters)

    @torch.no_grad()
    def sum_gradients(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """See Strategy."""
        super().sum_gradients({name: each for name, each in parameters.items() if name not in self._trained})
        with self._answered():
            self._trained.sum_gradients(self._blocks, self._all_reduce)

    def discard_gradients(self) -> None:
        """See Strategy."""
        self._trained.discard_gradients(self._blocks)

    def total_norm(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """See Strategy."""
        if not self._trained:
            return super().total_norm(gradients)
        parts = [
            {name: each for name, each in gradients.items() if (name in self._trained) is own} for own in (True, False)
        ]
        squares = [super(Sharded, self).total_norm(part).double() ** 2 for part in parts]
        self._all_reduce(squares[0])
        return sum(squares[1:], squares[0]).sqrt().float()

    @torch.no_grad()
    def whole(self, tensors: Mapping[str, Tensor], *, on_lead: bool = False) -> dict[str, Tensor]:
        """See Strategy."""
        self._meet()
        found = {}
        for name, tensor in tensors.items():
            known = next((each for each in (name, name.partition(".")[2]) if each in self._trained), None)
            if known is None or not tensor.ndim:
                found[name] = tensor
                continue
            with self._answered():
                whole = self._trained.whole(known, local_part(tensor))
            if not on_lead:
                found[name] = whole
            elif self.is_lead:
                found[name] = whole.cpu()
        return found

    def rows(self, name: str, tensor: Tensor) -> Tensor:
        """See Strategy."""
        # A copy: a slice would keep the whole tensor in memory.
        return self._trained.rows(name, tensor).clone() if name in self._trained and tensor.ndim else tensor

    def load_together(self, what: Any) -> None:
        """See Strategy."""
        key, self._loads = f"load/{self._loads}", self._loads + 1
        if self.is_lead:
            self._store.set(key, json.dumps(what))
        self._until(LOADS)

    def serve_loading(self, load: Callable[[Any], None]) -> None:
        """See Strategy."""
        self._serves_loading = load

    def from_lead(self, make: Callable[[], T]) -> T:
        """See Strategy. The other ranks provide the parts of the base that ``make`` needs."""
        if self.is_lead:
            made = make()
            self._meet()
            return super().from_lead(lambda: made)
        self._meet()
        try:
            return super().from_lead(make)
        except LeadEnded:
            self._over = True  # all ranks are leaving
            raise

    def require_block(self, number: int) -> None:
        """Return when all ranks gather this block next; until then provide this rank's part of other blocks."""
        self._until(FIRST_BLOCK + number)

    @torch.no_grad()
    def part_of(self, number: int) -> Tensor:
        """This rank's part of a block, as it is sent: the rows of each weight, padded to the same number on every
        rank."""
        parts = []
        for weight in self._shards[number]:
            rows, own = -(-len(weight) // self.world), weight.to_local().to(self._device).reshape(-1)
            size = rows * (weight.numel() // max(1, len(weight)))
            parts.append(nn.functional.pad(own, (0, size - own.numel())))
        if len({part.dtype for part in parts}) > 1:
            parts = [part.view(torch.uint8) for part in parts]
        return torch.cat(parts)

    def gather_block(self, whole: Tensor, part: Tensor, group: Any) -> None:
        """Gather the parts of all ranks into ``whole``."""
        with self._answered():
            gather(whole, part, group)

    def _meet(self) -> None:
        if not self._over:
            self._until(HERE)

    def _until(self, need: int) -> None:
        """Serve what the ranks need, round by round, until it is what this one needs."""
        while True:
            chosen = choose(self._rounds.say(need))
            if chosen == need:
                return
            if chosen == LOADS:
                self._load_too()
            else:
                part = self.part_of(chosen - FIRST_BLOCK)
                self.gather_block(part.new_empty(self.world * part.numel()), part, self._mesh.get_group())

    def _load_too(self) -> None:
        key, self._loads = f"load/{self._loads}", self._loads + 1
        if self._serves_loading is None:
            raise RunError(f"rank {self.rank}: another rank is loading a model, but this rank is not")
        self._serves_loading(self._await(key))

    def _raise_if_ended(self) -> None:
        if self.is_lead:
            return
        key = f"said/{self._said}"
        try:
            said = json.loads(self._store.get(key)) if self._store.check([key]) else None
        except RuntimeError:
            return  # the store is gone: the round will notice it too
        if isinstance(said, dict) and said.get(ENDED) is False:
            raise LeadEnded(clean=False)


class _Agreed:
    """How FSDP2 gathers one block (torch's `AllGather` interface): after the ranks have agreed on it."""

    def __init__(self, strategy: Sharded, number: int) -> None:
        self._strategy, self._number = strategy, number
        self._is_known = False

    def allocate(self, size: Sequence[Any], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, group: Any, async_op: bool = False) -> None:
        self._strategy.require_block(self._number)
        if not self._is_known:
            # A rank that only provides its part lays it out by itself.
            if not torch.equal(self._strategy.part_of(self._number), input_tensor):
                raise RunError(
                    f"torch {torch.__version__} uses an unknown layout for sharded blocks; use a "
                    f"version that triphase was tested with, or parallel.strategy: replicated"
                )
            self._is_known = True
        self._strategy.gather_block(output_tensor, input_tensor, group)
