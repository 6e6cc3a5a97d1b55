"""Which settings to lower if a phase does not fit, and what each would save at the phase's peak."""

from collections.abc import Iterator

from triphase.footprints.moments import (
    ACTIVATIONS,
    ALLOCATOR,
    BASE,
    CACHE,
    GRADIENTS,
    MOMENTS,
    PACKED,
    SERVERS,
    TEMPORARY,
    TRUNK,
    Footprint,
)
from triphase.settings.phase_names import section_of, variant_in
from triphase.settings.schema import RunSettings

_LEAST_SHARE = 0.01


def remedies_of(found: Footprint, settings: RunSettings, *, adapted_layers: int) -> list[tuple[str, float]]:
    """(a setting with its new value, the bytes that it saves), the largest saving first."""
    least = _LEAST_SHARE * found.peak.total
    each = (remedy for remedy in _remedies(found, settings, adapted_layers) if remedy[1] > least)
    return sorted(each, key=lambda remedy: -remedy[1])


def _remedies(found: Footprint, settings: RunSettings, adapted_layers: int) -> Iterator[tuple[str, float]]:
    peak, phase, variant = found.peak, section_of(found.phase), variant_in(found.phase)
    own = phase if variant is None else f"variants.{variant}"
    parts, shape = peak.parts, peak.shape
    activations, cache = parts.get(ACTIVATIONS, 0.0), parts.get(CACHE, 0.0)
    share = 1 + parts.get(ALLOCATOR, 0.0) / max(1.0, activations + parts.get(TEMPORARY, 0.0))
    passing = activations + (0.0 if cache else parts.get(TEMPORARY, 0.0))
    if shape.rows > 1 and passing and not cache:
        yield f"{'ppo' if phase == 'evaluation' else own}.microbatch_tokens: {shape.tokens // 2}", share * passing / 2
    if activations and not settings.model.recompute_activations:
        kept = activations / adapted_layers if not trains_whole(found.phase, settings) else 0.0
        yield "model.recompute_activations: true", share * (activations - kept) * _RECOMPUTED
    if cache and (half := shape.rows // 2) and (phase != "ppo" or half % settings.ppo_of(variant).minibatch_size == 0):
        saved = (cache + parts.get(TEMPORARY, 0.0) + parts.get(ALLOCATOR, 0.0)) / 2
        yield f"{own if phase == 'ppo' else 'sampling'}.batch_size: {half}", saved
    if parts.get(PACKED):
        yield "model.packed_decoding: false", parts[PACKED]
    if parts.get(SERVERS):
        count = settings.rollouts.servers
        yield f"rollouts.servers: {count - 1}", parts[SERVERS] / count
    if phase in ("sft", "reward") and parts.get(TRUNK):
        yield "adapters.trunk_cache_gb: 0", parts[TRUNK]
    if trains_whole(found.phase, settings):
        copied = parts[BASE] / 2 if phase == "ppo" else 0.0
        yield f"{own}.method: lora", parts.get(GRADIENTS, 0.0) + parts[MOMENTS] + copied
    whole = settings.trains_whole or settings.sft_method == "full"
    if settings.model.dtype == "float32" and settings.model.quantization is None and not whole:
        yield "model.dtype: bfloat16", parts[BASE] / 2


def trains_whole(phase: str, settings: RunSettings) -> bool:
    """Whether a phase (`sft`, `ppo`, or a variant's) trains every weight."""
    if phase == "sft":
        return settings.sft.method == "full"
    variant = variant_in(phase)
    return (phase == "ppo" or variant is not None) and settings.ppo_of(variant).method == "full"


# Of a layer's activations, its input stays: a small part, smaller for a wider inner width of the layer.
_RECOMPUTED = 0.9
