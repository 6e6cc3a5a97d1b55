"""The columns that a scorer gets with its prompts, in files too large to be held in memory: read twice, in a stream."""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy

from triphase.datacheck.run_data import contradiction_note, drops, gives_columns
from triphase.datacheck.source_survey import STREAMS
from triphase.errors import DataError
from triphase.records.paths import display_name
from triphase.records.prompt_columns import joined_columns, with_columns
from triphase.records.types import Prompt
from triphase.settings.data import SourceSettings
from triphase.settings.schema import RunSettings

_HERE = Path()
_WORD = (1 << 64) - 1


def contradicted_columns(settings: RunSettings) -> list[str]:
    """Lines on records that repeat a prompt with other columns for the scorer, as `RunData` notes them.

    Only the columns of prompts that occur more than once are kept.

    Raises:
        DataError: a record has a column that no scorer can get.
    """
    role = next((role for role in ("prompts", "preferences") if gives_columns(settings, role)), None)
    if role is None:
        return []
    sources: list[SourceSettings] = getattr(settings.data, role)
    hashes = array("Q", (hash(prompt.id) & _WORD for source in sources for prompt in _prompts(settings, role, source)))
    repeated = _repeated(hashes)
    first, lines = dict[str, Mapping[str, Any]](), list[str]()
    for source in sources if repeated else ():
        contradicting = Counter[str]()
        for prompt in _prompts(settings, role, source):
            if hash(prompt.id) & _WORD in repeated:
                first[prompt.id], others = joined_columns(first.get(prompt.id, {}), prompt.columns)
                contradicting.update(others)
        if contradicting:
            lines.append(contradiction_note(display_name(source.path, Path(source.path)), contradicting))
    return lines


def _prompts(settings: RunSettings, role: str, source: SourceSettings) -> Iterator[Prompt]:
    """The prompts of a source with their columns; records that cannot be read are reported by the survey."""
    for item in STREAMS[role](source, _HERE, settings.data.heldout_share, lambda error: None):
        prompt = item.record if isinstance(item.record, Prompt) else item.record.prompt
        try:
            yield prompt if item.row is None else with_columns(prompt, item.row)
        except DataError:
            if not drops(settings):
                raise


def _repeated(hashes: "array[int]") -> set[int]:
    ordered = numpy.sort(numpy.frombuffer(hashes, dtype=numpy.uint64)) if hashes else numpy.empty(0)
    return set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
