"""The base that a run trains on, opened by this process, or by all ranks together if its layers are divided."""

from collections.abc import Callable
from functools import partial
from typing import Any

from triphase.datacheck.model_names import place_of
from triphase.demo.embedded import public_name
from triphase.models.loading import choose_device, choose_dtype, load_model
from triphase.models.quantization import note_of
from triphase.models.roles import SharedModel
from triphase.settings.schema import ModelSettings, RunSettings
from triphase.training.distributed.types import Strategy


def automatic_dtype(model: ModelSettings) -> str:
    """The dtype that `model.dtype: auto` selects on this machine."""
    return str(choose_dtype("auto", choose_device(model.device))).removeprefix("torch.")


class BaseModel:
    """Opens models; a rank that waits while rank 0 opens one keeps its part, until it opens the same itself."""

    def __init__(
        self,
        settings: RunSettings,
        strategy: Strategy,
        *,
        before: Callable[[], None],
        dtype: Callable[[], str | None] = lambda: None,
    ) -> None:
        """``before`` releases the model that this rank has, since rank 0 opens another.

        ``dtype`` is the resolved ``auto`` of the run's start; None if this machine selects it.
        """
        self._settings, self._strategy, self._before, self._dtype = settings, strategy, before, dtype
        self._served: tuple[ModelSettings, SharedModel] | None = None
        strategy.serve_loading(self._serve)

    def opened(self, settings: ModelSettings, *, beside: bool = False) -> SharedModel:
        """The roles on the model in these settings; ``beside`` the base, which stays open, or in its place."""
        if not beside and self._served is not None and self._served[0] == settings:
            found, self._served = self._served[1], None
            return found
        self._strategy.load_together({"model": settings.model_dump(mode="json"), "beside": beside})
        return self._read(settings, beside=beside)

    def forget(self) -> None:
        """Rank 0 has released its model, and opens it again."""
        self._served = None

    def _serve(self, told: Any) -> None:
        settings = ModelSettings.model_validate(told["model"])
        if told["beside"]:
            self._read(settings, beside=True)  # the strategy keeps its parts
            return
        self._before()
        self._served = None
        self._served = (settings, self._read(settings))

    def _read(self, settings: ModelSettings, *, beside: bool = False) -> SharedModel:
        if settings.dtype == "auto":
            settings = settings.model_copy(update={"dtype": self._dtype() or "auto"})
        base_name, note = public_name(settings.name)
        note = " ".join(part for part in (note, note_of(settings.quantization)) if part)
        shard = partial(self._strategy.shard, beside=beside) if self._strategy.shards else None
        loaded = load_model(settings, place_of, shard)
        return SharedModel(
            loaded,
            self._settings.adapters,
            seed=self._settings.seed,
            base_name=base_name if settings.adapter is None else loaded.name,
            base_note=note,
        )
