"""Requirements on an answer before it enters the store."""

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import Connection, select

from triphase.errors import StoreError
from triphase.store.answers import StoredAnswer
from triphase.store.schema import responses

_CHUNK = 500


class RecordRefused(StoreError):
    """A record that the store rejects; ``kind`` and ``key`` identify it, and so its line in a file."""

    def __init__(self, kind: str, key: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.key = kind, key


def check_answers(connection: Connection, answers: Sequence[StoredAnswer]) -> None:
    """Refuse answers that name unknown responses, name one twice, or have invalid places."""
    of_prompt: dict[str, set[str]] = defaultdict(set)
    wanted = sorted({answer.ranking.prompt_id for answer in answers})
    for start in range(0, len(wanted), _CHUNK):
        query = select(responses.c.prompt_id, responses.c.id).where(
            responses.c.prompt_id.in_(wanted[start : start + _CHUNK])
        )
        for prompt_id, response_id in connection.execute(query):
            of_prompt[prompt_id].add(response_id)
    for answer in answers:
        problem = _problem(answer, of_prompt[answer.ranking.prompt_id])
        if problem:
            ranking = answer.ranking
            raise RecordRefused(
                "ranking",
                ranking.id,
                f"ranking {ranking.id!r} by {ranking.labeler!r} of prompt {ranking.prompt_id!r}: {problem}",
            )


def _problem(answer: StoredAnswer, known: set[str]) -> str | None:
    ranking = answer.ranking
    if not known:
        return "the prompt has no responses in the store; add them first"
    if not ranking.labeler:
        return "the labeler has no name; give one"
    rated = [id_ for each in answer.ratings.values() for id_ in each]
    named = (*ranking.places, *ranking.order_shown, *answer.quality, *rated, *answer.rewrites)
    unknown = [id_ for id_ in named if id_ not in known]
    if unknown:
        return f"response {unknown[0]!r} does not belong to this prompt; name only responses that were shown"
    if len(set(ranking.order_shown)) != len(ranking.order_shown):
        twice = next(id_ for id_ in ranking.order_shown if ranking.order_shown.count(id_) > 1)
        return f"response {twice!r} was shown twice; each response has one position"
    hidden = [id_ for id_ in ranking.places if ranking.order_shown and id_ not in ranking.order_shown]
    if hidden:
        return f"response {hidden[0]!r} is ranked but was not shown"
    return _problem_of_values(answer)


def _problem_of_values(answer: StoredAnswer) -> str | None:
    for id_, place in answer.ranking.places.items():
        if isinstance(place, bool) or not isinstance(place, int) or place < 1:
            return f"response {id_!r} has place {place!r}; places are whole numbers from 1"
    if answer.status == "active" and not answer.ranking.places:
        return "no response is ranked; rank at least one, or skip"
    for name, given in (("quality", answer.quality), *answer.ratings.items()):
        for id_, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 7:
                return f"response {id_!r} has {name} {value!r}; it must be from 1 to 7"
    return None
