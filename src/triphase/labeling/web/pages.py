"""The pages around the work: signing in and out, invitations, and the labeler's page itself."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from sqlalchemy import select
from starlette.responses import RedirectResponse, Response

from triphase.labeling.web import sessions
from triphase.labeling.web.context import Context
from triphase.labeling.web.guard import ANYONE_SIGNED_IN, COOKIE, LABELER, MOST_REWRITTEN, PUBLIC, GuardedRoute, access
from triphase.labeling.web.sessions import TooManyAttempts
from triphase.labeling.web.templating import page
from triphase.labeling.work import accounts, invitations
from triphase.labeling.work.people import AccountError
from triphase.labeling.work.submission import FLAG_REASONS, SKIP_REASONS
from triphase.store.schema import guidelines

router = APIRouter(route_class=GuardedRoute)
Name = Annotated[str, Form(max_length=80)]
Password = Annotated[str, Form(max_length=400)]


def home_of(role: str) -> str:
    """The start page of a person."""
    return "/lead" if role == "lead" else "/rank"


@router.get("/")
@access(PUBLIC)
async def home(request: Request) -> Response:
    """Redirects to the work, or to the sign-in page."""
    session = request.state.session
    return RedirectResponse(home_of(session.role) if session else "/sign-in", status_code=303)


@router.get("/sign-in")
@access(PUBLIC)
async def sign_in_form(request: Request) -> Response:
    """The sign-in form."""
    return page(request, "sign-in.html", {"problem": "", "name": ""})


@router.post("/sign-in")
@access(PUBLIC)
async def sign_in(request: Request, name: Name, password: Password) -> Response:
    """Check name and password, slowly and with a rate limit; start a new session."""
    context: Context = request.app.state.context
    name = name.strip().lower()
    address = request.client.host if request.client else ""
    async with context.comparing:
        try:
            number = await context.write(lambda connection: sessions.attempt(connection, name, address, context.now()))
        except TooManyAttempts as error:
            return page(request, "sign-in.html", {"problem": str(error), "name": name}, 429)
        known = await context.read(lambda connection: sessions.password_hash(connection, name))
        right = await context.slow(lambda: sessions.fits(known, password))
        if right:
            await context.write(lambda connection: sessions.succeeded(connection, number))
    if not right or known is None:
        problem = "Wrong name or password. If you forgot your password, ask the lead for a new link."
        return page(request, "sign-in.html", {"problem": problem, "name": name}, 403)
    return await _begin(request, context, name, known)


@router.post("/sign-out")
@access(ANYONE_SIGNED_IN)
async def sign_out(request: Request) -> Response:
    """End the session."""
    context: Context = request.app.state.context
    token_hash = request.state.session.token_hash
    await context.write(lambda connection: sessions.end(connection, token_hash))
    answer = RedirectResponse("/sign-in", status_code=303)
    answer.delete_cookie(COOKIE, path="/")
    return answer


@router.get("/invitation/{token}")
@access(PUBLIC)
async def invitation_form(request: Request, token: str) -> Response:
    """Choose a name and a password; opening the link does not use it up."""
    context: Context = request.app.state.context
    try:
        role, name = await context.read(lambda connection: invitations.look_up(connection, token, context.now()))
    except AccountError as error:
        return page(request, "message.html", {"title": "Invitation", "message": str(error)}, 410)
    return page(request, "invitation.html", {"role": role, "fixed": name, "name": "", "problem": "", "token": token})


@router.post("/invitation/{token}")
@access(PUBLIC)
async def accept(request: Request, token: str, password: Password, again: Password, name: Name = "") -> Response:
    """Use the invitation, once, and start a session."""
    context: Context = request.app.state.context
    name = name.strip().lower()
    try:
        role, fixed = await context.read(lambda connection: invitations.look_up(connection, token, context.now()))
    except AccountError as error:
        return page(request, "message.html", {"title": "Invitation", "message": str(error)}, 410)
    try:
        if password != again:
            raise AccountError("the two passwords differ; type the same one twice")
        hashed = await context.slow(lambda: accounts.hashed(password))
        made = await context.write(
            lambda connection: accounts.accept(connection, token, name, hashed, now=context.now())
        )
    except AccountError as error:
        values = {"role": role, "fixed": fixed, "name": name, "problem": str(error), "token": token}
        return page(request, "invitation.html", values, 422)
    return await _begin(request, context, made, hashed)


@router.get("/rank")
@access(LABELER)
async def rank(request: Request) -> Response:
    """The labeler's page; its script requests the items."""
    context: Context = request.app.state.context
    text = await context.read(
        lambda connection: connection.execute(
            select(guidelines.c.version, guidelines.c.text)
            .where(guidelines.c.campaign == "")
            .order_by(guidelines.c.version.desc())
            .limit(1)
        ).first()
    )
    values = {
        "guidelines": text.text if text else "", "version": text.version if text else 0,
        "skip_reasons": SKIP_REASONS, "flag_reasons": FLAG_REASONS,
        "ask_strength": context.settings.ask_strength, "ask_quality": context.settings.ask_quality,
        "criteria": context.settings.criteria, "ask_rationale": context.settings.ask_rationale,
        "ask_rewrite": context.settings.ask_rewrite, "most_rewritten": MOST_REWRITTEN,
    }  # fmt: skip
    return page(request, "rank.html", values)


async def _begin(request: Request, context: Context, name: str, compared: str) -> Response:
    old = sessions.unsealed(request.cookies.get(COOKIE, ""), context.key)
    try:
        token = await context.write(
            lambda connection: sessions.start(connection, name, compared, now=context.now(), old_token=old)
        )
    except AccountError as error:
        return page(request, "sign-in.html", {"problem": str(error), "name": name}, 403)
    person = await context.read(lambda connection: accounts.account(connection, name))
    answer = RedirectResponse(home_of(person.role if person else "labeler"), status_code=303)
    answer.set_cookie(
        COOKIE, sessions.sealed(token, context.key), path="/", httponly=True, samesite="strict",
        secure=context.server.secure, max_age=int(sessions.SESSION_HOURS * 3600),
    )  # fmt: skip
    return answer
