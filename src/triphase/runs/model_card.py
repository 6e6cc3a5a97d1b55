"""The section of a card about its run: data, settings, measurements, limits, and the license of the base.

Written from the run's own files alone; what was not measured is left out, or stated to be unknown.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from triphase import __version__
from triphase.demo.embedded import public_name
from triphase.records.source_rows import files_of
from triphase.records.visible import as_code
from triphase.reports.summary_file import FILE_NAME as SUMMARY
from triphase.reports.summary_file import read_summary
from triphase.runs.base_license import License, license_of
from triphase.settings.data import SourceSettings
from triphase.settings.schema import RunSettings

_MEASURED = {
    "policy": ("labelers", "reward_model", "sft", "ppo"), "sft": ("sft",), "reward": ("labelers", "reward_model")
}  # fmt: skip
"""The sections of a summary with measurements of each kind of model, and of what it was trained with."""


def with_run(card: str, run: Path, settings: RunSettings, what: str, *, is_measured: bool = True) -> str:
    """``card`` with a section about the run, and its base's license in the metadata if that is known.

    ``what`` is policy, sft or reward; ``is_measured`` whether the values of the run's summary are its own.
    """
    license_ = license_of(settings.model.name)
    if license_ is not None and card.startswith("---\n"):
        card = card.replace("---\n", f"---\n{license_.front()}", 1)
    return card.rstrip() + "\n\n" + "\n".join(_lines(run, settings, what, license_, is_measured=is_measured)) + "\n"


def _lines(
    run: Path, settings: RunSettings, what: str, license_: License | None, *, is_measured: bool
) -> Iterator[str]:
    base, note = public_name(settings.model.name)
    base = Path(base).name if Path(base).is_absolute() else base  # its path is private
    yield "## Base and license"
    yield ""
    said = license_ or "unknown: check the base model's page before you share this"
    if (kind := settings.model.quantization) is not None:
        note += (
            f" Adapters were trained over it quantized to {kind}; merged weights are those of the base as it is with "
        )
        note += "the update added, so their outputs differ by that rounding."
    yield f"Trained from {as_code(base)} by Triphase {__version__}. {note} License of the base: {said}.".replace(
        "  ", " "
    )
    yield ""
    yield "## Data"
    yield ""
    yield from _data(settings, what)
    yield ""
    yield "## Settings"
    yield ""
    yield "| setting | value |\n|---|---|"
    yield from (f"| `{name}` | {value} |" for name, value in _chosen(settings, what))
    figures = list(_figures(run, what)) if is_measured else []
    if figures:
        yield ""
        yield "## Measured on held-out prompts"
        yield ""
        yield "| metric | value |\n|---|---|"
        yield from (f"| {as_code(name, in_table=True)} | {value:.4g} |" for name, value in figures)
    yield ""
    yield "## Limits"
    yield ""
    yield from _limits(settings, what)


_RANKED = {"people": "people ranked sampled responses", "simulated": "simulated labelers ranked sampled responses"}


def _data(settings: RunSettings, what: str) -> Iterator[str]:
    for role in ("demonstrations",) if what == "sft" else ("demonstrations", "prompts", "preferences"):
        for source in getattr(settings.data, role):
            yield f"- {role}: {_source(source)}"
    if what == "sft":
        return
    if settings.labeling.source in _RANKED or settings.data.preferences:
        yield f"- rankings: {_RANKED.get(settings.labeling.source, 'none; only the given preferences')}"
    if what == "policy":
        scored = settings.ppo.scorer.chosen
        yield f"- scores: {'the reward model' if scored == 'model' else f'a scorer of kind {as_code(scored)}'}"


def _source(source: SourceSettings) -> str:
    if files_of(source):
        parts = [as_code(Path(source.path).name)]  # its path is private
    else:
        named = [part for part in (source.config, source.split, source.revision) if part is not None]
        parts = [as_code(source.path), *map(as_code, named)]
    if source.max_records is not None:
        parts.append(f"at most {source.max_records:,} records")
    return ", ".join(parts)


def _chosen(settings: RunSettings, what: str) -> Iterator[tuple[str, Any]]:
    yield "model.max_length", settings.model.max_length
    adapters, sft = settings.adapters, settings.sft
    yield "adapters", f"layers {adapters.layers}, rank {adapters.rank}, alpha {adapters.alpha:g}"
    yield "seed", settings.seed
    if settings.model.quantization is not None:
        yield "model.quantization", settings.model.quantization
    yield "sft", f"{settings.sft_method}, epochs {sft.epochs:g}, learning rate {sft.optimizer.learning_rate:g}"
    if what == "reward" or (what == "policy" and settings.ppo.scorer.by_reward_model):
        yield "reward.epochs", f"{settings.reward.epochs:g}"
    if what == "policy":
        ppo = settings.ppo
        yield "ppo", f"{ppo.method}, {ppo.iterations} iterations of {ppo.batch_size} responses"
        yield "ppo.kl_coefficient", ppo.kl_coefficient


def _figures(run: Path, what: str) -> Iterator[tuple[str, float]]:
    if os.path.lexists(run / SUMMARY):
        found = read_summary(run / SUMMARY)
        yield from _numbers({name: found[name] for name in _MEASURED[what] if name in found})


def _numbers(value: Any, above: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _numbers(inner, f"{above}.{name}" if above else str(name))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield above, float(value)


def _limits(settings: RunSettings, what: str) -> Iterator[str]:
    if what == "reward":
        yield "A score ranks responses to one prompt as the labelers did, and no more: it says nothing about truth or"
        yield "safety, is least reliable for responses unlike those that were ranked, and can be exploited by what"
        yield "optimizes it."
        return
    if what == "sft":
        yield "It was tuned to imitate the demonstrations, and to nothing else: facts,"
    elif settings.ppo.scorer.by_reward_model:
        yield "It was tuned to what people (or simulated labelers) preferred in this data, and to nothing else: facts,"
    else:
        yield "It was tuned to the scores of its scorer, which it may exploit, and to nothing else: facts,"
    yield "safety and languages that are not in the data were not evaluated. Read samples before you use it; the run's"
    yield "report has some."
