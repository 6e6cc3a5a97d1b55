"""Hidden states of the trunk at its boundary, cached for samples that are visited more than once.

A matrix product may round a row differently depending on the other rows of the batch. So samples are divided into
groups once, by their lengths alone, and the states of a group are always computed together: at the first visit of one
of its samples. A sample then has the same bits whatever the order of visits, also in a resumed run. Groups are cached
in memory, then in a file, each up to a budget; the rest are computed at each visit with the samples of that visit.
Which groups are cached depends on lengths and settings, not on the course of the run.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from triphase.batches.order import microbatches
from triphase.batches.sharing import Batch
from triphase.batches.transfers import to_device
from triphase.models.disk_cache import DiskCache
from triphase.models.roles import SharedModel
from triphase.settings.schema import AdapterSettings


class TrunkCache:
    """The boundary of each sample: from memory, from a file, or computed at each visit.

    Attributes:
        directory: where the file is created, without a name; None is the system's temporary directory.
    """

    def __init__(
        self,
        shared: SharedModel,
        lengths: Sequence[int],
        make_batch: Callable[[Sequence[int]], Batch],
        *,
        visits: Sequence[float],
        max_tokens: int | None,
        budgets: AdapterSettings,
    ) -> None:
        """``make_batch`` pads the samples with these numbers.

        Args:
            lengths: tokens of each sample.
            visits: how often each is visited; samples that are visited once are not cached.
        """
        self.directory: Path | None = None
        self._shared = shared
        self._lengths = lengths
        self._make_batch = make_batch
        self._groups: dict[int, list[int]] = {}
        self._kept: dict[int, Tensor] = {}
        self._places: dict[int, int] = {}
        self._file: DiskCache | None = None
        if not shared.backbone.trunk_layers:
            return
        again = [index for index, count in enumerate(visits) if count > 1]
        width = shared.backbone.hidden_size * shared.backbone.dtype.itemsize
        memory, room, place = budgets.trunk_cache_gb * 1e9, budgets.trunk_file_gb * 1e9, 0
        sizes = [lengths[index] for index in again]
        for part in microbatches(sizes, max_tokens=max_tokens, on_card=shared.backbone.on_card):
            group = [again[place] for place in part]
            size = width * sum(lengths[index] for index in group)
            if size <= memory:
                memory -= size
            elif place + size <= room:
                for index in group:
                    self._places[index] = place
                    place += width * lengths[index]
            else:
                continue
            self._groups.update(dict.fromkeys(group, group))
        self._file_size = place

    def of(self, indices: Sequence[int], batch: Batch) -> Tensor:
        """(B, L, d) boundary of the samples ``indices``; ``batch`` is their padded batch."""
        for index in indices:
            if index in self._groups and index not in self._kept and not self._is_written(index):
                self._fill(self._groups[index])
        rest = [index for index in indices if index not in self._groups]
        if len(rest) == len(indices):
            return self._shared.trunk(batch)
        length = batch.input_ids.shape[1]
        computed = dict(zip(rest, self._shared.trunk(self._make_batch(rest)), strict=True)) if rest else {}
        states = [
            computed[index][: self._lengths[index]] if index in computed else self._found(index) for index in indices
        ]
        return torch.stack([torch.nn.functional.pad(state, (0, 0, 0, length - len(state))) for state in states])

    def close(self) -> None:
        """Release the cache."""
        self._kept.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _is_written(self, index: int) -> bool:
        return self._file is not None and self._places.get(index) in self._file.written

    def _found(self, index: int) -> Tensor:
        if index in self._kept:
            return self._kept[index]
        assert self._file is not None  # noqa: S101 - filled before it is read
        backbone = self._shared.backbone
        shape = (self._lengths[index], backbone.hidden_size)
        return to_device(self._file.read(self._places[index], shape, backbone.dtype), backbone.device)

    def _fill(self, group: Sequence[int]) -> None:
        states = self._shared.trunk(self._make_batch(group))
        for row, index in enumerate(group):
            state = states[row, : self._lengths[index]]
            if index in self._places:
                if self._file is None:
                    self._file = DiskCache(self._file_size, self.directory)
                self._file.write(self._places[index], state)
            else:
                self._kept[index] = state.clone()
