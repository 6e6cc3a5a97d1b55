"""Unusable records, set aside in a file of JSON lines: their location, the reason, and their text."""

import json
from typing import IO

from triphase.datacheck.source_survey import SourceSurvey
from triphase.errors import DataError
from triphase.records.lines import RecordError


class Quarantine:
    """Writes refused records with their location, the reason, and their text as in the file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def refuse(self, survey: SourceSurvey, error: DataError) -> None:
        """Count a refused record and set it aside."""
        survey.refuse(error)
        place: dict[str, object] = {"file": survey.path, "line": None, "reason": str(error), "text": None}
        if isinstance(error, RecordError):
            place |= {"line": error.number, "text": error.text}
        self._file.write(json.dumps(place, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
