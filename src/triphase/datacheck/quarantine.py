"""Records that cannot be used, set aside in a file of JSON lines: where they stand, why, and what they say."""

import json
from typing import IO

from triphase.datacheck.source_survey import SourceSurvey
from triphase.errors import DataError
from triphase.records.lines import RecordError


class Quarantine:
    """Writes refused records with their place, the reason, and their text as the file has it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def refuse(self, survey: SourceSurvey, error: DataError) -> None:
        """Count a refused record and set it aside."""
        survey.refuse(error)
        place: dict[str, object] = {"file": survey.path, "line": None, "reason": str(error), "text": None}
        if isinstance(error, RecordError):
            place |= {"line": error.number, "text": error.text}
        self._file.write(json.dumps(place, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
