"""Surveys large files of lines with several processes, each with a share of the lines, and merges the results.

If a part alone could decide differently from the whole (a duplicate id, a damaged file, very many refusals), nothing is
merged and the caller reads the file in one piece.
"""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from triphase.datacheck.hashes import distinct
from triphase.datacheck.source_survey import Examine, Refused, Seen, SourceSurvey, survey_source
from triphase.errors import DataError
from triphase.records.lines import Part, RecordError
from triphase.records.rated_rows import begins_rated
from triphase.records.source_rows import read_rows
from triphase.records.trees import is_tree
from triphase.settings.data import SourceSettings

LARGE = 32 << 20
"""File size in bytes from which several processes are worthwhile."""
_MOST_PROCESSES = 8
_MOST_REFUSED = 100_000
Blank = Callable[[], SourceSurvey]
_Found = tuple[SourceSurvey, Seen, list[DataError]]

# The task of a forked process: it contains functions, which cannot be pickled.
_task: tuple[Blank, SourceSettings, float, Examine | None] | None = None


def survey_in_parts(
    blank: Blank, source: SourceSettings, heldout_share: float, refused: Refused, examine: Examine | None = None
) -> tuple[SourceSurvey, Seen] | None:
    """The survey of one source with as many processes as there are cores; None if one process has to do it."""
    global _task
    processes = min(_MOST_PROCESSES, len(os.sched_getaffinity(0)))
    alone = source.max_records is not None or bool(source.columns) or not source.path.endswith(".jsonl")
    if processes < 2 or alone or not _is_large(Path(source.path)) or _spans_lines(source, blank):
        return None
    _task = (blank, source, heldout_share, examine)
    whole, seen, errors, failed = blank(), Seen(), list[DataError](), False
    try:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork")) as pool:
            for survey, part, found in pool.map(_survey_part, [Part(index, processes) for index in range(processes)]):
                seen.extend(part)
                _add(whole, survey)
                errors += found
                failed = failed or bool(survey.failure)
    except BrokenProcessPool:  # one was killed, most likely out of memory: one process needs less
        return None
    finally:
        _task = None
    if failed or len(errors) > _MOST_REFUSED:
        return None
    if len(seen.ids) > distinct(seen.ids):
        return None
    for error in sorted(errors, key=lambda error: (isinstance(error, RecordError) and error.number) or 0):
        refused(whole, error)
    return whole, seen


def _is_large(path: Path) -> bool:
    return os.path.isfile(path) and path.stat().st_size >= LARGE


def _spans_lines(source: SourceSettings, blank: Blank) -> bool:
    """Whether records may span several lines, of which a part would not have all."""
    try:
        first = next(read_rows(source, Path()), None)
    except DataError:
        return False
    return first is not None and (is_tree(first) or (begins_rated(first) and blank().role == "preferences"))


def _survey_part(part: Part) -> _Found:
    assert _task is not None  # noqa: S101 - set before the processes are forked
    blank, source, heldout_share, examine = _task
    errors: list[DataError] = []

    def refuse(survey: SourceSurvey, error: DataError) -> None:
        if len(errors) <= _MOST_REFUSED:
            errors.append(error)

    survey, seen = survey_source(blank(), source, heldout_share, refuse, examine, part)
    survey.lengths.count = None
    return survey, seen, errors


def _add(whole: SourceSurvey, part: SourceSurvey) -> None:
    whole.records += part.records
    whole.heldout += part.heldout
    whole.near_empty += part.near_empty
    whole.in_context += part.in_context
    whole.left_out += part.left_out
    whole.shortened += part.shortened
    whole.kinds.update(part.kinds)
    whole.forms.update(part.forms)
    whole.columns.update(part.columns)
    whole.remarks.update(part.remarks)
    whole.controls.update(part.controls)
    whole.written = whole.written or part.written
    if part.too_long is not None:
        whole.too_long = (whole.too_long or 0) + part.too_long
    whole.lengths.sampled += part.lengths.sampled
