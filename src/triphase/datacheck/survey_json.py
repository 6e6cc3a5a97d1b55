"""The results of a survey of the data, for machines."""

from collections.abc import Sequence
from typing import Any

from triphase.datacheck.source_survey import SourceSurvey
from triphase.datacheck.survey import DataSurvey


def survey_json(survey: DataSurvey, unit: str, notes: Sequence[str]) -> dict[str, Any]:
    """The values of the tables, source by source, and the notes."""
    return {
        "sources": [_source(source) for source in survey.sources],
        "lengths_in": unit,
        "trained_and_held_out": survey.leaked,
        "contradicted": survey.contradicted,
        "notes": list(notes),
    }


def _source(source: SourceSurvey) -> dict[str, Any]:
    return {
        "for": source.role,
        "source": source.name,
        "read_as": dict(source.forms),
        "records": source.records,
        "held_out": source.heldout,
        "repeated": source.repeated,
        "near_empty": source.near_empty,
        "with_earlier_responses": source.in_context,
        "too_long": source.too_long,
        "left_out": source.left_out,
        "shortened": source.shortened,
        "shortened_to_the_same_prompt": source.alike,
        "refused": source.refused,
        "kinds": {kind: count for kind, count in source.kinds.items() if kind},
        "unread_columns": dict(source.columns),
        "median_length": source.lengths.quantile(0.5),
        "length_of_99_percent": source.lengths.quantile(0.99),
        "errors": source.problems,
    }
