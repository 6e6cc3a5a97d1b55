"""What all sources of a run hold together: leaks between splits, contradictions, ids that stand for two prompts."""

import re
from array import array
from dataclasses import dataclass

from triphase.datacheck.hashes import collides, contradicted, distinct, leaked
from triphase.datacheck.lengths import SourceLengths, TokenCount
from triphase.datacheck.source_survey import STREAMS, Examine, Refused, SourceSurvey, survey_source
from triphase.datacheck.survey_parts import survey_in_parts
from triphase.settings.schema import RunSettings


@dataclass(slots=True)
class DataSurvey:
    """What all sources hold together.

    ``leaked`` counts demonstrations and comparisons for training whose prompt is held out elsewhere; ``contradicted``
    the comparisons of which the opposite is there too; ``collides`` says that the id of a prompt stands for two.
    """

    sources: list[SourceSurvey]
    leaked: int
    contradicted: int
    collides: bool = False

    @property
    def errors(self) -> list[str]:
        return [error for source in self.sources for error in source.told]

    @property
    def refused(self) -> int:
        return sum(source.refused for source in self.sources)


def survey_data(
    settings: RunSettings,
    count: TokenCount | None = None,
    refused: Refused = SourceSurvey.refuse,
    examine: Examine | None = None,
    control: re.Pattern[str] | None = None,
) -> DataSurvey:
    """Read every record that the settings name; those that cannot be used are counted, not raised.

    Args:
        count: the tokens of texts, where a tokenizer is at hand; characters are shown otherwise.
        refused: what is done with the error of a record that cannot be used.
        examine: who says whether the model can take a record, where its tokenizer is at hand.
        control: what finds the name of a control token in a text, where its tokenizer is at hand.
    """
    share = settings.data.heldout_share
    trained, heldout, compared, named = array("Q"), array("Q"), array("Q"), array("Q")
    sources = []
    for role in STREAMS:
        for source in getattr(settings.data, role):

            def blank(role: str = role, path: str = source.path) -> SourceSurvey:
                return SourceSurvey(role, path, SourceLengths(count), control=control)

            found = survey_in_parts(blank, source, share, refused, examine)
            survey, seen = found or survey_source(blank(), source, share, refused, examine)
            survey.repeated = len(seen.wholes) - distinct(seen.wholes)
            for whole, part in (
                (trained, seen.trained),
                (heldout, seen.heldout),
                (compared, seen.compared),
                (named, seen.named),
            ):
                whole.extend(part)
                del part[:]
            sources.append(survey)
    return DataSurvey(sources, leaked(trained, heldout), contradicted(compared), collides(named))
