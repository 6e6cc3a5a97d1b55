"""Monitoring routes: whether the process is alive, whether it can work, and metrics for Prometheus.

The metrics are counts from the store, so every worker returns the same. They require the token that the server was
started with; without one the route does not exist.
"""

import secrets
from collections.abc import Iterable, Iterator

from fastapi import APIRouter, Request
from sqlalchemy import ColumnElement, Connection, Select, func, select, text
from starlette.responses import JSONResponse, PlainTextResponse, Response

from triphase.errors import StoreError
from triphase.labeling.web.context import Context
from triphase.labeling.web.guard import PUBLIC, GuardedRoute, access
from triphase.store.schema import assignments, flags, labelers, rankings, sessions, sign_ins

router = APIRouter(route_class=GuardedRoute)
_RECENT_SECONDS = 300.0
_NO_PAGE = "There is no such page."


@router.get("/health")
@access(PUBLIC)
async def health() -> Response:
    """The process is alive: nothing else is checked, so an unreachable database does not get it restarted."""
    return JSONResponse({"status": "ok"})


@router.get("/ready")
@access(PUBLIC)
async def ready(request: Request) -> Response:
    """The store responds: requests may be sent here."""
    context: Context = request.app.state.context
    try:
        await context.glance(lambda connection: connection.execute(text("SELECT 1")).scalar_one())
    except StoreError:  # its message names the store's location
        return JSONResponse({"status": "the store does not answer"}, 503)
    return JSONResponse({"status": "ok"})


@router.get("/metrics")
@access(PUBLIC)
async def metrics(request: Request) -> Response:
    """Counts in Prometheus' text format, version 0.0.4."""
    context: Context = request.app.state.context
    token = context.server.metrics_token
    if not token:
        return PlainTextResponse(_NO_PAGE, 404)
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not secrets.compare_digest(given.encode(), token.encode()):
        return PlainTextResponse("The token is missing or wrong.", 401, {"www-authenticate": "Bearer"})
    lines = await context.read(lambda connection: list(figures(connection, context.now())))
    return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


def figures(connection: Connection, now: float) -> Iterator[str]:
    """The lines: what was ranked, what is open, who is working."""
    by_status = connection.execute(select(rankings.c.status, func.count()).group_by(rankings.c.status)).all()
    yield from _family("rankings", "Answers in the store, by status.", ((f'status="{one}"', n) for one, n in by_status))
    by_state = connection.execute(select(assignments.c.state, func.count()).group_by(assignments.c.state)).all()
    yield from _family("slots", "Places of items, by state.", ((f'state="{one}"', n) for one, n in by_state))
    since = now - _RECENT_SECONDS
    for name, words, query in (
        ("recent_rankings", "Answers of the last 5 minutes.", _count(rankings.c.submitted_at > since)),
        ("recent_labelers", "Labelers who answered in the last 5 minutes.", _people(since)),
        ("recent_failed_sign_ins", "Of the last 5 minutes.", _count(sign_ins.c.at > since)),
        ("sessions", "Sessions that have not expired.", _count(sessions.c.expires_at > now)),
        ("labelers", "Accounts that may work.", _count(labelers.c.status == "active")),
        ("open_flags", "Flags that nobody has resolved.", _count(flags.c.resolved_at.is_(None))),
    ):
        yield from _family(name, words, [("", connection.execute(query).scalar_one())])


def _count(condition: ColumnElement[bool]) -> Select[int]:
    return select(func.count()).where(condition)


def _people(since: float) -> Select[int]:
    return select(func.count(func.distinct(rankings.c.labeler))).where(rankings.c.submitted_at > since)


def _family(name: str, words: str, values: Iterable[tuple[str, int]]) -> Iterator[str]:
    yield f"# HELP triphase_{name} {words}"
    yield f"# TYPE triphase_{name} gauge"
    for labels, value in values:
        yield f"triphase_{name}{{{labels}}} {value}" if labels else f"triphase_{name} {value}"
