"""The settings of a run with several processes, and their requirements on its other settings."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from triphase.errors import SettingsError
from triphase.settings.base import Settings

if TYPE_CHECKING:
    from triphase.settings.schema import RunSettings


class ParallelSettings(Settings):
    """Several processes that train one model (docs/distributed.md)."""

    strategy: Literal["auto", "replicated", "fsdp2"] = "auto"
    """How they share the work, besides a share of each step's samples for each: `replicated` gives each the whole
    model; `fsdp2` divides its layers among them, which takes less memory and is slower; `auto` does that if a frozen
    base does not fit on each. A single process needs none."""
    cpu_offload: bool = False
    """With `fsdp2`: each rank keeps its part of the layers in the machine's memory instead of its GPU's, and copies a
    layer's part to the GPU before the layer is gathered. Slower; changes nothing on CPUs."""
    timeout_seconds: Annotated[float, Field(gt=0, le=604_800)] = 600.0
    """How long ranks wait for each other in a step; one that does not arrive in this time is reported as hanging."""


def require_work(settings: "RunSettings", processes: int) -> None:
    """Require that every process has something to do in every full step.

    Raises:
        SettingsError: names the setting that is too small for this many processes.
    """
    found = []
    if settings.sft_method in ("lora", "full"):
        found.append(("sft.batch_size", settings.sft.batch_size, settings.sft.batch_size, "samples"))
    if settings.reward.taken_from is None:
        found.append(("reward.batch_size", settings.reward.batch_size, settings.reward.batch_size, "rankings"))
    for variant in (None, *settings.variants):
        ppo, section = settings.ppo_of(variant), "ppo" if variant is None else f"variants.{variant}"
        shares = ppo.minibatch_size // ppo.responses_per_prompt
        found.append((f"{section}.minibatch_size", ppo.minibatch_size, shares, "prompts"))
    for setting, value, shares, what in found:
        if shares < processes:
            raise SettingsError(
                f"{setting}: {value} gives {shares} {what} to each optimizer step, fewer than the {processes} "
                f"processes; start at most {shares} processes, or raise it"
            )
