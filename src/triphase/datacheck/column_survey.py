"""The columns that a scorer gets with its prompts, in files too large to be held in memory: read twice, in a stream."""

from array import array
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy

from triphase.datacheck.scorer_columns import contradiction_note, gives_columns, prompts_of
from triphase.records.paths import display_name
from triphase.records.prompt_columns import joined_columns
from triphase.settings.data import SourceSettings
from triphase.settings.schema import RunSettings

_WORD = (1 << 64) - 1


def contradicted_columns(settings: RunSettings) -> list[str]:
    """Lines on records that repeat a prompt with other columns for the scorer, as `RunData` notes them.

    Only the columns of prompts that occur more than once are kept. Records that cannot be used are left to the survey.
    """
    role = next((role for role in ("prompts", "preferences") if gives_columns(settings, role)), None)
    if role is None:
        return []
    sources: list[SourceSettings] = getattr(settings.data, role)
    prompts = partial(prompts_of, settings, role, refused=lambda error: None)
    hashes = array("Q", (hash(prompt.id) & _WORD for source in sources for prompt in prompts(source)))
    repeated = _repeated(hashes)
    first, lines = dict[str, Mapping[str, Any]](), list[str]()
    for source in sources if repeated else ():
        contradicting = Counter[str]()
        for prompt in prompts(source):
            if hash(prompt.id) & _WORD in repeated:
                first[prompt.id], others = joined_columns(first.get(prompt.id, {}), prompt.columns)
                contradicting.update(others)
        if contradicting:
            lines.append(contradiction_note(display_name(source.path, Path(source.path)), contradicting))
    return lines


def _repeated(hashes: "array[int]") -> set[int]:
    ordered = numpy.sort(numpy.frombuffer(hashes, dtype=numpy.uint64)) if hashes else numpy.empty(0)
    return set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
