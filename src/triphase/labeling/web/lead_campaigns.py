"""The lead's pages about campaigns: create, view, change, pause, resume and end them."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Query, Request
from sqlalchemy import ColumnElement, Connection, func, select
from starlette.responses import RedirectResponse, Response

from triphase.labeling.quality.policy_wins import policy_wins
from triphase.labeling.web.context import Context
from triphase.labeling.web.guard import CAMPAIGN, CAMPAIGNS, LEAD, MOST_GUIDELINES, GuardedRoute, access
from triphase.labeling.web.lead import statistics_of
from triphase.labeling.web.templating import page
from triphase.labeling.work import campaigns
from triphase.labeling.work.campaign_plan import TASKS, Campaign, all_campaigns, campaign_called
from triphase.labeling.work.campaigns import CampaignError
from triphase.store.record_rows import storable
from triphase.store.schema import guidelines, items, prompts, responses

router = APIRouter(route_class=GuardedRoute)
Name = Annotated[str, Form(max_length=80)]
Number = Annotated[int, Form(ge=0, le=2**31 - 1)]
Text = Annotated[str, Form(max_length=MOST_GUIDELINES)]
_STATES = {"pause": "paused", "resume": "active", "end": "ended"}
_EMPTY = {"name": "", "task": "ranking", "share": 20, "overlap": 2, "split": "", "kind": "", "most": 0, "models": ()}


@router.get(CAMPAIGNS)
@access(LEAD)
async def campaign_list(request: Request) -> Response:
    """Every campaign with its progress, and the form for a new one."""
    return await _list(request, {**_EMPTY, "text": ""}, "")


async def _list(request: Request, given: Mapping[str, Any], problem: str, status: int = 200) -> Response:
    context: Context = request.app.state.context

    def work(connection: Connection) -> dict[str, Any]:
        return {
            "campaigns": all_campaigns(connection), "slots": campaigns.slots_of(connection),
            "models": _distinct(connection, responses.c.model), "kinds": _distinct(connection, prompts.c.kind),
        }  # fmt: skip

    values = await context.read(work)
    left = 100 - sum(one.share for one in values["campaigns"] if one.state == "active")
    values |= {"tasks": TASKS, "given": given, "problem": problem, "left": max(0, left)}
    return page(request, "lead-campaigns.html", values, status)


def _distinct(connection: Connection, column: ColumnElement[str]) -> list[str]:
    return list(connection.execute(select(column).distinct().order_by(column)).scalars())


@router.post(CAMPAIGNS)
@access(LEAD)
async def make_campaign(
    request: Request,
    name: Name,
    task: Annotated[str, Form(max_length=20)] = "ranking",
    share: Number = 20,
    overlap: Number = 1,
    split: Annotated[str, Form(max_length=20)] = "",
    kind: Annotated[str, Form(max_length=80)] = "",
    most: Number = 0,
    text: Text = "",
    models: Annotated[list[str] | None, Form()] = None,
) -> Response:
    """Create a campaign and its items."""
    context: Context = request.app.state.context
    by, now = request.state.session.name, context.now()
    chosen = tuple(storable(one) for one in models or ())
    wanted = Campaign(storable(name).strip(), task, share, overlap, chosen, split, storable(kind), most)
    written = storable(text.replace("\r\n", "\n").strip())
    try:
        await context.write(
            lambda connection: campaigns.add_campaign(
                connection, wanted, written, context.settings, seed=context.server.seed, now=now, by=by
            )
        )
    except CampaignError as error:
        given = {key: getattr(wanted, key) for key in _EMPTY} | {"text": written}
        return await _list(request, given, str(error), 422)
    return _to(request, wanted.name)


@router.get(CAMPAIGN)
@access(LEAD)
async def campaign_page(request: Request, name: Annotated[str, Query(max_length=80)]) -> Response:
    """A campaign's statistics, and a form to change it."""
    return await _page(request, name, "")


async def _page(request: Request, name: str, problem: str, status: int = 200) -> Response:
    context: Context = request.app.state.context
    name = storable(name)
    found = await context.read(lambda connection: campaign_called(connection, name))
    if found is None:
        raise HTTPException(404)
    of = select(guidelines).where(guidelines.c.campaign == name).order_by(guidelines.c.version.desc())
    known = select(func.count()).where(items.c.campaign == name, items.c.kind == "gold", ~items.c.closed)
    versions, gold = await context.read(
        lambda connection: (connection.execute(of).all(), connection.execute(known).scalar_one())
    )
    wins = []
    if found.task == "policies":
        wins = await context.slow(lambda: policy_wins(context.store, name, found.models, found.split, found.kind))
    statistics = await statistics_of(context, name)
    values = {
        "campaign": found, "statistics": statistics, "versions": versions, "wins": wins, "gold": gold,
        "people": [one for one in statistics.labelers if one.answers or one.skipped],
        "task": TASKS[found.task].partition(" (")[0], "problem": problem,
    }  # fmt: skip
    return page(request, "lead-campaign.html", values, status)


@router.post(CAMPAIGN)
@access(LEAD)
async def change_campaign(
    request: Request,
    name: Annotated[str, Query(max_length=80)],
    change: Annotated[str, Form(max_length=20)],
    share: Annotated[int | None, Form(ge=0, le=2**31 - 1)] = None,
    overlap: Annotated[int | None, Form(ge=0, le=2**31 - 1)] = None,
    text: Annotated[str | None, Form(max_length=MOST_GUIDELINES)] = None,
) -> Response:
    """Save share, overlap and guidelines; or pause, resume or end."""
    context: Context = request.app.state.context
    by, now = request.state.session.name, context.now()
    if change != "save" and change not in _STATES:
        return await _page(request, name, f"{change!r} is not a change; use the buttons of the page", 422)
    written = None if text is None else storable(text.replace("\r\n", "\n").strip())
    given: dict[str, Any] = {"state": _STATES.get(change)}
    if change == "save":
        given = {"share": share, "overlap": overlap, "text": written}
    try:
        await context.write(
            lambda connection: campaigns.change_campaign(connection, storable(name), now=now, by=by, **given)
        )
    except CampaignError as error:
        return await _page(request, name, str(error), 422)
    return _to(request, name)


def _to(request: Request, name: str) -> RedirectResponse:
    address = request.url_for("campaign_page").include_query_params(name=name)
    return RedirectResponse(f"{address.path}?{address.query}", status_code=303)
