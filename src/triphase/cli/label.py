"""The ``label`` commands: each a function that can be called from Python as well.

``RUN_OR_STORE`` is a run directory, an SQLite file, or ``postgresql+psycopg://user@host/name``.
"""

import asyncio
import hashlib
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from rich.console import Console

from triphase.demo.embedded import gold_of
from triphase.errors import SettingsError, TriphaseError
from triphase.labeling.exchange import exporting, importing
from triphase.labeling.exchange.export_columns import COLUMNS
from triphase.labeling.exchange.tool_formats import rows_for
from triphase.labeling.quality.labeling_statistics import collect
from triphase.labeling.quality.stats_text import print_statistics
from triphase.labeling.simulation.simulate_http import simulate_over_http
from triphase.labeling.simulation.simulated import Gold, SimulatedLabelers
from triphase.labeling.web import serving
from triphase.labeling.web.application import create_application
from triphase.labeling.web.context import ServerSettings
from triphase.labeling.web.workers import check_workers, run_workers, token_in
from triphase.labeling.work import accounts, item_plan
from triphase.labeling.work.campaigns import require_known
from triphase.labeling.work.invitations import OPERATOR
from triphase.monitoring.wording import counted
from triphase.records.visible import visible
from triphase.settings.loading import load_settings
from triphase.settings.schema import LabelingSettings
from triphase.store import Store, open_store

console = Console(highlight=False, soft_wrap=True, markup=False)
"""Names of people, files and columns are never markup; see also ``say``."""


def say(message: str) -> None:
    """Print a message; control characters in names are escaped."""
    console.print(visible(message))


def serve(
    run_or_store: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8400,
    certificate: Path | None = None,
    key: Path | None = None,
    behind_proxy: bool = False,
    address: str | None = None,
    create: bool = False,
    workers: int = 1,
    metrics_token_variable: str | None = None,
) -> None:
    """Serve the page on which people rank responses.

    Args:
        run_or_store: run directory, SQLite file, or PostgreSQL URL.
        host: address to listen on; any address other than loopback needs TLS.
        port: port to listen on.
        certificate: TLS certificate, with its key.
        key: the certificate's private key.
        behind_proxy: a TLS proxy on this machine forwards to the page; requires --address.
        address: public URL of the page, if it differs from host and port; required with a proxy.
        create: create the store if there is none.
        workers: number of server processes; more than one needs PostgreSQL.
        metrics_token_variable: environment variable that holds the token for /metrics.
    """
    check_workers(workers, run_or_store)
    serving.check_safe(host, certificate, behind_proxy, address)
    serving.check_certificate(certificate, key)
    settings, seed = settings_of_store(run_or_store)
    local = serving.is_loopback(host)
    require_store(run_or_store, create)
    with serving.listener(host, port) as listening:
        here = (address or serving.address_of(host, listening, tls=certificate is not None)).rstrip("/")
        server = ServerSettings(
            secure=not local or behind_proxy,
            allowed_hosts=serving.hosts(host, address),
            address=address or "",
            seed=seed,
            metrics_token="" if metrics_token_variable is None else token_in(metrics_token_variable),
        )
        listens = serving.Listening([listening], certificate, key, behind_proxy)
        with opened(run_or_store) as store:
            made = item_plan.make_items(store, settings, seed=seed, now=time.time())
            if made:
                say(f"{made} new items are ready to be ranked.")
            link = first_lead_link(store, here)
            say(f"The page: {here}   (Ctrl-C stops it; nothing is lost)")
            if link:
                say(f"There is no lead yet. Open this link once to become the lead:\n  {link}")
            if workers == 1:
                serving.run(create_application(store, settings, server), listens)
                return
        run_workers(workers, run_or_store, settings, server, listens)


def first_lead_link(store: Store, address: str) -> str | None:
    """An invitation for the first lead, which voids the previous one; None if there is a lead."""
    with store.transaction() as connection:
        token = accounts.first_lead(connection, now=time.time())
    return None if token is None else f"{address}/invitation/{token}"


def import_file(run_or_store: str, files: list[Path], /, *, heldout_share: float = 0.2) -> None:
    """Import prompts, responses or comparisons from a file into the store.

    Args:
        run_or_store: run directory, SQLite file, or PostgreSQL URL.
        files: JSONL, JSON, CSV or Parquet; prompts, responses, preferences, ranked lists and votes are recognized by
            their columns. Importing a file again adds nothing.
        heldout_share: share of the prompts kept for evaluation, if records do not name their split.
    """
    settings, seed = settings_of_store(run_or_store)
    is_new = not has_store(run_or_store)
    with opened(run_or_store) as store:
        if is_new:
            say(f"{run_or_store}: creating a new store")
        for path in files:
            done = importing.import_file(store, path, heldout_share=heldout_share, now=time.time(), by=OPERATOR)
            more = f", {counted(done.gold, 'known answer')}" if done.gold else ""
            more += f", {done.others} guidelines, scores, flags and decisions" if done.others else ""
            new = ((done.prompts, "prompt"), (done.responses, "response"), (done.rankings, "ranking"))
            say(f"{path}: {', '.join(counted(*each) for each in new)}{more} new")
            for note in done.notes:
                say(f"  {note}")
            if done.ignored:
                say(f"  columns not read: {', '.join(done.ignored)}")
        item_plan.make_items(store, settings, seed=seed, now=time.time())


def export_file(
    run_or_store: str,
    path: Path,
    /,
    *,
    format: Literal["comparisons", "rankings", "demonstrations", "store"] | None = None,
    to: Literal["argilla", "openrlhf", "trl"] | None = None,
    campaign: str | None = None,
) -> None:
    """Write rankings or comparisons from the store to a file.

    Args:
        run_or_store: run directory, SQLite file, or PostgreSQL URL.
        path: the file to write, .jsonl, .csv or .parquet.
        format: comparisons as TRL reads them (the default); rankings, one line for each answer; demonstrations, the
            responses that labelers rewrote; store, everything (.jsonl).
        to: write exactly the columns of another tool.
        campaign: only the answers of this campaign; main is the main task.
    """
    if to is not None and format is not None:
        raise SettingsError(f"--format {format}: --to {to} has a form of its own; give one of the two")
    with opened(run_or_store, must_exist=True) as whole:
        store = whole if campaign is None else whole.only({_known(whole, campaign)})
        if to is None:
            done = exporting.export_file(store, path, format or "comparisons")
        else:
            left_out: Counter[str] = Counter()
            rows = list(rows_for(to, store, left_out))
            exporting.write_rows(path, rows, COLUMNS[to])
            done = exporting.Exported(len(rows), dict(left_out))
    say(f"{path}: {counted(done.lines, 'line')}")
    for reason, count in done.left_out.items():
        first, rest = reason.split(" ", 1)
        say(f"  left out: {counted(count, first.removesuffix('s'))} {rest}")


def stats(run_or_store: str, /, *, campaign: str | None = None) -> None:
    """Show progress, agreement and the record of each labeler.

    Args:
        run_or_store: run directory, SQLite file, or PostgreSQL URL.
        campaign: only the answers of this campaign; main is the main task.
    """
    with opened(run_or_store, must_exist=True) as store:
        of = None if campaign is None else _known(store, campaign)
        print_statistics(collect(store, time.time(), of), console)


def _known(store: Store, campaign: str) -> str:
    with store.reading() as connection:
        return require_known(connection, campaign)


def simulate(
    run_or_store: str,
    /,
    *,
    labelers: int = 4,
    gold: Literal["warm", "grammar", "arbitrary"] = "arbitrary",
    seed: int = 0,
    think_seconds: float = 0.0,
) -> None:
    """Let simulated labelers rank what is waiting.

    They are HTTP clients of the real server, with accounts and leases.

    Args:
        run_or_store: run directory, SQLite file, or PostgreSQL URL.
        labelers: number of labelers; the last one is careless.
        gold: the score they rank by: the gold score of a demo, or an arbitrary fixed one.
        seed: seed of their choices.
        think_seconds: pause between two answers of a labeler.
    """
    if labelers < 1:
        raise SettingsError(f"--labelers {labelers}: at least one labeler is needed")
    settings, run_seed = settings_of_store(run_or_store)
    with opened(run_or_store, must_exist=True) as store:
        item_plan.make_items(store, settings, seed=run_seed, now=time.time())
        crowd = SimulatedLabelers(_gold(gold), seed, labelers)
        by_id = {prompt.id: prompt for prompt in store.prompts()}
        crowd.standardize([(by_id[response.prompt_id], response) for response in store.responses()])
        passwords = simulated_accounts(store, crowd.names)
        app = create_application(store, settings, ServerSettings(seed=run_seed))
        with serving.in_thread(app) as address:
            report = asyncio.run(simulate_over_http(address, crowd, passwords, think_seconds=think_seconds))
        median, slow = report.percentile(0.5), report.percentile(0.95)
        if median is not None and slow is not None:
            waits = f"; next item after {1000 * median:.0f} ms (median), {1000 * slow:.0f} ms (95 %)"
        else:
            waits = ""
        say(f"{len(report.submitted)} answers by {labelers} labelers{waits}")
        print_statistics(collect(store, time.time()), console)


def simulated_accounts(store: Store, names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Accounts with fresh passwords for simulated labelers."""
    passwords = [(name, secrets.token_urlsafe(12)) for name in names]
    hashes = [accounts.hashed(password) for _, password in passwords]
    with store.transaction() as connection:
        for (name, _), hashed in zip(passwords, hashes, strict=True):
            there = accounts.account(connection, name)
            if there is not None and there.can_sign_in:
                accounts.set_password(connection, name, hashed, now=time.time(), by=OPERATOR)
            else:
                accounts.add_account(connection, name, "labeler", hashed, now=time.time(), by=OPERATOR)
    return passwords


@contextmanager
def opened(run_or_store: str, must_exist: bool = False) -> Iterator[Store]:
    """The store of a run, file or URL; with ``must_exist`` an error if a file does not exist."""
    if must_exist:
        require_store(run_or_store)
    with open_store(run_or_store) as store:
        yield store


def has_store(run_or_store: str) -> bool:
    """Whether there is a store; for a remote database that is unknown before connecting."""
    return "://" in run_or_store or os.path.isfile(_file_of(run_or_store))


def _file_of(run_or_store: str) -> Path:
    path = Path(run_or_store)
    return path / "labels.sqlite" if os.path.isdir(path) else path  # isdir: False for a name that is too long


def require_store(run_or_store: str, create: bool | None = None) -> None:
    """Refuse a path without a store; ``create`` is the option that creates one, if the command has it.

    Raises:
        TriphaseError: there is none.
    """
    if create or has_store(run_or_store):
        return
    remedy = "check the path, sample responses (triphase sample) or import something first (triphase label import)"
    raise TriphaseError(
        f"{_file_of(run_or_store)}: there is no store; {remedy}"
        + (", or use --create to create one" if create is not None else "")
    )


def settings_of_store(run_or_store: str) -> tuple[LabelingSettings, int]:
    """The labeling settings and the seed of a run; the defaults for a store without a run."""
    config = Path(run_or_store)
    config = config if os.path.isdir(config) else config.parent
    if "://" in run_or_store or not os.path.isfile(config / "config.yaml"):
        return LabelingSettings(), 0

    settings = load_settings(config)
    return settings.labeling, settings.seed


def _gold(name: str) -> Gold:
    if name == "arbitrary":
        return lambda _prompt, response, _finished: (
            int.from_bytes(hashlib.sha256(response.encode()).digest()[:4], "big") / 2**31 - 1.0
        )

    return gold_of(name)
