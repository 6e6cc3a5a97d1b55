"""The interface between training and the processes that share its work. One process is the simplest strategy.

Every statistic is global. What all ranks can compute from the same numbers, all compute; what only one rank can know,
rank 0 broadcasts. Broadcast values are plain JSON: nothing is unpickled from the network.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from triphase.errors import RunError, TriphaseError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

T = TypeVar("T")
GREATEST = "_max"
"""The ending of the names of metrics that are maxima, and not sums."""


class RankLost(TriphaseError):
    """Another process has ended or does not respond, so this one cannot continue. Exit code 1."""


class LeadEnded(Exception):
    """Rank 0 has no more work for this rank.

    Attributes:
        clean: whether it waits for the others, to leave together; else it has failed, and has reported why.
    """

    def __init__(self, clean: bool) -> None:
        super().__init__()
        self.clean = clean


class Strategy:
    """How the processes of a run share its work; this class is the strategy of a single process.

    Attributes:
        name: its name in the settings.
        rank, world: the rank of this process, and the number of processes.
        shards: whether the blocks of a base are divided among the ranks.
    """

    name = "one process"
    shards = False
    rank = 0
    world = 1

    @property
    def is_lead(self) -> bool:
        """Whether this process writes files and output."""
        return self.rank == 0

    def mine(self, costs: Sequence[int], owners: Sequence[int] | None = None) -> list[int]:
        """The indices of this rank's samples, out of those with these costs (see `shares.divide`)."""
        return list(range(len(costs)))

    def divided(self, costs: Sequence[int]) -> list[int]:
        """The rank of each of these samples."""
        return [0] * len(costs)

    def sum_gradients(self, parameters: "Mapping[str, nn.Parameter]") -> None:
        """Sum the gradients over ranks; one that no rank has stays absent."""

    def own(self, parameters: "Mapping[str, nn.Parameter]") -> "dict[str, nn.Parameter]":
        """What this rank's optimizer trains of these: all, or its rows of a divided weight."""
        return dict(parameters)

    def discard_gradients(self) -> None:
        """Forget the gradients of divided weights that were not summed."""

    def total_norm(self, gradients: "Mapping[str, Tensor]") -> "Tensor":
        """The 2-norm of the summed gradients; of a divided weight each rank passes its rows."""
        from torch import nn

        return nn.utils.get_total_norm(list(gradients.values()))

    def whole(self, tensors: "Mapping[str, Tensor]", *, on_lead: bool = False) -> "dict[str, Tensor]":
        """Tensors by the names of parameters (or `moment.NAME`), with those of divided weights whole; every rank
        calls this. With ``on_lead`` rank 0 alone gets these, in the host's memory."""
        return dict(tensors)

    def rows(self, name: str, tensor: "Tensor") -> "Tensor":
        """This rank's rows of a whole tensor of the parameter with this name."""
        return tensor

    def sum_tensors(self, tensors: "Sequence[Tensor]") -> None:
        """Sum each tensor over ranks, in place: if each rank fills its rows and leaves 0 elsewhere, all ranks get all
        rows."""

    def total(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The sums over ranks (the maximum, for names with that ending); every rank passes the same names."""
        return dict(figures)

    def from_lead(self, make: Callable[[], T]) -> T:
        """The result of ``make`` on rank 0, which alone calls it; the others wait for it, however long. Plain JSON."""
        return make()

    def gather(self, value: Any) -> list[Any]:
        """The value of each rank, in order. Plain JSON."""
        return [value]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return flag

    def barrier(self) -> None:
        """Wait until every rank has arrived."""

    def shard(
        self,
        blocks: "Sequence[nn.Module]",
        device: "torch.device",
        rows: "Callable[[int, str, int, int], Tensor] | None" = None,
        *,
        beside: bool = False,
    ) -> None:
        """Keep this rank's part of the blocks of a model, on ``device``; every rank passes the same model.

        ``rows`` reads rows of a block's weight without data: number and name, the first row, and the row after the
        last. The model takes the place of the one before, or is a second one ``beside`` it; no rank may be in a pass.
        """

    def load_together(self, what: Any) -> None:
        """Announce that a model with divided blocks is loaded: every rank loads it now; rank 0 says what (plain
        JSON)."""

    def serve_loading(self, load: Callable[[Any], None]) -> None:
        """Call ``load`` with what rank 0 loads while this rank waits for it."""

    def require_same(self, what: str, digest: str) -> None:
        """Refuse to continue if ranks differ.

        Raises:
            RunError: naming the ranks that differ from rank 0.
        """
        digests = self.gather(digest)
        others = [str(rank) for rank, each in enumerate(digests) if each != digests[0]]
        if others:
            raise RunError(
                f"{what} of rank {', '.join(others)} and rank 0 differ, so they would not train one model; give all "
                "ranks the same model files, the same versions and the same kind of processor"
            )


ALONE = Strategy()
"""The strategy of a single process."""
