"""The labeling page as an application: ``create_application(store, settings)`` assembles it."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, IntegrityError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles

from triphase.errors import StoreError, TriphaseError
from triphase.labeling.web import api, health, lead, lead_campaigns, lead_prompts, pages, tables_download
from triphase.labeling.web.context import Context, ServerSettings
from triphase.labeling.web.guard import Hardened
from triphase.labeling.web.templating import HERE, page
from triphase.labeling.work.assignment import NotNow
from triphase.labeling.work.submission import Answered, SlotGone
from triphase.settings.schema import LabelingSettings
from triphase.store import Store
from triphase.store.database import NewerSchema

_log = logging.getLogger("triphase.labeling")
_AWAY = "The store cannot be read or written at the moment. Nothing is lost: try again in a moment."
_NEWER = (
    "A newer version of Triphase has upgraded the store. Nothing is lost: whoever runs this "
    "server has to restart it with that version."
)


def create_application(
    store: Store, settings: LabelingSettings | None = None, server: ServerSettings | None = None
) -> FastAPI:
    """The application over an open store, which the caller closes."""
    server = server or ServerSettings()
    context = Context(store, settings or LabelingSettings(), server)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        context.close()

    app = FastAPI(
        title="Triphase labeling", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan,
        middleware=[
            Middleware(Hardened, server=server, rewrites=context.settings.ask_rewrite),
        ],
        redirect_slashes=False,
    )  # fmt: skip
    app.state.context = context
    for part in (pages, api, lead, lead_campaigns, lead_prompts, tables_download, health):
        app.include_router(part.router)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    app.add_exception_handler(TriphaseError, _known_error)
    app.add_exception_handler(IntegrityError, _collision)
    app.add_exception_handler(DataError, _unkept)
    app.add_exception_handler(UnicodeEncodeError, _unkept)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(StarletteHTTPException, _http_error)
    return app


def _say(request: Request, status: int, message: str) -> Response:
    if request.url.path.startswith("/api/"):
        return JSONResponse({"message": message}, status)
    return page(request, "message.html", {"title": "That did not work", "message": message}, status)


async def _known_error(request: Request, error: Exception) -> Response:
    if isinstance(error, StoreError):
        _log.error("%s", error)  # the message names the store's location, which is for the operator of the server
        return _say(request, 503, _NEWER if isinstance(error, NewerSchema) else _AWAY)
    if isinstance(error, SlotGone | Answered):
        return _say(request, 409, str(error))
    return _say(request, 403 if isinstance(error, NotNow) else 422, str(error))


async def _collision(request: Request, _error: Exception) -> Response:
    return _say(request, 409, "Someone else changed the same thing at the same moment. Try again.")


async def _unkept(request: Request, _error: Exception) -> Response:
    return _say(
        request, 422, "The input contains a character or number that cannot be stored. Remove it and try again."
    )


async def _invalid(request: Request, error: Exception) -> Response:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    said = "; ".join(f"{'.'.join(str(part) for part in one['loc'][1:])}: {one['msg']}" for one in problems[:3])
    return _say(request, 422, f"That could not be read: {said[:500]}")


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException | StarletteHTTPException) else 500
    detail = str(getattr(error, "detail", ""))
    return _say(request, status, {404: "There is no such page.", 405: "That cannot be done here."}.get(status, detail))
