"""Contradictions between labelers, and the lead's decisions on them."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

from sqlalchemy import Connection, func, insert, select, update

from triphase.errors import StoreError
from triphase.labeling.work import audit
from triphase.records.types import Ranking
from triphase.store import Store
from triphase.store.answers import StoredAnswer
from triphase.store.identity import ranking_id
from triphase.store.labels import insert_answers
from triphase.store.locking import Lock, one_at_a_time
from triphase.store.schema import adjudications, rankings


@dataclass(frozen=True, slots=True)
class Conflict:
    """A prompt whose labelers order pairs of responses in opposite ways."""

    prompt_id: str
    labelers: tuple[str, ...]
    opposite: int
    compared: int
    best_differs: bool
    campaign: str = ""


def conflicts(store: Store) -> list[Conflict]:
    """Prompts with opposite orders and no decision yet: the most contradictory first."""
    by_prompt: dict[tuple[str, str], list[Ranking]] = defaultdict(list)  # the questions of two campaigns differ
    for answer in store.answers():
        if answer.purpose == "label":
            by_prompt[answer.ranking.prompt_id, answer.campaign].append(answer.ranking)
    with store.reading() as connection:
        query = select(adjudications.c.prompt_id, adjudications.c.campaign)
        decided = {(row.prompt_id, row.campaign) for row in connection.execute(query)}
    found = [
        replace(_conflict(prompt, given), campaign=campaign)
        for (prompt, campaign), given in by_prompt.items()
        if len(given) > 1 and (prompt, campaign) not in decided
    ]
    wanted = [conflict for conflict in found if conflict.opposite]
    return sorted(
        wanted, key=lambda one: (-one.opposite / one.compared, not one.best_differs, one.prompt_id, one.campaign)
    )


def adjudicate(
    connection: Connection, prompt_id: str, places: Mapping[str, int] | None, note: str, *, by: str, now: float,
    campaign: str = "",
) -> None:  # fmt: skip
    """Decide a conflict: by the lead's own ranking, or (``places`` None) that the disagreement remains.

    The lead's ranking overrules the others of its campaign (empty: of the main task) for the pairs that it orders; an
    earlier decision about them is superseded.
    """
    one_at_a_time(connection, Lock.DECISIONS)  # of two simultaneous leads the later one supersedes
    standing = (
        rankings.c.prompt_id == prompt_id, rankings.c.campaign == campaign, rankings.c.purpose == "adjudication",
        rankings.c.status == "active",
    )  # fmt: skip
    before = connection.execute(select(rankings).where(*standing)).first()
    if before is not None:
        connection.execute(update(rankings).where(*standing).values(status="superseded"))
    identity = None
    if places is not None:
        if len(places) < 2:
            raise StoreError("a decision needs places for at least two responses; or leave the disagreement as it is")
        rounds = connection.execute(select(func.count()).where(adjudications.c.prompt_id == prompt_id)).scalar_one()
        identity = ranking_id(prompt_id, by, rounds, "adjudication")
        ranking = Ranking(identity, prompt_id, by, dict(places), (), now, None, note)
        insert_answers(connection, [StoredAnswer(ranking, "adjudication", campaign=campaign)])
    row = {
        "prompt_id": prompt_id, "ranking_id": identity, "decided_by": by, "decided_at": now,
        "decision": "ranked" if places is not None else "stands", "note": note, "campaign": campaign,
    }  # fmt: skip
    connection.execute(insert(adjudications), row)
    audit.note(
        connection, at=now, who=by, action="adjudicated", subject=prompt_id + (f" in {campaign}" if campaign else ""),
        before=None if before is None else {"ranking": before.id, "places": before.places},
        after={"ranking": identity, "places": None if places is None else dict(places)},
    )  # fmt: skip


def _conflict(prompt_id: str, given: list[Ranking]) -> Conflict:
    opposite = compared = 0
    for one, other in combinations(given, 2):
        for first, second in combinations(sorted(one.places.keys() & other.places.keys()), 2):
            a = one.places[first] - one.places[second]
            b = other.places[first] - other.places[second]
            if a and b:
                compared += 1
                opposite += (a > 0) != (b > 0)
    best = {
        tuple(sorted(id_ for id_, place in one.places.items() if place == min(one.places.values()))) for one in given
    }
    return Conflict(prompt_id, tuple(sorted(one.labeler for one in given)), opposite, max(compared, 1), len(best) > 1)
