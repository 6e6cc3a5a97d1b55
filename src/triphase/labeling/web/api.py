"""The JSON routes of the labeler's page. Responses are identified by position only: the page is blind."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request
from itsdangerous import BadSignature, URLSafeSerializer
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from triphase.labeling.web import labeler_views
from triphase.labeling.web.context import Context
from triphase.labeling.web.formatting import formatted
from triphase.labeling.web.guard import LABELER, MOST_REWRITTEN, GuardedRoute, access
from triphase.labeling.work import submission
from triphase.labeling.work.answer_content import Asks, Submission
from triphase.labeling.work.assignment import next_assignment
from triphase.labeling.work.submission import AnswerError, SlotGone, Stored
from triphase.settings.schema import LabelingSettings
from triphase.store.record_rows import storable

router = APIRouter(prefix="/api", route_class=GuardedRoute)
Id = Annotated[int, Field(ge=1, le=2**31 - 1)]
Note = Annotated[str, Field(max_length=2000), AfterValidator(storable)]
Rewrite = Annotated[str, Field(max_length=MOST_REWRITTEN), AfterValidator(storable)]
Place = Annotated[int, Field(ge=1, le=9)]
Quality = Annotated[int, Field(ge=1, le=7)]
Result = TypeVar("Result")


def _fit_together(rewrites: list[str | None]) -> list[str | None]:
    length = sum(len(text or "") for text in rewrites)
    if length > MOST_REWRITTEN:
        raise ValueError(f"{length} characters in all; {MOST_REWRITTEN} at most are kept, so shorten one")
    return rewrites


class Body(BaseModel):
    """The body of a route: no unknown fields, and no type conversion (true is not a number)."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Draft(Body):
    """A draft of an answer, by position."""

    places: list[Place | None] = Field(max_length=9)
    strength: Annotated[int, Field(ge=1, le=4)] | None = None
    quality: list[Quality | None] = Field(default=[], max_length=9)
    note: Note = ""
    seconds: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] | None = None
    ratings: dict[Annotated[str, Field(max_length=40)], Annotated[list[Quality | None], Field(max_length=9)]] = Field(
        default={}, max_length=8
    )
    rationale: Note = ""
    rewrites: Annotated[list[Rewrite | None], Field(max_length=9), AfterValidator(_fit_together)] = []
    inserting: Annotated[list[Annotated[int, Field(ge=0, le=9)]], Field(min_length=3, max_length=3)] | None = None
    """In pairwise mode: the response that is being inserted, and the groups between which its place is."""


class AnswerBody(Draft):
    """An answer to a slot, or with ``corrects`` to an earlier answer of the same labeler."""

    assignment: Id | None = None
    corrects: str | None = Field(default=None, max_length=200)
    receipt: str = Field(default="", max_length=2000)
    next: bool = True

    def to_submission(self) -> Submission:
        """In the store's format."""
        return Submission(
            self.places,
            self.seconds,
            self.strength,
            self.quality,
            self.note,
            self.ratings,
            self.rationale,
            self.rewrites,
        )


class DraftBody(Draft):
    """A draft of the answer to a slot."""

    assignment: Id


class SkipBody(Body):
    """The reason for returning an item."""

    assignment: Id
    reason: str = Field(max_length=80)
    note: Note = ""


class FlagBody(Body):
    """A problem with the prompt, or with the response at ``position``."""

    assignment: Id
    position: Annotated[int, Field(ge=0, le=8)] | None = None
    reason: str = Field(max_length=40)
    note: Note = ""


def _of(request: Request) -> tuple[Context, str]:
    return request.app.state.context, request.state.session.name


def _next(connection: Connection, context: Context, name: str) -> dict[str, Any] | None:
    assigned = next_assignment(connection, name, context.settings, seed=context.server.seed, now=context.now())
    if assigned is None:
        return None
    shown = labeler_views.shown(connection, assigned.prompt_id, assigned.order_shown)
    receipt = URLSafeSerializer(context.key, salt="seat").dumps([assigned.id, name, list(assigned.order_shown)])
    return {
        "assignment": assigned.id, **shown, "expires_at": assigned.expires_at, "draft": assigned.draft,
        "receipt": receipt, "task": labeler_views.task_of(connection, assigned.campaign),
    }  # fmt: skip


async def _formatted(context: Context, item: dict[str, Any] | None) -> dict[str, Any] | None:
    """An item with its Markdown parsed, outside of the transaction that read it."""
    if item is None or not labeler_views.has_markup(item):
        return item
    return await context.slow(lambda: labeler_views.with_blocks(item))


@router.get("/next")
@access(LABELER)
async def next_item(request: Request) -> dict[str, Any]:
    """The item that the labeler holds, or a new one; ``item`` is null if nothing is left."""
    context, name = _of(request)
    found = await context.write(lambda connection: _next(connection, context, name))
    return {"item": await _formatted(context, found)}


@router.post("/answers")
@access(LABELER)
async def answer(request: Request, body: AnswerBody) -> dict[str, Any]:
    """Store an answer, and with ``next`` return the next item with the receipt."""
    context, name = _of(request)

    def work(connection: Connection) -> dict[str, Any]:
        stored = _take(connection, context, name, body)
        found: dict[str, Any] = {"ranking": stored.ranking_id, "status": stored.status}
        if body.next:
            found["item"] = _next(connection, context, name)
        return found

    found = await context.write(work)
    return {**found, "item": await _formatted(context, found["item"])} if body.next else found


def _take(connection: Connection, context: Context, name: str, body: AnswerBody) -> Stored:
    now = context.now()
    unknown = sorted(set(body.ratings) - set(context.settings.criteria))
    if unknown:
        raise AnswerError(f"{unknown[0]!r} is not a criterion here; reload the page")
    if body.corrects is not None:
        asks = _asks(context.settings)
        return submission.correct(connection, name, body.corrects, body.to_submission(), now=now, asks=asks)
    if body.assignment is None:
        raise AnswerError("name the assignment, or the answer that this corrects")
    try:
        return submission.submit(connection, name, body.assignment, body.to_submission(), now=now)
    except SlotGone:
        order = _receipt(context, name, body)
        if order is None:
            raise
        return submission.submit_late(connection, name, body.assignment, order, body.to_submission(), now=now)


def _asks(settings: LabelingSettings) -> Asks:
    return Asks(
        settings.ask_strength, settings.ask_quality, settings.criteria, settings.ask_rationale, settings.ask_rewrite
    )


def _receipt(context: Context, name: str, body: AnswerBody) -> list[str] | None:
    """The order in which this slot was shown to this labeler, if the receipt is ours."""
    try:
        slot, labeler, order = URLSafeSerializer(context.key, salt="seat").loads(body.receipt)
    except (BadSignature, ValueError, TypeError):
        return None
    return order if (slot, labeler) == (body.assignment, name) else None


@router.put("/drafts")
@access(LABELER)
async def draft(request: Request, body: DraftBody) -> dict[str, bool]:
    """Store a draft; ``kept`` is false if the slot has gone to someone else."""
    context, name = _of(request)
    content = body.model_dump(exclude={"assignment"})
    return {
        "kept": await context.write(
            lambda connection: submission.save_draft(connection, name, body.assignment, content, now=context.now())
        )
    }


@router.post("/skips")
@access(LABELER)
async def skip(request: Request, body: SkipBody) -> dict[str, Any]:
    """Return an item with a reason, and get the next."""
    context, name = _of(request)

    def work(connection: Connection) -> dict[str, Any] | None:
        submission.skip(connection, name, body.assignment, body.reason, body.note, now=context.now())
        return _next(connection, context, name)

    return {"item": await _formatted(context, await context.write(work))}


@router.post("/flags")
@access(LABELER)
async def flag(request: Request, body: FlagBody) -> dict[str, bool]:
    """Report a problem to the lead."""
    context, name = _of(request)
    await _write(
        context,
        lambda connection: submission.flag(
            connection, name, body.assignment, body.position, body.reason, body.note, now=context.now()
        ),
    )
    return {"kept": True}


@router.get("/history")
@access(LABELER)
async def history(request: Request, back: Annotated[int, Field(ge=0, le=100_000)] = 0) -> dict[str, Any]:
    """The labeler's own answer, ``back`` answers ago, to review and correct; null beyond the first."""
    context, name = _of(request)
    found = await context.read(lambda connection: labeler_views.past_answer(connection, name, back))
    return {"answer": await _formatted(context, found)}


@router.get("/guidelines")
@access(LABELER)
async def campaign_guidelines(request: Request, campaign: Annotated[str, Query(max_length=80)] = "") -> dict[str, Any]:
    """The common settings of a campaign's items."""
    context, _ = _of(request)
    found = await context.read(lambda connection: labeler_views.guidelines_for(connection, storable(campaign)))
    blocks = await context.slow(lambda: formatted(found["text"]))
    return found if blocks is None else {**found, "blocks": blocks}


@router.get("/progress")
@access(LABELER)
async def progress(request: Request) -> dict[str, Any]:
    """The labeler's progress and speed, and how much is left."""
    context, name = _of(request)
    return await context.read(lambda connection: labeler_views.progress(connection, name, context.now()))


async def _write(context: Context, work: Callable[[Connection], Result]) -> Result:
    return await context.write(work)
