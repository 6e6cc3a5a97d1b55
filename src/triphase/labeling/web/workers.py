"""Several processes that serve one store: they share the socket, and everything else through PostgreSQL.

Sessions, sign-in limits, leases and answers are rows of the database, so any process can serve any request. One that
ends is restarted; Ctrl-C ends all.
"""

import atexit
import logging
import os
import time
from functools import partial

from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from triphase.errors import SettingsError, StoreError
from triphase.labeling.web.application import create_application
from triphase.labeling.web.context import ServerSettings
from triphase.labeling.web.serving import Listening, prepare
from triphase.settings.schema import LabelingSettings
from triphase.store import Store, open_store

_MOST = 64
_PAUSE_SECONDS = 1.0
_SHORTEST_TOKEN = 16
_log = logging.getLogger("triphase.labeling")


def check_workers(workers: int, store: str) -> None:
    """Refuse an invalid number, and several processes on one SQLite file.

    Raises:
        SettingsError: says which.
    """
    if not 1 <= workers <= _MOST:
        raise SettingsError(f"--workers: {workers} is not a number of processes from 1 to {_MOST}")
    if workers > 1 and not store.startswith("postgresql"):
        raise SettingsError(
            f"--workers: {workers} processes need PostgreSQL, since an SQLite file has one writer at a time; give "
            "postgresql+psycopg://user@host/name, or leave --workers out"
        )


def token_in(variable: str) -> str:
    """The token of ``/metrics``.

    Raises:
        SettingsError: the variable contains none.
    """
    token = os.environ.get(variable, "").strip()
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise SettingsError(
            f"--metrics-token-variable: {variable} holds no token of at least {_SHORTEST_TOKEN} printable characters; "
            "set it in the environment, or leave the option out"
        )
    return token


def run_workers(
    workers: int, store: str, settings: LabelingSettings, server: ServerSettings, listening: Listening
) -> None:
    """Serve with several processes until interrupted."""
    make = partial(_application, store, settings, server)
    config = listening.config(make, factory=True, workers=workers)
    Multiprocess(config, sockets=listening.sockets).run()


def _application(store: str, settings: LabelingSettings, server: ServerSettings) -> FastAPI:
    """In a worker: its own connections to the database."""
    prepare()
    opened = _opened(store)
    atexit.register(opened.close)
    return create_application(opened, settings, server)


def _opened(store: str) -> Store:
    """The store; waits if it is unreachable, since a restarted worker may find it so."""
    while True:
        try:
            return open_store(store)
        except StoreError as error:
            _log.error("%s", error)
            time.sleep(_PAUSE_SECONDS)
