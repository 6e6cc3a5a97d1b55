"""Whether the store of a run still holds what finished steps put there: an emptied one is not filled in silence."""

import json
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from triphase.errors import RunError, SettingsError, StoreError, TriphaseError
from triphase.labeling.work.campaign_plan import known_names, missing
from triphase.records.files import write_json
from triphase.store import Store, open_store
from triphase.store.database import require_one_name

SAMPLED, RANKED = "sampling.json", "labelling.json"
"""What was sampled, and what was ranked, when the step ended."""


def note_sampled(run: Path, store: Store) -> None:
    """Note how many responses the store holds after sampling."""
    write_json(run / SAMPLED, {"responses": len(store.responses())})


def is_noted(run: Path) -> bool:
    """Whether what was sampled is noted."""
    return (run / SAMPLED).is_file()


def require_contents(run: Path, store: Store) -> None:
    """At least as many responses and rankings as the finished steps noted; nothing is ever removed from a store.

    Raises:
        RunError: there are fewer.
    """
    for name, noun, held in (
        (SAMPLED, "responses", store.count_responses),
        (RANKED, "rankings", store.count_rankings),
    ):
        wanted = _noted(run / name, noun)
        if wanted and (found := held()) < wanted:
            raise RunError(
                f"{run / 'labels.sqlite'}: holds {found} {noun}, where {wanted} were when {name} was written; restore "
                f"the store from a copy, or remove {name} too to do the step again"
            )


def require_campaigns(run: Path, store: Store, wanted: Sequence[str] | None) -> None:
    """Each campaign that `labeling.campaigns` names is in the store.

    Raises:
        SettingsError: one is not.
    """
    with store.reading() as connection:
        unknown = missing(connection, wanted)
        known = ", ".join(known_names(connection))
    if unknown:
        raise SettingsError(
            f"labeling.campaigns: there is no campaign {unknown[0]!r} in {run}; there are: {known}. Begin it with "
            f"`triphase label campaigns add {run} …`, or leave it out"
        )


def examine_store(run: Path, campaigns: Sequence[str] | None = None) -> None:
    """Refuse a store that the run would refuse; a copy is looked at, and nothing is written beside it.

    ``campaigns`` are those that the run is to learn from; they are begun once its responses are sampled.

    Raises:
        TriphaseError: it is damaged, of a newer version, holds less than it did, or lacks a campaign.
    """
    path = run / "labels.sqlite"
    if not path.is_file():
        return
    require_one_name(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as source:
                with closing(sqlite3.connect(copy)) as target:
                    source.backup(target)
            with closing(open_store(copy)) as store:
                require_contents(run, store)
                store.ranked_groups("train")
                if is_noted(run):
                    require_campaigns(run, store, campaigns)
        except sqlite3.Error as error:
            raise StoreError(f"{path} cannot be read ({error}); restore it from a copy") from None
        except TriphaseError as error:
            raise type(error)(str(error).replace(str(copy), str(path))) from None


def _noted(path: Path, noun: str) -> int:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        count = found.get(noun, 0)
    except (OSError, ValueError, AttributeError, RecursionError):
        return 0  # the file is written again by its step
    return count if type(count) is int else 0
