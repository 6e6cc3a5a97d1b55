"""Describes this machine, and what is missing: versions, device, rates, the embedded model."""

import json as json_text
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from triphase.cli import deferred
from triphase.runs.versions import versions


def doctor(*, json: Annotated[bool, Parameter(help="Print one JSON document.")] = False) -> None:
    """Report what this machine can do and what is missing."""
    found = versions()
    if deferred.can_train():
        found |= deferred.abilities()
    if json:
        print(json_text.dumps(found, indent=1, ensure_ascii=False))
        return
    console = Console(soft_wrap=True, highlight=False)
    for name, value in _lines(found):
        console.print(f"{name:<12}{escape(value)}")


def _lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "triphase", f"{found['triphase']}, Python {found['python']}, {found['system']}, {found['cores']} cores"
    there = {name: version for name, version in found["packages"].items() if version is not None}
    yield "packages", ", ".join(f"{name} {version}" for name, version in there.items()) or "none"
    absent = [name for name, version in found["packages"].items() if version is None]
    if absent:
        yield "absent", f"{', '.join(absent)} (docs/start.md says what each is for)"
    if "device" not in found:
        yield "torch", "not installed: the phases need it (pip install 'triphase[train]'); labeling does not"
        return
    cards = ", ".join(f"{card['name']} ({card['gigabytes']} GB)" for card in found["cards"])
    yield "device", f"{found['device']}{f': {cards}' if cards else ''}; {found['threads']} threads"
    yield "memory", found["memory"]
    kind = found["bfloat16"]
    faster = "faster than float32" if kind["faster"] else "slower than float32" if kind["instructions"] else "absent"
    yield "bfloat16", f"{faster}; model.dtype: auto uses {'bfloat16' if kind['faster'] else 'float32'}"
    for dtype, rates in found["gflops"].items():
        yield dtype, ", ".join(f"{rate:g} GFLOP/s in {what}" for what, rate in rates.items())
    yield "embedded", f"embedded:smollm2 is {found['embedded_model']}"
