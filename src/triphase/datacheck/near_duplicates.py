"""Near-duplicate records, and training records whose prompt is nearly a held-out one.

Texts are compared by the Jaccard similarity of their word trigrams, which MinHash estimates. A demonstration is
compared as a whole with earlier ones; prompts and preferences by their prompt, which may occur with several answers,
votes and rankings. The first of near-duplicates stays, in the order of the files, so rows that are added later change
nothing before them. Equal prompts are one prompt, and on one side by construction. Records are compared as a run uses
them: shortened, and without those that are left out.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from triphase.errors import DataError, SettingsError
from triphase.records.reading import Located, stream_demonstrations, stream_preferences, stream_prompts
from triphase.records.types import Demonstration, Prompt
from triphase.settings.schema import RunSettings

Shingles = frozenset[str]
Place = tuple[str, int]
"""A role and the number of a source in it."""
AsUsed = Callable[[str, Located[Any]], Located[Any] | None]
"""(role, record) → the record as a run uses it, shortened if it is too long; None if it is left out."""
_RUN = 3
_PERMUTATIONS = 128
_HERE = Path()
# In scripts without spaces each character is a word.
_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_STREAMS: dict[str, Callable[..., Iterator[Located[Any]]]] = {
    "demonstrations": stream_demonstrations,
    "prompts": stream_prompts,
    "preferences": stream_preferences,
}


class SimilarTexts(Protocol):
    """The added texts, by their numbers."""

    def nearest(self, shingles: Shingles) -> tuple[int, float] | None:
        """The most similar one that reaches the threshold, with the similarity."""

    def add(self, number: int, shingles: Shingles) -> None:
        """Add one text."""


class MinHashTexts:
    """Finds candidates by locality-sensitive hashing, and estimates similarity with all permutations."""

    def __init__(self, threshold: float) -> None:
        """
        Raises:
            SettingsError: datasketch is not installed.
        """
        try:
            from datasketch import MinHash, MinHashLSH
        except ImportError:
            raise SettingsError(
                "data.near_duplicates: needs datasketch; run: pip install 'triphase[dedup]', or write keep"
            ) from None
        self._threshold, self._kind = threshold, MinHash
        self._bands = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS, weights=(0.1, 0.9))  # misses cost more
        self._hashes: dict[int, Any] = {}

    def nearest(self, shingles: Shingles) -> tuple[int, float] | None:
        """The most similar text that reaches the threshold; of equally similar ones the first."""
        given = self._hash(shingles)
        found = [(float(given.jaccard(self._hashes[number])), -number) for number in self._bands.query(given)]
        similarity, number = max(found, default=(0.0, 0))
        return (-number, similarity) if similarity >= self._threshold else None

    def add(self, number: int, shingles: Shingles) -> None:
        """Add one text."""
        self._hashes[number] = self._hash(shingles)
        self._bands.insert(number, self._hashes[number])

    def _hash(self, shingles: Shingles) -> Any:
        made = self._kind(num_perm=_PERMUTATIONS, seed=1)
        made.update_batch([each.encode() for each in sorted(shingles)])
        return made


@dataclass(slots=True)
class _Found:
    """The results for one source: records by their number in it, and the first of each kind in words."""

    repeated: set[int] = field(default_factory=set)
    contaminated: set[int] = field(default_factory=set)
    examples: dict[str, str] = field(default_factory=dict)


class NearDuplicates:
    """The results of `find_near_duplicates`."""

    def __init__(self, *, drops: bool) -> None:
        self._drops = drops
        self._sources: defaultdict[Place, _Found] = defaultdict(_Found)

    def note(self, place: Place, number: int, kind: str, example: str) -> None:
        """Count a record; ``kind`` is repeated or contaminated."""
        found = self._sources[place]
        getattr(found, kind).add(number)
        found.examples.setdefault(kind, example)

    def dropped(self, role: str, source: int) -> set[int]:
        """The records of a source that are left out."""
        found = self._sources[role, source]
        return found.repeated | found.contaminated if self._drops else set()

    def notes(self, role: str, source: int) -> Iterator[str]:
        """The results for a source."""
        found = self._sources[role, source]
        ending = "are left out (data.near_duplicates: drop)" if self._drops else "stay (data.near_duplicates: report)"
        if found.repeated:
            what = "demonstrations" if role == "demonstrations" else "records have prompts that"
            yield f"{len(found.repeated)} {what} nearly repeat earlier ones ({found.examples['repeated']}) and {ending}"
        if found.contaminated:
            yield (
                f"{len(found.contaminated)} training records nearly repeat a held-out prompt "
                f"({found.examples['contaminated']}) and {ending}"
            )


def find_near_duplicates(
    settings: RunSettings, as_used: AsUsed | None = None, texts: Callable[[float], SimilarTexts] = MinHashTexts
) -> NearDuplicates | None:
    """Read all records twice, first for what is held out; None if `data.near_duplicates` is keep. Without ``as_used``
    they are compared as they are.

    Files that cannot be read are left to the code that reads the records.

    Raises:
        SettingsError: datasketch is not installed.
    """
    if settings.data.near_duplicates == "keep":
        return None
    threshold = settings.data.near_duplicate_similarity
    heldout = _Heldout(texts(threshold))
    for _, _, item in _items(settings, as_used):
        heldout.add(item)
    found = NearDuplicates(drops=settings.data.near_duplicates == "drop")
    before: dict[str, _Earlier] = {role: _Earlier(texts(threshold)) for role in _STREAMS}
    for place, number, item in _items(settings, as_used):
        if _prompt(item).split == "heldout":
            continue
        if (near := heldout.nearest(item)) is not None:
            found.note(place, number, "contaminated", _example(item, *near))
        elif (near := before[place[0]].nearest_or_add(item)) is not None:
            found.note(place, number, "repeated", _example(item, *near))
    return found


class _Heldout:
    """The held-out prompts, each once."""

    def __init__(self, texts: SimilarTexts) -> None:
        self._texts, self._places = texts, list[str]()
        self._asked: set[str] = set()

    def add(self, item: Located[Any]) -> None:
        asked = _asked(item)
        if _prompt(item).split == "heldout" and asked not in self._asked:
            self._asked.add(asked)
            self._texts.add(len(self._places), _shingles(asked))
            self._places.append(item.where)

    def nearest(self, item: Located[Any]) -> tuple[str, float] | None:
        """The match of a record's prompt, unless it is the same one, which is counted separately."""
        asked = _asked(item)
        near = None if asked in self._asked else self._texts.nearest(_shingles(asked))
        return None if near is None else (self._places[near[0]], near[1])


class _Earlier:
    """The records of one role that stay; the result for each text is cached."""

    def __init__(self, texts: SimilarTexts) -> None:
        self._texts, self._places = texts, list[str]()
        self._fared: dict[str, tuple[str, float] | None] = {}

    def nearest_or_add(self, item: Located[Any]) -> tuple[str, float] | None:
        """What the record nearly repeats; it stays if there is nothing. An equal prompt is the same prompt again."""
        text = _asked(item)
        if whole := isinstance(item.record, Demonstration):
            text += f"\n{item.record.response}"
        if text in self._fared and not whole:
            return self._fared[text]
        shingles = _shingles(text)
        near = self._texts.nearest(shingles)
        if near is None:
            self._texts.add(len(self._places), shingles)
            self._places.append(item.where)
        found = None if near is None else (self._places[near[0]], near[1])
        if not whole:
            self._fared[text] = found
        return found


def _items(settings: RunSettings, as_used: AsUsed | None) -> Iterator[tuple[Place, int, Located[Any]]]:
    for role, stream in _STREAMS.items():
        for index, source in enumerate(getattr(settings.data, role)):
            with suppress(DataError):
                records = stream(source, _HERE, settings.data.heldout_share, lambda error: None)
                for number, item in enumerate(records):
                    used = item if as_used is None else as_used(role, item)
                    if used is not None:
                        yield (role, index), number, used


def _prompt(item: Located[Any]) -> Prompt:
    found: Prompt = item.record if isinstance(item.record, Prompt) else item.record.prompt
    return found


def _asked(item: Located[Any]) -> str:
    """The prompt's text; for a text without a prompt, the text."""
    messages = _prompt(item).messages
    return "\n".join(message.content for message in messages) if messages else str(item.record.response)


def _shingles(text: str) -> Shingles:
    words = _WORDS.findall(text.casefold()) or [text]
    runs = range(max(1, len(words) - _RUN + 1))
    return frozenset(" ".join(words[first : first + _RUN]) for first in runs)


def _example(item: Located[Any], where: str, similarity: float) -> str:
    return f"the first: {item.where}, of {where}, similarity {similarity:.2f}"
