"""The lead's pages about prompts: the samples browser, conflicts and their decision, gold answers, downloads."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from triphase.errors import StoreError
from triphase.labeling.exchange.csv_cells import csv_text
from triphase.labeling.exchange.export_columns import COLUMNS
from triphase.labeling.exchange.exporting import FORMATS, export_lines, export_rows
from triphase.labeling.web.context import Context
from triphase.labeling.web.guard import LEAD, GuardedRoute, access
from triphase.labeling.web.prompt_browser import PAGE_SIZE, Filters, choices, detail, first_words, samples
from triphase.labeling.web.templating import page
from triphase.labeling.work import item_plan
from triphase.labeling.work.campaign_plan import known_names
from triphase.labeling.work.campaigns import CampaignError, require_gold_fits, require_known
from triphase.labeling.work.conflicts import adjudicate, conflicts
from triphase.records.cells import MAIN
from triphase.store.record_rows import storable

router = APIRouter(prefix="/lead", route_class=GuardedRoute)
Word = Annotated[str, Query(max_length=200)]


@router.get("/samples")
@access(LEAD)
async def browse(
    request: Request,
    text: Word = "",
    split: Word = "",
    kind: Word = "",
    model: Annotated[str, Query(max_length=400)] = "",
    labeler: Word = "",
    state: Word = "",
    number: Annotated[int, Query(alias="page", ge=0, le=100_000)] = 0,
) -> Response:
    """Prompts with filters."""
    context: Context = request.app.state.context
    filters = Filters(
        storable(text), storable(split), storable(kind), storable(model), storable(labeler), state, number
    )
    (found, total), offered = await context.read(lambda connection: (samples(connection, filters), choices(connection)))
    values = {
        "samples": found, "total": total, "filters": filters, "filtered": filters != Filters(), "choices": offered,
        "page_size": PAGE_SIZE,
    }  # fmt: skip
    return page(request, "lead-samples.html", values)


@router.get("/conflicts")
@access(LEAD)
async def conflict_list(request: Request) -> Response:
    """Prompts on which labelers contradict each other."""
    context: Context = request.app.state.context
    found = await context.slow(lambda: conflicts(context.store))
    words = await context.read(lambda connection: first_words(connection, {one.prompt_id for one in found[:300]}))
    return page(request, "lead-conflicts.html", {"conflicts": found[:300], "total": len(found), "words": words})


@router.get("/prompt")
@access(LEAD)
async def prompt_page(request: Request, id: Word, campaign: Word = "") -> Response:
    """Everything about one prompt, and the forms to decide it, for one campaign (``main``: the main task)."""
    return await _prompt(request, id, "", campaign=campaign)


@router.post("/prompt")
@access(LEAD)
async def decide(request: Request, id: Word) -> Response:
    """Adjudicate, accept the disagreement, or set a gold answer."""
    context: Context = request.app.state.context
    by, now = request.state.session.name, context.now()
    form = await request.form(max_files=0, max_fields=60)
    note = storable(str(form.get("note", ""))[:2000])
    chosen = storable(str(form.get("campaign", "") or MAIN)[:80])
    decision = str(form.get("decision", ""))

    def work(connection: Any) -> None:
        found = detail(connection, storable(id))
        if found is None:
            raise StoreError("there is no such prompt")
        places = {}
        for number, response in enumerate(found.responses):
            given = str(form.get(f"place-{number}", ""))
            if given.isascii() and given.isdigit() and 1 <= int(given[:4]) <= 99:
                places[response.id] = int(given[:4])
        campaign = require_known(connection, chosen)
        if decision == "gold":
            if campaign:
                require_gold_fits(connection, campaign, places)
            item_plan.add_gold(connection, found.prompt.id, places, now=now, by=by, campaign=campaign)
        elif decision in ("rank", "stand"):
            ranked = places if decision == "rank" else None
            adjudicate(connection, found.prompt.id, ranked, note, by=by, now=now, campaign=campaign)
        else:
            raise StoreError(f"{decision!r} is not a decision; use the buttons of the page")

    try:
        await context.write(work)
    except (StoreError, CampaignError) as error:
        return await _prompt(request, id, str(error), 422, campaign=chosen)
    address = request.url_for("prompt_page").include_query_params(id=id, campaign=chosen)
    return RedirectResponse(str(address), status_code=303)


@router.get("/export/{name}")
@access(LEAD)
async def download(
    request: Request,
    name: str,
    form: Annotated[str, Query(max_length=10)] = "jsonl",
    campaign: Annotated[str, Query(max_length=80)] = "",
) -> Response:
    """Comparisons, rankings or demonstrations as JSON lines, or with ``?form=csv`` as a table; everything as lines.

    With ``?campaign=`` only its answers (``main``: of the main task).
    """
    context: Context = request.app.state.context
    store = context.store
    if campaign:
        known = await context.read(lambda connection: require_known(connection, storable(campaign)))
        store = store.only({known})
    if name not in FORMATS:
        message = f"There is no export {name!r}; there are: {', '.join(FORMATS)}."
        return page(request, "message.html", {"title": "Export", "message": message}, 404)
    if form == "csv" and name != "store":
        text = await context.slow(lambda: csv_text(list(export_rows(store, name)), COLUMNS[name]))
        headers = {"content-disposition": f'attachment; filename="{name}.csv"'}
        return Response(text, media_type="text/csv; charset=utf-8", headers=headers)
    text = await context.slow(lambda: "".join(export_lines(store, name)))
    headers = {"content-disposition": f'attachment; filename="{name}.jsonl"'}
    return Response(text, media_type="application/x-ndjson", headers=headers)


async def _prompt(request: Request, id_: str, problem: str, status: int = 200, *, campaign: str) -> Response:
    context: Context = request.app.state.context
    found, named = await context.read(lambda connection: (detail(connection, storable(id_)), known_names(connection)))
    if found is None:
        return page(request, "message.html", {"title": "Prompt", "message": "There is no such prompt."}, 404)
    names = {response.id: number for number, response in enumerate(found.responses, start=1)}
    about = next(iter(found.campaigns), "") if len(found.campaigns) == 1 else ""
    values = {
        "detail": found, "names": names, "problem": problem, "campaigns": named if len(named) > 1 else [],
        "campaign": campaign or about or MAIN,
    }  # fmt: skip
    return page(request, "lead-prompt.html", values, status)
