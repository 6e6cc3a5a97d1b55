"""Checks that the store of a run still contains what finished steps put there: an emptied one is not refilled."""

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
from triphase.training.artifacts import RANKED, SAMPLED


def note_sampled(run: Path, store: Store) -> None:
    """Record the number of responses in the store after sampling."""
    write_json(run / SAMPLED, {"responses": len(store.responses())})


def is_noted(run: Path) -> bool:
    """Whether the number of samples is recorded."""
    return (run / SAMPLED).is_file()


def require_contents(run: Path, store: Store) -> None:
    """Require at least as many responses and rankings as recorded; nothing is ever removed from a store.

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
                f"{run / 'labels.sqlite'}: holds {found} {noun}, but there were {wanted} when "
                f"{name} was written; restore "
                f"the store from a copy, or remove {name} too to repeat the step"
            )


def require_campaigns(run: Path, store: Store, wanted: Sequence[str] | None) -> None:
    """Require each campaign in `labeling.campaigns` to be in the store.

    Raises:
        SettingsError: one is not.
    """
    with store.reading() as connection:
        unknown = missing(connection, wanted)
        known = ", ".join(known_names(connection))
    if unknown:
        raise SettingsError(
            f"labeling.campaigns: there is no campaign {unknown[0]!r} in {run}; there are: "
            f"{known}. Create it with `triphase label campaigns add {run} …`, or leave it out"
        )


def examine_store(run: Path, campaigns: Sequence[str] | None = None) -> None:
    """Refuse a store that the run would refuse; a copy is checked, and nothing is written next to it.

    ``campaigns`` are those that the run learns from; they are started once its responses are sampled.

    Raises:
        TriphaseError: it is damaged, of a newer version, contains less than it did, or lacks a campaign.
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
        return 0  # the step writes the file again
    return count if type(count) is int else 0
