"""The lead's pages: progress and label quality, labelers, flags, guidelines and the audit."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Path, Query, Request
from sqlalchemy import func, select, update
from starlette.responses import RedirectResponse, Response

from triphase.labeling.quality.labeling_statistics import Statistics, collect, labeler_periods
from triphase.labeling.quality.over_time import DAY
from triphase.labeling.quality.overlap_plan import choices
from triphase.labeling.web import charts
from triphase.labeling.web.context import Context
from triphase.labeling.web.first_steps import first_steps
from triphase.labeling.web.guard import LEAD, MOST_GUIDELINES, GuardedRoute, access
from triphase.labeling.web.prompt_browser import first_words
from triphase.labeling.web.templating import page
from triphase.labeling.work import accounts, audit, campaigns, invitations, item_plan, labeler_status
from triphase.labeling.work.people import AccountError
from triphase.store.record_rows import storable
from triphase.store.schema import flags, guidelines, scores

router = APIRouter(prefix="/lead", route_class=GuardedRoute)
_KEPT_SECONDS = 10.0
_SCORED = select(select(scores).exists())


async def statistics_of(context: Context, campaign: str | None = None) -> Statistics:
    """All statistics, or a campaign's; cached for ten seconds, since they take long over many rankings.

    A decision, made through any worker or a command, is in the audit, and ends what was cached before it.
    """
    kept = context.kept_statistics.get(campaign)
    now, decided = context.now(), await context.glance(audit.last_decision)
    if kept is None or kept[1] != decided or not 0 <= now - kept[0] < _KEPT_SECONDS:
        kept = (now, decided, await context.slow(lambda: collect(context.store, now, campaign)))
        context.kept_statistics[campaign] = kept
    return kept[2]


@router.get("")
@access(LEAD)
async def overview(request: Request, ordered: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None) -> Response:
    """Progress with forecast, agreement, and a summary of each labeler."""
    context: Context = request.app.state.context
    statistics = await statistics_of(context)
    steps, scored = await context.read(
        lambda connection: (first_steps(connection, context.now()), connection.execute(_SCORED).scalar_one())
    )
    days = [
        (datetime.fromtimestamp(day * 86400, UTC).strftime("%d %b"), float(count))
        for day, count in statistics.progress.by_day
    ]
    values = {
        "statistics": statistics,
        "ordered": ordered,
        "scored": scored,
        "steps": [] if all(step.done for step in steps) else steps,
        "overlaps": choices(statistics.agreement.value, statistics.median_seconds, statistics.progress.items),
        "days": charts.bars(days, "Answers per day (UTC)"),
        "matrix": charts.matrix(
            statistics.by_pair,
            "Agreement between each two labelers: percent of ordered pairs, 95 % interval, number of pairs",
        ),
    }
    return page(request, "lead-overview.html", values)


@router.get("/labelers")
@access(LEAD)
async def people(request: Request) -> Response:
    """Every labeler's record, and invitations."""
    return await _people(request, "")


async def _people(request: Request, link: str, status: int = 200, problem: str = "") -> Response:
    context: Context = request.app.state.context
    statistics = await statistics_of(context)
    now = context.now()
    everyone, waiting = await context.read(
        lambda connection: (
            accounts.accounts(connection),
            invitations.open_ones(connection, now),
        )
    )
    records = {record.name: record for record in statistics.labelers}

    def chart(part: str, title: str, mark: float | None = None) -> Any:
        rows = [(record.name, getattr(record, part)) for record in statistics.labelers]
        return charts.intervals(rows, title, mark)

    values = {
        "people": everyone, "records": records, "waiting": waiting, "link": link, "problem": problem,
        "agreement": charts.intervals(
            [(record.name, record.agreement.value) for record in statistics.labelers],
            "Agreement with the others, percent",
        ),
        "gold": chart("gold", "Gold accuracy, percent"),
        "consistency": chart("consistency", "Self-consistency, percent"),
        "position": chart("position", "Prefers the earlier of two neighbors, percent", 0.5),
        "length": chart("length", "Prefers the longer response, percent", 0.5),
    }  # fmt: skip
    return page(request, "lead-labelers.html", values, status)


@router.get("/labelers/{name}")
@access(LEAD)
async def one_labeler(request: Request, name: Annotated[str, Path(max_length=80)]) -> Response:
    """One labeler's statistics over time."""
    context: Context = request.app.state.context
    person = await context.read(lambda connection: accounts.account(connection, storable(name)))
    if person is None:
        raise HTTPException(404)
    periods = await context.slow(lambda: labeler_periods(context.store, person.name))
    named = [(datetime.fromtimestamp(each.begin, UTC).strftime("%d %b %Y"), each) for each in periods]

    def chart(part: str, title: str) -> Any:
        return charts.intervals([(label, getattr(each, part)) for label, each in named], title)

    figures = [
        ("Agreement with the others", chart("agreement", "Agreement over time, percent"), "Of ordered pairs."),
        ("Gold accuracy", chart("gold", "Gold accuracy over time, percent"), "A tie counts half."),
        ("Self-consistency", chart("consistency", "Self-consistency over time, percent"), "The same items again."),
    ]
    by_day = bool(periods) and periods[0].length == DAY
    return page(
        request,
        "lead-labeler.html",
        {"name": person.name, "person": person, "periods": named, "figures": figures, "by_day": by_day},
    )


@router.post("/invitations")
@access(LEAD)
async def invite(
    request: Request, role: Annotated[str, Form(max_length=20)], name: Annotated[str, Form(max_length=80)] = ""
) -> Response:
    """Create an invitation link; it is shown once."""
    context: Context = request.app.state.context
    by = request.state.session.name
    try:
        token = await context.write(
            lambda connection: invitations.invite(connection, role, now=context.now(), by=by, name=name.strip() or None)
        )
    except AccountError as error:
        return await _people(request, "", 422, str(error))
    address = context.server.address or str(request.base_url)
    return await _people(request, f"{address.rstrip('/')}/invitation/{token}")


@router.post("/invitations/{id}/revoke")
@access(LEAD)
async def revoke(request: Request, id: str) -> Response:
    """Void an unused invitation."""
    context: Context = request.app.state.context
    by = request.state.session.name
    try:
        await context.write(lambda connection: invitations.revoke(connection, id, now=context.now(), by=by))
    except AccountError as error:
        return await _people(request, "", 422, str(error))
    return RedirectResponse("/lead/labelers", status_code=303)


@router.post("/labelers/{name}/status")
@access(LEAD)
async def set_status(request: Request, name: str, status: Annotated[str, Form(max_length=20)]) -> Response:
    """Pause, withdraw or reactivate someone."""
    context: Context = request.app.state.context
    by = request.state.session.name
    try:
        await context.write(
            lambda connection: labeler_status.set_status(connection, name, status, now=context.now(), by=by)
        )
    except AccountError as error:
        return await _people(request, "", 422, str(error))
    return RedirectResponse("/lead/labelers", status_code=303)


@router.get("/flags")
@access(LEAD)
async def flag_queue(request: Request, state: Annotated[str, Query(max_length=10)] = "open") -> Response:
    """What labelers flagged; open ones, or all."""
    context: Context = request.app.state.context
    query = select(flags).order_by(flags.c.resolved_at.is_not(None), flags.c.id.desc()).limit(500)
    if state != "all":
        query = query.where(flags.c.resolved_at.is_(None))
    found = await context.read(lambda connection: connection.execute(query).all())
    words = await context.read(lambda connection: first_words(connection, {flag.prompt_id for flag in found}))
    return page(request, "lead-flags.html", {"flags": found, "state": state, "words": words})


@router.post("/flags/{number}")
@access(LEAD)
async def resolve_flag(
    request: Request,
    number: Annotated[int, Path(ge=1, le=2**31 - 1)],
    resolution: Annotated[str, Form(max_length=2000)] = "",
) -> Response:
    """Record what was done about a flag."""
    context: Context = request.app.state.context
    by, now = request.state.session.name, context.now()
    said = storable(resolution.strip() or "seen")

    def work(connection: Any) -> None:
        open_one = (flags.c.id == number, flags.c.resolved_at.is_(None))
        values = {"resolution": said, "resolved_by": by, "resolved_at": now}
        if connection.execute(update(flags).where(*open_one).values(values)).rowcount:
            audit.note(connection, at=now, who=by, action="flag resolved", subject=str(number), after={"said": said})

    await context.write(work)
    return RedirectResponse("/lead/flags", status_code=303)


@router.get("/guidelines")
@access(LEAD)
async def guidelines_form(request: Request) -> Response:
    """The guidelines, with their earlier versions."""
    context: Context = request.app.state.context
    query = select(guidelines).where(guidelines.c.campaign == "").order_by(guidelines.c.version.desc())
    newest = select(func.coalesce(func.max(guidelines.c.version), 0))  # counted through those of campaigns
    found, last = await context.read(
        lambda connection: (connection.execute(query).all(), connection.execute(newest).scalar_one())
    )
    return page(request, "lead-guidelines.html", {"versions": found, "next_version": last + 1})


@router.post("/guidelines")
@access(LEAD)
async def save_guidelines(request: Request, text: Annotated[str, Form(max_length=MOST_GUIDELINES)]) -> Response:
    """Save a new version; earlier ones stay."""
    context: Context = request.app.state.context
    by, now = request.state.session.name, context.now()
    kept = storable(text.replace("\r\n", "\n").strip())

    def work(connection: Any) -> None:
        campaigns.add_guidelines(connection, kept, now=now, by=by)

    await context.write(work)
    return RedirectResponse("/lead/guidelines", status_code=303)


@router.post("/order")
@access(LEAD)
async def order_by_scores(request: Request) -> Response:
    """Reorder the waiting items by the reward model's scores in the store."""
    context: Context = request.app.state.context
    by, now = request.state.session.name, context.now()

    def work() -> int | None:
        with context.store.reading() as connection:
            if not connection.execute(_SCORED).scalar_one():
                return None
        count = item_plan.reprioritize(context.store, context.settings, seed=context.server.seed)
        with context.store.transaction() as connection:
            audit.note(connection, at=now, who=by, action="items ordered", subject="store", after={"items": count})
        return count

    ordered = await context.slow(work)
    if ordered is None:
        message = "The store has no scores, so the order stays as it is. Add some with: triphase label score"
        return page(request, "message.html", {"title": "No scores to order by", "message": message}, 422)
    return RedirectResponse(f"/lead?ordered={ordered}", status_code=303)


@router.get("/audit")
@access(LEAD)
async def audit_page(
    request: Request,
    who: Annotated[str, Query(max_length=80)] = "",
    before: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> Response:
    """The newest actions first."""
    context: Context = request.app.state.context
    found = await context.read(lambda connection: audit.entries(connection, who=who, before_id=before))
    return page(request, "lead-audit.html", {"entries": found, "who": who})
