"""The records of a run, each read, rendered and encoded once, before any model is loaded.

Equal prompts without ids are one prompt, in whatever file they occur. Of two records of one prompt the first that names
a kind determines its kind; a split that a record names holds for all of them. An id that is used for two different
prompts is refused with both locations.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triphase.datacheck.examiner import Examiner
from triphase.datacheck.near_duplicates import NearDuplicates, find_near_duplicates
from triphase.datacheck.scorer_columns import contradiction_note, gives_columns
from triphase.datacheck.shortening import Rests, Shortened, length_notes
from triphase.errors import DataError
from triphase.monitoring.log import NOTE
from triphase.records.forms import form_notes, form_of
from triphase.records.identity import split_of
from triphase.records.lines import partial_columns, unread_columns
from triphase.records.paths import display_name
from triphase.records.prompt_columns import joined_columns, with_columns
from triphase.records.reading import Located, stream_demonstrations, stream_preferences, stream_prompts
from triphase.records.remarks import Remarks
from triphase.records.source_rows import other_files_notes
from triphase.records.types import Comparison, Demonstration, Prompt, Split
from triphase.settings.data import SourceSettings
from triphase.settings.schema import RunSettings

if TYPE_CHECKING:
    from triphase.tokens.encoding import Encoded

HERE = Path()
_STREAMS: dict[str, Callable[..., Iterator[Located[Any]]]] = {
    "demonstrations": stream_demonstrations,
    "prompts": stream_prompts,
    "preferences": stream_preferences,
}
_log = logging.getLogger(__name__)


def drops(settings: RunSettings) -> bool:
    """Whether records that cannot be used are left out."""
    return settings.data.on_bad_record == "drop"


def _why_none(lengths: Mapping[str, int]) -> str:
    if lengths.get("left out"):
        return "exceeds model.max_length; raise it"
    return "nearly repeats others (data.near_duplicates: drop); leave the file out"


class RunData:
    """The records in the settings. Each role is read at the first call and cached.

    Attributes:
        left_out: records that ``data.on_bad_record`` left out, by file.
        collided: those of the unusable ones whose id is used for another prompt.
        contradicted: lines on records that repeat a prompt with other columns for the scorer.
    """

    def __init__(
        self,
        settings: RunSettings,
        examiner: Callable[[], Examiner] | None = None,
        *,
        drop: bool | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        """``examiner`` returns the encoder of records; without one they are only read. ``drop``: whether unusable
        records are left out; by default as in the settings. ``note`` is called with what is left out and how records
        are read; by default both are logged."""
        self._note, self._tell = note or _log.warning, note or partial(_log.warning, extra=NOTE)
        self._settings = settings
        self._make_examiner = examiner
        self._drops = drops(settings) if drop is None else drop
        self._examiner: Examiner | None = None
        self._rests = Rests()
        self._registry: dict[str, tuple[Prompt, str]] = {}
        self._demonstrations: list[list[Demonstration]] | None = None
        self._encoded: dict[int, Encoded] = {}
        self._prompts: list[Prompt] | None = None
        self._comparisons: list[Comparison] | None = None
        self.left_out: Counter[str] = Counter()
        self._near: NearDuplicates | None = None
        self.collided: list[DataError] = []
        self.contradicted: list[str] = []
        self._contradicting: Counter[str] = Counter()

    def demonstrations(self) -> list[list[Demonstration]]:
        """The demonstrations of each source.

        Raises:
            DataError: one cannot be used.
        """
        if self._demonstrations is None:
            found: list[list[Demonstration]] = []
            for source in self._settings.data.demonstrations:
                records = self._read("demonstrations", source)
                found.append([item.record for item, _ in records])
                self._encoded |= {id(item.record): ids for item, ids in records}
            self._demonstrations = found
        return self._demonstrations

    def encoded(self, demonstrations: Iterable[Demonstration]) -> "list[Encoded]":
        """The ids of demonstrations that `demonstrations` returned."""
        return [self._encoded[id(item)] for item in demonstrations]

    def forget_demonstrations(self) -> None:
        """Release what no later phase reads."""
        self._demonstrations, self._encoded = None, {}

    def prompts(self) -> list[Prompt]:
        """The prompts, each once: those of `data.prompts`, or else those of the preferences.

        Raises:
            DataError: one cannot be used, or an id is used for two prompts.
        """
        if not self._settings.data.prompts:
            return list({item.prompt.id: item.prompt for item in self.comparisons()}.values())
        if self._prompts is None:
            names: dict[str, None] = {}
            for source in self._settings.data.prompts:
                for item, _ in self._read("prompts", source):
                    names[item.record.id] = None
            self._prompts = [self._registry[name][0] for name in names]
        return self._prompts

    def comparisons(self) -> list[Comparison]:
        """The comparisons of all sources.

        Raises:
            DataError: one cannot be used, or an id is used for two prompts.
        """
        if self._comparisons is None:
            if self._settings.data.prompts:
                self.prompts()  # they determine kind and split
            found = [
                item.record
                for source in self._settings.data.preferences
                for item, _ in self._read("preferences", source)
            ]
            self._comparisons = [replace(item, prompt=self._registry[item.prompt.id][0]) for item in found]
        return self._comparisons

    def _tell_forms(self, path: str, lines: Iterable[str]) -> None:
        for line in lines:
            self._tell(f"{path}: {line}")

    def _read(self, role: str, source: SourceSettings) -> list[tuple[Located[Any], Any]]:
        """The usable records of a source, with their ids; the others are refused together, or left out."""
        found: list[tuple[Located[Any], Any]] = []
        errors: list[DataError] = []
        columns, lengths, forms, remarks = Counter[str](), Counter[str](), Counter[str](), Remarks()
        try:
            for item in self._kept(role, source, errors):
                columns.update(item.unread)
                forms[form_of(role, item)] += 1
                try:
                    fitting, ids = self._examined(role, item, lengths)
                    if fitting is None:
                        continue
                    remarks.add(item.row)
                    found.append((fitting if role == "demonstrations" else self._registered(role, fitting), ids))
                except DataError as error:
                    errors.append(error)
        except DataError as error:  # the file itself; if every record was refused, the first error says more
            raise (errors or [error])[0] from None
        path = display_name(source.path, Path(source.path))
        if errors:
            self._settle(path, errors, left=len(found))
        for line in (*length_notes(lengths), *other_files_notes(source), *self._near_duplicate_notes(role, source)):
            self._note(f"{path}: {line}")
        self._tell_forms(path, (*form_notes(forms, source), *remarks.lines()))
        if not found:
            raise DataError(f"{path}: every record {_why_none(lengths)}")
        is_given = gives_columns(self._settings, role)
        said = partial_columns(columns, forms.total()) if is_given else unread_columns(columns) if columns else None
        if said is not None:
            self._note(f"{path}: {said}")
        if self._contradicting:
            self.contradicted.append(contradiction_note(path, self._contradicting))
            self._contradicting.clear()
            self._note(self.contradicted[-1])
        return found

    def _kept(self, role: str, source: SourceSettings, errors: list[DataError]) -> Iterator[Located[Any]]:
        """The records of a source without those that `data.near_duplicates` leaves out."""
        if self._near is None and self._settings.data.near_duplicates != "keep":
            self._near = find_near_duplicates(self._settings, None if (one := self._opened()) is None else one.as_used)
        dropped = set() if self._near is None else self._near.dropped(role, self._number(role, source))
        for number, item in enumerate(_STREAMS[role](source, HERE, self._settings.data.heldout_share, errors.append)):
            if number not in dropped:
                yield item

    def _near_duplicate_notes(self, role: str, source: SourceSettings) -> Iterator[str]:
        if self._near is not None:
            yield from self._near.notes(role, self._number(role, source))

    def _number(self, role: str, source: SourceSettings) -> int:
        return next(number for number, each in enumerate(getattr(self._settings.data, role)) if each is source)

    def _settle(self, path: str, errors: list[DataError], *, left: int) -> None:
        count = len(errors)
        if not self._drops or not left:
            listed = "" if all(error in self.collided for error in errors) else "; `triphase check` lists them"
            more = f" ({count} records of this file cannot be used{listed})"
            raise DataError(f"{errors[0]}{more if count > 1 else ''}")
        self.left_out[path] = count
        self._note(f"{path}: {count} records are left out (data.on_bad_record); the first: {errors[0]}")

    def _examined(self, role: str, item: Located[Any], lengths: Counter[str]) -> tuple[Located[Any] | None, Any]:
        """A record that fits, with its ids, or None; what became of one that is too long is counted in ``lengths``."""
        examiner = self._opened()
        if examiner is None:
            return item, None
        fitting, ids = examiner.fitted(role, item)
        if fitting is None:
            lengths["left out"] += 1
        elif fitting is not item:
            lengths["shortened"] += 1
            lengths["alike"] += self._rests.take(Shortened.of(item, fitting))
        return fitting, ids

    def _opened(self) -> Examiner | None:
        """The encoder of records; None if they are only read."""
        if self._examiner is None and self._make_examiner is not None:
            self._examiner = self._make_examiner()
        return self._examiner

    def _registered(self, role: str, item: Located[Any]) -> Located[Any]:
        """The record with its prompt as registered in the run."""
        record = item.record
        prompt = record if isinstance(record, Prompt) else record.prompt
        if item.row is not None and gives_columns(self._settings, role):
            prompt = with_columns(prompt, item.row)
        before = self._registry.get(prompt.id)
        if before is not None and before[0].messages != prompt.messages:
            self.collided.append(
                DataError(
                    f"{item.where}: the id {prompt.id!r} is already used by another prompt ({before[1]}); ids must be "
                    "unique over all files of a run: change one of them, or leave the ids out"
                )
            )
            raise self.collided[-1]
        place = item.where if before is None else before[1]
        merged = prompt if before is None else self._merged(before[0], prompt)
        self._registry[prompt.id] = (merged, place)
        return Located(merged if isinstance(record, Prompt) else replace(record, prompt=merged), item.where, item.id)

    def _merged(self, first: Prompt, second: Prompt) -> Prompt:
        columns, contradicting = joined_columns(first.columns, second.columns)
        self._contradicting.update(contradicting)
        split = first.split if first.split == second.split else self._named_split(first, second)
        return replace(first, kind=first.kind or second.kind, split=split, columns=columns)

    def _named_split(self, first: Prompt, second: Prompt) -> Split:
        """Of two splits one is that of the hash; the other must have been named."""
        by_hash = split_of(first.messages, self._settings.data.heldout_share)
        return second.split if first.split == by_hash else first.split
