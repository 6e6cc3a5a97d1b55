"""A lead's steps before the first answer, and which of them are done."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, exists, select

from triphase.store.schema import guidelines, invitations, items, labelers, prompts, rankings


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the list; ``place`` is a link to the step, empty if that is not on the page."""

    title: str
    how: str
    place: str
    done: bool


def first_steps(connection: Connection, now: float) -> list[Step]:
    """The steps in their order. A lead may rank alone, so an answer completes the invitation step too."""

    def there(query: Any) -> bool:
        return bool(connection.execute(select(exists(query))).scalar_one())

    answered = there(select(rankings.c.id).where(rankings.c.assignment_id.is_not(None)))
    helpers = select(labelers.c.name).where(labelers.c.role == "labeler", labelers.c.password_hash.is_not(None))
    waiting = select(invitations.c.token_hash).where(invitations.c.used_at.is_(None), invitations.c.expires_at > now)
    has_items = there(select(items.c.id))
    return [
        Step(
            "Write the guidelines", "They say what is better, so that labelers agree; each answer records the version.",
            "/lead/guidelines", there(select(guidelines.c.version)),
        ),
        Step(
            "Add prompts with responses",
            "In a terminal: `triphase label import STORE FILE`, or `triphase sample` for the run of this store."
            if not there(select(prompts.c.id))
            else "No prompt has two responses to compare yet. In a terminal: `triphase label sample`.",
            "/lead/samples" if has_items else "", has_items,
        ),
        Step(
            "Invite labelers, or rank yourself", "An invitation link works once, for one person.",
            "/lead/labelers", answered or there(helpers) or there(waiting),
        ),
        Step("Watch the first answers come in", "Agreement and speed then replace this list.", "/rank", answered),
    ]  # fmt: skip
