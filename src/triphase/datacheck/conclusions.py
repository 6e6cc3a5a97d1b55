"""The conclusions of `check`: the checks of a run before its first step, on the same settings and records."""

import os
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from triphase.datacheck.agenda import todo
from triphase.datacheck.column_survey import contradicted_columns
from triphase.datacheck.demands import Holdings, demands, holdings_of
from triphase.datacheck.examiner import Examiner, Problem
from triphase.datacheck.near_duplicates import AsUsed
from triphase.datacheck.reuse_checks import taken_artifacts
from triphase.datacheck.run_data import RunData, drops
from triphase.datacheck.scorer_columns import gives_columns
from triphase.datacheck.source_survey import Examine, SourceSurvey
from triphase.datacheck.survey import DataSurvey
from triphase.datacheck.tokenizer_checks import open_template
from triphase.errors import DataError, TriphaseError
from triphase.records.prompt_columns import with_columns
from triphase.records.reading import Located
from triphase.records.source_rows import files_of
from triphase.records.types import Prompt
from triphase.settings.schema import RunSettings
from triphase.tokens.controls import control_names

EXACT_BYTES = 8 << 20
"""Files whose total size is larger are not encoded record by record: that would take longer than reading them."""


class Judge:
    """Determines for each record whether the model can process it, and at the end whether a run would start.

    Attributes:
        collided: of `verdict`: records whose id is used for another prompt, which a run leaves out too.
        contradicted: of `verdict`: lines on records that repeat a prompt with other columns for the scorer.
    """

    def __init__(self, settings: RunSettings, check_model: Callable[[RunSettings], None]) -> None:
        """``check_model`` refuses a model that a run would refuse, as far as possible here."""
        self._settings = settings
        self._check_model = check_model
        self.exact = _bytes_of(settings) <= EXACT_BYTES
        self.collided: list[DataError] = []
        self.contradicted: list[str] = []
        self._refusal: TriphaseError | None = None
        self._examiner: Examiner | None = None
        self._can_look = _has_transformers()
        if self._can_look:
            try:
                template = open_template(settings.model)
                template.leave_controls_untold()  # the survey counts them by column
                self._examiner = Examiner(template, settings, exact=self.exact)
            except TriphaseError as error:
                self._refusal = error  # reported at the end: errors in records come first

    @property
    def control_names(self) -> re.Pattern[str] | None:
        """A function that finds the name of a control token in a text; None if the tokenizer cannot be opened."""
        return None if self._examiner is None else control_names(self._examiner.template.tokenizer)

    @property
    def examine(self) -> Examine | None:
        """A function that returns why a record cannot be used, if so; None if the tokenizer cannot be opened."""
        return None if self._examiner is None else self._problem

    def _problem(self, role: str, item: Located[Any]) -> Problem:
        """What the model makes of a record; or why its columns cannot go to a scorer."""
        assert self._examiner is not None  # noqa: S101 - see `examine`
        problem = self._examiner.problem(role, item)
        if item.row is not None and not isinstance(problem, DataError) and gives_columns(self._settings, role):
            try:
                with_columns(item.record if isinstance(item.record, Prompt) else item.record.prompt, item.row)
            except DataError as error:
                return error
        return problem

    @property
    def as_used(self) -> AsUsed | None:
        """A function that returns a record as a run uses it; None if the tokenizer cannot be opened."""
        return None if self._examiner is None else self._examiner.as_used

    def verdict(self, survey: DataSurvey) -> str:
        """The valid parts.

        Raises:
            TriphaseError: what a run would refuse.
        """
        settings = self._settings
        if self._refusal is not None:
            raise self._refusal
        for problem in demands(settings, todo(settings), self._holdings(survey)):
            raise DataError(problem)
        if not self._can_look:
            return "settings and records can be read; the model was not checked, because transformers is not installed"
        self._check_model(settings)
        taken_artifacts(settings)
        if survey.refused and not drops(settings):
            return "the other records are valid; with `data.on_bad_record: drop` a run leaves these out"
        if not self.exact:
            return (
                "settings and data are valid as far as a survey of large files shows; `run` encodes every record "
                "before its first step"
            )
        return "settings and data are valid"

    def _holdings(self, survey: DataSurvey) -> Holdings:
        settings = self._settings
        if self.exact or survey.collides:
            changed = any(source.refused or source.left_out or source.shortened for source in survey.sources)
            examiner = self._examiner if changed else None
            data = RunData(
                settings,
                None if examiner is None else lambda: examiner,
                drop=bool(survey.refused) or drops(settings),
                note=lambda text: None,
            )  # the survey has reported it already
            data.comparisons()
            holdings = holdings_of(settings, data, todo(settings))
            if data.collided and not drops(settings):
                more = f" ({len(data.collided)} records)" if len(data.collided) > 1 else ""
                raise DataError(f"{data.collided[0]}{more}")
            self.collided, self.contradicted = data.collided, data.contradicted
            return holdings
        self.contradicted = contradicted_columns(settings)
        prompts = _splits(survey, "prompts") if settings.data.prompts else _splits(survey, "preferences")
        shown = [source for source in survey.sources if source.role == "demonstrations"]
        return Holdings(
            tuple((source.path, source.records - source.heldout) for source in shown),
            prompts,
            _splits(survey, "preferences"),
        )


def _splits(survey: DataSurvey, role: str) -> Counter[str]:
    sources: list[SourceSurvey] = [source for source in survey.sources if source.role == role]
    heldout = sum(source.heldout for source in sources)
    return Counter(train=sum(source.records for source in sources) - heldout, heldout=heldout)


def _bytes_of(settings: RunSettings) -> int:
    data = settings.data
    sources = (*data.demonstrations, *data.prompts, *data.preferences)
    return sum(path.stat().st_size for source in sources for path in files_of(source) if os.path.isfile(path))


def _has_transformers() -> bool:
    try:
        import transformers  # noqa: F401
    except ImportError:
        return False
    return True
