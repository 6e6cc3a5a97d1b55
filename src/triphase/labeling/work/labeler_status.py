"""Pauses, withdraws and reactivates labelers."""

from sqlalchemy import Connection, func, select, update

from triphase.labeling.work import audit, invitations
from triphase.labeling.work.accounts import end_sessions
from triphase.labeling.work.people import AccountError
from triphase.store.locking import Lock, one_at_a_time
from triphase.store.schema import assignments, labelers, rankings


def set_status(connection: Connection, name: str, status: str, *, now: float, by: str) -> int:
    """Pause, withdraw or reactivate someone; return how many of their rankings were removed or restored.

    A paused labeler gets no items. The rankings of a withdrawn one leave the comparisons and stay in the store; their
    slots open for others. A reactivated one gets those rankings back whose slots are still open. Pausing and
    withdrawing end the sessions and void the links by this person; withdrawing also voids those for them.
    """
    one_at_a_time(connection, Lock.LEADS)  # two leads who pause each other would leave none
    before = connection.execute(select(labelers).where(labelers.c.name == name).with_for_update()).first()
    if before is None:
        raise AccountError(f"there is no account {name!r}; see: triphase label users list")
    if status not in ("active", "paused", "withdrawn"):
        raise AccountError(f"{status!r} is not a status; it is active, paused or withdrawn")
    connection.execute(update(labelers).where(labelers.c.name == name).values(status=status))
    if before.role == "lead" and status != "active" and not _active_leads(connection):
        raise AccountError(f"{name!r} is the only active lead; make another lead first")
    if status != "active":
        end_sessions(connection, name)
    if status == "withdrawn":
        invitations.void_of(connection, name, now=now, by=by)
    elif status == "paused":
        invitations.void_by(connection, name, now=now, by=by)
    moved = 0
    if status == "withdrawn" and before.status != "withdrawn":
        moved = _withdraw(connection, name)
    elif status != "withdrawn" and before.status == "withdrawn":
        moved = _take_back(connection, name)
    audit.note(
        connection, at=now, who=by, action="status changed", subject=name,
        before={"status": before.status}, after={"status": status, "rankings": moved},
    )  # fmt: skip
    return moved


def _active_leads(connection: Connection) -> int:
    query = select(func.count()).where(
        labelers.c.role == "lead", labelers.c.status == "active", labelers.c.password_hash.is_not(None)
    )
    return connection.execute(query).scalar_one()


def _withdraw(connection: Connection, name: str) -> int:
    mine = (rankings.c.labeler == name, rankings.c.status == "active")
    moved = connection.execute(update(rankings).where(*mine).values(status="withdrawn")).rowcount
    slots = (assignments.c.labeler == name, assignments.c.state.in_(("done", "leased")))
    connection.execute(
        update(assignments).where(*slots, assignments.c.purpose == "label").values(
            state="open", labeler=None, leased_at=None, expires_at=None, order_shown=None
        )
    )  # fmt: skip
    return moved


def _take_back(connection: Connection, name: str) -> int:
    mine = (rankings.c.labeler == name, rankings.c.status == "withdrawn")
    moved = connection.execute(
        update(rankings).where(*mine, rankings.c.assignment_id.is_(None)).values(status="active")
    ).rowcount
    for row in connection.execute(select(rankings.c.id, rankings.c.assignment_id).where(*mine)).all():
        slot = update(assignments).where(assignments.c.id == row.assignment_id)
        taken = slot.where(assignments.c.state == "open").values(state="done", labeler=name)
        kept = slot.where(assignments.c.state == "done", assignments.c.labeler == name).values(state="done")
        if connection.execute(taken).rowcount or connection.execute(kept).rowcount:
            connection.execute(update(rankings).where(rankings.c.id == row.id).values(status="active"))
            moved += 1
    return moved
