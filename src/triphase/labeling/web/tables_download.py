"""Downloads of every table of the lead's pages, as JSON lines or CSV: complete where a page shows a part."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from sqlalchemy import Connection, select
from starlette.responses import Response

from triphase.labeling.exchange.csv_cells import csv_text
from triphase.labeling.quality.agreement import Estimate
from triphase.labeling.quality.labeling_statistics import labeler_periods
from triphase.labeling.quality.overlap_plan import choices
from triphase.labeling.quality.policy_wins import policy_wins
from triphase.labeling.web.context import Context
from triphase.labeling.web.guard import LEAD, GuardedRoute, access
from triphase.labeling.web.lead import statistics_of
from triphase.labeling.web.prompt_browser import PAGE_SIZE, Filters, PromptLine, detail, first_words, samples
from triphase.labeling.web.templating import page
from triphase.labeling.work import accounts, audit, invitations
from triphase.labeling.work.campaign_plan import all_campaigns, campaign_called
from triphase.labeling.work.conflicts import conflicts
from triphase.records.visible import visible, visible_json
from triphase.store.record_rows import storable
from triphase.store.schema import flags, guidelines

router = APIRouter(prefix="/lead", route_class=GuardedRoute)
Rows = list[dict[str, Any]]
_IN_WORDS = 400
_AUDIT_AT_ONCE = 1000


@router.get("/table/{name}")
@access(LEAD)
async def download_table(
    request: Request,
    name: str,
    form: Annotated[str, Query(max_length=10)] = "jsonl",
    of: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """A table by its name; ``of`` is its labeler, campaign or prompt, or the person whose actions are selected."""
    context: Context = request.app.state.context
    reader = TABLES.get(name)
    if reader is None or form not in ("csv", "jsonl"):
        message = f"There are the tables {', '.join(TABLES)}, each as csv or jsonl."
        return page(request, "message.html", {"title": "Download", "message": message}, 404)
    if name == "samples":
        given = {key: storable(request.query_params.get(key, ""))[:400] for key in _FILTERS}
        rows = await _samples(context, replace(Filters(), **given))  # type: ignore[arg-type]
    else:
        rows = await reader(context, storable(of))
    text = csv_text(_shown(rows)) if form == "csv" else "".join(visible_json(row) + "\n" for row in rows)
    kind = "text/csv" if form == "csv" else "application/x-ndjson"
    headers = {"content-disposition": f'attachment; filename="{name}.{form}"'}
    return Response(text, media_type=f"{kind}; charset=utf-8", headers=headers)


def _shown(rows: Rows) -> Rows:
    """The rows as a spreadsheet is to show them; nothing reads them in again."""
    return [{name: visible(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows]


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):  # a store of an older version may contain any number
        return str(seconds)


def _share(name: str, estimate: Estimate | None) -> dict[str, float | int | None]:
    parts = ("value", "low", "high", "pairs")
    return {f"{name}_{part}".removesuffix("_value"): getattr(estimate, part, None) for part in parts}


async def _labelers(context: Context, of: str) -> Rows:
    if of and await context.read(lambda connection: campaign_called(connection, of)) is None:
        raise HTTPException(404)
    statistics = await statistics_of(context, of or None)
    people = {one.name: one for one in await context.read(accounts.accounts)}
    return [
        {
            "name": one.name, "role": one.role, "status": one.status,
            "signs_in": one.name in people and people[one.name].can_sign_in, "answers": one.answers,
            "skipped": one.skipped, "flagged": one.flagged, "corrected": one.corrected,
            "median_seconds": one.median_seconds, **_share("agreement", one.agreement.value),
            **_share("gold", one.gold), **_share("consistency", one.consistency),
            **_share("earlier_preferred", one.position), **_share("longer_preferred", one.length),
        }
        for one in statistics.labelers
    ]  # fmt: skip


async def _periods(context: Context, of: str) -> Rows:
    periods = await context.slow(lambda: labeler_periods(context.store, of))
    return [
        {
            "labeler": of, "begin": _moment(one.begin), "days": one.length / 86400, "answers": one.answers,
            "skipped": one.skipped, "median_seconds": one.median_seconds, **_share("agreement", one.agreement),
            **_share("gold", one.gold), **_share("consistency", one.consistency),
        }
        for one in periods
    ]  # fmt: skip


async def _links(context: Context, _of: str) -> Rows:
    found = await context.read(lambda connection: invitations.open_ones(connection, context.now()))
    return [
        {
            "name": one.name, "role": one.role, "created_by": one.created_by, "created_at": _moment(one.created_at),
            "expires_at": _moment(one.expires_at),
        }
        for one in found
    ]  # fmt: skip


async def _pairs(context: Context, _of: str) -> Rows:
    statistics = await statistics_of(context)
    return [
        {
            "labeler": pair[0], "other": pair[1], **_share("agreement", found.value),
            **_share("with_ties", found.with_ties), "kappa": statistics.kappas[pair],
        }
        for pair, found in statistics.by_pair.items()
    ]  # fmt: skip


async def _days(context: Context, _of: str) -> Rows:
    by_day = (await statistics_of(context)).progress.by_day
    return [{"day": str(_moment(86400.0 * day))[:10], "answers": count} for day, count in by_day]


async def _overlaps(context: Context, _of: str) -> Rows:
    found = await statistics_of(context)
    return [asdict(one) for one in choices(found.agreement.value, found.median_seconds, found.progress.items)]


async def _conflicts(context: Context, _of: str) -> Rows:
    found = await context.slow(lambda: conflicts(context.store))
    words = await context.read(lambda connection: first_words(connection, {one.prompt_id for one in found}))
    return [
        {
            "prompt_id": one.prompt_id, "prompt": words.get(one.prompt_id), "campaign": one.campaign or None,
            "labelers": list(one.labelers), "opposite_pairs": one.opposite, "compared_pairs": one.compared,
            "best_differs": one.best_differs,
        }
        for one in found
    ]  # fmt: skip


async def _flags(context: Context, of: str) -> Rows:
    query = select(flags).order_by(flags.c.id)
    query = query.where(flags.c.resolved_at.is_(None)) if of == "open" else query
    found = await context.read(lambda connection: connection.execute(query).all())
    words = await context.read(lambda connection: first_words(connection, {one.prompt_id for one in found}))
    return [
        {
            "reason": one.reason, "prompt_id": one.prompt_id, "prompt": words.get(one.prompt_id),
            "response_id": one.response_id, "labeler": one.labeler, "created_at": _moment(one.created_at),
            "note": one.note, "resolution": one.resolution, "resolved_by": one.resolved_by,
            "resolved_at": _moment(one.resolved_at),
        }
        for one in found
    ]  # fmt: skip


async def _audit(context: Context, of: str) -> Rows:
    found: list[audit.Entry] = []

    def more(connection: Connection) -> list[audit.Entry]:
        before = found[-1].id if found else 0
        return audit.entries(connection, who=of, before_id=before, limit=_AUDIT_AT_ONCE)

    while len(part := await context.read(more)) == _AUDIT_AT_ONCE:
        found += part
    return [{**asdict(one), "at": _moment(one.at)} for one in [*found, *part]]


async def _samples(context: Context, filters: Filters) -> Rows:
    rows, number = Rows(), 0

    def some(connection: Connection) -> tuple[list[PromptLine], int]:
        return samples(connection, replace(filters, page=number))

    while True:
        found, total = await context.read(some)
        rows += [
            {
                "prompt_id": one.prompt.id, "prompt": one.prompt.text[:_IN_WORDS], "kind": one.prompt.kind,
                "split": one.prompt.split, "responses": one.responses, "rankings": one.rankings, "flags": one.flags,
            }
            for one in found
        ]  # fmt: skip
        number += 1
        if number * PAGE_SIZE >= total:
            return rows


async def _guidelines(context: Context, of: str) -> Rows:
    query = select(guidelines).where(guidelines.c.campaign == of).order_by(guidelines.c.version)
    found = await context.read(lambda connection: connection.execute(query).mappings().all())
    return [{**row, "created_at": _moment(row["created_at"])} for row in found]


async def _campaigns(context: Context, _of: str) -> Rows:
    found = await context.read(all_campaigns)
    return [{**asdict(one), "models": list(one.models)} for one in found]


async def _wins(context: Context, of: str) -> Rows:
    found = await context.read(lambda connection: campaign_called(connection, of))
    if found is None:
        raise HTTPException(404)
    wins = await context.slow(lambda: policy_wins(context.store, of, found.models, found.split, found.kind))
    return [
        {"policy": one.first, "against": one.second, **_share("preferred", one.rate), "one_text": one.same}
        for one in wins
    ]


async def _answers(context: Context, of: str) -> Rows:
    found = await context.read(lambda connection: detail(connection, of))
    if found is None:
        raise HTTPException(404)
    kept = ("purpose", "status", "campaign", "strength", "quality", "ratings", "rationale", "rewrites", "skip_reason")
    return [
        {
            "prompt_id": of, "labeler": one.ranking.labeler, "submitted_at": _moment(one.ranking.submitted_at),
            "seconds": one.ranking.seconds, "guideline_version": one.guideline_version,
            "order_shown": list(one.ranking.order_shown), "places": dict(one.ranking.places), "note": one.ranking.note,
            **{name: getattr(one, name) for name in kept},
        }
        for one in found.answers
    ]  # fmt: skip


async def _no_filters(context: Context, _of: str) -> Rows:
    return await _samples(context, Filters())


_FILTERS = ("text", "split", "kind", "model", "labeler", "state")
TABLES: Mapping[str, Callable[[Context, str], Awaitable[Rows]]] = {
    "answers": _answers, "audit": _audit, "campaigns": _campaigns, "conflicts": _conflicts, "days": _days,
    "flags": _flags, "guidelines": _guidelines, "labeler": _periods, "labelers": _labelers, "links": _links,
    "overlaps": _overlaps, "pairs": _pairs, "samples": _no_filters, "wins": _wins,
}  # fmt: skip
"""Name → function that reads its rows."""
