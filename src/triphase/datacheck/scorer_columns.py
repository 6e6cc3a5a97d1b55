"""The columns of records that go to a scorer with their prompts."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

from triphase.datacheck.source_survey import STREAMS
from triphase.errors import DataError
from triphase.records.lines import RefuseRow
from triphase.records.prompt_columns import with_columns
from triphase.records.types import Prompt
from triphase.settings.data import SourceSettings
from triphase.settings.schema import RunSettings

_HERE = Path()
_LOOKED_AT = 64


def gives_columns(settings: RunSettings, role: str) -> bool:
    """Whether the columns of records of ``role`` go to a scorer with their prompts."""
    if role != ("prompts" if settings.data.prompts else "preferences"):
        return False
    return any(settings.ppo_of(variant).scorer.takes_columns for variant in (None, *settings.variants))


def prompts_of(settings: RunSettings, role: str, source: SourceSettings, refused: RefuseRow) -> Iterator[Prompt]:
    """The prompts of a source with their columns. Records that cannot be read are left to the code that reads them;
    ``refused`` is called for those with a column that no scorer can get."""
    for item in STREAMS[role](source, _HERE, settings.data.heldout_share, lambda error: None):
        prompt = item.record if isinstance(item.record, Prompt) else item.record.prompt
        try:
            given = prompt if item.row is None else with_columns(prompt, item.row)
        except DataError as error:
            refused(error)
            continue
        yield given


def first_prompts(settings: RunSettings) -> list[Prompt]:
    """The first prompts of the data with their columns, for checks; empty if they cannot be read.

    Raises:
        DataError: all of them have a column that no scorer can get.
    """
    role = "prompts" if settings.data.prompts else "preferences"
    found, refused = list[Prompt](), list[DataError]()
    with suppress(DataError):  # reported by the code that reads the records
        for source in getattr(settings.data, role):
            found.extend(islice(prompts_of(settings, role, source, refused.append), _LOOKED_AT - len(found)))
    if refused and not found:
        raise refused[0]
    return found


def contradiction_note(path: str, contradicting: Mapping[str, int]) -> str:
    """What happens to columns of which records of one prompt have different values."""
    counts = ", ".join(f"{name} ({count})" for name, count in contradicting.items())
    return f"{path}: records repeat a prompt with another value of {counts}; the scorer gets the first value"
