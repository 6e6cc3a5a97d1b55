"""What the data of a run holds, counted in a stream: records, kinds, lengths, repetitions, leaks, contradictions.

In memory stay eight bytes for each record and prompt (its hash), so that files larger than memory can be surveyed.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from triphase.commands.lengths import Lengths, TokenCount
from triphase.errors import DataError
from triphase.records.reading import Located, stream_demonstrations, stream_preferences, stream_prompts
from triphase.records.types import Comparison, Demonstration, Prompt
from triphase.settings.schema import RunSettings

SHOWN = 10
NEAR_EMPTY = 3
"""A response of fewer characters is near-empty: worth a look, no error."""
_HERE = Path()
Refused = Callable[["SourceSurvey", DataError], None]


@dataclass(slots=True)
class SourceSurvey:
    """What one source holds. ``refused`` counts the records that cannot be used; ``errors`` are the first of them."""

    role: str
    path: str
    lengths: Lengths
    records: int = 0
    heldout: int = 0
    repeated: int = 0
    near_empty: int = 0
    refused: int = 0
    unread: bool = False
    kinds: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def refuse(self, error: DataError) -> None:
        self.refused += 1
        if len(self.errors) < SHOWN:
            self.errors.append(str(error))


@dataclass(slots=True)
class DataSurvey:
    """What all sources hold together.

    ``leaked`` counts demonstrations and comparisons for training whose prompt is held out elsewhere;
    ``contradicted`` the comparisons of which the opposite is there too.
    """

    sources: list[SourceSurvey]
    leaked: int
    contradicted: int

    @property
    def errors(self) -> list[str]:
        return [error for source in self.sources for error in source.errors]

    @property
    def refused(self) -> int:
        return sum(source.refused for source in self.sources)


def survey_data(
    settings: RunSettings, count: TokenCount | None = None, refused: Refused = SourceSurvey.refuse
) -> DataSurvey:
    """Read every record that the settings name; those that cannot be used are counted, not raised.

    Args:
        count: the tokens of texts, where a tokenizer is at hand; characters are shown otherwise.
        refused: what is done with the error of a record that cannot be used.
    """
    share, data, limit = settings.data.heldout_share, settings.data, settings.model.max_length
    trained, heldout, compared = array("Q"), array("Q"), array("Q")
    readers = (
        ("demonstrations", data.demonstrations, stream_demonstrations),
        ("prompts", data.prompts, stream_prompts),
        ("preferences", data.preferences, stream_preferences),
    )
    sources = []
    for role, members, stream in readers:
        for source in members:
            survey = SourceSurvey(role, source.path, Lengths(limit, count))
            records = stream(source, _HERE, share, lambda error, survey=survey: refused(survey, error))  # type: ignore[misc]
            _survey(survey, records, refused, (trained, heldout, compared))
            sources.append(survey)
    return DataSurvey(sources, _leaked(trained, heldout), _contradicted(compared))


def _survey(
    survey: SourceSurvey,
    records: Iterator[Located[Demonstration] | Located[Prompt] | Located[Comparison]],
    refused: Refused,
    seen: tuple["array[int]", "array[int]", "array[int]"],
) -> None:
    trained, heldout, compared = seen
    wholes = array("Q")
    try:
        for item in records:
            record = item.record
            prompt = record if isinstance(record, Prompt) else record.prompt
            asked = "\x1e".join([f"{message.role}\x1f{message.content}" for message in prompt.messages])
            key = _hash(asked)
            survey.records += 1
            answers: tuple[str, ...] = ()
            if isinstance(record, Demonstration):
                answers = (record.response,)
                survey.kinds[record.kind] += 1
            else:
                survey.kinds[prompt.kind] += 1
            if isinstance(record, Comparison):
                answers = (record.chosen, record.rejected)
                compared.append(_ordered_hash(asked, *answers))
            wholes.append(_hash(asked, *answers))
            survey.near_empty += any(len(answer.strip()) < NEAR_EMPTY for answer in answers)
            survey.lengths.add(prompt.messages, answers)
            if prompt.split == "heldout":
                survey.heldout += 1
                heldout.append(key)
            elif answers:
                trained.append(key)
    except DataError as error:  # the file itself: absent, damaged, or without a record
        survey.unread = True
        refused(survey, error)
    survey.lengths.finish()
    survey.repeated = len(wholes) - _distinct(wholes)


def _hash(*parts: str) -> int:
    digest = hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _ordered_hash(asked: str, chosen: str, rejected: str) -> int:
    """The same for both orders of two answers but for the last bit, which tells the orders apart."""
    first, second = sorted((chosen, rejected))
    return (_hash(asked, first, second) & ~1) | (first == chosen)


def _distinct(hashes: "array[int]") -> int:
    import numpy

    return len(numpy.unique(numpy.frombuffer(hashes, dtype=numpy.uint64))) if hashes else 0


def _leaked(trained: "array[int]", heldout: "array[int]") -> int:
    import numpy

    if not trained or not heldout:
        return 0
    prompts = numpy.unique(numpy.frombuffer(heldout, dtype=numpy.uint64))
    return int(numpy.isin(numpy.frombuffer(trained, dtype=numpy.uint64), prompts).sum())


def _contradicted(compared: "array[int]") -> int:
    import numpy

    if not compared:
        return 0
    found = numpy.frombuffer(compared, dtype=numpy.uint64)
    pairs, orders = found >> numpy.uint64(1), found & numpy.uint64(1)
    both = numpy.intersect1d(pairs[orders == 0], pairs[orders == 1])
    return int(numpy.isin(pairs, both).sum())
