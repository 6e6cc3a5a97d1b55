"""The ``label campaigns`` commands: several tasks in one store, from the command line."""

import time
from pathlib import Path
from typing import Literal

from rich.table import Table

from triphase.cli.label import console, opened, say, settings_of_store
from triphase.errors import SettingsError
from triphase.labeling.work import campaigns
from triphase.labeling.work.campaign_plan import Campaign, all_campaigns
from triphase.labeling.work.invitations import OPERATOR
from triphase.records.visible import visible

MOST_GUIDELINES = 60_000
"""Maximum characters, as on the page."""


def campaigns_add(
    run_or_store: str,
    name: str,
    /,
    *,
    task: Literal["ranking", "ab", "rating", "policies"] = "ranking",
    share: int = 20,
    overlap: int = 1,
    guidelines: Path | None = None,
    models: list[str] | None = None,
    split: Literal["train", "heldout"] | None = None,
    kind: str = "",
    most: int = 0,
) -> None:
    """Add a task next to the main one.

    It has its own guidelines, overlap and share of the items that labelers get.

    Args:
        run_or_store: run directory, SQLite file, or PostgreSQL URL.
        name: name of the campaign; labelers see it.
        task: ranking; ab, which of two responses to a prompt is better; rating, 1 to 7 for each response; policies,
            which policy's response is better, blind, on held-out prompts unless a split is given.
        share: percent of the items that labelers get; the main task has the rest.
        overlap: answers per prompt.
        guidelines: a Markdown file with its guidelines; by default those of the main task.
        models: only responses of these models; for policies, the ones to compare.
        split: only prompts of this split.
        kind: only prompts of this kind.
        most: largest number of prompts, drawn at random; 0 means all.
    """
    text = "" if guidelines is None else _text_of(guidelines)
    wanted = Campaign(name, task, share, overlap, tuple(models or ()), split or "", kind, most)
    settings, seed = settings_of_store(run_or_store)
    with opened(run_or_store, must_exist=True) as store, store.transaction() as connection:
        made = campaigns.add_campaign(connection, wanted, text, settings, seed=seed, now=time.time(), by=OPERATOR)
    say(f"{name}: {made} {'prompt' if made == 1 else 'prompts'}, {overlap * made} answers wanted.")


def campaigns_list(run_or_store: str, /) -> None:
    """List the campaigns."""
    table = Table()
    for column in ("name", "task", "state", "share", "overlap", "answers"):
        table.add_column(column)
    with opened(run_or_store, must_exist=True) as store, store.reading() as connection:
        done = campaigns.slots_of(connection)
        for one in all_campaigns(connection):
            given, wanted = done.get(one.name, (0, 0))
            answers = f"{given} of {wanted}"
            table.add_row(visible(one.name), one.task, one.state, f"{one.share} %", str(one.overlap), answers)
    console.print(table)


def campaigns_set(
    run_or_store: str,
    name: str,
    /,
    *,
    share: int | None = None,
    overlap: int | None = None,
    guidelines: Path | None = None,
    state: Literal["active", "paused", "ended"] | None = None,
) -> None:
    """Change, pause or end a campaign.

    Args:
        run_or_store: run directory, SQLite file, or PostgreSQL URL.
        name: the campaign.
        share: percent of the items that labelers get.
        overlap: answers per prompt; if lowered, items that nobody has started are closed.
        guidelines: a Markdown file with a new version of its guidelines.
        state: paused hands out no items for now, active resumes, ended is final; answers stay.
    """
    if all(given is None for given in (share, overlap, guidelines, state)):
        raise SettingsError("nothing to change; give --share, --overlap, --guidelines or --state")
    text = None if guidelines is None else _text_of(guidelines)
    with opened(run_or_store, must_exist=True) as store, store.transaction() as connection:
        now = campaigns.change_campaign(
            connection, name, share=share, overlap=overlap, state=state, text=text, now=time.time(), by=OPERATOR
        )
    say(f"{name}: {now.state}, {now.share} % of what labelers get, {now.overlap} for each prompt.")


def _text_of(path: Path) -> str:
    try:
        text = path.read_text("utf-8").replace("\r\n", "\n").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--guidelines {path}: cannot be read ({error}); name a text file") from None
    if len(text) > MOST_GUIDELINES:
        raise SettingsError(f"--guidelines {path}: {len(text)} characters; use at most {MOST_GUIDELINES}")
    return text
