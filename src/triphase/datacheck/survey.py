"""Statistics over all sources of a run: leaks between splits, contradictions, ids that are used for two prompts."""

import re
from array import array
from dataclasses import dataclass

from triphase.datacheck.hashes import collides, contradicted, distinct, leaked
from triphase.datacheck.lengths import SourceLengths, TokenCount
from triphase.datacheck.shortening import Rests
from triphase.datacheck.source_survey import STREAMS, Examine, Refused, SourceSurvey, survey_source
from triphase.datacheck.survey_parts import survey_in_parts
from triphase.settings.schema import RunSettings


@dataclass(slots=True)
class DataSurvey:
    """Statistics over all sources.

    ``leaked`` counts demonstrations and comparisons for training whose prompt, or what is left of it, is held out
    elsewhere; ``contradicted`` the comparisons whose opposite exists too; ``collides``: the id of a prompt is used for
    two.
    """

    sources: list[SourceSurvey]
    leaked: int
    contradicted: int
    collides: bool = False

    @property
    def errors(self) -> list[str]:
        return [error for source in self.sources for error in source.problems]

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
    """Read every record in the settings; unusable ones are counted, not raised.

    Args:
        count: the tokens of texts, if there is a tokenizer; characters are shown otherwise.
        refused: called with the error of an unusable record.
        examine: checks whether the model can process a record, if there is a tokenizer.
        control: finds the name of a control token in a text, if there is a tokenizer.
    """
    share = settings.data.heldout_share
    trained, trained_short, heldout, compared, named = (array("Q") for _ in range(5))
    sources, rests = [], Rests()
    for role in STREAMS:
        for source in getattr(settings.data, role):

            def blank(role: str = role, path: str = source.path) -> SourceSurvey:
                return SourceSurvey(role, path, SourceLengths(count), control=control)

            found = survey_in_parts(blank, source, share, refused, examine)
            survey, seen = found or survey_source(blank(), source, share, refused, examine)
            survey.repeated = len(seen.wholes) - distinct(seen.wholes)
            survey.alike = seen.alike(rests)
            for whole, part in (
                (trained, seen.trained),
                (trained_short, seen.trained_short),
                (heldout, seen.heldout),
                (compared, seen.compared),
                (named, seen.named),
            ):
                whole.extend(part)
                del part[:]
            sources.append(survey)
    return DataSurvey(sources, leaked(trained, trained_short, heldout), contradicted(compared), collides(named))
